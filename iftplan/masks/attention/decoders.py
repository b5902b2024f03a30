"""Decoders of equal FLOPs: how sparse a larger model's attention must be for its token to cost what a smaller model's does."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from iftplan.base.errors import InfeasibleError
from iftplan.base.units import count, decimal


@dataclass(frozen=True, slots=True)
class DecoderSizes:
    """Sizes of a decoder that its cost per token follows from.

    Attributes:
        weights: N, parameters that every token meets; without embeddings.
        layers: L, layers with attention.
        width: d, heads times channels of a query.
    """

    weights: int
    layers: int
    width: int

    def flops(self, context: int, density: Fraction = Fraction(1)) -> Fraction:
        """FLOPs of one more token, `2N + 4·L·d·S·ρ`, two for each MAC (arXiv 2504.17768).

        Args:
            context: S, tokens that it attends to.
            density: ρ, the share of them that it does attend to.
        """
        return 2 * self.weights + 4 * self.layers * self.width * context * density


def iso_flop_density(small: DecoderSizes, large: DecoderSizes, context: int) -> Fraction:
    """Density of attention at which a token costs the large decoder what it costs the small one with dense attention.

    `ρ = (c₁ - 2N₂) / (4·L₂·d₂·S)`, from the costs of arXiv 2504.17768. What finding the keys costs comes on top.

    Args:
        small: the decoder with dense attention.
        large: the one with sparse attention.
        context: S, tokens that are attended to.

    Raises:
        InfeasibleError: the weights of the large decoder alone cost more, or it is cheaper with dense attention already.

    Example:
        >>> small, large = DecoderSizes(6_530_000_000, 28, 3584), DecoderSizes(13_100_000_000, 48, 5120)
        >>> round(float(iso_flop_density(small, large, 131072)), 3)
        0.306
    """
    budget, fixed = small.flops(context), large.flops(context, Fraction(0))
    density = (budget - fixed) / (large.flops(context) - fixed)
    if density <= 0:
        more = 2 * (large.weights - small.weights)
        shortest = more // (4 * small.layers * small.width) + 1
        raise InfeasibleError(
            f"at {count(context)} tokens the small decoder spends {count(int(budget))} FLOPs a token, and the weights of the "
            f"large one {count(int(fixed))} alone, so no attention is sparse enough. The shortest context with an answer is "
            f"{count(shortest)} tokens."
        )
    if density > 1:
        raise InfeasibleError(
            f"at {count(context)} tokens the large decoder costs less with dense attention already: it could afford density "
            f"{decimal(density, 4)}. Swap the two."
        )
    return density
