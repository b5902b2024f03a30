"""Singular values of masks and of masked weights, by Lanczos iterations that touch only the kept weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.masks.spectra import Graph, Spectrum, mean_difference
from iftplan.nn.masks.masked_weights import MaskedWeight, masked_weights, to_matrix
from iftplan.nn.masks.shards import whole

if TYPE_CHECKING:
    import numpy as np

_LEAST_INPUTS = 3
"""Inputs of one degree that make a part of the iterative mean difference."""


@check_arguments
def spectra(model: nn.Module) -> dict[str, tuple[Spectrum | None, ...]]:
    """Spectral measures of every masked weight, by parameter name; one for each expert of a stack.

    A mask with an average degree below 3 has None, because the bounds do not hold there. Each iteration of the truncated
    singular value decomposition costs O(nnz) multiplications. If the model is sharded over processes, every process has
    to call this.

    Args:
        model: with masks, as `apply` or `sparsify` make them.

    Raises:
        InputError: SciPy is not installed, or the masks have no values (the meta device).

    Example:
        >>> import torch
        >>> from iftplan import nn
        >>> layer = nn.sparsify(torch.nn.Sequential(torch.nn.Linear(64, 64)), "3/4", keep_dense="none")
        >>> [spectrum.graph.first > spectrum.graph.second for spectrum in spectra(layer)["0.weight"]]
        [True]
    """
    try:
        import scipy.sparse.linalg  # noqa: F401  (asked for before anything is computed)
    except ImportError as error:
        raise InputError(
            "spectra needs SciPy, which is not installed; install it with: pip install 'iftplan[train]'."
        ) from error
    return {weight.name: tuple(_spectra(weight)) for weight in masked_weights(model)}


def _spectra(weight: MaskedWeight) -> list[Spectrum | None]:
    if weight.mask.is_meta:
        raise InputError(
            f"{weight.name} is on the meta device, where masks have no values; apply the plan to a network on the CPU or a GPU."
        )
    masks = to_matrix(whole(weight.mask), weight).chunk(weight.experts)
    values = to_matrix(whole(weight.parameter.detach()), weight).chunk(weight.experts)
    return [mask_spectrum(mask, value) for mask, value in zip(masks, values, strict=True)]


def mask_spectrum(mask: Tensor, values: Tensor) -> Spectrum | None:
    """Spectral measures of one mask; None where its average degree is below 3.

    Args:
        mask: boolean matrix (outputs, inputs).
        values: the weights, of the same shape.
    """
    import numpy as np

    kept = mask.detach().cpu().numpy().T  # inputs are the left nodes
    whole = _graph(kept)
    if not whole.is_dense_enough:
        return None
    degrees = kept.sum(axis=1)
    parts = [
        _graph(kept[degrees == degree])
        for degree in np.unique(degrees[degrees > 0])
        if (degrees == degree).sum() >= _LEAST_INPUTS
    ]
    weighted = values.detach().cpu().double().abs().numpy().T * kept
    first, second = _two_singular_values(weighted)
    return Spectrum(whole, mean_difference(parts), first - second)


def _graph(kept: np.ndarray[Any, Any]) -> Graph:
    """Graph of a 0/1 matrix (inputs, outputs) without its unconnected nodes."""
    left, right = kept.sum(axis=1), kept.sum(axis=0)
    connected = kept[left > 0][:, right > 0]
    first, second = _two_singular_values(connected.astype(float))
    return Graph(tuple(map(int, left[left > 0])), tuple(map(int, right[right > 0])), first, second)


def _two_singular_values(matrix: np.ndarray[Any, Any]) -> tuple[float, float]:
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import svds

    if min(matrix.shape) < 4:  # Lanczos needs room; these cost nothing as they are
        values: list[float] = np.linalg.svd(matrix, compute_uv=False).tolist() if matrix.size else []
        first, second, *_ = *values, 0.0, 0.0
        return first, second
    start = np.ones(min(matrix.shape)) / np.sqrt(min(matrix.shape))  # the same every time
    second, first = sorted(svds(csr_array(matrix), k=2, return_singular_vectors=False, v0=start).tolist())
    return first, second
