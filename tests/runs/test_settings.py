"""Runs as values: learning rates, settings from TOML, recipes, and what a run's digest depends on."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from iftplan.base.documents import loads, parse_toml, read_text
from iftplan.base.errors import InputError
from iftplan.models.zoo.entries import ZOO
from iftplan.runs.document import (
    merge,
    parse_run,
    read_recipe,
    run_digest,
    run_object,
    telling_settings,
)
from iftplan.runs.recipes.files import recipe_files
from iftplan.runs.settings import RunConfig, ScheduleConfig
from tests.support.places import TESTS


@pytest.mark.parametrize(
    ("schedule", "step", "steps", "factor"),
    [
        (ScheduleConfig("constant"), 99, 100, 1.0),
        (ScheduleConfig("cosine"), 0, 100, 1.0),
        (ScheduleConfig("cosine"), 50, 100, 0.5),
        (ScheduleConfig("cosine", final=0.1), 50, 100, 0.55),
        (ScheduleConfig("cosine", warmup=0.1), 0, 100, 0.1),
        (ScheduleConfig("cosine", warmup=0.1), 9, 100, 1.0),
        (ScheduleConfig("cosine", warmup=0.1), 10, 100, 1.0),
        (ScheduleConfig("cosine", warmup=0.1), 55, 100, 0.5),
        (ScheduleConfig("cosine", warmup=4), 1, 100, 0.5),
        (ScheduleConfig("cosine", warmup=1), 0, 100, 1.0),
        (ScheduleConfig("cosine", warmup=1.0), 0, 100, 0.01),
        (ScheduleConfig("cosine", warmup=20), 60, 100, 0.5),
        (ScheduleConfig("multistep"), 59, 200, 1.0),
        (ScheduleConfig("multistep"), 60, 200, 0.2),
        (ScheduleConfig("multistep"), 120, 200, 0.04),
        (ScheduleConfig("multistep"), 199, 200, 0.008),
    ],
)
def test_learning_rates(schedule: ScheduleConfig, step: int, steps: int, factor: float) -> None:
    assert schedule.factor(step, steps) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("name", recipe_files())
def test_every_recipe_is_a_run_of_a_bundled_model(name: str) -> None:
    run = parse_run(read_recipe(name), name)
    assert run.plan.model.removeprefix("zoo:") in ZOO
    assert parse_run(run_object(run), name) == run


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("lr = 1", "there is no setting lr"),
        ("sed = 1", "Did you mean 'seed'?"),
        ("[optimizer]\nlearning_rate = 1", "there is no setting optimizer.learning_rate; [optimizer] takes"),
        ("[method]\nname = 'rigle'", "method.name = 'rigle'"),
        ("[method]\ninterval = 1.5", "method.interval = 1.5"),
        ("[optimizer]\nbetas = [0.9]", "optimizer.betas = [0.9]"),
        ("method = 'rigl'", "method is 'rigl', but it must be a section, [method]"),
        ("seed = '1'", "seed = '1'"),
        ("[data]\nflip = 1", "data.flip = 1"),
        ("[training]\nbatch_size = 0", "batch_size = 0: input should be greater than or equal to 1"),
        ("[training]\naccumulate = 0", "training.accumulate = 0"),
        ("[training]\nthreads = -2", "training.threads = -2"),
        ("[training]\neval_interval = -1", "training.eval_interval = -1"),
        ("[training]\nema = 2.0", "training.ema = 2.0: input should be less than 1"),
        ("[training]\nlabel_smoothing = 2.0", "training.label_smoothing = 2.0"),
        ("[data]\ncontext = 0", "data.context = 0"),
        ("[data]\ncrop = -3", "data.crop = -3"),
        ("[data]\ntest_fraction = 0.0", "data.test_fraction = 0.0"),
        ("[data]\ntest_fraction = 1.0", "data.test_fraction = 1.0"),
        ("[method]\nfraction = 2.0", "method.fraction = 2.0"),
        ("[optimizer]\nlr = nan", "optimizer.lr = nan"),
        ("[optimizer]\nlr = inf", "optimizer.lr = inf"),
        ("[optimizer]\nlr = -1.0", "optimizer.lr = -1.0"),
        ("[optimizer]\nmomentum = -1.0", "optimizer.momentum = -1.0"),
        ("[optimizer]\nbetas = [1, 2]", "optimizer.betas = [1, 2]"),
        ("[optimizer]\nweight_decay = -1.0", "optimizer.weight_decay = -1.0"),
        ("[schedule]\nwarmup = 3.0", "schedule.warmup = 3.0"),
        ("[schedule]\nwarmup = -3", "schedule.warmup = -3"),
    ],
)
def test_settings_that_cannot_be_name_their_path(toml: str, expected: str) -> None:
    with pytest.raises(InputError, match=re.escape(expected)):
        parse_run(parse_toml(toml, "run.toml"), "run.toml")


@pytest.mark.parametrize(("given", "read"), [(0.75, "0.75"), (0, "0"), ("3/4", "3/4")])
def test_a_sparsity_may_be_a_number(given: float | str, read: str) -> None:
    assert parse_run({"plan": {"sparsity": given}}, "run.toml").plan.sparsity == read


def test_what_is_said_later_is_laid_over_what_was_said_before() -> None:
    below = {"seed": 1, "optimizer": {"lr": 0.1, "momentum": 0.5}}
    assert merge(below, {"optimizer": {"lr": 0.2}}) == {
        "seed": 1,
        "optimizer": {"lr": 0.2, "momentum": 0.5},
    }
    assert below == {"seed": 1, "optimizer": {"lr": 0.1, "momentum": 0.5}}


def test_a_digest_follows_what_numbers_follow_from() -> None:
    run = RunConfig()
    for same in (
        replace(run, data=replace(run.data, path="/elsewhere")),
        replace(run, training=replace(run.training, threads=3)),
        replace(run, data=replace(run.data, workers=3)),
        replace(run, training=replace(run.training, strategy="fsdp", replicas=2)),
    ):
        assert run_digest(same) == run_digest(run)
    for other in (
        replace(run, seed=1),
        replace(run, training=replace(run.training, batch_size=64)),
        replace(run, method=replace(run.method, interval=7)),
        replace(run, data=replace(run.data, cutout=8)),
    ):
        assert run_digest(other) != run_digest(run)


def test_a_budget_is_asked_for_in_the_settings_of_a_plan() -> None:
    asked = parse_run({"plan": {"transform": "none", "budget": "0.5x"}}, "run.toml").plan
    assert (asked.request.budget, asked.request.sparsity) == ("0.5x", None)
    assert parse_run({"plan": {"budget": "400M"}}, "run.toml").plan.request.sparsity == "3/4"
    with pytest.raises(InputError, match=r"run.toml: .*budget.*'half' is not a count"):
        parse_run({"plan": {"budget": "half"}}, "run.toml")
    told = telling_settings(replace(RunConfig(), plan=asked))
    assert told["plan"]["budget"] == "0.5x"
    assert "budget" not in telling_settings(RunConfig())["plan"]


def test_settings_that_came_later_leave_runs_as_they_were() -> None:
    """The digest of the default settings, as the command of version 0.1.0 wrote it."""
    written = loads(read_text(str(TESTS / "written_before/run/run.json")), "run.json")
    result = loads(read_text(str(TESTS / "written_before/run/result.json")), "result.json")
    assert run_digest(parse_run(written["config"], "run.json")) == result["run_digest"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shorter_side", "[0, 480]"),
        ("random_resized_crop", "[0.0, 1.0]"),
        ("color_jitter", "[0.4, 0.4, 0.4, 0.6]"),
        ("std", "[0.0]"),
        ("mixup", "-1.0"),
    ],
)
def test_settings_of_images_have_ranges(name: str, value: str) -> None:
    with pytest.raises(InputError, match=f"data.{name}"):
        parse_run(parse_toml(f"data.{name} = {value}", "it"), "it")


def test_a_seed_is_a_number_of_64_bits() -> None:
    assert parse_run({"seed": 2**63 - 1}, "run.toml").seed == 2**63 - 1
    for seed in (2**63, -(2**63) - 1):
        with pytest.raises(InputError, match="seed"):
            parse_run({"seed": seed}, "run.toml")
