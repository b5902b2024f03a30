"""Masks: exact counts, streams that depend on nothing but the seed and the name, structures that hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, nn

import iftplan as ift
from iftplan.base.errors import InputError, StaleError
from iftplan.masks import NM, Block, Channel, ConstantFanIn, MaskStructure, Unstructured
from iftplan.nn.application.structure import skeleton_
from iftplan.nn.masks.drawing import random_mask, shares
from iftplan.nn.masks.masked_weights import draw_masks_, enforce_, masked_weights, stream
from tests.support.models.applied import host, masks_of, planned

sizes = st.integers(1, 9)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@given(st.integers(1, 120), st.integers(1, 120), st.data())
def test_an_unstructured_mask_has_exactly_its_count(outputs: int, inputs: int, data: st.DataObject) -> None:
    nnz = data.draw(st.integers(0, outputs * inputs))
    mask = random_mask(Unstructured(), (outputs, inputs), nnz, generator())
    assert mask.shape == (outputs, inputs)
    assert mask.dtype is torch.bool
    assert int(mask.sum()) == nnz


@pytest.mark.parametrize("nnz", [0, 1, 250, 500_000, 999_999, 1_000_000])
def test_counts_of_large_masks_are_exact_too(nnz: int) -> None:
    # Coin flips of this size miss by hundreds (facts of published code: up to half a percent in small layers).
    assert int(random_mask(Unstructured(), (1000, 1000), nnz, generator()).sum()) == nnz


def test_published_code_flips_coins_and_misses_the_count() -> None:
    shape, nnz = (16, 27), 108
    coins = [int((torch.rand(shape, generator=generator(seed)) < nnz / 432).sum()) for seed in range(20)]
    exact = [int(random_mask(Unstructured(), shape, nnz, generator(seed)).sum()) for seed in range(20)]
    assert set(exact) == {nnz}
    assert max(abs(count - nnz) for count in coins) / 432 > 0.005


def test_large_masks_are_uniform() -> None:
    # 64 masks: each weight is kept in a quarter of them, give or take five standard deviations.
    kept = sum(random_mask(Unstructured(), (100, 100), 2500, generator(seed)).long() for seed in range(64))
    assert isinstance(kept, torch.Tensor)
    assert kept.float().mean() == 16
    assert kept.float().var() == pytest.approx(64 * 0.25 * 0.75, rel=0.1)
    assert kept.max() <= 16 + 5.5 * 12**0.5


@given(sizes, sizes, st.sampled_from([(1, 4), (2, 4), (2, 8), (8, 8)]))
def test_n_m_keeps_n_of_every_m_along_the_inputs(outputs: int, groups: int, pattern: tuple[int, ...]) -> None:
    kept, of = pattern
    mask = random_mask(NM(kept, of), (outputs, groups * of), outputs * groups * kept, generator())
    assert (mask.view(outputs, groups, of).sum(-1) == kept).all()


@given(sizes, sizes, st.sampled_from([(1, 4), (2, 4), (3, 8)]))
def test_transposable_tiles_keep_n_in_every_row_and_column(
    rows: int, columns: int, pattern: tuple[int, ...]
) -> None:
    kept, of = pattern
    mask = random_mask(
        NM(kept, of, transposable=True), (rows * of, columns * of), rows * columns * kept * of, generator()
    )
    tiles = mask.view(rows, of, columns, of)
    assert (tiles.sum(1) == kept).all()
    assert (tiles.sum(3) == kept).all()


@given(sizes, sizes, st.integers(1, 4), st.integers(1, 4), st.data())
def test_blocks_are_whole(rows: int, columns: int, height: int, width: int, data: st.DataObject) -> None:
    blocks = data.draw(st.integers(0, rows * columns))
    mask = random_mask(
        Block(height, width), (rows * width, columns * height), blocks * height * width, generator()
    )
    tiles = mask.view(rows, width, columns, height).transpose(1, 2).flatten(2)
    assert set(tiles.sum(-1).flatten().tolist()) <= {0, height * width}
    assert int(mask.sum()) == blocks * height * width


@given(sizes, st.integers(1, 40), st.data())
def test_a_constant_fan_in_is_constant(outputs: int, inputs: int, data: st.DataObject) -> None:
    fan_in = data.draw(st.integers(1, inputs))
    mask = random_mask(ConstantFanIn(), (outputs, inputs), fan_in * outputs, generator())
    assert (mask.sum(1) == fan_in).all()


@pytest.mark.parametrize(
    ("structure", "shape", "nnz"),
    [
        (NM(2, 4), (4, 8), 17),
        (NM(2, 4), (4, 8), 7),
        (NM(2, 4, True), (4, 8), 15),
        (Block(2, 2), (4, 4), 6),
        (ConstantFanIn(), (4, 4), 6),
        (Channel(), (4, 4), 6),
        (NM(2, 4), (3, 6), 6),
    ],
)
def test_a_count_that_a_structure_cannot_keep_is_refused(
    structure: MaskStructure, shape: tuple[int, int], nnz: int
) -> None:
    with pytest.raises(InputError, match=str(nnz)):
        random_mask(structure, shape, nnz, generator())


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=6), st.data())
def test_shares_add_up_and_fit(shapes: list[tuple[int, int]], data: st.DataObject) -> None:
    numel = [a * b for a, b in shapes]
    nnz = data.draw(st.integers(0, sum(numel)))
    counts = shares(Unstructured(), nnz, shapes)
    assert sum(counts) == nnz
    assert all(0 <= count <= most for count, most in zip(counts, numel, strict=True))
    assert all(abs(count - nnz * n / sum(numel)) < 1 + 1e-9 for count, n in zip(counts, numel, strict=True))


@pytest.mark.parametrize("family", ["wide", "parallel", "factorized", "doped", None])
def test_drawn_masks_have_the_counts_of_the_plan(family: str | None) -> None:
    plan = planned("convolutions", family)
    model = draw_masks_(skeleton_(plan, host("convolutions")), plan)
    found = masks_of(model)
    for layer in plan.layers:
        inside = [m for n, m in found.items() if n == layer.weight or n.startswith(f"{layer.name}.")]
        assert sum(int(m.sum()) for m in inside) == (layer.nnz if layer.maskable else 0)
        assert sum(m.numel() for m in inside) == (layer.capacity if layer.maskable else 0)
    assert sum(m.numel() for m in found.values()) == plan.cardinality.maskable_weights > 0


def test_masks_depend_on_the_seed_and_the_name_alone() -> None:
    plan = planned("convolutions", "parallel")
    first, again, other = (
        masks_of(draw_masks_(skeleton_(plan, host("convolutions")), plan, seed)) for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    branches = [mask for name, mask in first.items() if name.startswith("body.2.branches")]
    assert len(branches) == 2
    assert not torch.equal(*branches)


@settings(max_examples=20)
@given(st.integers(-(2**63), 2**63), st.text(max_size=9))
def test_every_integer_is_a_seed(seed: int, name: str) -> None:
    assert torch.rand(1, generator=stream(seed, name)) == torch.rand(1, generator=stream(seed, name))


@pytest.mark.parametrize("mask", ["2:4", "2:4T", "block4x4", "fan-in"])
def test_structured_masks_of_a_plan_hold_in_the_layout_of_the_weight(mask: str) -> None:
    name = "GPT-2" if mask != "fan-in" else "convolutions"
    plan = planned(name, "wide", "1/2", mask)
    model = draw_masks_(skeleton_(plan, host(name)), plan)
    modules = dict(model.named_modules())
    checked = 0
    for layer in plan.layers:
        if layer.maskable and layer.role.value == "transformed":
            module = modules[layer.name]
            kept = (
                module.weight_mask.T if type(module).__name__ == "Conv1D" else module.weight_mask.flatten(1)
            )
            rows, columns = kept.shape
            match mask:
                case "fan-in":
                    assert len(set(kept.sum(1).tolist())) == 1
                case "block4x4":
                    tiles = kept.view(rows // 4, 4, columns // 4, 4).sum((1, 3))
                    assert set(tiles.flatten().tolist()) <= {0, 16}
                case _:
                    assert set(kept.view(rows, columns // 4, 4).sum(-1).flatten().tolist()) <= {1, 2}
            checked += 1
    assert checked > 1


def test_patterns_of_a_convolution_run_along_its_input_channels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 4, 1))
    plan = ift.plan(ift.read_model(model, "1x3x9x9", widths=False), None, "1/2", mask="2:4")
    draw_masks_(model, plan)
    assert (model[1].weight_mask.view(12, 2, 4, 3, 3).sum(2) == 2).all()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_transposed_convolution_keeps_as_much_for_every_output(groups: int) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 12, 3, groups=groups), nn.Conv2d(12, 4, 1)
    )
    plan = ift.plan(ift.read_model(model, "1x3x9x9", widths=False), None, "1/2", mask="fan-in")
    draw_masks_(model, plan)
    mask = model[1].weight_mask.view(groups, 8 // groups, 12 // groups, 9)
    assert len(set(mask.sum((1, 3)).flatten().tolist())) == 1


def test_enforcing_clears_whatever_is_off_the_mask() -> None:
    plan = planned("perceptron", None)
    model = draw_masks_(host("perceptron"), plan)
    weight = next(iter(masked_weights(model)))
    with torch.no_grad():
        weight.parameter[~weight.mask] = float("nan")
    kept = weight.parameter[weight.mask].clone()
    enforce_(model)
    assert (weight.parameter[~weight.mask] == 0).all()
    assert torch.equal(weight.parameter[weight.mask], kept)


def test_a_mask_on_the_meta_device_is_there() -> None:
    plan = planned("convolutions", "parallel")
    model = draw_masks_(skeleton_(plan, host("convolutions").to("meta")), plan)
    masks = masks_of(model)
    assert {mask.device.type for mask in masks.values()} == {"meta"}
    assert sum(mask.numel() for mask in masks.values()) == plan.cardinality.maskable_weights


def test_a_model_without_the_plans_structure_is_stale() -> None:
    with pytest.raises(StaleError, match="were planned"):
        draw_masks_(host("perceptron"), planned("perceptron", "wide"))
    other = nn.Sequential(nn.Linear(12, 40))
    with pytest.raises(StaleError, match="does not have"):
        draw_masks_(other, planned("perceptron", None))
