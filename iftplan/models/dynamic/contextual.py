"""Contextual sparsity with correction: the density at which a model really runs (Sirius, arXiv 2409.03856)."""

from __future__ import annotations

from fractions import Fraction

from iftplan.models.dynamic.shares import at_least, part


def effective_density(density: Fraction, kernel: int, accepted: Fraction) -> Fraction:
    """Share of the dense model's MACs per accepted token, the correction by the dense model included.

    Of every `kernel` tokens K - 1 are generated at the sparse density ρ, and one pass of the dense model then checks all of
    them and keeps as many as it agrees with. A period costs (K - 1)·ρ + 1 and yields the average accepted length:

        ((K - 1)·ρ + 1) / AAL

    Args:
        density: ρ of the sparse model, in [0, 1].
        kernel: K, tokens from one correction to the next.
        accepted: AAL, tokens that are kept on average of a period, in [1, K].

    Raises:
        InputError: a value outside its range.

    Example:
        The first of the values that the paper's repository lists: 15.22 of 16 tokens kept at ρ = .65.

        >>> round(float(effective_density(Fraction("0.65"), 16, Fraction("15.22"))), 3)
        0.706
    """
    part("density", density)
    at_least("kernel", kernel, 1)
    at_least("accepted", accepted, 1)
    part("accepted/kernel", accepted / kernel)
    return ((kernel - 1) * density + 1) / accepted
