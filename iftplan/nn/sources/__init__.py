"""From a MODEL argument to a network without weights: every kind of source behind one function."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import assert_never

import torch
from torch import nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError, MeasureError, one_line
from iftplan.base.factories.factory import file_factory, module_factory
from iftplan.models.sources import Source, SourceKind, parse_source
from iftplan.models.spec import InputSpec
from iftplan.nn.counting.passes.process_exit import no_exit
from iftplan.nn.meta.copies import on_meta
from iftplan.nn.meta.factories import WithoutDraws
from iftplan.nn.meta.origins import remember
from iftplan.nn.meta.wrappers import unwrapped
from iftplan.nn.sources.default_inputs import default_inputs, known_inputs, note_inputs
from iftplan.nn.sources.libraries import timm_factory, torchvision_factory
from iftplan.nn.sources.transformers_config import transformers_factory
from iftplan.nn.sources.zoo import ARCHITECTURES


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A network, its default inputs and the assumptions of building it.

    Attributes:
        model: in evaluation mode, without a key-value cache.
        inputs: its default inputs; empty if neither the source nor its configuration tells them.
        assumptions: sentences, one for each thing that had to be assumed.
    """

    model: nn.Module
    inputs: tuple[InputSpec, ...]
    assumptions: tuple[str, ...] = ()


@check_arguments
def build(source: str | Source, *, device: str = "meta") -> nn.Module:
    """Network that a MODEL argument names, in evaluation mode.

    On the meta device its parameters have shapes but need no memory.

    Raises:
        InputError: the source cannot be found, read or called, or gives no `nn.Module`.
    """
    return construct(source, device=device).model


def construct(source: str | Source, *, device: str = "meta") -> BuiltModel:
    """Network that a MODEL argument names, with its default inputs and the assumptions of building it.

    Raises:
        InputError: the factory returns no `torch.nn.Module`.
    """
    source = parse_source(source) if isinstance(source, str) else source
    with (
        redirect_stdout(sys.stderr),
        no_exit(partial(_ended, source)),
    ):  # what a user's module prints must not end up in our data
        factory = _factory(source)
        model, assumptions = _call(factory, source, device)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{source.text} gives {_described(model)}, not a torch.nn.Module; name a function without "
            "arguments that returns one, or the class of one."
        )
    without_cache_(model)
    if device == "meta":
        remember(model, lambda: construct(source, device="cpu").model)
    if source.inputs:
        note_inputs(model, source.inputs)
    return BuiltModel(model.eval(), default_inputs(model), assumptions)


def construct_with_inputs(
    source: str, given: Sequence[InputSpec], *, device: str = "meta"
) -> tuple[nn.Module, tuple[InputSpec, ...]]:
    """The network that a MODEL argument names, and the inputs that it is counted with: those given, or its own.

    Args:
        source: a MODEL argument.
        given: inputs that the user gave; empty for none.
        device: "meta", or "cpu" with values.

    Raises:
        InputError: it cannot be built, or nobody says what its inputs are.
    """
    built = construct(source, device=device)
    return built.model, known_inputs(source, given or built.inputs)


def _ended(source: Source, call: str) -> MeasureError:
    return MeasureError(f"building {source.text} ended the process with {call}; take the call out.")


def _factory(source: Source) -> Callable[[], object]:
    match source.kind:
        case SourceKind.ZOO:
            return ARCHITECTURES[source.target].build
        case SourceKind.TRANSFORMERS:
            return transformers_factory(source.target, source.attribute)
        case SourceKind.TIMM:
            return timm_factory(source.target)
        case SourceKind.TORCHVISION:
            return torchvision_factory(source.target)
        case SourceKind.MODULE:
            return module_factory(source.target, source.attribute, _is_network)
        case SourceKind.FILE:
            return file_factory(source.target, source.attribute, _is_network)
        case SourceKind.SPEC:
            raise InputError(
                f"{source.text} holds a model's shapes, not a network that can be built; name the network "
                "itself, such as zoo:resnet18 or path/file.py:factory."
            )
        case _:
            assert_never(source.kind)


def _is_network(value: object) -> bool:
    return isinstance(value, nn.Module)


def _call(factory: Callable[[], object], source: Source, device: str) -> tuple[object, tuple[str, ...]]:
    """The factory's result on the device; what cannot be built on meta is built on the CPU, then emptied."""
    model, failure = _attempt(factory, device)
    if failure is None:
        return _settled(model, device), ()
    if device == "meta":
        model, again = _attempt(factory, "cpu")
        if again is None:
            why = f"{source.text} needs data to be built, so it was built on the CPU ({_told(failure)})."
            return _settled(model, device), (why,)
        failure = again
    raise InputError(f"building {source.text} failed with {_told(failure)}{_place(failure)}") from failure


def _attempt(factory: Callable[[], object], device: str) -> tuple[object, Exception | SystemExit | None]:
    try:
        with torch.device(device), WithoutDraws() if device == "meta" else nullcontext():
            return factory(), None
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        return None, error


def _settled(model: object, device: str) -> object:
    """A factory may place tensors where it likes; a meta model must hold none elsewhere."""
    if isinstance(model, nn.Module):
        network = unwrapped(model)  # wrappers hide what they wrap
        return on_meta(network) if device == "meta" else network.to(device)
    return model


def _told(error: BaseException) -> str:
    text = one_line(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(error: BaseException) -> str:
    """` (file.py, line 3)`, where the error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})" if trace else ""


def _described(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def without_cache_(model: nn.Module) -> None:
    """Switch a decoder's key-value cache off, in place.

    It is no part of one forward pass; transformers switches it in the config.
    """
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "use_cache"):
            config.use_cache = False


__all__ = ["BuiltModel", "build", "construct"]
