"""Trained weights at a plan's widths: channels replicated so that the wide network computes the same function.

Net2WiderNet (Chen, Goodfellow, Shlens; arXiv 1511.05641) for whole networks: the dense and the wide model run side by
side without data, which shows what every dimension is made of (`channel_rules`). Leaves take replicas, and a weight
that reads replicated channels divides by how many there are of each; where no weight does, one before it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.base.suggestions import did_you_mean
from iftplan.models.spec import Couplings, InputSpec
from iftplan.nn.layers.widen import widen_
from iftplan.nn.masks.masked_weights import stream
from iftplan.nn.meta.copies import without_data
from iftplan.nn.meta.inputs import given_inputs
from iftplan.nn.warmstart.channel_rules import follow_channels
from iftplan.nn.warmstart.channels import Followed, Slot
from iftplan.nn.warmstart.compensation import Compensation
from iftplan.nn.warmstart.lockstep import lockstep
from iftplan.nn.warmstart.replicas import Channels, copies, replicate


@dataclass(frozen=True, slots=True)
class Widened:
    """Trained tensors of a dense model at other widths.

    Attributes:
        state: parameters and buffers by name; without masks the wide model computes the same as the dense one.
        uneven: modules where it does not, because they average over channels of which some have more replicas.
    """

    state: Mapping[str, Tensor]
    uneven: tuple[str, ...]


@check_arguments
def net2wider(
    dense: nn.Module,
    couplings: Couplings,
    sizes: Mapping[str, int],
    inputs: object,
    seed: int = 0,
) -> Widened:
    """Trained values of `dense` at the widths `sizes`, after Net2WiderNet (arXiv 1511.05641).

    Args:
        dense: the trained model.
        couplings: what `iftplan.nn.reading.widths.trace.trace_widths` found of it.
        sizes: symbol → new size.
        inputs: what one forward pass takes, as `iftplan.read_model` takes it.
        seed: random seed of the choice of channels that get one more replica.

    Raises:
        InfeasibleError: an operator mixes channels in a way that replicas cannot follow; names its module.
        InputError: a symbol is no width of the model, or its size is below the present one.
    """
    for name, size in sizes.items():
        if name not in couplings.widths:
            raise InputError(
                f"there is no width {name!r} in this model.{did_you_mean(name, couplings.widths)} Its widths are {', '.join(couplings.widths)}."
            )
        if size < couplings.widths[name].size:
            raise InputError(
                f"the width {name} is {couplings.widths[name].size} and cannot become {size}: replicas make a model wider, never narrower."
            )
    if all(sizes.get(name, width.size) == width.size for name, width in couplings.widths.items()):
        return Widened(dense.state_dict(), ())
    return replicated(dense, replicas_at(dense, couplings, sizes, given_inputs(inputs, dense), seed))


@dataclass(frozen=True, slots=True)
class Replicas:
    """Channels of a model that each channel of a wider one replicates.

    Attributes:
        rows: parameter or buffer → for each of its dimensions, the row of the model that each row of the wider one copies.
            Every row of the model is among them.
        first_name: parameter or buffer → the name that `scales` has its factors under, where it is tied to another.
        scales: factor of every wide row of a parameter's dimension, where it is not 1.
        averages: modules that average over channels of which the wider model has more.
        uneven: those of them where some channels have more replicas than others.
    """

    rows: Mapping[str, tuple[Tensor, ...]]
    first_name: Mapping[str, str]
    scales: Mapping[Slot, Tensor]
    averages: tuple[str, ...]
    uneven: tuple[str, ...]


def replicas_at(
    model: nn.Module,
    couplings: Couplings,
    sizes: Mapping[str, int],
    inputs: Sequence[InputSpec],
    seed: int = 0,
) -> Replicas:
    """Replicas that widths `sizes` make of the channels of a model, found without data.

    Args:
        model: at its own widths; only its shapes are read.
        couplings: what was traced of it.
        sizes: symbol → new size.
        inputs: what one forward pass takes.
        seed: random seed of the choice of channels that get one more replica.

    Raises:
        InfeasibleError: an operator mixes channels in a way that replicas cannot follow; names its module.
    """
    double = without_data(model)
    wide = widen_(copy.deepcopy(double), couplings, sizes)
    found = follow_channels(lockstep(double, wide, inputs))
    draw = _Draw(seed)
    rows, first_name = {}, {}
    for name, value in found.run.named.items():
        rows[name] = tuple(replicate(dim.channels, draw) for dim in found.dims[value])
        first_name[name] = next((dim.slot[0] for dim in found.dims[value] if dim.slot), name)
    uneven = {module for module, channels in found.averages if not _even(copies(replicate(channels, draw)))}
    averages = {module for module, _ in found.averages}
    return Replicas(rows, first_name, _scales(found, draw), tuple(sorted(averages)), tuple(sorted(uneven)))


def replicated(model: nn.Module, made: Replicas) -> Widened:
    """A model's values in these replicas, each weight that reads several divided by their number."""
    state = dict(model.state_dict())
    for name in state.keys() & made.rows.keys():
        state[name] = _at(state[name], made.first_name[name], made.rows[name], made.scales)
    return Widened(state, made.uneven)


class _Draw:
    """Whole rounds of every channel, then some at random; the same for a leaf each time."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._drawn: dict[int, Tensor] = {}

    def __call__(self, leaf: Channels) -> Tensor:
        if id(leaf) not in self._drawn:
            dense, wide = leaf.size
            generator = stream(self._seed, f"{len(self._drawn)} replicas")
            rest = torch.randperm(dense, generator=generator)[: wide % dense]
            self._drawn[id(leaf)] = torch.cat([torch.arange(dense).repeat(wide // dense), rest])
        return self._drawn[id(leaf)]


def _even(counts: Tensor) -> bool:
    return bool((counts == counts[0]).all())


def _scales(found: Followed, draw: _Draw) -> dict[Slot, Tensor]:
    """The factor of every wide row of a parameter's dimension, where it is not 1."""
    made = Compensation(found)
    for summed in found.sums:
        share = 1 / copies(replicate(summed.channels, draw)).double()
        if summed.slot is None or summed.slot in found.kept:
            made.scale(summed.call, summed.operand, summed.axis, share)
    for reader, value, factor in found.scalings:
        made.multiply(reader, value, 1 / factor)
    shares = {
        s.slot: (1 / copies(replicate(s.channels, draw)).double()).repeat(s.repeats[1])
        for s in found.sums
        if s.slot and s.slot not in found.kept
    }
    return {
        slot: made.scales.get(slot, torch.ones(1)) * shares.get(slot, torch.ones(1))
        for slot in made.scales.keys() | shares.keys()
    }


def _at(tensor: Tensor, name: str, chosen: Sequence[Tensor], scales: Mapping[Slot, Tensor]) -> Tensor:
    for axis, rows in enumerate(chosen):
        if len(rows) != tensor.shape[axis]:
            tensor = tensor.index_select(axis, rows.to(tensor.device))
        if (scale := scales.get((name, axis))) is not None:
            shape = [-1 if i == axis else 1 for i in range(tensor.dim())]
            tensor = tensor * scale.to(tensor).view(shape)
    return tensor
