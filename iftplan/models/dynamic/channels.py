"""Costs of networks whose channels were removed: SliceGPT's rotated models, and channel pruning."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from iftplan.base.errors import InputError
from iftplan.models.dynamic.shares import part

MULTIPLE = 8
"""SliceGPT's sliced widths are multiples of this, rounded down."""


def sliced_width(width: int, sparsity: Fraction, multiple: int = MULTIPLE) -> int:
    """Channels that SliceGPT keeps of a width: (1 - s)·d, rounded down to a multiple of 8 (arXiv 2401.15024, its code).

    Args:
        width: d, channels of a token.
        sparsity: share of them that is removed, in [0, 1].
        multiple: of which the width has to be.

    Raises:
        InputError: nothing is left, or the sparsity is outside [0, 1].

    Example:
        >>> sliced_width(8192, Fraction(1, 5)), sliced_width(8192, Fraction(1, 4))
        (6552, 6144)
    """
    left = (1 - part("sparsity", sparsity)) * width // multiple * multiple
    if not left:
        raise InputError(
            f"sparsity {float(sparsity):g} leaves no multiple of {multiple} of {width} channels; the most that can be removed leaves {multiple}."
        )
    return left


@dataclass(frozen=True, slots=True)
class DecoderBlock:
    """Sizes of a decoder block.

    Attributes:
        width: channels of a token, d.
        hidden: neurons of its MLP.
        heads: query heads times their size, the width of the queries.
        key_values: key heads times their size, the width of the keys and of the values.
        gated: whether the MLP has a gate.
    """

    width: int
    hidden: int
    heads: int
    key_values: int
    gated: bool = True

    @property
    def facing(self) -> int:
        """Sum of the sides of all matrices that do not face the residual stream."""
        return 2 * self.heads + 2 * self.key_values + (3 if self.gated else 2) * self.hidden

    @property
    def macs(self) -> int:
        """MACs of the block's matrices for one token."""
        return self.width * self.facing


LLAMA2_70B = DecoderBlock(width=8192, hidden=28672, heads=8192, key_values=1024)
"""The block of LLaMA-2 70B (arXiv 2307.09288): grouped queries, 8 key heads of 128."""


def sliced_macs(block: DecoderBlock, sparsity: Fraction, multiple: int = MULTIPLE) -> int:
    """MACs of a sliced block's matrices for one token, the two products on its shortcuts included.

    Every matrix loses channels on the one side that faces the residual stream. Each of the two shortcuts is multiplied
    by a d'×d' matrix, since the rotations differ from block to block.

    Args:
        block: the block, dense.
        sparsity: share of channels that is removed, in [0, 1].
        multiple: of which the sliced width has to be.

    Raises:
        InputError: nothing is left, or the sparsity is outside [0, 1].

    Example:
        >>> round(sliced_macs(LLAMA2_70B, Fraction(1, 4)) / LLAMA2_70B.macs, 4)
        0.8382
    """
    width = sliced_width(block.width, sparsity, multiple)
    return width * block.facing + 2 * width * width


def macs_after(dense: int, change: Fraction) -> int:
    """MACs of a pruned network whose paper gives only the relative change, rounded to the nearest.

    Args:
        dense: MACs before.
        change: relative change, such as -51.07 % as a fraction; negative where MACs were removed.

    Raises:
        InputError: more was removed than there was.

    Example:
        MaskSparsity prunes ResNet-50 by 51.07 % of its FLOPs:

        >>> macs_after(4_089_184_256, Fraction("-0.5107"))
        2000837856
    """
    part("1 + change", min(1 + change, Fraction(1)))
    return round(dense * (1 + change))
