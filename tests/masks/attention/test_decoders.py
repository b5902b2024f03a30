"""Decoders of equal FLOPs: the published densities, and where there is none."""

from __future__ import annotations

from fractions import Fraction

import pytest

from iftplan.base.errors import InfeasibleError
from iftplan.masks import DecoderSizes, iso_flop_density

QWEN_7B, QWEN_14B = DecoderSizes(6_530_000_000, 28, 28 * 128), DecoderSizes(13_100_000_000, 48, 40 * 128)
"""Qwen2.5-7B and 14B: parameters without embeddings, layers, and heads times channels, as their model cards have them."""


@pytest.mark.parametrize(
    ("context", "density"), [(131_072, 0.306), (65_536, 0.204), (32_768, 0.000)], ids=["128k", "64k", "32k"]
)
def test_qwen_14b_costs_as_much_as_7b(context: int, density: float) -> None:
    # arXiv 2504.17768, worked out from its costs: ρ = (c₁ - 2N₂) / (4·L₂·d₂·S)
    found = iso_flop_density(QWEN_7B, QWEN_14B, context)
    assert round(float(found), 3) == density
    assert QWEN_14B.flops(context, found) == QWEN_7B.flops(context)


def weights(layers: int, width: int, keys: int, hidden: int) -> int:
    """Weights of a Qwen2.5 with 128 channels a head, without embeddings, norms and biases."""
    return layers * (2 * width * (width + keys) + 3 * width * hidden)


def test_at_32k_the_weights_alone_cost_more() -> None:
    small = DecoderSizes(weights(28, 3584, 512, 18944), 28, 3584)
    large = DecoderSizes(weights(48, 5120, 1024, 13824), 48, 5120)
    with pytest.raises(InfeasibleError, match="no attention is sparse enough") as error:
        iso_flop_density(small, large, 32_768)
    shortest = int(str(error.value).rpartition("answer is ")[2].removesuffix(" tokens.").replace(" ", ""))
    assert 0 < iso_flop_density(small, large, shortest) < Fraction(1, 1000)
    with pytest.raises(InfeasibleError, match="no attention is sparse enough"):
        iso_flop_density(small, large, shortest - 1)


def test_a_cheaper_decoder_needs_no_sparsity() -> None:
    with pytest.raises(InfeasibleError, match="Swap the two"):
        iso_flop_density(QWEN_14B, QWEN_7B, 65_536)
