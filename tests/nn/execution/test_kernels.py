"""Sparse kernels against float64 convolutions of torch: values, gradients, and nothing touched outside."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from iftplan.base.errors import InputError
from iftplan.nn.execution.functions import sparse_conv2d, sparse_linear
from iftplan.nn.execution.kernels import threads as teams
from iftplan.nn.execution.kernels.chains import chains_of
from iftplan.nn.execution.kernels.formats import pack_mask, transpose_format
from iftplan.nn.execution.kernels.products import correlation, product, run_into
from iftplan.nn.execution.kernels.registers import instructions_here, vectors_of
from iftplan.nn.execution.kernels.tiles import tiles_of
from iftplan.nn.execution.kernels.windows import convolution, samples
from iftplan.nn.execution.sparsity import Pattern, pattern_of

pytest.importorskip("numba", reason="numba, of the extra bench, is not installed")

EMULATED = {"avx512": ("avx512", "avx2", "portable"), "avx2": ("avx2", "portable"), "portable": ("portable",)}
SETS = EMULATED[instructions_here()]
"""What this machine can run: every set below its own."""


def blocks(
    rng: np.random.Generator, outputs: int, inputs: int, density: float, height: int, width: int
) -> np.ndarray:
    """A mask of whole blocks, `height` outputs by `width` inputs."""
    drawn = rng.random((-(-outputs // height), -(-inputs // width))) < density
    return np.repeat(np.repeat(drawn, height, 0), width, 1)[:outputs, :inputs]


def compare(
    instructions: Any, mask: Any, dtype: Any, images: int = 2, size: tuple[int, int] = (1, 1), kernel: tuple[int, int] = (1, 1), stride: tuple[int, int] = (1, 1), padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1), threads: int = 1, seed: int = 0,
) -> Any:  # fmt: skip
    """Largest differences from torch in float64: of the output, of both gradients."""
    rng = np.random.default_rng(seed)
    outputs, channels = len(mask), mask.shape[1] // (kernel[0] * kernel[1])
    windows = convolution(images, size, kernel, stride, padding, dilation)
    forward = pack_mask(
        mask, chains_of(kernel, dilation[0], stride[0]), vectors_of(instructions, dtype().itemsize * 8)
    )
    backward = transpose_format(mask, chains_of(kernel, -dilation[0], stride[0]), forward)
    weight = (rng.standard_normal(mask.shape) * mask).astype(dtype)
    x = rng.standard_normal((images, *size, channels)).astype(dtype)
    bias = rng.standard_normal(outputs).astype(dtype)
    values = forward.values(weight.ravel())
    y = product(forward, values, x.ravel(), windows, bias, threads).reshape(images, *windows.target, outputs)
    dy = rng.standard_normal(y.shape).astype(dtype)
    none = np.empty(0, dtype)
    dx = product(backward, backward.values(values), dy.ravel(), windows.backwards, none, threads)
    dw = forward.matrix(correlation(forward, x.ravel(), dy.ravel(), windows, threads))

    source = torch.tensor(x).double().permute(0, 3, 1, 2).requires_grad_()
    whole = torch.tensor(weight).double().view(outputs, *kernel, channels).permute(0, 3, 1, 2)
    whole = whole.detach().requires_grad_()
    truth = torch.nn.functional.conv2d(source, whole, torch.tensor(bias).double(), stride, padding, dilation)
    truth.backward(torch.tensor(dy).double().permute(0, 3, 1, 2))
    pairs = (
        (y, truth.detach().permute(0, 2, 3, 1)),
        (dx.reshape(x.shape), source.grad.permute(0, 2, 3, 1)),
        (dw.reshape(mask.shape), whole.grad.permute(0, 2, 3, 1).reshape(mask.shape) * torch.tensor(mask)),
    )
    return [float(np.abs(a - b.numpy()).max(initial=0)) for a, b in pairs]


TOLERANCE = {np.float32: 2e-4, np.float64: 1e-11}
"""Of sums of some hundred products of unit size, in units of the last place and room."""


@pytest.mark.parametrize("instructions", SETS)
@settings(max_examples=25, deadline=None)
@given(
    outputs=st.integers(1, 40), channels=st.integers(1, 40), images=st.integers(1, 3),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)), stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)), density=st.sampled_from((0.0, 0.05, 0.3, 1.0)),
    dilation=st.integers(1, 2), block=st.sampled_from(((1, 1), (4, 1), (1, 4), (4, 4))), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_convolution_is_torchs(
    instructions: str,
    outputs: int,
    channels: int,
    images: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    density: float,
    dilation: int,
    block: tuple[int, int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    assume(all(dilation * (k - 1) < n + 2 * p for k, n, p in zip(kernel, size, padding, strict=True)))
    mask = blocks(rng, outputs, channels * kernel[0] * kernel[1], density, *block)
    mask[rng.integers(outputs)] = False  # a neuron without inputs
    found = compare(
        instructions, mask, np.float32, images, size, kernel, stride, padding, (dilation, dilation), 1, seed
    )
    assert max(found) < TOLERANCE[np.float32]


@pytest.mark.parametrize("instructions", SETS)
def test_weights_loaded_together_or_each_by_itself_give_the_same_bits(instructions: str) -> None:
    rng = np.random.default_rng(4)
    windows = convolution(2, (7, 5), (3, 3), padding=(1, 1))
    for height in (1, 4):
        mask = blocks(rng, 20, 9 * 12, 0.4, height, 1)
        x = rng.standard_normal(windows.columns * 12).astype(np.float32)
        weight = rng.standard_normal(mask.size).astype(np.float32)
        found = []
        for shuffled in (True, False):
            packed = pack_mask(mask, chains_of((3, 3)), replace(vectors_of(instructions), shuffled=shuffled))
            found.append(product(packed, packed.values(weight), x, windows, np.empty(0, np.float32)))
        assert found[0].any() and (found[0] == found[1]).all()


def test_doubles_are_exact_to_their_own_rounding() -> None:
    rng = np.random.default_rng(1)
    for block in ((1, 1), (4, 4)):
        mask = blocks(rng, 24, 9 * 20, 0.3, *block)
        found = compare(SETS[0], mask, np.float64, 3, (7, 6), (3, 3), (2, 1), (1, 2), (1, 2))
        assert max(found) < TOLERANCE[np.float64]


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("batch", [1, 2, 63, 64, 65, 200])
def test_batches_that_fill_no_tile_and_more_columns_than_a_block(instructions: str, batch: int) -> None:
    mask = np.random.default_rng(batch).random((37, 700)) < 0.1
    assert max(compare(instructions, mask, np.float32, batch)) < TOLERANCE[np.float32]


def test_more_outputs_than_a_row_block() -> None:
    for block in (1, 4):
        mask = blocks(np.random.default_rng(2), 4100, 33, 0.2, block, 1)
        assert max(compare(SETS[0], mask, np.float32, 70)) < TOLERANCE[np.float32]


def test_threads_of_torch_and_of_our_own_come_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is first; sums of several parts are added up in the order of tiles."""
    mask = np.random.default_rng(3).random((20, 24)) < 0.3
    held = pack_mask(mask, chains_of((1, 1)), vectors_of("portable"))
    x, dy = (np.random.default_rng(n).standard_normal(900 * n).astype(np.float32) for n in (24, 20))
    assert teams.openmp() is not None, "this torch is built with OpenMP"
    found = [correlation(held, x, dy, samples(900), threads=7) for _ in range(20)]
    values, none = held.values(np.ones(mask.size, np.float32)), np.empty(0, np.float32)
    y = product(held, values, x, samples(900), none, threads=7)
    monkeypatch.setattr(teams, "openmp", lambda: None)
    ours = correlation(held, x, dy, samples(900), threads=7)
    assert all((sums == ours).all() for sums in found)
    assert (product(held, values, x, samples(900), none, threads=7) == y).all()
    assert (product(held, values, x, samples(900), none) == y).all()
    assert (ours != correlation(held, x, dy, samples(900))).any(), "other sums, or nothing is shown"


