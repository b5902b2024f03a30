"""Algorithms with their papers' defaults, by name, and on schedules that are fractions of training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import iftplan as ift
from iftplan import nn as inn
from iftplan.nn.masking.algorithms import run_methods
from iftplan.runs import Cosine, Updates

NEEDS = {
    "rigl",
    "set",
    "srigl",
    "gradual",
    "granet",
    "mest",
    "snfs",
    "iterative",
    "mask-decay",
    "structure-decay",
    "cast",
}
STRUCTURES = {"srigl": "fan-in", "structure-decay": "2:4", "transposable": "2:4T"}


def sparse(structure: str = "unstructured", *, dense_start: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    return inn.sparsify(net, 0.5, structure=structure, dense_start=dense_start)


def masking(model: nn.Module, *given: Any, **named: Any) -> inn.Masking:
    return inn.Masking(model, torch.optim.SGD(model.parameters(), 0.01), *given, **named)


def test_rigl_has_the_defaults_of_its_paper() -> None:
    rigl = inn.RigL()
    assert rigl.updates == Updates(end=0.75, interval=100)
    assert rigl.fraction == Cosine(0.3)
    begun = masking(sparse(), rigl, steps=10_000).algorithm
    assert begun == inn.RigL(Updates(end=7500)) == inn.RigL(end=7500)
    assert [step for step in range(10_000) if begun.due(step)] == [*range(100, 7500, 100)]


@pytest.mark.parametrize("kind", [inn.RigL, inn.SET, inn.SRigL, inn.MEST, inn.SNFS, inn.Gradual, inn.GraNet])
def test_a_schedule_is_given_whole_or_by_its_parts(kind: Any) -> None:
    whole = kind(Updates(end=0.5, interval=7, begin=0.25))
    assert kind(interval=7, begin=0.25, end=0.5) == whole
    assert kind(Updates(end=0.5, interval=100, begin=0.25), interval=7) == whole
    assert whole.over(200).updates == Updates(end=100, interval=7, begin=50)
    assert kind(Updates(end=9)).over(200).updates == Updates(end=9)
    assert replace(whole, order=inn.Order.REPLACE).updates == whole.updates
    assert whole.needs_length and not whole.over(200).needs_length


@pytest.mark.parametrize(
    ("algorithm", "same"),
    [
        (inn.Iterative(), inn.Iterative(75, 10)),
        (inn.Iterative(end=0.5, rounds=2, begin=0.1), inn.Iterative(50, 2, 10)),
        (inn.StructureDecay(), inn.StructureDecay(75)),
        (inn.MaskDecay(end=0.5), inn.MaskDecay(None, end=50)),
    ],
)
def test_other_schedules_end_at_fractions_too(algorithm: Any, same: Any) -> None:
    assert algorithm.needs_length
    assert algorithm.over(100) == same


def test_mask_decay_arrives_at_its_end_by_itself() -> None:
    decay = inn.MaskDecay().over(100)
    assert [decay.leak(step) for step in (0, 30, 75)] == [1, pytest.approx(0.6), 0]
    assert decay.arrival == 75
    assert inn.MaskDecay(0.5).over(100).arrival == 2


@pytest.mark.parametrize("name", sorted(run_methods()))
def test_every_algorithm_trains_by_its_name(name: str) -> None:
    dense_start = getattr(run_methods()[name], "starts_dense")  # noqa: B009  (of every algorithm)
    model = sparse(STRUCTURES.get(name, "unstructured"), dense_start=dense_start)
    if name in NEEDS:
        with pytest.raises(ift.InputError, match=r"give `steps`"):
            masking(model, name)
    masks = masking(model, name.upper(), steps=240)
    wanted = dict(masks.nnz)
    for _ in range(240):
        model(torch.randn(8, 16)).square().mean().backward(create_graph=masks.wants_graph)
        masks.step()
        masks.optimizer.step()
        masks.optimizer.zero_grad()
    masks.finish()
    if name not in ("static", "srigl", "sara"):  # masks of the last are full
        assert masks.density == pytest.approx(0.5)
    assert wanted.keys() == masks.nnz.keys()
    assert repr(masks).startswith(f"<Masking {type(masks.algorithm).__name__}: 1 masked weight")


@pytest.mark.parametrize(
    ("given", "named", "says"),
    [
        (("rigel",), {}, "'rigel' is not one of its choices: .*Did you mean 'rigl'"),
        ((inn.RigL(),), {}, r"give `steps`, as in Masking\(model, optimizer, RigL\(\), steps=10_000\), or an end in steps"),
        (("rigl",), {"steps": "10"}, "Masking: steps is '10'"),
        (("rigl",), {"total_steps": 10}, r"Did you mean 'steps'\?"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(given: Any, named: Any, says: str) -> None:
    with pytest.raises(ift.InputError, match=says):
        masking(sparse(), *given, **named)


@pytest.mark.parametrize(
    "make", [lambda: inn.RigL(end=7.5), lambda: inn.SET(end=-1), lambda: inn.RigL(interval=0), lambda: inn.Gradual(begin=0.9, end=0.5), lambda: inn.Iterative(end=1.5)]
)  # fmt: skip
def test_a_schedule_that_cannot_be_is_refused_at_once(make: Any) -> None:
    with pytest.raises(ift.InputError):
        make()


def test_a_fraction_without_a_length_answers_nothing() -> None:
    for ask in (lambda: inn.RigL().due(3), lambda: inn.MaskDecay().leak(3), lambda: inn.Iterative().due(3)):
        with pytest.raises(ift.InputError, match="the number of steps is not known"):
            ask()


def test_a_checkpoint_goes_on_on_the_same_schedule() -> None:
    first, second = sparse(), sparse()
    one = masking(first, "rigl", steps=1000)
    two = masking(second, inn.RigL(Updates(end=750)))
    one.step()
    two.load_state_dict(one.state_dict())
    assert two.steps == 1 and two.algorithm == one.algorithm


def test_masks_keep_the_structure_of_the_plan_without_being_told() -> None:
    net = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4))
    plan = ift.plan(net, "none", mask="2:4", inputs="8x16")
    model = inn.apply(plan, net)
    masks = masking(model, inn.RigL(interval=2, end=6))
    assert str(masks.structure) == "2:4"
    for _ in range(8):
        model(torch.randn(8, 16)).square().mean().backward()
        masks.step()
        masks.optimizer.step()
        masks.optimizer.zero_grad()
    assert masks.exploration.updates == 2
    assert ift.audit(model, plan).passed
    masks.release()
    free = masking(model, inn.RigL(interval=2, end=40), structure="unstructured")
    for _ in range(20):
        model(torch.randn(8, 16)).square().mean().backward()
        free.step()
        free.optimizer.step()
        free.optimizer.zero_grad()
    report = ift.audit(model, plan)
    assert not report.passed
    assert "the mask of 1.weight is no 2:4 mask, as the plan has it" in report.problems[0]
    ended = inn.mask_zeros_(inn.finalize(model))
    assert str(masking(ended).structure) == "unstructured"


def test_a_mask_of_a_convolution_is_held_against_a_structure_by_its_name() -> None:
    model = inn.sparsify(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 1)), structure="2:4"
    )
    (weight,) = inn.masked_weights(model)
    assert inn.holds("2:4", weight.mask)
    assert not inn.holds("1:4", weight.mask)
    weight.mask[0, :4, 0, 0] = True
    assert not inn.holds("2:4", weight.mask)
    with pytest.raises(ift.InputError, match="two dimensions, outputs and inputs, but this one has 1"):
        inn.holds("2:4", torch.ones(4, dtype=torch.bool))
