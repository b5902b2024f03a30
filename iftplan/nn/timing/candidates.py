"""What runs against what: one layer in every backend that this machine has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812  (its usual name)

from iftplan.masks import Block, parse_mask
from iftplan.nn.execution.functions import kept_values, sparse_conv2d, sparse_linear
from iftplan.nn.execution.patterns import pattern_of
from iftplan.nn.random_masks import random_mask
from iftplan.spec import Kind, LayerSpec
from iftplan.timings import BACKENDS, LayerPair

Work = Callable[[], object]


@dataclass(slots=True)
class Candidates:
    """Backends of one layer and pass.

    Attributes:
        work: name → what is timed.
        macs: name → of one run.
        prepared: name → seconds of what is done once.
        left_out: name → why it is not there.
        wanted: names of those that are asked for; others are passed over.
    """

    work: dict[str, Work] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    prepared: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    wanted: frozenset[str] = frozenset(BACKENDS)

    def add(self, name: str, work: Work, macs: int, prepared: float = 0.0) -> None:
        """One backend more, if it is wanted."""
        if name not in self.wanted:
            return
        self.work[name], self.macs[name], self.prepared[name] = work, macs, prepared


def candidates(
    pair: LayerPair, batch: int, *, step: bool, seed: int = 0, backends: Sequence[str] = BACKENDS
) -> Candidates:
    """Every backend's run of a layer.

    Args:
        pair: the layer.
        batch: samples.
        step: forward and backward, instead of forward alone.
        seed: of the mask and the values; which they are is nothing to the times.
        backends: those that are wanted.
    """
    generator = Generator().manual_seed(seed)
    times = (3 if step else 1) * batch * pair.dense.positions
    macs, wide, kept = (times * n for n in (pair.dense.weights, pair.wide.weights, pair.nnz))
    found = Candidates(wanted=frozenset(backends))
    mask = _mask(pair, generator)
    weight = torch.randn(mask.shape, generator=generator) * mask
    build = _linear if pair.dense.kind is Kind.LINEAR else _convolution
    build(found, pair, batch, step, macs, generator)
    x = _input(pair.wide, pair, batch, generator)
    if "masked-dense" in found.wanted:
        _add_masked(found, pair, x, weight, wide, step)
    if found.wanted.isdisjoint(("torch-csr", "torch-bsr")):
        pass
    elif pair.dense.kind is Kind.LINEAR and not step:
        _add_torch_sparse(found, pair, x, weight, kept)
    else:
        why = "torch has no gradients for it on the CPU" if step else "torch has no sparse convolutions"
        found.left_out |= {"torch-csr": why}
    if not found.wanted.isdisjoint(("sparse", "compact")):
        _add_sparse(found, pair, x, weight, mask, kept, step)
    return found


def _mask(pair: LayerPair, generator: Generator) -> Tensor:
    """In the wide weight's own layout."""
    wide = pair.wide
    outputs, inputs = wide.fan_out, wide.fan_in
    matrix = random_mask(parse_mask(pair.structure), (outputs, inputs), pair.nnz, generator)
    if wide.kind is Kind.LINEAR:
        return matrix
    return _images_last(matrix.view(outputs, *wide.kernel, -1).movedim(-1, 1))


def _images_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _input(layer: LayerSpec, pair: LayerPair, batch: int, generator: Generator) -> Tensor:
    channels = layer.in_channels
    assert channels is not None
    if layer.kind is Kind.LINEAR:
        return torch.randn(batch * layer.positions, channels, generator=generator)
    return _images_last(torch.randn(batch, channels, *pair.image, generator=generator))


def _padding(layer: LayerSpec) -> tuple[int, int]:
    """As many positions as pixels, for odd kernels."""
    return layer.kernel[0] // 2, layer.kernel[1] // 2


def _pass(run: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, step: bool) -> Work:
    """A forward pass without autograd, or forward and backward with both gradients."""
    if not step:

        def forward() -> object:
            with torch.no_grad():
                return run(x, weight)

        return forward
    x, weight = x.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_()
    gradient = torch.ones_like(run(x, weight))

    def both() -> None:
        torch.autograd.backward(run(x, weight), gradient)
        x.grad = weight.grad = None

    return both


