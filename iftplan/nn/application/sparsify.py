"""Masks on any network without a plan: the same widths, fewer weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeVar

import torch
from torch import nn

from iftplan.base.arguments import check_arguments, names_in, one_of
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.base.suggestions import did_you_mean
from iftplan.base.units import decimal_text
from iftplan.masks import MaskStructure
from iftplan.masks.distributions import DensityLayer, Distribution, densities, parameter_budget
from iftplan.nn.application.apply import apply_
from iftplan.nn.application.pruning.scores import keep_largest_, magnitudes
from iftplan.nn.export.finalize import densify_
from iftplan.nn.layers.branches import is_conv1d
from iftplan.nn.layers.computed import computed_weights
from iftplan.nn.masks.masked_weights import (
    MaskedWeight,
    drawn_mask,
    enforce_,
    masked_weights,
    matrix_shape,
    register_mask_,
    stream,
)
from iftplan.nn.meta.copies import check_ties, deep_copy
from iftplan.nn.meta.inputs import given_inputs
from iftplan.nn.meta.wrappers import bare, unwrapped
from iftplan.nn.reading.read import read_model
from iftplan.plans.request import PlanRequest, make_plan

Model = TypeVar("Model", bound=nn.Module)
Criterion = Literal["magnitude", "random"]

_LAYERS = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
)
"""Modules whose weights are known to contract without a forward pass to see it; transformers' Conv1D beside them."""


@check_arguments
def sparsify(
    model: Model,
    sparsity: str | float | Fraction | None = None,
    *,
    distribution: str = "uniform",
    structure: str | MaskStructure = "unstructured",
    keep_dense: str | Iterable[str] | None = ("first", "last"),
    criterion: Criterion = "magnitude",
    seed: int = 0,
    dense_start: bool = False,
    inputs: object = None,
) -> Model:
    """A masked copy of a network, at the same widths; `model` is not changed.

    Linear, convolutional, attention and recurrent weights get masks, and the given fraction of the masked weights is
    zero. Train the result with `iftplan.nn.Masking`. Without `inputs`, the first and the last layer are those that the
    network registers first and last. With `inputs`, a forward pass without data finds the layers that read the input and
    give the output, and the experts of mixtures.

    Args:
        model: a network without masks, with values or on the meta device.
        sparsity: fraction of zeros, in [0, 1): 0.75, "3/4" or "75%"; None for that of an N:M structure, or else 3/4.
        distribution: how density is spread over layers: "uniform", "er" (arXiv 1707.04780) or "erk" (arXiv 1911.11134);
            an N:M structure gives every layer the same.
        structure: structure of the masks, such as "1:4", "2:8T", "block4x4", "fan-in".
        keep_dense: "first", "last" or names of layers, one or several; "none" or None keeps no layer dense.
        criterion: "magnitude" keeps the largest weights that the structure allows, "random" any.
        seed: of random masks.
        dense_start: leave weights off the masks as they are, for training that starts dense and becomes as sparse as the
            masks (`Gradual`, `Saliency`).
        inputs: a tensor, a batch or shapes, as `iftplan.read_model` takes them; None to go by the order of the modules.

    Raises:
        InputError: the model is masked already, has no layer of that name, nothing to mask, or a weight that is
            computed from others.
        InfeasibleError: masks of that structure have another sparsity, or do not fit a layer's shape.

    Example:
        >>> sparse = sparsify(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)), "3/4")
        >>> [(weight.name, int(weight.mask.sum())) for weight in masked_weights(sparse)]
        [('1.weight', 16)]
    """
    return sparsify_(
        deep_copy(model),
        sparsity,
        distribution=distribution,
        structure=structure,
        keep_dense=keep_dense,
        criterion=criterion,
        seed=seed,
        dense_start=dense_start,
        inputs=inputs,
    )


@check_arguments
def sparsify_(
    model: Model,
    sparsity: str | float | Fraction | None = None,
    *,
    distribution: str = "uniform",
    structure: str | MaskStructure = "unstructured",
    keep_dense: str | Iterable[str] | None = ("first", "last"),
    criterion: Criterion = "magnitude",
    seed: int = 0,
    dense_start: bool = False,
    inputs: object = None,
) -> Model:
    """The network itself with masks, changed in place; see `sparsify`.

    If the network is refused, it stays as it was.

    Args:
        model: a network without masks; changed.
        sparsity, distribution, structure, keep_dense, criterion, seed, dense_start, inputs: see `sparsify`.

    Raises:
        InputError: see `sparsify`.
        InfeasibleError: see `sparsify`.
    """
    network = bare(model)
    _check(network)
    request = PlanRequest(
        family=None,
        sparsity=sparsity,
        distribution=Distribution(one_of("distribution", distribution, [d.value for d in Distribution])),
        keep_dense=names_in("keep_dense", () if keep_dense is None else keep_dense),
        mask=str(structure),
    )
    if inputs is not None:
        plan = make_plan(read_model(network, given_inputs(inputs, network)), request)
        if not any(layer.maskable for layer in plan.layers):
            names = ", ".join(layer.name for layer in plan.layers if layer.weight)
            raise InputError(
                f"keep_dense leaves nothing to mask of the {type(network).__name__}, which has {names or 'no weights that can be masked'}; give `keep_dense='none'` to mask them all."
            )
        _refuse_empty(
            [layer.name for layer in plan.layers if layer.maskable and not layer.nnz], plan.sparsity
        )
        apply_(plan, network, seed=seed, init=None, dense_start=True)
    else:
        _register_(unwrapped(network), request, seed)
    if criterion == "magnitude":
        _keep_largest_(network)
    if not dense_start:
        enforce_(network)
    return model


