"""Costs of tokens, channels, chunks and caches: published figures with their source and tolerance, and counts by hand."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from random import Random

import pytest

from iftplan.base.errors import InputError
from iftplan.models.dynamic.caches import (
    MUSTAFAR,
    BitmapTiles,
    cache_bits,
    cache_bytes,
    expected_share,
    kept_values,
)
from iftplan.models.dynamic.channels import (
    LLAMA2_70B,
    DecoderBlock,
    macs_after,
    sliced_macs,
    sliced_width,
)
from iftplan.models.dynamic.chunks import chunk_sparsity, expected_chunk_sparsity, token_sparsity
from iftplan.models.dynamic.contextual import effective_density
from iftplan.models.dynamic.feed_forward import feed_forward_macs, feed_forward_share
from iftplan.models.dynamic.tokens import Skipped, TokenBlock, pruned_macs

F = Fraction
LLAMA = LLAMA2_70B

UNPADDED = BitmapTiles(padding=1)

STAGES = ((16, 16, 1024), (16, 32, 256), (32, 64, 64))
"""Input and output channels and pixels of the three stages of ResNet-110 on CIFAR, of 36 convolutions each."""

RESNET_110 = 1024 * 27 * 16 + sum(9 * p * b * (a + 35 * b) for a, b, p in STAGES) + 640
RESNET_110_WEIGHTS = 27 * 16 + sum(9 * b * (a + 35 * b) for a, b, _ in STAGES) + 650 + 2 * (16 + 36 * 112)
"""With its batch norms and the bias of the last layer; shortcuts have no weights."""
PUBLISHED = [  # what, source, ours, published, tolerance
    ("T5-Base FFN", "arXiv 2210.06313, abstract: 3.0 % non-zero", feed_forward_share(F("0.030")), "0.515", 0),
    ("ViT-B/16 FFN", "arXiv 2210.06313, abstract: 6.3 % non-zero", feed_forward_share(F("0.063")), "0.5315", 0),
    ("Sirius 1", "arXiv 2409.03856, README", effective_density(F("0.65"), 16, F("15.22")), "0.706", "0.001"),
    ("Sirius 2", "arXiv 2409.03856, README", effective_density(F("0.76"), 16, F("15.37")), "0.807", "0.001"),
    ("Sirius 3", "arXiv 2409.03856, README", effective_density(F("0.58"), 16, F("14.76")), "0.657", "0.001"),
    ("Sirius 4", "arXiv 2409.03856, README", effective_density(F("0.72"), 16, F("15.66")), "0.753", "0.001"),
    ("Sirius 5", "arXiv 2409.03856, README", effective_density(F("0.65"), 16, F("14.67")), "0.733", "0.001"),
    ("Sirius 6", "arXiv 2409.03856, README", effective_density(F("0.76"), 16, F("15.42")), "0.804", "0.001"),
    ("SliceGPT 20 %", "arXiv 2401.15024, code's rounding", F(sliced_macs(LLAMA, F("0.2")), LLAMA.macs), "0.9001", "0.00005"),
    ("SliceGPT 25 %", "arXiv 2401.15024, code's rounding", F(sliced_macs(LLAMA, F("0.25")), LLAMA.macs), "0.8382", "0.00005"),
    ("SliceGPT 30 %", "arXiv 2401.15024, code's rounding", F(sliced_macs(LLAMA, F("0.3")), LLAMA.macs), "0.7759", "0.00005"),
    ("MaskSparsity ResNet-50", "its README: -51.07 % FLOPs", F(macs_after(4_089_184_256, F("-0.5107")), 10**9), "2.001", "0.0005"),
    ("MaskSparsity ResNet-110", "its README: -63.03 % FLOPs", F(macs_after(RESNET_110, F("-0.6303")), 10**6), "93.49", "0.005"),
    ("MaskSparsity ResNet-110 weights", "its README: -60.34 %", F(macs_after(RESNET_110_WEIGHTS, F("-0.6034")), 10**6), "0.6853", "0.00005"),
    ("Mustafar 70 %", "arXiv 2505.22913, abstract: up to 45 %", expected_share(128, kept_values(128, F("0.7"))), "0.45", "0.0005"),
    ("Mustafar 70 %, exact", "its kernels' format", expected_share(128, kept_values(128, F("0.7"))), "0.4499", "0.00005"),
    ("Mustafar 50 %", "its kernels' format", expected_share(128, kept_values(128, F("0.5"))), "0.6472", "0.00005"),
    ("Mustafar 70 % unpadded", "its kernels' format", expected_share(128, 38, UNPADDED), "0.391", "0.0005"),
    ("Mustafar 50 % unpadded", "its kernels' format", expected_share(128, 64, UNPADDED), "0.594", "0.0005"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "published", "tolerance"), [row[2:] for row in PUBLISHED], ids=[row[0] for row in PUBLISHED]
)
def test_published_figures(ours: Fraction, published: str, tolerance: str) -> None:
    assert abs(ours - F(published)) <= F(tolerance)


def test_resnet_110_is_the_network_whose_change_is_published() -> None:
    """252.89 M MACs and 1.7 M weights, as papers on pruning print them (arXiv 2002.10179)."""
    assert (RESNET_110, RESNET_110_WEIGHTS) == (252_887_680, 1_727_962)


def test_sliced_widths_of_llama() -> None:
    assert [sliced_width(8192, F(s)) for s in ("0.2", "0.25", "0.3")] == [6552, 6144, 5728]


def test_a_sliced_block_is_the_sum_of_its_matrices() -> None:
    block = DecoderBlock(width=64, hidden=96, heads=64, key_values=16)
    assert block.macs == sum(a * b for a, b in [(64, 64), (64, 16), (64, 16), (64, 64), *3 * [(64, 96)]])
    d = 48
    matrices = [(d, 64), (d, 16), (d, 16), (64, d), (d, 96), (d, 96), (96, d), (d, d), (d, d)]
    assert sliced_macs(block, F(1, 4)) == sum(a * b for a, b in matrices)
    plain = DecoderBlock(width=64, hidden=96, heads=64, key_values=64, gated=False)
    assert plain.macs == 4 * 64 * 64 + 2 * 64 * 96


def test_a_feed_forward_block_by_its_three_products() -> None:
    d, f, a = 12, 30, F(1, 5)
    assert feed_forward_macs(d, f, a) == d * f + a * f * d
    assert feed_forward_macs(d, f, a, gated=True) == d * f + a * d * f + a * f * d
    assert feed_forward_macs(d, f, a, gated=True, predicted=True) == 3 * a * d * f
    assert feed_forward_share(F(1)) == feed_forward_share(F(1), gated=True) == 1


@pytest.mark.parametrize("skipped", list(Skipped))
def test_skipped_tokens_against_a_count_of_rows_and_pairs(skipped: Skipped) -> None:
    tokens, width, per_token = 20, 8, 7
    for kept in range(tokens + 1):
        keys = tokens if skipped is Skipped.QUERIES else kept
        pairs = sum(width for _ in range(kept) for _ in range(keys))
        block = TokenBlock(tokens * per_token, tokens * tokens * width, router_inputs=4, tokens=tokens)
        sparsity = 1 - F(kept, tokens)
        assert pruned_macs([block], [sparsity], skipped) == kept * per_token + pairs + 4 * tokens


def test_a_tile_by_its_bits() -> None:
    assert MUSTAFAR.tile_bits(0) == 64 + 32
    assert MUSTAFAR.tile_bits(1) == MUSTAFAR.tile_bits(8) == 64 + 32 + 8 * 16
    assert MUSTAFAR.tile_bits(9) == 64 + 32 + 16 * 16
    assert cache_bits([0, 9, 64]) == 3 * 96 + 16 * (0 + 16 + 64)


def test_the_expected_share_is_the_mean_over_all_placements() -> None:
    """Every choice of kept values in a head of two small tiles, enumerated."""
    tiles = BitmapTiles(tile=6, padding=4)
    for kept in range(13):
        sizes = [
            cache_bits([sum(p < 6 for p in places), sum(p >= 6 for p in places)], tiles)
            for places in combinations(range(12), kept)
        ]
        assert expected_share(12, kept, tiles) == F(sum(sizes), len(sizes) * 2 * tiles.dense_bits)


def test_a_cache_of_llama() -> None:
    assert cache_bytes(32, 32, 128, 4096) == 2 * 32 * 32 * 128 * 4096 * 2


def test_chunks_against_their_unions_and_independence() -> None:
    random, experts = Random(0), 40
    active = [frozenset(random.sample(range(experts), 8)) for _ in range(4000)]
    unions = [active[i] | active[i + 1] | active[i + 2] | active[i + 3] for i in range(0, 4000, 4)]
    assert chunk_sparsity(active, experts, 4) == 1 - F(sum(map(len, unions)), experts * len(unions))
    assert token_sparsity(active, experts) == F(4, 5)
    assert float(chunk_sparsity(active, experts, 4)) == pytest.approx(
        float(expected_chunk_sparsity(F(4, 5), 4)), abs=0.01
    )
    same = [active[0]] * 8
    assert chunk_sparsity(same, experts, 8) == token_sparsity(same, experts)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: feed_forward_share(F(3, 2)), "must be between 0 and 1 (nearest: 1)"),
        (lambda: effective_density(F(1, 2), 16, F(17)), "accepted/kernel is 1.0625"),
        (lambda: effective_density(F(1, 2), 16, F(0)), "at least 1"),
        (lambda: sliced_width(64, F(99, 100)), "leaves no multiple of 8 of 64"),
        (lambda: macs_after(100, F("-1.5")), "1 + change is -0.5"),
        (lambda: expected_share(96, 10), "not made of tiles of 64 (nearest: 64)"),
        (lambda: expected_share(128, 129), "cannot keep 129; it keeps 0 to 128"),
        (lambda: MUSTAFAR.tile_bits(65), "a tile of 64 values cannot keep 65"),
        (lambda: chunk_sparsity([{0}], 4, 2), "make no chunk of 2"),
        (lambda: chunk_sparsity([{4}], 4, 1), "numbered from 0 to 3"),
        (lambda: pruned_macs([TokenBlock(1, 1)], []), "0 sparsities for 1 blocks"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(call: object, says: str) -> None:
    assert callable(call)
    with pytest.raises(InputError) as error:
        call()
    assert says in str(error.value)
