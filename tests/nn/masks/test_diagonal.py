"""Diagonal masks: every one written out, and networks that are planned, trained and saved with them."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from itertools import combinations, product
from math import comb, isclose, log2
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

import iftplan as ift
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.masks import parse_mask
from iftplan.nn import SET, SRSTE, STE, Gradual, Masking, RigL, SRigL, Static, apply, masked_weights
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.nn.masks.best import choose
from iftplan.nn.masks.checking import holds
from iftplan.nn.masks.drawing import random_mask
from iftplan.nn.masks.masked_weights import to_matrix
from iftplan.plans.plan import Plan
from iftplan.runs.schedules import Updates
from tests.support.cli_runs import iftplan

DIAGONAL = parse_mask("diagonal")
SHAPES = [(4, 2), (2, 4), (3, 3), (4, 3), (3, 4), (5, 1), (1, 5)]

Cells = frozenset[tuple[int, int]]


def diagonals(outputs: int, inputs: int) -> list[Cells]:
    """Each by walking: a step along both sides at a time, as long as the shorter side lasts; the longer one is a ring."""
    found = []
    for start in range(max(outputs, inputs)):
        walk = range(min(outputs, inputs))
        if outputs > inputs:
            found.append(frozenset(((start + step) % outputs, step) for step in walk))
        else:
            found.append(frozenset((step, (start + step) % inputs) for step in walk))
    return found


def masks_of(outputs: int, inputs: int) -> dict[int, set[Cells]]:
    """All masks by their count."""
    found = defaultdict(set)
    for some in range(max(outputs, inputs) + 1):
        for chosen in combinations(diagonals(outputs, inputs), some):
            cells: Cells = frozenset().union(*chosen)
            found[len(cells)].add(cells)
    return found


def cells_of(mask: Tensor) -> Cells:
    return frozenset((int(row), int(column)) for row, column in mask.nonzero())


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_counts_cardinality_and_choices_against_all_masks_written_out(outputs: int, inputs: int) -> None:
    shape, masks = ((inputs, outputs),), masks_of(outputs, inputs)
    assert set(DIAGONAL.counts(shape)) == set(masks)
    generator = Generator().manual_seed(0)
    for nnz, those in masks.items():
        assert isclose(DIAGONAL.log2_masks(shape, nnz), log2(len(those)), abs_tol=1e-12)
        scores = torch.randint(0, 9, (outputs, inputs), generator=generator).float()
        best = choose(DIAGONAL, scores, nnz)
        assert cells_of(best) in those
        assert (scores * best).sum() == max(sum(float(scores[cell]) for cell in cells) for cells in those)
        drawn = {cells_of(random_mask(DIAGONAL, (outputs, inputs), nnz, generator)) for _ in range(200)}
        assert drawn == those, "some mask is never drawn, or something that is none"


@pytest.mark.parametrize(("outputs", "inputs"), [shape for shape in SHAPES if shape[0] * shape[1] <= 9])
def test_the_check_lets_those_masks_pass_and_no_other(outputs: int, inputs: int) -> None:
    masks: set[Cells] = set().union(*masks_of(outputs, inputs).values())
    for bits in product((False, True), repeat=outputs * inputs):
        mask = torch.tensor(bits).view(outputs, inputs)
        assert holds(DIAGONAL, mask) == (cells_of(mask) in masks)
        assert holds(DIAGONAL, mask) == holds(DIAGONAL, mask.T)


def test_matrices_of_one_layer_share_their_diagonals() -> None:
    """Two branches of four diagonals each: eight to choose of; matrices with others have no step in common."""
    assert DIAGONAL.counts(((4, 3), (4, 3))) == range(0, 25, 3)
    assert isclose(DIAGONAL.log2_masks(((4, 3), (4, 3)), 9), log2(comb(8, 3)))
    assert DIAGONAL.shares(((4, 3), (4, 3)), 9) == (6, 3)
    with pytest.raises(InfeasibleError, match=r"diagonals of the same length, but these have 2 and 3"):
        DIAGONAL.counts(((4, 3), (2, 4)))


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 24),
        nn.ReLU(),
        nn.Linear(24, 4),
    )


@cache
def planned() -> Plan:
    return ift.plan(ift.read_model(network(), "2x3x6x6"), "wide", "3/4", mask="diagonal")


UPDATES = Updates(end=16, interval=2)
METHODS: list[Algorithm] = [Static(), SET(UPDATES), RigL(UPDATES), Gradual(UPDATES), STE(), SRSTE(refresh=3)]


@pytest.mark.parametrize("method", METHODS, ids=lambda x: type(x).__name__)
def test_methods_keep_whole_diagonals_and_the_counts_of_the_plan(method: Algorithm) -> None:
    plan = planned()
    torch.manual_seed(0)
    model = apply(plan, network(), seed=1, dense_start=method.starts_dense)
    before = {x.name: x.mask.clone() for x in masked_weights(model)}
    masks = Masking(model, torch.optim.SGD(model.parameters(), 0.05), method, structure=plan.mask)
    for step in range(20):
        x = torch.randn(4, 3, 6, 6, generator=Generator().manual_seed(step))
        cross_entropy(model(x), torch.arange(4)).backward()
        masks.step()
        masks.optimizer.step()
        masks.optimizer.zero_grad()
    masks.finish()
    assert dict(masks.nnz) == {x.weight: x.nnz for x in plan.layers if x.maskable}
    for weight in masked_weights(model):
        assert holds(DIAGONAL, to_matrix(weight.mask, weight)), weight.name
        assert not weight.parameter[~weight.mask].any()
    moved = any(not torch.equal(before[x.name], x.mask) for x in masked_weights(model))
    assert moved == (not isinstance(method, Static))


def test_a_method_for_another_structure_is_refused() -> None:
    model = apply(planned(), network())
    with pytest.raises(InputError, match=r"the masks are diagonal"):
        Masking(model, torch.optim.SGD(model.parameters(), 0.1), SRigL(UPDATES), structure="diagonal")


def test_a_plan_with_diagonals_is_saved_and_read(tmp_path: Path) -> None:
    plan, file = planned(), str(tmp_path / "plan.json")
    ift.save(plan, file)
    assert ift.load(file) == plan
    assert plan.mask == "diagonal"
    assert plan.residual_macs is not None
    assert plan.residual_macs >= 0


def test_the_command_line_takes_it(tmp_path: Path) -> None:
    """64×64 weights at 1/4 are 128×128, of which 32 of 128 diagonals stay: as many masks as C(128, 32)."""
    asked = ("solve", "--layer", "linear:64-64", "--sparsity", "3/4", "--transform", "wide")
    done = iftplan(*asked, "--structure", "diagonal", "--format", "csv", cwd=tmp_path)
    header, row = (line.split(",") for line in done.out.splitlines())
    found = dict(zip(header, row, strict=True))
    assert (found["nnz"], found["capacity"]) == ("4096", "16384")
    assert isclose(float(found["log2_masks_bits"]), log2(comb(128, 32)))
    refused = iftplan(*asked, "--structure", "diagonals", cwd=tmp_path)
    assert refused.code == 2
    assert "channel, diagonal, fan-in" in refused.message