def test_threads_share_the_tiles() -> None:
    mask = np.random.default_rng(3).random((20, 9 * 8)) < 0.3
    for threads in (2, 3, 50):
        found = compare(SETS[0], mask, np.float32, 3, (9, 9), (3, 3), padding=(1, 1), threads=threads)
        assert max(found) < TOLERANCE[np.float32]


@pytest.mark.parametrize(
    ("mask", "forward", "backward"),
    [
        (blocks(np.random.default_rng(4), 16, 24, 0.5, 4, 4), True, True),
        (blocks(np.random.default_rng(4), 16, 24, 0.5, 4, 1), True, False),
        (blocks(np.random.default_rng(4), 16, 24, 0.5, 1, 4), False, True),
        (blocks(np.random.default_rng(4), 16, 24, 0.5, 1, 1), False, False),
        (blocks(np.random.default_rng(4), 15, 24, 0.5, 4, 4), False, True),  # the last block is cut
    ],
    ids=["4x4", "4x1", "1x4", "unstructured", "cut"],
)
def test_rows_that_share_their_columns_are_seen(mask: Any, forward: bool, backward: bool) -> None:
    vectors = vectors_of("portable")
    there = pack_mask(mask, chains_of((1, 1)), vectors)
    assert (there.shared, transpose_format(mask, chains_of((1, 1)), there).shared) == (forward, backward)
    assert int((there.places >= 0).sum()) == mask.sum()


