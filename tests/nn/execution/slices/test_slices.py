"""Slices of rows against float64 products: values in every type, few columns, and nothing touched outside."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iftplan.nn.execution.kernels import threads as teams
from iftplan.nn.execution.kernels.registers import instructions_here, vectors_of
from iftplan.nn.execution.slices.formats import slice_rows

pytest.importorskip("numba", reason="numba, of the extra bench, is not installed")

from iftplan.nn.execution.slices.products import SlicedMatrix

ORDER = ("avx512", "avx2", "portable")
SETS = ORDER[ORDER.index(instructions_here()) :]
"""What this machine can run: every set below its own."""

ROOM = 96
"""Numbers on each side of what a kernel may touch."""


def sliced(
    mask: Any, weight: Any, instructions: str, kind: str | None = None, scales: Any = None
) -> SlicedMatrix:
    """A weight in slices; its entries are numbers that the kind can hold."""
    bits = 8 * weight.itemsize
    if kind == "bfloat16":
        weight = (weight.view(np.uint32) >> 16).astype(np.uint16)
    elif kind == "int8":
        weight = weight.astype(np.int8)
    return SlicedMatrix(*slice_rows(mask, weight, vectors_of(instructions, bits)), scales)


def multiplied(matrix: SlicedMatrix, x: Any, bias: Any = None, threads: int = 1) -> Any:
    """Products between guards: what is read there spreads as NaN, and what is written there is seen."""
    count, outputs = len(x), matrix.slices.outputs
    source = np.full(ROOM + x.size + ROOM, np.nan, x.dtype)
    source[ROOM:-ROOM] = x.ravel()
    target = np.full(ROOM + count * outputs + ROOM, np.nan, x.dtype)
    size = x.itemsize
    matrix.multiply(
        count, 8 * size, source.ctypes.data + ROOM * size, 0 if bias is None else bias.ctypes.data,
        target.ctypes.data + ROOM * size, threads,
    )  # fmt: skip
    assert np.isnan(target[:ROOM]).all() and np.isnan(target[-ROOM:]).all()
    return target[ROOM:-ROOM].reshape(count, outputs)


@pytest.mark.parametrize("instructions", SETS)
@settings(max_examples=60, deadline=None)
@given(
    outputs=st.integers(1, 40), channels=st.integers(1, 90), columns=st.sampled_from((1, 2, 5)),
    density=st.sampled_from((0.0, 0.05, 0.3, 1.0)), kind=st.sampled_from((None, "double", "bfloat16", "int8")),
    bias=st.booleans(), threads=st.integers(1, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_product_is_that_of_the_rounded_matrix(
    instructions: str,
    outputs: int,
    channels: int,
    columns: int,
    density: float,
    kind: str | None,
    bias: bool,
    threads: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    dtype = np.float64 if kind == "double" else np.float32
    mask = rng.random((outputs, channels)) < density
    mask[rng.integers(outputs)] = False  # a neuron without inputs
    weight = rng.standard_normal(mask.shape).astype(dtype)
    scales = None
    if kind == "bfloat16":
        weight = (weight.view(np.uint32) & 0xFFFF0000).view(np.float32)
    elif kind == "int8":
        weight = rng.integers(-127, 128, mask.shape).astype(dtype)
        scales = rng.uniform(0.001, 0.01, outputs).astype(np.float32)
    x = rng.standard_normal((columns, channels)).astype(dtype)
    added = rng.standard_normal(outputs).astype(dtype) if bias else None
    y = multiplied(sliced(mask, weight, instructions, kind, scales), x, added, threads)
    truth = x.astype(np.float64) @ (weight * mask).astype(np.float64).T
    truth = truth * (1 if scales is None else scales) + (0 if added is None else added)
    assert np.abs(y - truth).max() < (1e-12 if kind == "double" else 3e-5)


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_inputs_farther_apart_than_a_byte_and_more_than_two_bytes_number(columns: int) -> None:
    rng = np.random.default_rng(1)
    mask = np.zeros((35, 70_001), bool)
    for row, gap in enumerate((1, 2, 254, 255, 256, 257, 509, 510, 511, 512, 765, 766, 70_000)):
        mask[row, ::gap] = True
        mask[row + 13, gap::gap] = True  # the first input of the row is far away too
    mask[27:] = rng.random((8, 70_001)) < 0.002
    mask[:, -1] |= rng.random(35) < 0.5
    weight, x = (rng.standard_normal(s).astype(np.float32) for s in (mask.shape, (columns, 70_001)))
    truth = x.astype(np.float64) @ (weight * mask).astype(np.float64).T
    for instructions in SETS:
        apart = np.abs(multiplied(sliced(mask, weight, instructions), x) - truth)
        assert (apart < 1e-5 + 1e-6 * (np.abs(x) @ np.abs(weight * mask).T)).all()


def test_rows_of_a_slice_are_about_equally_long() -> None:
    mask = np.random.default_rng(2).random((1000, 500)) < 0.1
    slices, values = slice_rows(mask, mask.astype(np.float32), vectors_of("avx512"))
    assert sorted(slices.rows[slices.rows >= 0]) == list(range(1000))
    assert values.sum() == mask.sum() and values.size < 1.03 * mask.sum()
    for n in range(len(slices.starts) - 1):
        rows = slices.rows[16 * n : 16 * n + 16]
        counts = mask[rows[rows >= 0]].sum(1)
        assert slices.starts[n + 1] - slices.starts[n] == counts.max()


def test_threads_share_weights_not_rows_and_come_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    mask = rng.random((640, 300)) < np.linspace(0.02, 0.6, 640)[:, None]
    weight, x = (rng.standard_normal(s).astype(np.float32) for s in (mask.shape, (3, 300)))
    matrix = sliced(mask, weight, SETS[0])
    one = multiplied(matrix, x)
    bounds = matrix.slices.bounds(4)
    shares = np.diff(matrix.slices.starts[bounds])
    assert shares.sum() == matrix.slices.starts[-1]
    assert shares.max() < 1.2 * shares.mean(), "weights are dealt evenly"
    assert np.diff(bounds).max() > 2 * np.diff(bounds).min(), "of rows that are not alike"
    for threads in (2, 4, 7, 500):
        for _ in range(40):
            assert (multiplied(matrix, x, threads=threads) == one).all()
    monkeypatch.setattr(teams, "openmp", lambda: None)
    assert (multiplied(matrix, x, threads=3) == one).all()


def test_copies_have_addresses_of_their_own() -> None:
    rng = np.random.default_rng(4)
    mask, x = rng.random((20, 30)) < 0.4, rng.standard_normal((2, 30)).astype(np.float32)
    matrix = sliced(mask, rng.standard_normal(mask.shape).astype(np.float32), SETS[0])
    expected = multiplied(matrix, x)
    for other in (copy.deepcopy(matrix), pickle.loads(pickle.dumps(matrix))):  # noqa: S301  (ours)
        matrix.values[:] = 0
        assert (multiplied(other, x) == expected).all()
        matrix = other
