"""The original layer, as PyTorch runs it and as fast as this machine's libraries can."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812  (its usual name)

from iftplan.models.spec import Kind
from iftplan.nn.timing.work import Candidates, as_function, drawn_input, drawn_weight, images_last, passing
from iftplan.plans.speed.timings import LayerPair


def add_dense(
    found: Candidates, pair: LayerPair, batch: int, *, step: bool, macs: int, generator: Generator
) -> None:
    """Add both dense backends, "dense" and "dense-best"; ratios are to the faster of them.

    Args:
        found: the backends up to here.
        pair: the dense layer and the wide one in its place.
        batch: samples of the input.
        step: whether forward and backward are timed, else the forward pass alone.
        macs: multiply-accumulates of the dense layer in what is timed.
        generator: of inputs and weights.
    """
    layer = pair.dense
    x, weight = drawn_input(layer, pair, batch, generator), drawn_weight(layer, generator)
    run = as_function(layer)
    found.add("dense", passing(run, x.contiguous(), weight, step), macs)
    if layer.kernel == (1, 1) and has_onednn():
        # channels-last, it is a product of rows of pixels, which PyTorch does not know
        x, weight = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]), weight.flatten(1)
    elif layer.kind is not Kind.LINEAR:
        found.add("dense-best", passing(run, x, images_last(weight), step), macs)
        return
    if not has_onednn():
        found.left_out["dense-best"] = "this torch has no oneDNN"
    elif step:
        gradient = torch.ones(len(x), len(weight))
        found.add("dense-best", lambda: onednn_step(x, weight, gradient), macs)
    else:
        begin = perf_counter()
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, len(x))
        once = perf_counter() - begin
        found.add("dense-best", lambda: _onednn(x, packed), macs, once)


def has_onednn() -> bool:
    """Whether this torch can multiply by oneDNN, which on AMD's processors is twice as fast as its MKL."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]


def onednn_step(x: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A linear layer's forward pass and both gradients, as three products of oneDNN.

    Args:
        x: (rows, inputs).
        weight: (outputs, inputs).
        gradient: of the output, (rows, outputs).

    Returns:
        (rows, outputs), and the gradients of the input and of the weight.
    """
    # A step's weight is new each time. Packing it (and its transpose) here costs more than packed products save, so
    # oneDNN reads it, and all transposes, where they lie; nothing of autograd is added, for the lowest honest time.
    return _onednn(x, weight), _onednn(gradient, weight.t()), _onednn(gradient.t(), x.t())


def dense_products() -> list[Callable[[Tensor, Tensor], Tensor]]:
    """Rows × transposed weight, once for every library that this torch has for it."""
    return [F.linear, _onednn] if has_onednn() else [F.linear]


def _onednn(rows: Tensor, weight: Any) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
    return product
