"""Growth steps: a model gets wider in the middle of training, and goes on with its values, optimizer and masks.

A step is the same as making the network of other widths (`iftplan.nn.layers.widen`) and starting it from the narrower one
(`iftplan.nn.warmstart.net2wider`): what moves together, and where every old row lies in the wider tensors, is found there.
New neurons are replicas (Net2WiderNet, arXiv 1511.05641), GradMax's (arXiv 2201.05125), or the latter's control: random
outgoing weights in their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.models.spec import Couplings, InputSpec
from iftplan.nn.counting.activations.dormant import Average
from iftplan.nn.layers.widen import widen_
from iftplan.nn.masks.masked_weights import enforce_, masked_weights, stream
from iftplan.nn.meta.inputs import matching
from iftplan.nn.torch_internals import NormBase
from iftplan.nn.warmstart.growth.gradmax import Loss, gradient_matrices, gradmax
from iftplan.nn.warmstart.growth.outgoing import Outgoing, random_outgoing
from iftplan.nn.warmstart.growth.pair import Pair, pair_of
from iftplan.nn.warmstart.growth.placement import (
    check_masks,
    grow_masks_,
    grown_optimizer,
    new_rows,
    old_rows,
    place,
    replace_parameters_,
)
from iftplan.nn.warmstart.net2wider import Replicas, replicas_at, replicated

How = Literal["gradmax", "random", "replicas"]
"""What new neurons are."""


@dataclass(frozen=True, slots=True)
class Growth:
    """Account of a growth step.

    Attributes:
        widths: symbol → size before and after.
        gradients: symbol → norm of the gradient of its new neurons' incoming weights on the batch, as measured after the
            step; none for replicas and without a batch.
        loss: of the batch before and after the step; None for replicas and without a batch.
        uneven: norms over channels, LayerNorm for one, whose answer changes with the new channels.
    """

    widths: Mapping[str, tuple[int, int]]
    gradients: Mapping[str, float]
    loss: tuple[float, float] | None
    uneven: tuple[str, ...]


@check_arguments
def current_widths(model: nn.Module, couplings: Couplings) -> dict[str, int]:
    """Present sizes of all widths of a model, whether it has grown since it was traced or not."""
    tensors, sizes = _tensors(model), {name: width.size for name, width in couplings.widths.items()}
    for name, shape in couplings.shapes.items():
        for axis, dimension in enumerate(shape):
            if len(dimension.terms) == 1 and len(dimension.terms[0].powers) == 1 and name in tensors:
                ((symbol, power),) = dimension.terms[0].powers
                if power == 1:
                    sizes[symbol] = int(tensors[name].shape[axis] / dimension.terms[0].coefficient)
    return sizes


@check_arguments
def grow_(
    model: nn.Module,
    couplings: Couplings,
    sizes: Mapping[str, int],
    inputs: Sequence[InputSpec],
    *,
    how: How = "gradmax",
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    scale: float = 1.0,
    epsilon: float = 0.0,
    seed: int = 0,
    average: Average = lambda x: x,
) -> Growth:
    """Make a model wider in the middle of its training, in place.

    With "gradmax" and "random" new neurons have incoming weights zero, and the model computes the same as before except
    behind the norms that `Growth.uneven` names; their outgoing weights are those with the largest gradient, or random ones
    of the same length. With "replicas" they copy old neurons, which share their outgoing weights with them. Old
    weights keep the optimizer's state and their masks; the state of new ones is zero. Masked layers keep their density.
    Make a new `iftplan.nn.Masking` after a growth step, if one drives the masks.

    Args:
        model: in the mode that it trains in, masked or not.
        couplings: `iftplan.read_model(model, inputs, widths=True).couplings`, of this model at any of its widths and without
            masks.
        sizes: symbol → new size; other widths stay.
        inputs: what one forward pass takes, as it was traced.
        how: what new neurons are.
        loss: runs the model on a batch and returns its loss; GradMax asks it for gradients, and "random" measures those of
            the new neurons where it is given. Neither random numbers nor buffers are spent on it.
        optimizer: of the model; it holds the grown parameters afterwards.
        scale: length of a new neuron's outgoing weights, over the mean of the old ones.
        epsilon: length of a new neuron's incoming weights, over the mean of the old ones; above 0 they are random.
        seed: random seed of replicas, of random weights and of masks.
        average: of a tensor over the processes that share a batch, each of which calls this with its part.

    Raises:
        InputError: a width is unknown or would shrink, the optimizer or the masks cannot follow, or new neurons would never
            learn, because what lies behind them has slope 0 at 0. The model is as before.
        InfeasibleError: the width is not one that one layer writes and one reads, or an operator mixes channels.
    """
    present = current_widths(model, couplings)
    growing, inputs = _growing(present, sizes), matching(inputs, model)
    check_masks(model)
    with torch.random.fork_rng([p.device.index for p in model.parameters() if p.device.type == "cuda"][:1]):
        step = _Step(
            model, {**present, **sizes}, replicas_at(model, couplings, {**present, **sizes}, inputs, seed)
        )
        states = grown_optimizer(optimizer, step.parameters, step.rows) if optimizer else {}
        if how == "replicas":
            widened = replicated(model, step.found)
            step.take_(couplings, widened.state, seed)
            growth = Growth(growing, {}, None, widened.uneven)
        else:
            pairs = {width: pair_of(model, couplings, width) for width in growing}
            made, before = _outgoing(model, growing, pairs, how, loss, scale, seed, average)
            growth = _between(step, couplings, growing, pairs, made, before, loss, epsilon, seed, average)
    if optimizer is not None:
        after = dict(model.named_parameters(remove_duplicate=False))
        replace_parameters_(optimizer, {p: after[n] for p, n in step.parameters.items()}, states)
    return growth


class _Step:
    """A model about to grow: its tensors as they are, and where their rows will be.

    Attributes:
        tensors: parameters and buffers by name.
        rows: name → rows of each dimension, of tensors that grow.
    """

    def __init__(self, model: nn.Module, sizes: Mapping[str, int], found: Replicas) -> None:
        self.model, self.sizes, self.found = model, sizes, found
        self.tensors = _tensors(model)
        self.rows = {
            name: rows
            for name, rows in found.rows.items()
            if any(len(r) != n for r, n in zip(rows, self.tensors[name].shape, strict=True))
        }
        self._masks = {w.name: (w, w.mask) for w in masked_weights(model) if w.name in self.rows}
        self._before = [(m, dict(vars(m)), dict(m._parameters), dict(m._buffers)) for m in model.modules()]

    @property
    def parameters(self) -> dict[nn.Parameter, str]:
        """Parameters that grow, with a name of each."""
        return {
            p: name for name, p in self.tensors.items() if isinstance(p, nn.Parameter) and name in self.rows
        }

    def take_(self, couplings: Couplings, state: Mapping[str, Tensor], seed: int) -> None:
        """Make the model wider, with these values and the masks that follow."""
        widen_(self.model, couplings, self.sizes)
        after = _tensors(self.model)
        with torch.no_grad():
            for name in self.rows:
                after[name].copy_(state[name])
        grow_masks_(self._masks, self.rows, seed)
        enforce_(self.model)

    def undo_(self) -> None:
        """Make the model as it was."""
        for module, *kept in self._before:
            holders: list[dict[str, Any]] = [vars(module), module._parameters, module._buffers]
            for holder, held in zip(holders, kept, strict=True):
                holder.clear()
                holder.update(held)


def _outgoing(
    model: nn.Module,
    growing: Mapping[str, tuple[int, int]],
    pairs: Mapping[str, Pair],
    how: How,
    loss: Loss | None,
    scale: float,
    seed: int,
    average: Average,
) -> tuple[dict[str, Outgoing], float | None]:
    """Outgoing weights of new neurons by width, and the loss before they are there."""
    counts = {width: growing[width][1] - growing[width][0] for width in pairs}
    if how == "random":
        made = {w: random_outgoing(model, pairs[w], n, scale, seed) for w, n in counts.items()}
        with _unnoticed(model), torch.no_grad():
            return made, None if loss is None else float(average(loss()))
    with _unnoticed(model):
        matrices, before = gradient_matrices(model, list(pairs.values()), _given(loss), average)
    found = zip(counts.items(), matrices, strict=True)
    return {w: gradmax(matrix, model, pairs[w], n, scale) for (w, n), matrix in found}, before


def _between(
    step: _Step,
    couplings: Couplings,
    growing: Mapping[str, tuple[int, int]],
    pairs: Mapping[str, Pair],
    made: Mapping[str, Outgoing],
    before: float | None,
    loss: Loss | None,
    epsilon: float,
    seed: int,
    average: Average,
) -> Growth:
    """Grow by neurons with these outgoing weights between pairs of layers."""
    model = step.model
    uneven = tuple(x for x in step.found.averages if not isinstance(model.get_submodule(x), NormBase))
    step.take_(couplings, _state(step, {w: (pairs[w], made[w]) for w in pairs}, epsilon, seed), seed)
    if loss is None or before is None:
        return Growth(growing, {}, None, uneven)
    with _unnoticed(model):
        value = loss()
        gradients = _gradients(_tensors(model), step.rows, pairs, value, average)
    dead = [w for w in growing if gradients[w] == 0 and made[w].gradient != 0]
    if dead:
        step.undo_()
        raise InputError(_no_slope(pairs[dead[0]]))
    return Growth(growing, gradients, (before, float(average(value.detach()))), uneven)


def _given(loss: Loss | None) -> Loss:
    if loss is None:
        raise InputError(
            "GradMax needs gradients: give `loss`, which runs the model on a batch and returns its loss."
        )
    return loss


def _growing(present: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    unknown = [width for width in sizes if width not in present]
    if unknown:
        raise InputError(f"the model has no width {unknown[0]!r}; it has {', '.join(present)}.")
    for width, size in sizes.items():
        if size < present[width]:
            raise InputError(
                f"width {width} is {present[width]} and cannot grow to {size}; the smallest is {present[width]}."
            )
    growing = {width: (present[width], size) for width, size in sizes.items() if size > present[width]}
    if not growing:
        raise InputError(
            "no width grows: `sizes` has the present size of each. Give a larger size to one of them."
        )
    return growing


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _state(
    step: _Step, made: Mapping[str, tuple[Pair, Outgoing]], epsilon: float, seed: int
) -> dict[str, Tensor]:
    """Grown tensors: old values, norms that change nothing, incoming weights 0 or random, outgoing ones of GradMax."""
    names, rows, state = step.tensors, step.rows, {}
    for name, placed in rows.items():
        path, _, own = name.rpartition(".")
        norm = isinstance(step.model.get_submodule(path), NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm)
        one = own == "running_var" or (norm and own == "weight")
        state[name] = place(names[name].detach(), placed, float(one))
    for pair, outgoing in made.values():
        name = f"{pair.outgoing}.weight"
        read, written = names[name].shape[1], names[name].shape[0]
        new, old = new_rows(rows[name][1], read), old_rows(rows[name][0], written)
        device = state[name].device
        state[name][old.to(device)[:, None], new.to(device)] = outgoing.weights
        if epsilon:
            _random_rows_(state, names, rows, f"{pair.incoming}.weight", epsilon, seed)
    return state


def _random_rows_(
    state: Mapping[str, Tensor],
    names: Mapping[str, Tensor],
    rows: Mapping[str, Sequence[Tensor]],
    name: str,
    epsilon: float,
    seed: int,
) -> None:
    old = names[name].detach()
    new = new_rows(rows[name][0], old.shape[0]).to(old.device)
    inner = old_rows(rows[name][1], old.shape[1]).to(old.device)
    drawn = torch.randn(len(new), *old.shape[1:], generator=stream(seed, f"{name} growth")).to(old)
    length = epsilon * old.flatten(1).norm(dim=1).mean()
    drawn *= length / drawn.flatten(1).norm(dim=1).view(-1, *[1] * (old.dim() - 1))
    state[name][new[:, None], inner] = drawn


def _gradients(
    after: Mapping[str, Tensor],
    rows: Mapping[str, Sequence[Tensor]],
    pairs: Mapping[str, Pair],
    value: Tensor,
    average: Average,
) -> dict[str, float]:
    """Norm of the gradient of each width's new incoming weights."""
    names = {width: f"{pair.incoming}.weight" for width, pair in pairs.items()}
    found = torch.autograd.grad(value, [after[name] for name in names.values()])
    norms = {}
    for (width, name), gradient in zip(names.items(), found, strict=True):
        copied = rows[name][0]
        count = int(copied.max()) + 1
        norms[width] = float(average(gradient[new_rows(copied, count).to(gradient.device)].double()).norm())
    return norms


@contextmanager
def _unnoticed(model: nn.Module) -> Iterator[None]:
    """Passes that leave the model's buffers as they were, running statistics among them."""
    saved = [(buffer, buffer.clone()) for buffer in model.buffers()]
    yield
    with torch.no_grad():
        for buffer, value in saved:
            buffer.copy_(value)


def _no_slope(pair: Pair) -> str:
    return (
        f"new neurons between {pair.incoming} and {pair.outgoing} would never learn: the activation between them has slope 0 at "
        "0, as ReLU has in PyTorch. Give ReLUs slope 1 there with iftplan.nn.unit_slopes_(model), or let incoming weights "
        "begin at random with epsilon=0.01."
    )
