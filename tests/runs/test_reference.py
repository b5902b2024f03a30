"""Runs as the paper's code trains: when masks change, what members have inside, and where that is set."""

from __future__ import annotations

from iftplan.cli.run_settings import RunOptions, run_of
from iftplan.nn.training.methods import updates_of
from iftplan.runs.document import run_digest
from iftplan.runs.reference import REFERENCE, as_reference
from iftplan.runs.schedules import Updates
from iftplan.runs.settings import MethodConfig, RunConfig


def steps_of(updates: Updates, steps: int) -> list[int]:
    return [step for step in range(steps) if updates.due(step)]


def test_the_code_counts_steps_from_1() -> None:
    """`StaticMaskOptimizer.step` counts first: its hundredth call is the first update, ours is the one after it."""
    assert steps_of(Updates(end=750, interval=100), 1000) == [100, 200, 300, 400, 500, 600, 700]
    code = Updates(end=750, interval=100, count_from=1)
    assert steps_of(code, 1000) == [99, 199, 299, 399, 499, 599, 699]
    for updates in (code, Updates(end=700, interval=100, count_from=1, at_begin=True, at_end=True)):
        assert updates.count() == len(steps_of(updates, 1000))


def test_annealing_from_the_begin_of_updates() -> None:
    """`update_group_drop_fraction`: (t - begin)/(end - begin), where RigL has t/T_end."""
    late = {"begin": 0.2, "end": 0.6, "interval": 50}
    plain, code = (
        updates_of(MethodConfig(**late, **options), 1000)  # type: ignore[arg-type]
        for options in ({}, {"anneal_from": "begin", "count_from": 1})
    )
    assert plain.progress(300) == 300 / 600
    assert code.progress(299) == (300 - 200) / (600 - 200)
    assert (code.progress(199), code.progress(599)) == (0, 1)


def test_one_function_sets_all_choices_of_a_run() -> None:
    run = as_reference(RunConfig())
    assert (run.plan.rounding, run.plan.pointwise, run.plan.nonlinear) == ("floor", "masked", "reference")
    assert (run.method.count_from, run.method.anneal_from) == (1, "begin")
    changed = {(section, key) for section, values in REFERENCE.items() for key in values}
    assert len(changed) == 5
    assert run_digest(run) != run_digest(RunConfig())


def test_an_option_sets_them_below_settings_that_are_given() -> None:
    assert run_of(RunOptions(recipe="digits", as_reference=True)) == as_reference(
        run_of(RunOptions(recipe="digits"))
    )
    run = run_of(RunOptions(recipe="digits", as_reference=True, settings=["plan.rounding=cover"]))
    assert (run.plan.rounding, run.plan.pointwise) == ("cover", "masked")