def test_equal_fan_in_is_not_padded() -> None:
    mask = np.zeros((40, 100), bool)
    for row in mask:
        row[np.random.default_rng(row.ctypes.data % 97).permutation(100)[:7]] = True
    assert pack_mask(mask, chains_of((1, 1)), vectors_of("portable")).slots == 40 * 7


def test_nothing_outside_is_read_or_written() -> None:
    """Source and target lie between guards: NaN would spread, and what is written over would differ."""
    rng = np.random.default_rng(5)
    for instructions in SETS:
        vectors = vectors_of(instructions)
        for outputs, channels, size in ((1, 1, (3, 3)), (17, 15, (3, 5)), (5, 33, (4, 3))):
            mask = rng.random((outputs, 9 * channels)) < 0.5
            found = pack_mask(mask, chains_of((3, 3)), vectors)
            windows = convolution(1, size, (3, 3), padding=(1, 1))
            source = np.full(512 + windows.columns * channels + 512, np.nan, np.float32)
            source[512:-512] = 1
            target = np.full(512 + windows.columns * outputs + 512, np.nan, np.float32)
            values = found.values(mask.astype(np.float32).ravel())
            run_into(target[512:-512], found, values, source[512:-512], windows)
            assert np.isfinite(target[512:-512]).all()
            assert np.isnan(target[:512]).all() and np.isnan(target[-512:]).all()


def test_gradients_of_gradients_checker() -> None:
    torch.manual_seed(0)
    mask = torch.rand(6, 5, 3, 2) < 0.4
    pattern = pattern_of(mask, torch.float64, stride=(2, 1))
    weight = torch.randn(6, 5, 3, 2).double() * mask
    x, bias = torch.randn(2, 5, 5, 4).double().requires_grad_(), torch.randn(6).double().requires_grad_()

    def run(x: Any, kept: Any, bias: Any) -> Any:
        whole = torch.zeros_like(weight).masked_scatter(mask, kept)
        return sparse_conv2d(x, whole, bias, pattern, (1, 1))

    assert torch.autograd.gradcheck(run, (x, weight[mask].requires_grad_(), bias), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_share_room_only_when_nobody_holds_the_last_one(dtype: torch.dtype) -> None:
    """What others did to a gradient, and gradients that are kept or accumulated, must not be seen in the next."""
    torch.manual_seed(2)
    mask = torch.rand(24, 40) < 0.2
    mask[3] = False
    pattern = pattern_of(mask, dtype)
    weight = torch.randn(24, 40, dtype=dtype).mul_(mask).requires_grad_()

    def gradient(x: Any) -> Any:
        sparse_linear(x, weight, None, pattern).sum().backward()
        found, weight.grad = weight.grad, None
        return found

    first, second = torch.randn(5, 40, dtype=dtype), torch.randn(5, 40, dtype=dtype)
    truths = [mask * x.sum(0) for x in (first, second)]
    held = gradient(first)
    place = held.data_ptr()
    both = held, gradient(second)
    for found, truth in zip(both, truths, strict=True):
        torch.testing.assert_close(found, truth)
    del held, both, found
    spoilt = gradient(first).fill_(torch.nan)
    places = {place, spoilt.data_ptr()}
    del spoilt
    again = gradient(second)
    torch.testing.assert_close(again, truths[1])
    assert again.data_ptr() in places, "the room is used again"
    del again
    for x in (first, second):  # accumulated
        sparse_linear(x, weight, None, pattern).sum().backward()
    torch.testing.assert_close(weight.grad, sum(truths))
    assert pickle.dumps(pattern), "models are saved whole, and copied"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pattern: pickle.loads(pickle.dumps(pattern))])  # noqa: S301  (our own)
