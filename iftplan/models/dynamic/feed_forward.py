"""Cost of a feed-forward block whose hidden neurons are partly zero (the lazy neuron phenomenon, arXiv 2210.06313)."""

from __future__ import annotations

from fractions import Fraction

from iftplan.models.dynamic.shares import part


def feed_forward_share(
    activation_ratio: Fraction, *, gated: bool = False, predicted: bool = False
) -> Fraction:
    """Share of a feed-forward block's MACs that remain when zero neurons are skipped.

    The first product has to be computed to know which neurons are zero, so only the products behind it are saved:
    (1 + a)/2 of the block with two matrices, and (1 + 2a)/3 of a gated one, where the gate is computed in full. If an oracle
    names the active neurons beforehand, the share is the activation ratio a itself.

    Args:
        activation_ratio: share of hidden values that are not zero, in [0, 1].
        gated: whether a gate of the same size stands beside the first matrix.
        predicted: whether the active neurons are known before the block is computed.

    Raises:
        InputError: the activation ratio is outside [0, 1].

    Example:
        T5-Base has 3.0 % of its hidden values non-zero, ViT-B/16 6.3 % (arXiv 2210.06313):

        >>> print(feed_forward_share(Fraction("0.030")), feed_forward_share(Fraction("0.063")))
        103/200 1063/2000
    """
    a = part("activation_ratio", activation_ratio)
    if predicted:
        return a
    return (1 + 2 * a) / 3 if gated else (1 + a) / 2


def feed_forward_macs(
    width: int, hidden: int, activation_ratio: Fraction, *, gated: bool = False, predicted: bool = False
) -> Fraction:
    """MACs of a feed-forward block for one token, zero neurons skipped.

    Args:
        width: channels of a token, d.
        hidden: neurons between the matrices, f.
        activation_ratio: share of hidden values that are not zero, in [0, 1].
        gated: whether a gate of the same size stands beside the first matrix.
        predicted: whether the active neurons are known before the block is computed.

    Raises:
        InputError: the activation ratio is outside [0, 1].
    """
    dense = (3 if gated else 2) * width * hidden
    return dense * feed_forward_share(activation_ratio, gated=gated, predicted=predicted)
