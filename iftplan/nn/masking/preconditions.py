"""Checks before the first step of sparse training; each refusal says what to do instead."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from iftplan.base.errors import InputError
from iftplan.masks import MaskStructure, Unstructured
from iftplan.nn.masking.algorithms.base import Algorithm, LatentAlgorithm, Order, RunMethod
from iftplan.nn.masking.algorithms.static import Static
from iftplan.nn.masks.masked_weights import SUFFIX, MaskedWeight, has_mask, masked_weights
from iftplan.nn.masks.rows import Flat
from iftplan.nn.masks.shards import is_sharded
from iftplan.nn.masks.view import View, matrix_view, resumed_view, view_of
from iftplan.plans.plan import lies_within
from iftplan.runs.schedules import Constant, Updates


def trainable_views(
    model: nn.Module,
    optimizer: Optimizer,
    algorithm: Algorithm,
    structure: MaskStructure,
    short: Mapping[str, int | None] | None = None,
) -> tuple[View, ...]:
    """The model's masked weights in the layouts of their structure.

    Args:
        model: with masked weights.
        optimizer: torch's own, which holds the weights that are trained.
        algorithm: changes the masks.
        structure: of the masks.
        short: of a run that goes on, the missing units of each weight, None where it has no structure (`View.short`).

    Raises:
        InputError: names what is in the way.
    """
    if not isinstance(optimizer, Optimizer):
        raise InputError(
            f"{type(optimizer).__name__} is not a torch optimizer, nor a wrapper with one in .optimizer."
        )
    _check_algorithm(algorithm)
    if isinstance(algorithm, RunMethod) and (reason := algorithm.structure_refusal(structure)):
        raise InputError(reason)
    if isinstance(optimizer, LBFGS):
        raise InputError(
            "LBFGS computes several gradients in one step and mixes weights; use SGD, Adam or another "
            "first-order optimizer."
        )
    if algorithm.crosses_layers and not isinstance(structure, Unstructured):
        raise InputError(
            f"{type(algorithm).__name__} over all layers moves weights between rows, which {structure} masks do "
            "not allow; choose by layer, or plan unstructured masks."
        )
    _check_computed(model)
    weights = tuple(masked_weights(model))
    _check_parts(algorithm, weights)
    _check_experts(algorithm, weights)
    if not weights:
        raise InputError(
            f"{type(model).__name__} has no masked weights; make them first, with iftplan.nn.apply for a plan that masks some (lowrank masks none), or with iftplan.nn.sparsify for masks without a plan."
        )
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    owners: dict[int, str] = {}
    for weight in weights:
        other = owners.setdefault(id(weight.parameter), weight.name)
        if other != weight.name:
            raise InputError(
                f"{other} and {weight.name} are the same tensor but have two masks; keep one of them."
            )
        if weight.parameter.requires_grad and id(weight.parameter) not in trained:
            raise InputError(
                f"the optimizer does not hold {weight.name}; make it from the model's parameters after masks were applied, or freeze that weight until it is added."
            )
        if weight.mask.is_meta:
            raise InputError(
                f"{weight.name} is on the meta device, where it has no values. Apply the plan to a model with values; one "
                "that is built to be measured has values with `nonzeros=True`."
            )
    if isinstance(algorithm, Static):
        return tuple(View(weight, Flat(weight.experts)) for weight in weights)
    whole = isinstance(algorithm, LatentAlgorithm)
    if short is not None:
        return tuple(
            resumed_view(weight, structure, short.get(weight.name), whole=whole) for weight in weights
        )
    view = matrix_view if whole else view_of
    return tuple(view(weight, structure) for weight in weights)


def frozen_names(views: Sequence[View], globs: Collection[str], algorithm: Algorithm) -> frozenset[str]:
    """Names of the masked weights that lie in layers of these names.

    Args:
        views: the masked weights.
        globs: names of layers, or globs.
        algorithm: changes the other masks.

    Raises:
        InputError: a name fits no masked weight, or the algorithm begins with every weight.
    """
    if globs and algorithm.starts_dense:
        raise InputError(
            f"{type(algorithm).__name__} begins with every weight, so no mask can be frozen from the start; freeze masks under Static, SET, RigL, MEST or SNFS."
        )
    names = [view.weight.name for view in views]
    for glob in globs:
        if not any(lies_within(name, glob) for name in names):
            raise InputError(
                f"there is no masked weight in {glob!r} to freeze; there are {', '.join(names[:6])}."
            )
    return frozenset(name for name in names if any(lies_within(name, glob) for glob in globs))


def _check_algorithm(algorithm: Algorithm) -> None:
    """Refuse what would be found out at the first update only, or never."""
    if isinstance(algorithm, type) or not hasattr(algorithm, "update"):
        raise InputError(
            f"{algorithm!r} is not an algorithm; give a name such as 'rigl', or a value such as Static() or RigL()."
        )
    if not hasattr(getattr(algorithm, "updates", Updates), "due"):
        raise InputError(
            f"{type(algorithm).__name__} with updates {algorithm.updates!r} does not say when masks change; give "  # type: ignore[attr-defined]
            "Updates(end=7500), or Updates(end=0.75) for a fraction of training."
        )
    if not hasattr(getattr(algorithm, "fraction", Constant), "at"):
        raise InputError(
            f"{type(algorithm).__name__} needs a schedule for its fraction, not {algorithm.fraction!r}; give "  # type: ignore[attr-defined]
            f"Constant({algorithm.fraction!r}) or Cosine(0.3)."  # type: ignore[attr-defined]
        )
    if algorithm.order not in tuple(Order):
        raise InputError(
            f"{type(algorithm).__name__} has no order {algorithm.order!r}; orders are {', '.join(Order)}."
        )


def _check_experts(algorithm: Algorithm, weights: Sequence[MaskedWeight]) -> None:
    """Refuse methods that would leave more weights to one expert than to another: then no step has a known cost."""
    stacked = next((weight.name for weight in weights if weight.experts > 1), None)
    if stacked is None:
        return
    if algorithm.crosses_layers:
        raise InputError(
            f"{type(algorithm).__name__} over all layers would give the experts of {stacked} different numbers of "
            "weights; choose by layer, which keeps the number of each expert."
        )
    if isinstance(algorithm, RunMethod) and (reason := algorithm.experts_refusal(stacked)):
        raise InputError(reason)


def _check_parts(algorithm: Algorithm, weights: Sequence[MaskedWeight]) -> None:
    """Refuse sharded masks under methods that look at whole weights."""
    if isinstance(algorithm, RunMethod) and algorithm.in_parts:
        return
    spread = next((weight.name for weight in weights if is_sharded(weight.mask)), None)
    if spread is not None:
        raise InputError(
            f"{type(algorithm).__name__} looks at whole weights when it chooses masks, and the mask of {spread} is sharded; keep masks whole (without shard_masks_), or take Static, SET, RigL, MEST or SNFS without redistribution."
        )


def _check_computed(model: nn.Module) -> None:
    """Refuse masks whose weight has become the outcome of a parametrization: nothing would hold it sparse."""
    for path, name in _lonely_masks(model):
        raise InputError(
            f"{path}.{name} is computed from other parameters since it was masked (a parametrization, or pruning); remove that, or apply the plan without it.".lstrip(
                "."
            )
        )


def _lonely_masks(model: nn.Module) -> Iterator[tuple[str, str]]:
    for path, module in model.named_modules():
        for buffer in module._buffers:
            name = buffer.removesuffix(SUFFIX)
            if (
                name != buffer
                and not has_mask(module, name)
                and isinstance(getattr(module, name, None), Tensor)
            ):
                yield path, name
