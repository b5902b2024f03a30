"""Which input column each output column reads at each position of a kernel: convolutions without copies.

Columns are pixels of all images, or samples of a linear layer (a 1×1 window on images of one pixel). A target
pixel t reads the source pixel (t·scale + position·step + shift) / division, where that is whole and inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from iftplan.base.errors import InputError

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ConvolutionWindows:
    """A sweep of a kernel over images, forwards or backwards.

    Attributes:
        images: how many.
        source: height and width of what is read.
        target: height and width of what is written.
        kernel: height and width; positions are numbered row by row.
        scale: target steps in source steps (the stride, forwards).
        step: from one position to the next (the dilation, forwards).
        shift: of the first position (minus the padding, forwards).
        division: source steps in target steps (the stride, backwards).
    """

    images: int
    source: Pair
    target: Pair
    kernel: Pair
    scale: Pair
    step: Pair
    shift: Pair
    division: Pair

    @property
    def backwards(self) -> ConvolutionWindows:
        """The sweep of the input's gradient: each position the other way round."""
        negative = (-self.step[0], -self.step[1]), (-self.shift[0], -self.shift[1])
        return ConvolutionWindows(
            self.images, self.target, self.source, self.kernel, self.division, *negative, division=self.scale
        )

    @property
    def columns(self) -> int:
        """Number of target pixels of all images."""
        return self.images * self.target[0] * self.target[1]


@lru_cache(maxsize=64)
def samples(count: int) -> ConvolutionWindows:
    """Sweep of a linear layer, which reads every sample at one position."""
    one = (1, 1)
    return ConvolutionWindows(count, one, one, one, one, one, (0, 0), one)


def convolution(
    images: int,
    size: Pair,
    kernel: Pair,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
) -> ConvolutionWindows:
    """Sweep of a convolution over images.

    Args:
        images: how many.
        size: of the input, height and width.
        kernel: its size.
        stride: of the output.
        padding: zeros on both sides.
        dilation: between the positions of the kernel.

    Raises:
        InputError: the kernel is larger than the padded input.
    """
    target = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    if min(target) < 1:
        raise InputError(
            f"a {kernel[0]}×{kernel[1]} convolution does not fit an input of {size[0]}×{size[1]} with padding {padding[0]}×{padding[1]}; give a larger input."
        )
    shift = (-padding[0], -padding[1])
    return ConvolutionWindows(images, size, (target[0], target[1]), kernel, stride, dilation, shift, (1, 1))
