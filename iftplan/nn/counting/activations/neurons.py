"""Which layer's outputs are neurons: written by that layer alone, and read channel by channel by the layers behind it.

It is found by trying. A layer's outputs become NaN in some channels. NaN goes through every operator, so it arrives
exactly at the inputs that depend on those channels, and there it is taken away. If it arrives in the same channels of a
reader, operators in between keep channels apart (activations, batch norms, pooling, flattening); a norm across channels,
attention or a sum with a shifted copy does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from iftplan.nn.meta.called_input import called_input
from iftplan.nn.torch_internals import tree_leaves

_NORMS = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True, slots=True)
class HiddenLayer:
    """A layer whose outputs are neurons, with what reads them.

    Attributes:
        writer: module whose outputs the neurons are.
        channels: number of its neurons.
        readers: modules that read them → inputs that each neuron has there: 1, or the pixels of a flattened map.
        norms: batch norms on the way.
    """

    writer: str
    channels: int
    readers: Mapping[str, int]
    norms: tuple[str, ...] = ()


@dataclass(slots=True)
class _Arrivals:
    """Where NaN arrived in one pass: module → which features of its input."""

    features: dict[str, Tensor] = field(default_factory=dict)
    outside: bool = False


def features_first(x: Tensor, module: nn.Module) -> Tensor:
    """An input or output of a layer as a matrix (features, everything else).

    Args:
        x: of a linear layer, whose features are last, or of a convolution or batch norm.
        module: that takes or gives it.
    """
    axis = x.dim() - 1
    if isinstance(module, nn.modules.conv._ConvNd):
        axis = x.dim() - 1 - len(module.kernel_size)
    elif isinstance(module, _NORMS):
        axis = 1
    return x.movedim(axis, 0).flatten(1)


def weight_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Linear layers, convolutions and transformers' Conv1D, by name, with and without masks."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd) or type(module).__name__ == "Conv1D"
    }


def find_neurons(
    model: nn.Module, run: Callable[[], Any]
) -> tuple[tuple[HiddenLayer, ...], tuple[str, ...], int]:
    """Hidden layers with neurons of their own, the layers whose outputs are no neurons, and the number of passes.

    Args:
        model: in eval mode, without gradients; left as it was.
        run: passes one sample through it, and returns what it gives.
    """
    modules = weight_modules(model)
    looked_up = {n: m for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    writers = {**modules, **looked_up}
    marks: dict[str, Tensor] = {}
    found = {name: _arrivals(model, modules, name, writers[name], marks, run) for name in writers}
    read_from: dict[str, int] = {}
    for arrivals in found.values():
        for name in arrivals.features:
            read_from[name] = read_from.get(name, 0) + 1
    given = _from_inputs(model, modules, run)
    neurons = []
    for name in modules:
        arrivals, mark = found[name], marks.get(name)
        readers = {x: _repeats(mark, seen) for x, seen in arrivals.features.items() if x in modules}
        norms = tuple(x for x in arrivals.features if x not in modules)
        apart = all(readers.values()) and all(_repeats(mark, arrivals.features[x]) == 1 for x in norms)
        alone = all(read_from[x] == 1 and x not in given for x in arrivals.features)
        if mark is not None and readers and apart and alone and not arrivals.outside:
            neurons.append(HiddenLayer(name, len(mark), {x: r for x, r in readers.items() if r}, norms))
    kept = {x.writer for x in neurons}
    return tuple(neurons), tuple(name for name in modules if name not in kept), len(writers) + 1


def _repeats(mark: Tensor | None, features: Tensor) -> int | None:
    """Inputs that each channel has at a reader where these features arrived; None where channels do not stay apart."""
    if mark is None or len(features) % len(mark):
        return None
    repeats = len(features) // len(mark)
    return repeats if torch.equal(mark.repeat_interleave(repeats), features) else None


def _arrivals(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    name: str,
    writer: nn.Module,
    marks: dict[str, Tensor],
    run: Callable[[], Any],
) -> _Arrivals:
    """Where NaN arrives that half of a layer's channels are set to."""

    def spoil(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        spoilt = output.clone()
        rows = features_first(spoilt, module)
        mark = _mark(len(rows)).to(rows.device)
        marks[name] = mark.cpu()
        axis = (
            spoilt.dim() - 1
            if not isinstance(module, nn.modules.conv._ConvNd)
            else -1 - len(module.kernel_size)
        )
        return spoilt.index_fill(axis, mark.nonzero().flatten(), float("nan"))

    with _watched(model, modules) as seen:
        handle = writer.register_forward_hook(spoil)
        try:
            seen.outside = _has_nan(run())
        finally:
            handle.remove()
    return seen


def _mark(channels: int) -> Tensor:
    """Half of the channels, such that no order but theirs is likely to give the same picture; all of a single one."""
    order = torch.randperm(channels, generator=torch.Generator().manual_seed(channels))
    return torch.zeros(channels, dtype=torch.bool).index_fill(0, order[: (channels + 1) // 2], value=True)


def _from_inputs(model: nn.Module, modules: Mapping[str, nn.Module], run: Callable[[], Any]) -> set[str]:
    """Names of the layers that read the model's input with no layer in between."""

    def spoil(_: nn.Module, args: Any, kwargs: Any) -> Any:
        return tuple(map(_spoilt, args)), {name: _spoilt(value) for name, value in kwargs.items()}

    with _watched(model, modules) as seen:
        handle = model.register_forward_pre_hook(spoil, with_kwargs=True)
        try:
            run()
        finally:
            handle.remove()
    return set(seen.features)


def _spoilt(value: Any) -> Any:
    return (
        torch.full_like(value, float("nan"))
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
    )


@contextmanager
def _watched(model: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[_Arrivals]:
    """Context in which NaN that arrives at layers and batch norms is noted, and goes no further than layers."""
    seen = _Arrivals()

    def note(name: str, x: Tensor, module: nn.Module) -> None:
        features = features_first(x, module).isnan().any(1).cpu()
        if bool(features.any()):
            before = seen.features.get(name)
            # a layer that is called twice is one reader of both
            same = before is None or len(before) == len(features)
            seen.features[name] = features if before is None or not same else before | features

    def stop(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            x = called_input(module, args, kwargs)
            note(name, x, module)
            clean = x.nan_to_num(0.0)
            if args:
                return (clean, *args[1:]), kwargs
            return args, {key: clean if value is x else value for key, value in kwargs.items()}

        return hook

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            note(name, called_input(module, args, kwargs), module)

        return hook

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name in modules:
                handle = module.register_forward_pre_hook(stop(name), with_kwargs=True)
            elif isinstance(module, _NORMS):
                handle = module.register_forward_pre_hook(look(name), with_kwargs=True)
            else:
                continue
            stack.callback(handle.remove)
        yield seen


def _has_nan(output: Any) -> bool:
    leaves = (x for x in tree_leaves(output) if isinstance(x, Tensor) and x.is_floating_point())
    return any(bool(x.isnan().any()) for x in leaves)