def _check(model: nn.Module) -> None:
    check_ties(model)
    masked = next(masked_weights(model), None)
    if masked is not None:
        raise InputError(f"{masked.name} is masked already; finalize or densify the model first.")
    for computed in computed_weights(model):
        raise InputError(
            f"{computed.name} is computed from {computed.source} in every forward pass, so a mask on it would not last; call {computed.remedy} first."
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """Layer of a network: its name, its weight, and whether a mask may lie on that."""

    name: str
    weight: MaskedWeight
    maskable: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_in, n_out, *kernel) of the weight, as ER and ERK see it."""
        module = self.weight.module
        if isinstance(module, nn.modules.conv._ConvNd):
            return (module.in_channels // module.groups, module.out_channels, *module.kernel_size)
        return matrix_shape(self.weight)[::-1]

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.weight.parameter.numel()


def _register_(model: nn.Module, request: PlanRequest, seed: int) -> None:
    """Lay random masks beside the weights of known modules."""
    policy = request.policy()
    chosen = _to_mask(list(_layers(model)), request.keep_dense, type(model).__name__)
    counts = _counts(chosen, policy.sparsity, policy.distribution, policy.mask)
    masks = [
        drawn_mask(layer.weight, policy.mask, nnz, stream(seed, layer.weight.name))
        for layer, nnz in zip(chosen, counts, strict=True)
    ]
    for layer, mask in zip(chosen, masks, strict=True):
        register_mask_(layer.weight, mask, policy.mask)


def _layers(model: nn.Module) -> Iterator[_Layer]:
    """Weights of known modules in the order of the modules; each is masked where it is met first, and none of an embedding is."""
    embeddings = [m for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    taken = {id(module.weight) for module in embeddings}
    for path, module in model.named_modules():
        if not (isinstance(module, _LAYERS) or module in embeddings or is_conv1d(module)):
            continue
        for name, parameter in module._parameters.items():
            if isinstance(parameter, nn.UninitializedParameter):
                raise InputError(
                    f"{path or type(module).__name__} has no size yet. Run the model once before masks are drawn."
                )
            if parameter is None or "weight" not in name or parameter.ndim < 2:
                continue
            qualified = f"{path}.{name}" if path else name
            called = path if path and name == "weight" else qualified
            yield _Layer(called, MaskedWeight(qualified, module, name), id(parameter) not in taken)
            taken.add(id(parameter))


def _to_mask(layers: Sequence[_Layer], keep_dense: Sequence[str], model: str) -> Sequence[_Layer]:
    """The layers that can be masked and that nobody keeps dense."""
    if not any(layer.maskable for layer in layers):
        raise InputError(f"the {model} has no linear, convolutional, attention or recurrent weight to mask.")
    names = [layer.name for layer in layers]
    kept = set(keep_dense) - {"none"}
    for name in sorted(kept - {"first", "last"} - set(names)):
        meant = did_you_mean(name, names, cutoff=0.3)
        raise InputError(
            f"keep_dense: {name!r} is no layer of the {model}.{meant} It takes first, last, none or names of layers."
        )
    ends = {name for word, name in (("first", names[0]), ("last", names[-1])) if word in kept}
    kept = kept - {"first", "last"} | ends
    chosen = [layer for layer in layers if layer.maskable and layer.name not in kept]
    if not chosen:
        raise InputError(
            f"keep_dense leaves nothing to mask of the {model}, which has {', '.join(names)}; give `keep_dense='none'` to mask them all."
        )
    return chosen


def _counts(
    layers: Sequence[_Layer],
    sparsity: Fraction,
    distribution: Distribution,
    structure: MaskStructure,
) -> list[int]:
    """Number of weights that each layer keeps: as many as its density has, in whole patterns of the structure."""
    shares = [DensityLayer(one.name, one.shape, one.size) for one in layers]
    spread = densities(shares, parameter_budget(shares, sparsity), distribution)
    found = []
    for one, density in zip(layers, spread, strict=True):
        outputs, inputs = matrix_shape(one.weight)
        matrices = ((inputs, outputs),)
        try:
            fixed = structure.density is not None
            found.append(
                structure.counts(matrices)[-1]
                if fixed
                else structure.close(matrices, round(density * one.size))
            )
        except InfeasibleError as error:
            raise InfeasibleError(
                f"{one.name}: {error} Or keep it dense with `keep_dense={['first', 'last', one.name]}`."
            ) from error
    _refuse_empty([one.name for one, kept in zip(layers, found, strict=True) if not kept], sparsity)
    return found


def _refuse_empty(names: Sequence[str], sparsity: Fraction) -> None:
    """Refuse layers that would keep no weight."""
    if names:
        raise InfeasibleError(
            f"sparsity {decimal_text(sparsity)} leaves no weight of {', '.join(names[:3])}, and nothing would pass through; take a lower one, "
            f"or keep {'it' if len(names) == 1 else 'them'} dense: `keep_dense={['first', 'last', *names]}`."
        )


@torch.no_grad()
def _keep_largest_(model: nn.Module) -> None:
    """Move masks to the largest weights that their structure allows, as many as before; not on the meta device."""
    for weight in masked_weights(model):
        if weight.mask.is_meta:
            continue
        try:
            keep_largest_(weight, magnitudes(weight))
        except InputError as error:
            densify_(model)
            raise InputError(
                f"{weight.name} holds values that are not finite, so its largest are not known; give `criterion='random'`."
            ) from error
