"""One-shot pruning of a trained network: masks are moved to the weights that a method keeps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments, one_of
from iftplan.base.errors import InputError
from iftplan.nn.application.pruning.inputs import Inputs, products, squares, summed_inputs
from iftplan.nn.application.pruning.scores import keep_largest_, magnitudes
from iftplan.nn.application.pruning.sparsegpt import reconstructed
from iftplan.nn.masks.masked_weights import MaskedWeight, enforce_, from_matrix, masked_weights, to_matrix
from iftplan.nn.meta.copies import deep_copy
from iftplan.nn.meta.wrappers import bare

Model = TypeVar("Model", bound=nn.Module)
PruningMethod = Literal["magnitude", "wanda", "sparsegpt"]
METHODS: tuple[PruningMethod, ...] = get_args(PruningMethod)


@check_arguments
def prune(model: Model, method: PruningMethod = "magnitude", batches: Iterable[Inputs] = ()) -> Model:
    """A pruned copy of a network; `model` is not changed. See `prune_`.

    Args:
        model: with masks and trained weights.
        method: "magnitude", "wanda" or "sparsegpt".
        batches: calibration data.

    Raises:
        InputError: see `prune_`.
    """
    return prune_(deep_copy(model), method, batches)


@check_arguments
@torch.no_grad()
def prune_(model: Model, method: PruningMethod = "magnitude", batches: Iterable[Inputs] = ()) -> Model:
    """The network itself pruned in one shot, in place: its masks say how many weights stay, and the method which.

    Each mask keeps as many weights as it has, in its structure. `magnitude` keeps the largest |W_ij|. `wanda` keeps
    the largest |W_ij|·‖x_j‖₂ of every output (arXiv 2306.11695, equation 1). `sparsegpt` lets the weights that stay make up
    for the others (arXiv 2301.00774, algorithm 1). With data, layers are pruned in the order in which they are called,
    each on what the pruned layers before it give.

    Args:
        model: with masks, as `sparsify(model, …, dense_start=True)` or `apply(plan, model, init=None, dense_start=True)`
            gives it: masks beside trained weights that are not zero off them.
        method: "magnitude", "wanda" or "sparsegpt".
        batches: calibration data: inputs of forward passes, tensors or mappings of keyword inputs.

    Raises:
        InputError: the network has no masks, or the method needs data and has none, or the inputs of a layer are not known.

    Example:
        >>> from iftplan.nn import sparsify
        >>> network = nn.Sequential(nn.Linear(2, 2, bias=False))
        >>> network[0].weight.data = torch.tensor([[1.0, 2.0], [4.0, 3.0]])
        >>> masked = sparsify(network, "1/2", keep_dense="none", dense_start=True)
        >>> prune_(masked, "wanda", [torch.tensor([[5.0, 1.0]])])[0].weight.tolist()
        [[1.0, 0.0], [4.0, 0.0]]
    """
    one_of("method", method, METHODS)
    network = bare(model)
    weights = list(masked_weights(network))
    if not weights:
        raise InputError(
            f"the {type(network).__name__} has no masks, which say how many weights stay; mask it first with nn.sparsify(model, sparsity, dense_start=True)."
        )
    if method == "magnitude":
        for weight in weights:
            keep_largest_(weight, magnitudes(weight))
        enforce_(network)
        return model
    held = list(batches)
    if not held:
        raise InputError(
            f"{method} looks at the inputs of layers, and there are no calibration data; give batches, or prune by magnitude."
        )
    mode = {module: module.training for module in network.modules()}
    network.eval()
    try:
        _on_data_(network, weights, method, held)
    finally:
        for module, training in mode.items():
            module.training = training
    return model


def _on_data_(
    network: nn.Module, weights: list[MaskedWeight], method: PruningMethod, batches: list[Inputs]
) -> None:
    """Prune layer by layer, each on the inputs that it has once those before it are pruned."""
    by_name = {weight.name: weight for weight in weights}
    called = summed_inputs(network, weights, batches[:1], squares)  # in their order, and all are called
    for name in called:
        weight = by_name[name]
        if method == "wanda":
            _wanda_(weight, summed_inputs(network, [weight], batches, squares)[name])
        else:
            _sparsegpt_(weight, summed_inputs(network, [weight], batches, products)[name])


def _wanda_(weight: MaskedWeight, norms: Tensor) -> None:
    scores = magnitudes(weight)
    each = len(scores) // len(norms)  # outputs of a group
    scores *= norms.sqrt().repeat_interleave(each, 0).to(scores)
    keep_largest_(weight, scores, by_row=True)
    weight.parameter.mul_(weight.mask)


def _sparsegpt_(weight: MaskedWeight, sums: Tensor) -> None:
    magnitudes(weight)  # refuses what is not finite
    matrix = to_matrix(weight.parameter.detach(), weight)
    pruned, mask = reconstructed(matrix, sums, int(weight.mask.count_nonzero()), weight.structure)
    weight.mask.copy_(from_matrix(mask, weight))
    weight.parameter.copy_(from_matrix(pruned, weight))