def _linear(
    found: Candidates, pair: LayerPair, batch: int, step: bool, macs: int, generator: Generator
) -> None:
    x = _input(pair.dense, pair, batch, generator)
    weight = torch.randn(pair.dense.fan_out, pair.dense.fan_in, generator=generator)
    found.add("dense", _pass(F.linear, x, weight, step), macs)
    if step:
        return
    ops: Any = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(ops, "_linear_pointwise")):  # type: ignore[no-untyped-call]
        found.left_out["dense-best"] = "this torch has no oneDNN"
        return
    begin = perf_counter()
    packed = ops._reorder_linear_weight(weight, len(x))
    once = perf_counter() - begin
    found.add("dense-best", lambda: ops._linear_pointwise(x, packed, None, "none", [], ""), macs, once)


def _convolution(
    found: Candidates, pair: LayerPair, batch: int, step: bool, macs: int, generator: Generator
) -> None:
    layer, padding = pair.dense, _padding(pair.dense)
    x = _input(layer, pair, batch, generator)
    assert layer.in_channels is not None
    weight = torch.randn(layer.fan_out, layer.in_channels, *layer.kernel, generator=generator)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, padding=padding)

    found.add("dense", _pass(run, x.contiguous(), weight, step), macs)
    found.add("dense-best", _pass(run, x, _images_last(weight), step), macs)


def _add_masked(found: Candidates, pair: LayerPair, x: Tensor, weight: Tensor, macs: int, step: bool) -> None:
    padding = _padding(pair.wide) if pair.wide.kernel else (0, 0)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight) if weight.dim() == 2 else F.conv2d(x, weight, padding=padding)

    found.add("masked-dense", _pass(run, x, weight, step), macs)


def _add_torch_sparse(found: Candidates, pair: LayerPair, x: Tensor, weight: Tensor, macs: int) -> None:
    """torch's own layouts: rows, and blocks where the mask has them."""
    columns = x.T.contiguous()
    structure = parse_mask(pair.structure)
    makers: dict[str, Callable[[], Tensor]] = {"torch-csr": weight.to_sparse_csr}
    if isinstance(structure, Block):
        shape = (structure.width, structure.height)
        makers["torch-bsr"] = lambda: weight.to_sparse_bsr(shape)
    for name, make in makers.items():
        try:
            with catch_warnings():
                simplefilter("ignore", UserWarning)  # that sparse layouts are in beta
                begin = perf_counter()
                held = make()
                once = perf_counter() - begin
                _ = held @ columns
        except RuntimeError as error:  # what this build of torch cannot do
            found.left_out[name] = " ".join(str(error).split())[:80]
            continue
        found.add(name, _products(held, columns), macs, once)


def _products(held: Tensor, columns: Tensor) -> Work:
    return lambda: held @ columns


def _add_sparse(
    found: Candidates, pair: LayerPair, x: Tensor, weight: Tensor, mask: Tensor, macs: int, step: bool
) -> None:
    begin = perf_counter()
    pattern = pattern_of(mask, torch.float32)
    if step:
        _ = pattern.backward
    values = None if step else kept_values(weight, pattern)
    once = perf_counter() - begin
    padding = _padding(pair.wide) if pair.wide.kernel else (0, 0)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        if weight.dim() == 2:
            return sparse_linear(x, weight, None, pattern, values)
        return sparse_conv2d(x, weight, None, pattern, padding=padding, values=values)

    def kept(x: Tensor, values: Tensor) -> Tensor:
        if weight.dim() == 2:
            return sparse_linear(x, None, None, pattern, values)
        return sparse_conv2d(x, None, None, pattern, padding=padding, values=values)

    found.add("sparse", _pass(run, x, weight, step), macs, once)
    if step:
        found.add("compact", _pass(kept, x, kept_values(weight, pattern), step), macs, once)
