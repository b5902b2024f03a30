"""Structured matrices against calculators written apart, from the shapes of the papers' factors."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from math import ceil, isqrt, log2, prod, sqrt
from random import Random

import pytest

from iftplan.base.errors import InfeasibleError
from iftplan.families.builtin import FAMILIES
from iftplan.families.document import solve_document
from iftplan.families.solution import Outcome
from iftplan.families.solver import solve
from iftplan.families.steps import explain
from iftplan.families.transforms.blocks import root_grid
from iftplan.models.notation import parse_layer
from iftplan.models.spec import Kind, LayerSpec

CONFIGURATIONS = 1000


def monarch(inputs: int, outputs: int, taps: tuple[int, int], rank: int) -> int:
    """blkdiag1 (blocks, rank, in_blksz) and blkdiag2 (blocks, out_blksz, rank), as the released code has them."""
    blocks = min(4, inputs, outputs)
    in_blksz, out_blksz = ceil(inputs / blocks), ceil(outputs / blocks)
    return blocks * rank * in_blksz * taps[0] + blocks * out_blksz * rank * taps[1]


def btt(inputs: int, outputs: int, taps: tuple[int, int], rank: int) -> int:
    """Cores (m2, m1, r·n1) and (n1, r·m2, n2) for inputs m1·m2 and outputs n1·n2, as many as need little padding."""
    m2, n1 = (split(channels) for channels in (inputs, outputs))
    m1, n2 = ceil(inputs / m2), ceil(outputs / n1)
    return m2 * (m1 * taps[0]) * (rank * n1) + n1 * (rank * m2) * (n2 * taps[1])


def kronecker(inputs: int, outputs: int, taps: tuple[int, int], rank: int) -> int:
    """B of (n2, m2) once for each of m1 columns, then A of (n1, m1) for each of n2 rows, for m1·m2 inputs and n1·n2 outputs."""
    m1, n2 = (split(channels) for channels in (inputs, outputs))
    m2, n1 = ceil(inputs / m1), ceil(outputs / n2)
    once = n2 * m2 * taps[0], n1 * m1 * taps[1]
    return rank * (once[0] * m1 + once[1] * n2)


def kronecker_weights(inputs: int, outputs: int, taps: tuple[int, int], rank: int) -> int:
    """Entries of both factors of each product."""
    m1, n2 = (split(channels) for channels in (inputs, outputs))
    return rank * (n2 * ceil(inputs / m1) * taps[0] + ceil(outputs / n2) * m1 * taps[1])


def butterfly(inputs: int, outputs: int, taps: tuple[int, int], rank: int) -> int:
    """Factors of n blocks, each with two of r×r for every block; those at the ends have the blocks of both sides."""
    n = 16
    while n > 4 and n > min(inputs, outputs):
        n //= 2
    ends = 2 * rank * n * (ceil(inputs / n) * taps[0] + ceil(outputs / n) * taps[1])
    return ends + (int(log2(n)) - 2) * 2 * n * rank * rank


def split(channels: int) -> int:
    """The least padded number of blocks above half and up to twice the root; of these the nearest to it."""
    root = isqrt(channels)
    tried = [(ceil(channels / b) * b, abs(b * b - channels), b) for b in range(root // 2 + 1, 2 * root + 1)]
    return min(tried)[2]


CALCULATORS: dict[str, Callable[[int, int, tuple[int, int], int], int]] = {
    "monarch": monarch,
    "btt": btt,
    "kronecker": kronecker,
    "butterfly": butterfly,
}
WEIGHTS = CALCULATORS | {"kronecker": kronecker_weights}


def random_layer(random: Random) -> LayerSpec:
    kind = random.choice([Kind.LINEAR, Kind.LINEAR, Kind.CONV2D, Kind.CONV_TRANSPOSE2D])
    kernel = () if kind is Kind.LINEAR else (random.randint(1, 4), random.randint(1, 4))
    inputs, outputs = random.randint(1, 400), random.randint(1, 400)
    return LayerSpec("any", kind, inputs, outputs, kernel, 1, random.randint(1, 50))


@pytest.mark.parametrize("name", CALCULATORS)
def test_a_thousand_layers_cost_what_the_papers_shapes_do(name: str) -> None:
    random, feasible = Random(7), 0
    for _ in range(CONFIGURATIONS):
        layer, density = random_layer(random), Fraction(random.randint(1, 100), 100)
        found = solve(layer, FAMILIES[name], 1 - density, throw=False)
        assert layer.in_channels is not None and layer.out_channels is not None
        before, after = (
            ceil(Fraction(isqrt_up(Fraction(c * c) / density))) if density < 1 else c
            for c in (layer.in_channels, layer.out_channels)
        )
        window = prod(layer.kernel)
        taps = (1, window) if layer.kind.transposed else (window, 1)
        budget = layer.in_channels * layer.out_channels * window
        most = largest(partial(CALCULATORS[name], before, after, taps), budget)
        if not most:
            assert found.outcome is Outcome.INFEASIBLE
            continue
        feasible += 1
        assert found.structure["rank"] == most
        assert found.dense_weights == WEIGHTS[name](before, after, taps, most)
        assert found.macs == layer.positions * CALCULATORS[name](before, after, taps, most)
        assert found.reuse == Fraction(
            CALCULATORS[name](before, after, taps, 1), WEIGHTS[name](before, after, taps, 1)
        )
        assert found.residual_macs == layer.dense_macs - found.macs >= 0
        assert (found.nnz, found.capacity, found.cardinality.log2_masks) == (0, 0, 0.0)
    assert feasible > CONFIGURATIONS / 2


def largest(cost: Callable[[int], int], budget: int) -> int:
    """The largest number whose cost is within the budget, by bisection."""
    low, high = 0, budget + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    return low


def isqrt_up(square: Fraction) -> int:
    """The smallest whole number whose square is at least this."""
    root = isqrt(ceil(square))
    return root + (root * root < square)


def test_a_monarch_pair_costs_what_a_low_rank_pair_does_and_has_four_times_its_rank() -> None:
    layer = parse_layer("linear:768-3072@1024")
    ours, theirs = (solve(layer, FAMILIES[name], Fraction(3, 4)) for name in ("monarch", "lowrank"))
    assert ours.macs == theirs.macs
    assert ours.structure == theirs.structure


@pytest.mark.parametrize("d", [256, 1024, 4096])
def test_a_square_block_tensor_train_costs_two_r_times_d_to_three_halves(d: int) -> None:
    """arXiv 2406.06248, section 2.2: 2·r·d^(3/2) multiply-adds and as many parameters."""
    layer = parse_layer(f"linear:{d}-{d}")
    assert root_grid(d, d).weights(layer, 3) == 2 * 3 * d * isqrt(d)
    found = solve(layer, FAMILIES["btt"], Fraction(0))
    assert found.structure["rank"] == isqrt(d) // 2
    assert found.residual_macs == 0


@pytest.mark.parametrize("d", [256, 1024, 4096])
def test_a_square_kronecker_product_has_two_d_weights(d: int) -> None:
    """arXiv 2406.06248, section 2: 2·d parameters and 2·d^(3/2) multiply-adds for each product."""
    found = solve(parse_layer(f"linear:{d}-{d}@7"), FAMILIES["kronecker"], Fraction(0))
    assert found.structure["rank"] == isqrt(d) // 2
    assert found.dense_weights == 2 * d * (isqrt(d) // 2)
    assert (found.reuse, found.residual_macs) == (isqrt(d), 0)


def test_steps_say_how_often_weights_are_used() -> None:
    found = solve(parse_layer("linear:256-1024@10"), FAMILIES["kronecker"], Fraction(0))
    *_, last = explain(found, FAMILIES["kronecker"]).steps
    # inputs 16·16, outputs 32·32: 32·16 + 32·16 entries, the first used 16 and the second 32 times: 24 on average
    rank = 256 * 1024 // (32 * 16 * 16 + 32 * 16 * 32)
    assert found.structure == {"in_channels": 256, "out_channels": 1024, "multiplier": 1.0, "rank": rank}
    assert last.equation.startswith(f"2621440 = 10·(24·{rank * 1024}+0)")
    assert "reuse·dense weights" in last.what
    assert solve_document({"any": [found]})["layers"][0]["solutions"][0]["reuse_exact"] == "24/1"


def test_closed_forms_at_a_density() -> None:
    for name, expected in {
        "monarch": "r = D_in·D_out/(2·(D_in+D_out))",
        "btt": "r = sqrt(2)·D_in·D_out/(4·(sqrt(D_in)·D_out+D_in·sqrt(D_out)))",
        "butterfly": "r = -(D_in+D_out-sqrt(D_in^2+18·D_in·D_out+D_out^2))/32",
        "kronecker": "r = sqrt(2)·D_in·D_out/(4·(sqrt(D_in)·D_out+D_in·sqrt(D_out)))",
    }.items():
        assert solve(parse_layer("linear"), FAMILIES[name], Fraction(3, 4)).closed_form == expected


def test_the_real_rank_meets_the_equation() -> None:
    m, n, d = 900, 1600, Fraction(1, 4)
    k = 2.0
    rank = float(FAMILIES["btt"].form.full.value(m, n, d, k, 0))
    assert rank * (k * m * sqrt(k * n) + k * n * sqrt(k * m)) == pytest.approx(m * n)


def test_a_square_product_of_butterflies() -> None:
    """1024 to 1024 in 16 blocks: 4·1024·r + 64·r² = 1024² has the root r = 16·2·(√17 - 1) = 99.9, so 99."""
    found = solve(parse_layer("linear:1024-1024@3"), FAMILIES["butterfly"], Fraction(0))
    assert found.structure["rank"] == 99
    assert found.macs == 3 * (4 * 1024 * 99 + 64 * 99 * 99)


def test_groups_and_depthwise_layers_stay() -> None:
    grouped = solve(parse_layer("conv3x3:64-64@8x8,groups=4"), FAMILIES["monarch"], Fraction(1, 2))
    assert grouped.outcome is Outcome.GROUPED
    assert grouped.macs == grouped.dense_macs
    assert (
        solve(parse_layer("dwconv3x3:64@8x8"), FAMILIES["btt"], Fraction(1, 2)).outcome is Outcome.LEFT_ALONE
    )


def test_a_layer_too_small_for_a_rank_is_refused() -> None:
    with pytest.raises(InfeasibleError, match="would need a rank of"):
        solve(parse_layer("linear:3-3"), FAMILIES["btt"], Fraction(9, 10))
