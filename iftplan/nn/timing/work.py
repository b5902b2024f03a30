"""Building blocks of backends: runs, and the tensors that a layer is timed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812  (its usual name)

from iftplan.masks import parse_mask
from iftplan.models.spec import Kind, LayerSpec
from iftplan.nn.masks.drawing import random_mask
from iftplan.plans.speed.timings import BACKENDS, LayerPair

Work = Callable[[], object]


class Lost(Exception):  # noqa: N818  (nobody's error: the others go on)
    """A backend that cannot be timed any longer, and why."""


@runtime_checkable
class Elsewhere(Protocol):
    """Run of a layer that is timed in another process."""

    def seconds(self, repeats: int) -> float:
        """Seconds of one run, the mean of some; raises `Lost`."""

    def close(self) -> None:
        """End the other process."""


@dataclass(slots=True)
class Candidates:
    """Backends of one layer and pass.

    Attributes:
        wanted: names of those that are asked for; others are passed over.
        work: name → what is timed.
        macs: name → of one run.
        prepared: name → seconds of what is done once.
        left_out: name → why it is not there.
    """

    wanted: frozenset[str] = frozenset(BACKENDS)
    work: dict[str, Work | Elsewhere] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    prepared: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, work: Work | Elsewhere, macs: int, prepared: float = 0.0) -> None:
        """Add one backend, if it is wanted.

        Args:
            name: of the backend, such as "dense".
            work: one run of it.
            macs: multiply-accumulates that the run performs.
            prepared: seconds that were spent once, before the first run.
        """
        if name in self.wanted:
            self.work[name], self.macs[name], self.prepared[name] = work, macs, prepared

    def wants(self, *names: str) -> bool:
        """Whether any of them is asked for."""
        return not self.wanted.isdisjoint(names)

    @property
    def missing(self) -> tuple[tuple[str, str], ...]:
        """Names of backends that were asked for and are missing, each with the reason.

        Where all are asked for, those that are made for other layers or devices are not told.
        """
        named = self.wanted if self.wanted != frozenset(BACKENDS) else frozenset()
        unfit = sorted(named - self.work.keys() - self.left_out.keys())
        return (
            *((name, why) for name, why in self.left_out.items() if name in self.wanted),
            *((name, "it is not made for this layer, pass and device") for name in unfit),
        )

    def close(self) -> None:
        """End what runs in other processes."""
        for run in self.work.values():
            if isinstance(run, Elsewhere):
                run.close()


def drawn_mask(pair: LayerPair, generator: Generator) -> Tensor:
    """A mask of the pair's structure, in the wide weight's own layout."""
    wide = pair.wide
    outputs, inputs = wide.fan_out, wide.fan_in
    matrix = random_mask(parse_mask(pair.structure), (outputs, inputs), pair.nnz, generator)
    if wide.kind is Kind.LINEAR:
        return matrix
    return images_last(matrix.view(outputs, *wide.kernel, -1).movedim(-1, 1))


def drawn_weight(layer: LayerSpec, generator: Generator) -> Tensor:
    """A dense layer's weight: (outputs, inputs), of a convolution with its kernel behind them."""
    assert layer.in_channels is not None
    return torch.randn(layer.fan_out, layer.in_channels, *layer.kernel, generator=generator)


def drawn_input(layer: LayerSpec, pair: LayerPair, batch: int, generator: Generator) -> Tensor:
    """Random input of a layer: rows of samples and positions, or images, channels-last.

    Args:
        layer: the dense or the wide layer of the pair.
        pair: whose images have a size.
        batch: samples.
        generator: of the values.
    """
    channels = layer.in_channels
    assert channels is not None
    if layer.kind is Kind.LINEAR:
        return torch.randn(batch * layer.positions, channels, generator=generator)
    return images_last(torch.randn(batch, channels, *pair.image, generator=generator))


def images_last(tensor: Tensor) -> Tensor:
    """The same tensor in channels-last order."""
    return tensor.contiguous(memory_format=torch.channels_last)


def padding_of(layer: LayerSpec) -> tuple[int, int]:
    """Padding in pixels (height, width) that gives as many positions as pixels, for odd kernels.

    Linear layers have none.
    """
    return (layer.kernel[0] // 2, layer.kernel[1] // 2) if layer.kernel else (0, 0)


def as_function(layer: LayerSpec) -> Callable[[Tensor, Tensor], Tensor]:
    """The layer as a function of its input and its weight, as PyTorch runs it."""
    if layer.kind is Kind.LINEAR:
        return F.linear
    padding = padding_of(layer)
    return lambda x, weight: F.conv2d(x, weight, padding=padding)


def passing(run: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, step: bool) -> Work:
    """One pass as a function: forward without autograd, or forward and backward with both gradients.

    Args:
        run: the layer, a function of its input and its weight.
        x: input.
        weight: in the layer's shape.
        step: whether the backward pass is part of it.
    """
    if not step:

        def forward() -> object:
            with torch.no_grad():
                return run(x, weight)

        return forward
    x, weight = x.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_()
    gradient: Any = torch.ones_like(run(x, weight))

    def both() -> None:
        torch.autograd.backward(run(x, weight), gradient)
        x.grad = weight.grad = None

    return both


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two outputs, over the largest value; infinite if their shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