def test_a_copy_names_arrays_of_its_own(copied: Callable[[Pattern], Pattern]) -> None:
    """Jobs name arrays by their addresses: those of a copy must outlive the pattern that it was copied from."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(24, 40, generator=generator) < 0.3
    weight, x = torch.randn(24, 40, generator=generator) * mask, torch.randn(9, 40, generator=generator)
    first = pattern_of(mask, torch.float32)
    before = sparse_linear(x, weight, None, first)
    assert len(first.forward.sweeps) == 1
    second = copied(first)
    assert not second.forward.sweeps
    torch.testing.assert_close(before, x @ weight.T)
    for array in ("offsets", "rows", "counts", "panels", "row_starts", "blocks"):
        getattr(first.forward, array)[...] = 0  # what a freed array may hold
    assert torch.equal(sparse_linear(x, weight, None, second), before)


def test_numbers_of_samples_come_and_go() -> None:
    """Jobs of the last few kinds of windows are kept, each with its own tiles."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(8, 12, generator=generator) < 0.5
    weight, pattern = torch.randn(8, 12, generator=generator) * mask, pattern_of(mask, torch.float32)
    for count in (*range(1, 40), *range(40, 0, -3)):
        x = torch.randn(count, 12, generator=generator)
        with torch.no_grad():
            alone = sparse_linear(x, weight, None, pattern)
        torch.testing.assert_close(alone, x @ weight.T)
        assert torch.equal(sparse_linear(x, weight, None, pattern), alone), "with autograd or without it"
    assert len(pattern.forward.sweeps) <= 16


def test_inputs_of_any_strides_and_leading_sizes() -> None:
    torch.manual_seed(1)
    mask = torch.rand(10, 12) < 0.3
    weight = torch.randn(10, 12) * mask
    pattern = pattern_of(mask, torch.float32)
    for x in (
        torch.randn(12),
        torch.randn(12, 7).T,
        torch.randn(3, 12, 5).movedim(1, 2),
        torch.randn(2, 3, 4, 24)[..., ::2],
    ):
        torch.testing.assert_close(
            sparse_linear(x, weight, None, pattern), torch.nn.functional.linear(x, weight)
        )
    mask = torch.rand(9, 8, 3, 3) < 0.3
    weight = torch.randn(9, 8, 3, 3) * mask
    pattern = pattern_of(mask, torch.float32)
    for x in (
        torch.randn(2, 8, 5, 6),
        torch.randn(2, 8, 6, 5).transpose(2, 3),
        torch.randn(2, 16, 5, 6)[:, ::2],
    ):
        for held in (weight, weight.to(memory_format=torch.channels_last)):
            torch.testing.assert_close(
                sparse_conv2d(x, held, None, pattern, padding=(1, 1)),
                torch.nn.functional.conv2d(x, held, padding=1),
            )


