"""Updates as functions of values: the tables worked out by hand, and the numbers that PyTorch's own code gives."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("jax", reason="JAX, of the extra jax, is not installed")
pytest.importorskip("torch", reason="masks are held against those of PyTorch")

import jax
import jax.numpy as jnp
import numpy as np
import torch

from iftplan.jaxnn.masking.exchange import drop_grow
from iftplan.jaxnn.masking.top_k import first, largest
from iftplan.nn.masking.algorithms.exchange.drop_grow import drop_grow as torch_drop_grow
from iftplan.nn.masking.layer import Layer
from iftplan.nn.masks.top_k import first as torch_first
from iftplan.runs.schedules import whole_part
from tests.support.runs.mask_update import GRADIENT, MASK, TABLE, WEIGHTS


def row(values: list[Any]) -> Any:
    return jnp.asarray([values], jnp.float32)


def ones(mask: Any) -> list[int]:
    return [int(place) for place in np.flatnonzero(np.asarray(mask))]


compiled = jax.jit(drop_grow, static_argnames="regrow")


@pytest.mark.parametrize(("fraction", "regrow", "mask", "grown"), TABLE)
def test_drop_and_grow_by_hand(fraction: float, regrow: bool, mask: list[int], grown: list[int]) -> None:
    dropped = whole_part(sum(MASK), fraction)
    found = compiled(row(WEIGHTS), row(MASK) > 0, row(GRADIENT), dropped, regrow=regrow)
    assert (ones(found[0]), ones(found[1])) == (mask, grown)


def test_equal_weights_and_equal_gradients_are_told_apart_by_place() -> None:
    mask = row([1, 1, 1, 1, 0, 0]) > 0
    found = compiled(row([1] * 6), mask, row([1] * 6), 2, regrow=False)
    assert ones(found[0]) == [0, 1, 4, 5]
    back = compiled(row([1] * 6), mask, row([1] * 6), 2, regrow=True)
    assert (ones(back[0]), ones(back[1])) == ([0, 1, 2, 3], [2, 3])


@pytest.mark.parametrize(
    ("mask", "regrow", "expected"),
    [
        ([1, 1, 1, 1], True, [0, 1, 2, 3]),
        ([1, 1, 1, 1], False, [0, 1, 2, 3]),  # full, and nothing else could grow: nothing is dropped
        ([0, 0, 0, 0], True, []),
        ([0, 0, 0, 0], False, []),
        ([1, 1, 1, 0], False, [1, 2, 3]),  # two to grow and room for one: the larger of the two dropped stays
    ],
)
def test_full_empty_and_narrow(mask: list[int], regrow: bool, expected: list[int]) -> None:
    found = compiled(
        row([1, 2, 3, 0]), row(mask) > 0, row([4, 3, 2, 1]), whole_part(sum(mask), 0.7), regrow=regrow
    )
    assert ones(found[0]) == expected


@pytest.mark.parametrize("regrow", [True, False])
@pytest.mark.parametrize(("rows", "units"), [(1, 40), (10, 4), (5, 8)])
def test_updates_are_those_of_pytorch_ties_included(rows: int, units: int, regrow: bool) -> None:
    """Few different values, so that most scores tie."""
    numbers = np.random.default_rng(rows)
    for _ in range(40):
        mask = numbers.random((rows, units)) < numbers.random()
        magnitude = numbers.integers(0, 4, (rows, units)).astype(np.float32) * mask
        growth = numbers.integers(0, 4, (rows, units)).astype(np.float32)
        fraction = float(numbers.random())
        layer = Layer("weight", torch.tensor(magnitude), None, None, torch.tensor(mask), 0, torch.Generator())
        change = torch_drop_grow(layer, torch.tensor(growth), fraction, regrow=regrow)
        dropped = whole_part(int(mask.sum()), fraction)
        found = compiled(magnitude, mask, growth, dropped, regrow=regrow)
        assert np.array_equal(found[0], change.mask)
        assert np.array_equal(found[1], change.grown)


def test_the_first_of_equals_are_chosen_as_in_pytorch() -> None:
    numbers = np.random.default_rng(0)
    chosen = jax.jit(first)
    for _ in range(40):
        scores = numbers.integers(-1, 4, (6, 9)).astype(np.float32)
        counts = numbers.integers(-1, 10, 6)
        expected = torch_first(torch.tensor(scores), torch.tensor(counts))
        assert np.array_equal(chosen(scores, counts), expected)


def test_short_rows_are_those_that_lose_least_as_in_pytorch() -> None:
    numbers = np.random.default_rng(0)
    chosen = jax.jit(largest, static_argnums=3)
    for experts, short in ((1, 3), (2, 4), (1, 0)):
        scores = numbers.random((8, 4)).astype(np.float32)
        full = torch.ones(8, 4, dtype=torch.bool)
        layer = Layer(
            "weight",
            torch.tensor(scores),
            None,
            None,
            full,
            2,
            torch.Generator(),
            short=short,
            experts=experts,
        )
        assert np.array_equal(chosen(scores, 2, short, experts), layer.largest(layer.magnitude, 2))
