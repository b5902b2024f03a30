"""Zeros among the activations of a network on data, with its loss there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.models.dynamic.activations import ActivationSparsity
from iftplan.models.dynamic.selection import InputSelection, SelectionRule, parse_selection
from iftplan.models.spec import InputSpec
from iftplan.nn.counting.activations.observe import Observed, observing
from iftplan.nn.counting.activations.selectors import thresholds_of
from iftplan.nn.counting.operators.registry import OPERATORS, Operator
from iftplan.nn.meta.inputs import dtype_of
from iftplan.nn.meta.wrappers import unwrapped
from iftplan.nn.sources import construct_with_inputs
from iftplan.nn.training.data.opening import open_data
from iftplan.nn.training.measures.evaluation import logits_of
from iftplan.runs.settings import DataConfig

_BATCH = 32
"""Samples of a batch of `data_batches`."""

Given = Tensor | tuple[Any, Tensor] | list[Any] | Mapping[str, Any]
"""One batch: inputs alone, a mapping of them, or inputs and targets."""


@check_arguments
def activation_sparsity(
    network: nn.Module,
    batches: Iterable[Given],
    *,
    selection: str | InputSelection = "zeros",
    nonzeros: bool = False,
    operators: Mapping[str, Operator] = MappingProxyType({}),
) -> ActivationSparsity:
    """Zeros among the inputs of every weight of a network, measured on data, and the MACs that they leave.

    With a selection, inputs are set to zero on the way, so that the loss is that of the sparse network. Only inputs of
    matrices are chosen, token by token; of convolutions zeros are counted. For `cett` each weight's threshold is found first,
    on the first 1 024 tokens that it meets.

    Args:
        network: with values, on any device; left as it was.
        batches: of the data: inputs (a tensor, or a mapping of keyword inputs), or inputs and targets, which give the loss.
        selection: "zeros", "teal:0.5", "wina:0.5", "cett:0.2", with "@*.mlp.*" for some modules; see `InputSelection`.
        nonzeros: whether weights that are zero count in neither number, as under masks.
        operators: formulas for operators that have none, by qualified name.

    Raises:
        InputError: a selection that cannot be read, no batches, or a network on the meta device.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(4, 3, bias=False))
        >>> found = activation_sparsity(network, [torch.tensor([[1.0, -1.0, 2.0, -2.0]])])
        >>> found.layers[0].activation_ratio, found.effective_macs
        (Fraction(1, 2), 6)
    """
    network = unwrapped(network)
    if any(parameter.is_meta for parameter in network.parameters()):
        raise InputError(
            "the network is on the meta device, where activations have no values; build it on the CPU."
        )
    chosen = parse_selection(selection) if isinstance(selection, str) else selection
    held = list(batches)
    if not held:
        raise InputError("there are no batches; give at least one.")
    table = {**OPERATORS, **operators}
    if chosen.rule is SelectionRule.CETT and not chosen.thresholds:
        with observing(network, chosen, operators=table, collects=True) as seen:
            _run(network, held)
        with torch.no_grad():
            chosen = replace(chosen, thresholds=thresholds_of(seen.samples, chosen.value))
    with observing(network, chosen, nonzeros=nonzeros, operators=table) as observed:
        outputs = _run(network, held)
    return _value(observed, held, outputs)


def _run(network: nn.Module, held: Sequence[Given]) -> list[Any]:
    found = []
    for batch in held:
        inputs, _ = _parted(batch)
        found.append(network(**inputs) if isinstance(inputs, Mapping) else network(inputs))
    return found


def _parted(batch: Given) -> tuple[Any, Tensor | None]:
    """Inputs of a batch, and its targets if it has them."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    return batch, None


def _value(observed: Observed, held: Sequence[Given], outputs: Sequence[Any]) -> ActivationSparsity:
    """The totals as a value; the loss is counted here, outside of what was observed."""
    count, total, counted = 0, 0.0, 0
    for batch, output in zip(held, outputs, strict=True):
        inputs, targets = _parted(batch)
        count += len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)
        if targets is not None:
            logits, wanted = logits_of(output).float(), targets.reshape(-1)
            total += float(cross_entropy(logits.reshape(-1, logits.shape[-1]), wanted, reduction="sum"))
            counted += int((wanted >= 0).sum())
    return observed.sparsity(count, total / counted if counted else None)


def network_with_values(source: str, given: Sequence[InputSpec]) -> tuple[nn.Module, tuple[InputSpec, ...]]:
    """Network of a source on the CPU with the inputs that it is counted with; weights that it draws are the same each time.

    Args:
        source: a MODEL argument.
        given: inputs that the user gave; empty for none.

    Raises:
        InputError: it cannot be built, or nobody says what its inputs are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return construct_with_inputs(source, given, device="cpu")


def data_batches(
    path: str, inputs: Sequence[InputSpec], samples: int, say: Callable[[str], None]
) -> tuple[list[tuple[Tensor, Tensor]], str]:
    """First samples of the test part of data in batches, for a network that takes such inputs; and the data's name.

    Args:
        path: of the data, as a run takes it; "digits" for those that scikit-learn brings.
        inputs: of the network: one, whose tokens or image size the samples have to have. Its batch size is left alone.
        samples: the most samples.
        say: hears what takes a while.

    Raises:
        InputError: the data cannot be read, or do not fit the network's input.
    """
    if len(inputs) != 1:
        raise InputError(
            f"the network takes {len(inputs)} inputs, but data fill one; measure it in Python with nn.activation_sparsity."
        )
    shape = inputs[0].shape
    config = DataConfig(kind="auto", path=path)
    if not dtype_of(inputs[0]).is_floating_point:
        config = replace(config, context=shape[-1])
    elif len(shape) == 4 and path != "digits":
        config = replace(config, size=shape[-1])
    task = open_data(config, say)
    chosen = torch.split(torch.arange(min(samples, len(task.test))), _BATCH)
    held = [(task.normalised(x), y) for x, y in (task.test.batch(indices, None) for indices in chosen)]
    found = held[0][0].shape[1:]
    if found != tuple(shape[1:]):
        raise InputError(
            f"samples of {task.name} are {'x'.join(map(str, found))}, but the network's input {inputs[0]} wants {'x'.join(map(str, shape[1:]))}; give data or an input of the other's size."
        )
    return held, task.name


def largest_error(
    loss: Callable[[Fraction], float], most: float, *, steps: int = 8, limit: Fraction = Fraction(1)
) -> Fraction:
    """Largest CETT whose loss is at most as large as given, found by bisection of [0, limit].

    The Sparsing Law (arXiv 2411.02335) calls it CETT-PPL-1 % where the perplexity is at most 1.01 times that of the dense
    network: `most` is then its loss plus ln 1.01.

    Args:
        loss: CETT → loss in nats, growing.
        most: largest loss in nats.
        steps: of the bisection, each of which asks for one loss.
        limit: largest CETT that is tried.
    """
    low, high = Fraction(0), limit
    for _ in range(steps):
        middle = (low + high) / 2
        if loss(middle) <= most:
            low = middle
        else:
            high = middle
    return low