def read_by(windows: Any, pixel: Any, position: Any) -> Any:
    """The source pixel that a target reads at a position of the kernel, by the definition of a convolution."""
    image, rest = divmod(pixel, windows.target[0] * windows.target[1])
    at = divmod(rest, windows.target[1]), divmod(position, windows.kernel[1])
    found = []
    for axis in (0, 1):
        reached = at[0][axis] * windows.scale[axis] + at[1][axis] * windows.step[axis] + windows.shift[axis]
        whole, left = divmod(reached, windows.division[axis])
        if left or not 0 <= whole < windows.source[axis]:
            return -1
        found.append(whole)
    return (image * windows.source[0] + found[0]) * windows.source[1] + found[1]


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 3), size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 3)), stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilation=st.integers(1, 3), backwards=st.booleans(), lanes=st.sampled_from((2, 4, 16)), count=st.integers(1, 4),
)  # fmt: skip
def test_tiles_hold_every_pixel_once_and_chains_read_what_convolutions_do(
    images: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: int,
    backwards: bool,
    lanes: int,
    count: int,
) -> None:
    padding = (dilation * (kernel[0] - 1), dilation * (kernel[1] - 1))
    windows = convolution(images, size, kernel, stride, padding, (dilation, dilation))
    chains = chains_of(kernel, -dilation if backwards else dilation, stride[0])
    windows = windows.backwards if backwards else windows
    tiles, starts = tiles_of(windows, chains, lanes, count), chains.vectors(count)
    assert sorted(tiles.targets[tiles.targets >= 0]) == list(range(windows.columns))
    assert sorted(p for chain in chains.chains for p in chain.positions) == list(range(kernel[0] * kernel[1]))
    for t, depth in enumerate(tiles.depths):
        assert (tiles.targets[t, :depth] >= 0).any(1).all() and (tiles.targets[t, depth:] < 0).all()
        for c, chain in enumerate(chains.chains):
            anything = False
            for position, ahead in zip(chain.positions, chain.ahead, strict=True):
                for z, j in zip(*np.nonzero(tiles.targets[t] >= 0), strict=True):
                    read = read_by(windows, int(tiles.targets[t, z, j]), position)
                    assert tiles.sources[t, starts[c] + z + ahead, j] == read
                    anything |= read >= 0
            assert tiles.there[t, c] or not anything


def test_strided_gradients_pass_over_what_no_pixel_reads() -> None:
    backwards = convolution(2, (8, 8), (3, 3), stride=(2, 2), padding=(1, 1)).backwards
    tiles = tiles_of(backwards, chains_of((3, 3), -1, 2), 16, 4)
    pixels = tiles.targets[tiles.targets >= 0]
    assert sorted(pixels) == list(range(128))
    for targets, there in zip(tiles.targets, tiles.there, strict=True):
        held = targets[targets >= 0]
        (remainders,) = {(int(p) % 8 % 2, int(p) // 8 % 2) for p in held}
        assert there.sum() == (2 if remainders[0] else 1), "columns that are odd are read at two positions"


@pytest.mark.parametrize(
    "wrong", ["fewer", "more", "double", "bias", "values", "images", "weight", "weight type"]
)
def test_what_does_not_fit_never_reaches_the_kernels(wrong: str) -> None:
    """They read at addresses: a size too many would be somebody else's memory."""
    mask = torch.rand(9, 8, 3, 3) < 0.3
    pattern = pattern_of(mask, torch.float32)
    x, weight, bias, values = torch.randn(2, 8, 5, 5), torch.randn(9, 8, 3, 3), torch.randn(9), None
    match wrong:
        case "fewer" | "more":
            x = torch.randn(2, 7 if wrong == "fewer" else 9, 5, 5)
        case "double":
            x = x.double()
        case "bias":
            bias = bias[:8]
        case "values":
            values = torch.randn(pattern.forward.slots - 1)
        case "images":
            x = x[0]
        case "weight":
            weight = weight[:, :, :2]
        case "weight type":
            weight = weight.double()
    with pytest.raises(InputError, match=r"given|not a batch of images"):
        sparse_conv2d(x, weight, bias, pattern, (1, 1), values)
    linear = pattern_of(mask[:, :, 0, 0], torch.float32)
    with pytest.raises(InputError, match="an input of 7 channels"):
        sparse_linear(torch.randn(3, 7), torch.randn(9, 8), None, linear)


def test_refusals() -> None:
    with pytest.raises(InputError, match="does not fit an input of 2×2"):
        convolution(1, (2, 2), (3, 3))
    with pytest.raises(InputError, match="avx512, avx2, portable"):
        vectors_of("neon")
    assert samples(3).columns == 3
