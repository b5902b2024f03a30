"""Plans for time: which layers stay dense and why, on machines that a test made up; budgets close all the same."""

import csv
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import gcd
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import iftplan as ift
from iftplan.base.documents import digest, dumps, loads
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.families.builtin import family_named
from iftplan.masks import parse_mask
from iftplan.models.document import spec_document
from iftplan.models.spec import LayerSpec, ModelSpec
from iftplan.plans.document.plan import parse_plan, plan_document
from iftplan.plans.plan import KeptFor, Plan, Role, Scope
from iftplan.plans.planner import plan
from iftplan.plans.policy import Policy
from iftplan.plans.speed.document import profile_document
from iftplan.plans.speed.machine import processor
from iftplan.plans.speed.planner import plan_for_time
from iftplan.plans.speed.timings import LayerPair
from tests.support.cli_runs import iftplan, many
from tests.support.hand_profiles import ideal, profile
from tests.support.hand_specs import chain, mlp

HALF = Fraction(1, 2)


def policy(family: str | None = "wide", sparsity: Fraction = HALF, **options: Any) -> Policy:
    return Policy(family_named(family) if family else None, sparsity, **options)


def slow_where(condition: Callable[[LayerSpec], bool], factor: float = 100.0) -> Callable[[LayerPair], float]:
    """Sparse kernels that take so many times their work where a condition holds of the dense layer."""
    return lambda pair: ideal(pair) * (factor if condition(pair.dense) else 1.5)


def kept_for_time(made: Plan) -> set[str]:
    return {layer.name for layer in made.layers if layer.kept_for is KeptFor.TIME}


NET = mlp((16, 128, 128, 8, 8, 128, 10), tokens=16)
"""Narrow in the middle: fc4 has 8 inputs and 8 outputs."""


def test_where_sparse_always_pays_the_plan_is_that_of_flops() -> None:
    ordinary = plan(NET, policy())
    made = plan_for_time(NET, policy(), profile())
    assert replace(made, wallclock=None) == ordinary
    assert made.wallclock.seconds == made.wallclock.flops
    with_it, without = plan_document(made), plan_document(ordinary)
    assert {key for key in with_it if with_it[key] != without.get(key)} == {"wallclock", "digest"}


def test_narrow_layers_that_cannot_pay_stay_dense_and_say_so() -> None:
    narrow = slow_where(lambda layer: layer.in_channels < 16)
    made = plan_for_time(NET, policy(), profile(narrow))
    assert kept_for_time(made) == {"fc4"}
    by_name = {layer.name: layer for layer in made.layers}
    four = by_name["fc4"]
    assert four.role is Role.KEPT_DENSE and not four.maskable and four.density == 1
    ordinary = {layer.name: layer for layer in plan(NET, policy()).layers}
    said = re.fullmatch(
        r"kept dense: sparse kernels take ([\d.]+) of the dense layer's time here, dense operators 2\.2",
        four.reason,
    )
    assert said and float(said[1]) == pytest.approx(100 * ordinary["fc4"].nnz / 64, rel=0.05)
    assert four.macs == 16 * 12 * 12  # ceil(8·√2) both ways: others pay for it
    assert made.residual_macs == 0 and made.ratio(Scope.LAYERS) == 1
    assert by_name["fc2"].nnz < ordinary["fc2"].nnz
    times = {time.name: time for time in made.wallclock.layers}
    assert (times["fc4"].execution, times["fc2"].execution) == ("dense", "sparse")
    assert times["fc4"].dense == pytest.approx(16 * 64e-9)
    assert times["fc4"].seconds == pytest.approx(16 * 144e-9)
    assert times["fc4"].flops > times["fc4"].seconds
    assert made.wallclock.seconds < made.wallclock.flops


@pytest.mark.parametrize("tokens, kept", [(1, True), (256, False)])
def test_a_tiny_batch_cannot_pay_and_a_larger_one_can(tokens: int, kept: bool) -> None:
    spec = mlp((16, 64, 64, 64, 10), tokens=tokens)
    tiny = slow_where(lambda layer: layer.positions < 16, 3.0)
    made = plan_for_time(spec, policy(keep_dense=frozenset()), profile(tiny))
    assert bool(kept_for_time(made)) is kept


@pytest.mark.parametrize("family", ["wide", "parallel"])
def test_what_beats_dense_operators_pays_though_the_dense_layer_is_faster_still(family: str) -> None:
    """At a quarter of the weights dense operators take four times the dense layer's time; kernels here take three."""
    made = plan_for_time(NET, policy(family, Fraction(3, 4)), profile(lambda pair: 3 * ideal(pair)))
    assert not kept_for_time(made)
    assert replace(made, wallclock=None) == plan(NET, policy(family, Fraction(3, 4)))


@pytest.mark.parametrize("family", ["parallel", "factorized", "doped"])
def test_families_that_keep_the_width_leave_such_layers_as_they_were(family: str) -> None:
    narrow = slow_where(lambda layer: layer.in_channels < 16)
    made = plan_for_time(NET, policy(family), profile(narrow))
    assert "fc4" in kept_for_time(made) and "fc2" not in kept_for_time(made)
    for layer in made.layers:
        if layer.name in kept_for_time(made):
            assert layer.after == layer.before and layer.macs == layer.dense_macs and not layer.maskable
    assert made.ratio(Scope.LAYERS) == 1
    assert made.wallclock.seconds < made.wallclock.flops


def test_branches_factors_and_pairs_are_priced_by_what_they_are_made_of() -> None:
    """On a machine where every MAC takes a nanosecond, time is MACs."""
    for family in ("wide", "parallel", "factorized", "doped", "lowrank"):
        made = plan_for_time(NET, policy(family), profile())
        macs = {layer.name: layer.macs for layer in made.layers}
        assert not made.wallclock.unpriced
        for time in made.wallclock.layers:
            assert time.seconds == pytest.approx(1e-9 * macs[time.name], rel=1e-6), (family, time.name)


def test_a_step_is_priced_by_steps() -> None:
    forward, step = (plan_for_time(NET, policy(), profile(), passes=p).wallclock for p in ("forward", "step"))
    assert step.seconds == pytest.approx(3 * forward.seconds)
    assert (forward.passes, step.passes) == ("forward", "step")


def test_a_batch_is_so_many_columns_and_changes_no_mac() -> None:
    slow = profile(slow_where(lambda layer: layer.positions < 16, 3.0))
    sizes, asked = (16, 64, 64, 64, 10), policy(keep_dense=frozenset())
    alone, together = (plan_for_time(mlp(sizes, tokens=1), asked, slow, batch=n) for n in (1, 16))
    larger = plan_for_time(mlp(sizes, tokens=16), asked, slow)
    assert kept_for_time(alone) and not kept_for_time(together)
    assert together.wallclock.seconds == pytest.approx(larger.wallclock.seconds, rel=1e-9)
    assert together.macs(Scope.LAYERS) * 16 == larger.macs(Scope.LAYERS)
    assert (together.wallclock.batch, larger.wallclock.batch) == (16, 1)


def test_plain_sparsity_keeps_layers_dense_too() -> None:
    made = plan_for_time(NET, policy(None), profile(slow_where(lambda layer: layer.in_channels < 16)))
    assert "fc4" in kept_for_time(made) and "fc2" not in kept_for_time(made) and made.scope is None


def test_what_was_not_measured_stays_as_it_was_and_says_why() -> None:
    made = plan_for_time(NET, policy(mask=parse_mask("fan-in")), profile())
    assert replace(made, wallclock=None).layers != plan(NET, policy(mask=parse_mask("fan-in"))).layers
    transformed = [layer for layer in made.layers if layer.role is Role.TRANSFORMED]
    assert transformed and not kept_for_time(made)
    for layer in transformed:
        assert layer.reason.endswith("; not priced: fan-in masks were not measured")
    assert dict(made.wallclock.unpriced) == {
        layer.name: "fan-in masks were not measured" for layer in transformed
    }
    unpriced = dict(plan_for_time(chain(), policy(), profile()).wallclock.unpriced)
    assert set(unpriced) == {"dw", "mix:matmul"}
    assert "grouped" in unpriced["dw"] and "products of activations" in unpriced["mix:matmul"]


@pytest.mark.parametrize(
    "sparsity, ends, middle",
    [
        (Fraction(9, 10), "no budget", "no budget"),  # dense, the ends cost √10 of three, the middle ten
        (Fraction(3, 4), "less than half of their weights", "no budget"),  # two and four of three
    ],
)
def test_what_the_others_could_not_pay_for_is_left_masked_and_says_so(
    sparsity: Fraction, ends: str, middle: str
) -> None:
    spec = mlp((128, 128, 128, 128), tokens=1)
    asked = policy(sparsity=sparsity, keep_dense=frozenset())
    made = plan_for_time(spec, asked, profile(slow_where(lambda layer: True, 1000.0)))
    assert made.ratio(Scope.LAYERS) == 1 and not kept_for_time(made)
    for layer, why in zip(made.layers, (ends, middle, ends), strict=True):
        assert layer.role is Role.TRANSFORMED
        assert "; sparse kernels take " in layer.reason
        assert layer.reason.endswith(f", but keeping it dense would leave the others {why}")


def test_layers_of_one_shape_stay_dense_as_far_as_the_budget_goes() -> None:
    spec = mlp((16, *[64] * 9, 10), tokens=1)
    asked = policy(sparsity=HALF)
    made = plan_for_time(spec, asked, profile(slow_where(lambda layer: True, 50.0)))
    inner = [layer for layer in made.layers if str(layer.before) == "linear:64-64"]
    kept = [layer for layer in inner if layer.name in kept_for_time(made)]
    assert 0 < len(kept) < len(inner)
    before = {layer.name: layer for layer in plan(spec, asked).layers}
    assert all(layer.density >= before[layer.name].density / 2 for layer in inner)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    family=st.sampled_from(["wide", "parallel", "factorized", "doped", "lowrank"]),
    sparsity=st.sampled_from([Fraction(3, 10), HALF, Fraction(3, 4), Fraction(9, 10)]),
    scope=st.sampled_from([Scope.LAYERS, Scope.MODEL]),
    spec=st.sampled_from([chain(32, 48), mlp(tokens=1), mlp((24, 96, 20, 70, 33, 12), tokens=20), NET]),
    close=st.sampled_from(["density", "density", "width"]),
)
def test_every_plan_for_time_closes_and_is_never_slower(
    seed: int, family: str, sparsity: Fraction, scope: Scope, spec: ModelSpec, close: str
) -> None:
    random = Random(seed)
    made_up = profile(
        lambda pair: ideal(pair) * 10 ** random.uniform(-1, 2),
        widths=(8, 64),
        columns=(1, 32),
        sparsities=("1/2", "9/10"),
    )
    asked = policy(
        family, sparsity, scope=scope, close_by=close if family in ("wide", "lowrank") else "density"
    )
    try:
        ordinary = plan(spec, asked)
    except InfeasibleError:
        assume(False)
    made = plan_for_time(spec, asked, made_up)
    assert made.dense_macs(scope) == ordinary.dense_macs(scope)
    step = gcd(*(layer.positions for layer in made.layers if layer.maskable))
    if family != "lowrank":
        assert 0 <= made.residual_macs < max(step, 1)
    assert made.wallclock.seconds <= made.wallclock.flops
    assert parse_plan(loads(dumps(plan_document(made)), "p"), "p") == made
    assert plan_for_time(spec, asked, made_up) == made


# --- documents -------------------------------------------------------------------------------------------


def planned() -> Plan:
    return plan_for_time(NET, policy(), profile(slow_where(lambda layer: layer.in_channels < 16)))


def test_the_section_goes_round_and_totals_are_added_up_again() -> None:
    document = plan_document(planned())
    section = document["wallclock"]
    assert section["profile"] and (section["machine"], section["instructions"]) == ("a machine", "avx2")
    assert section["seconds"] == sum(layer["seconds"] for layer in section["layers"])
    assert parse_plan(document) == planned()
    assert "wallclock" not in plan_document(plan(NET, policy()))
    wrong = {**document, "wallclock": {**section, "seconds": 1e-9}}
    with pytest.raises(InputError, match="wallclock does not follow"):
        parse_plan({**wrong, "digest": digest(wrong)})
    strange = {**document, "wallclock": {**section, "surprise": 1}}
    with pytest.raises(InputError, match=r"wallclock\.surprise"):
        parse_plan({**strange, "digest": digest(strange)})


def test_a_profile_of_another_machine_is_a_note() -> None:
    assert any("another machine (a machine; this one is" in note for note in planned().wallclock.notes)
    here = plan_for_time(NET, policy(), profile(machine=processor()))
    assert not any("another machine" in note for note in here.wallclock.notes)


def test_layers_outside_of_the_grid_are_counted() -> None:
    (note, *_) = plan_for_time(mlp((16, 512, 512, 10), tokens=16), policy(), profile()).wallclock.notes
    assert note.startswith("1 of 3 layers are outside")


def test_a_scope_that_would_not_pay_for_dense_layers_is_refused() -> None:
    with pytest.raises(InputError, match="Use `scope='layers'`"):
        plan_for_time(NET, policy(scope=Scope.MATRICES), profile())
    assert plan_for_time(NET, policy("parallel", scope=Scope.MATRICES), profile()).ratio(Scope.MATRICES) == 1


def test_from_python(tmp_path: Path) -> None:
    made = profile(slow_where(lambda layer: layer.in_channels < 16))
    (tmp_path / "p.json").write_text(dumps(profile_document(made)))
    found = ift.plan(
        NET, "wide", "1/2", objective="wallclock", profile=str(tmp_path / "p.json"), passes="step", batch=2
    )
    assert found == plan_for_time(NET, policy(), made, passes="step", batch=2)
    assert "estimated times" in str(found) and "estimated times" not in str(plan(NET, policy()))


# --- the command line ------------------------------------------------------------------------------------

CNN = """
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10),
    )
"""


def test_planning_for_time_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(CNN)
    (tmp_path / "spec.json").write_text(dumps(spec_document(NET)))
    narrow = slow_where(lambda layer: layer.in_channels < 16)
    (tmp_path / "p.json").write_text(dumps(profile_document(profile(narrow))))
    timed = ["--objective", "wallclock", "--profile", "p.json"]
    net = ["plan", "net.py:net", "--sparsity", "0.5", "--input", "2x3x8x8"]
    made, audited, shown, compared, flops, usual, unread, bare, passed, batched, scope, bad = many(
        [
            [*net, *timed, "--pass", "step", "-o", "plan.json"],
            ["audit", "plan.json", "--model", "net.py:net", "--cross-check"],
            ["plan", "spec.json", "--sparsity", "0.5", *timed],
            ["diff", "net.py:net", "plan.json", "--input", "2x3x8x8"],
            [*net, "--objective", "flops", "--format", "json"],
            [*net, "--format", "json"],
            ["plan", "spec.json", "--objective", "wallclock", "--profile", "gone.json"],
            ["plan", "spec.json", "--profile", "p.json"],
            ["plan", "spec.json", "--pass", "step"],
            ["plan", "spec.json", "--batch", "8"],
            ["plan", "spec.json", *timed, "--scope", "matrices"],
            ["plan", "spec.json", "--objective", "wallclock", "--profile", "spec.json"],
        ],
        tmp_path,
    )
    assert made.code == 0, made.err
    assert "kept dense to save time: 2" in made.err and "written: plan.json" in made.err
    document = json.loads((tmp_path / "plan.json").read_text())
    assert document["wallclock"]["pass"] == "step"
    assert audited.code == 0 and "PASSED" in audited.out
    assert compared.code == 0
    assert shown.code == 0 and "kept dense: sparse kernels take" in shown.out
    assert flops.out == usual.out and "wallclock" not in usual.out
    for run, says in (
        (unread, "iftplan bench --profile -o gone.json measures this machine"), (bare, "need --objective wallclock"),
        (passed, "need --objective wallclock"),
        (batched, "need --objective wallclock"),
        (scope, "--scope layers or --scope model"), (bad, "another kind of document"),
    ):  # fmt: skip
        assert run.code == 2 and says in run.message


def test_a_plan_from_a_spec_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(dumps(spec_document(NET)))
    (tmp_path / "cache" / "iftplan").mkdir(parents=True)
    (tmp_path / "cache" / "iftplan" / "profile.json").write_text(dumps(profile_document(profile())))
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    found = iftplan(
        "plan", "spec.json", "--sparsity", "0.5", "--objective", "wallclock",
        cwd=tmp_path, env={"XDG_CACHE_HOME": "cache", "PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"},
    )  # fmt: skip
    assert found.code == 0, found.err
    assert "estimated forward, a machine, avx2, 1 thread, batch 1" in found.out


def test_a_machine_is_measured_and_read(tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="numba, of the extra bench, is not installed")
    (tmp_path / "spec.json").write_text(dumps(spec_document(NET)))
    tiny = ["--sparsity", "0.5,0.75", "--widths", "8,16", "--columns", "1,16", "--rounds", "1"]
    written, again, dry, planned, backends, unknown, nothing, mixed, sizes, lost = many(
        [
            ["bench", "--profile", *tiny, "--pass", "forward", "-o", "p.json"],
            ["bench", "--profile", *tiny, "--pass", "step", "-o", "-"],
            ["bench", "--profile", *tiny, "--dry-run", "--format", "json"],
            ["plan", "spec.json", "--sparsity", "0.5", "--objective", "wallclock", "--profile", "p.json"],
            [
                "bench",
                "--layer",
                "linear:8-8",
                "--rounds",
                "1",
                "--backends",
                "sparse,dense",
                "--format",
                "csv",
            ],
            ["bench", "--layer", "linear:8-8", "--backends", "dense,fast"],
            ["bench", "--layer", "linear:8-8", "--backends", "sparse"],
            ["bench", "--profile", "--layer", "linear:8-8"],
            ["bench", "--profile", "--widths", "8,none"],
            ["bench", "--layer", "linear:8-8", "--columns", "8"],
        ],
        tmp_path,
    )
    assert written.code == 0, written.err
    assert "written: p.json" in written.err and "linear:8-8@16" in written.err
    document = json.loads((tmp_path / "p.json").read_text())
    assert len(document["entries"]) == 3 * 2 * 2 * 2 and document["machine"] == processor()
    assert all(entry["masked_dense_seconds"] > 0 for entry in document["entries"])
    assert again.code == 0 and {e["pass"] for e in json.loads(again.out)["entries"]} == {"step"}
    assert dry.code == 0 and len(json.loads(dry.out)["layers"]) == 24
    assert planned.code == 0 and "another machine" not in planned.out
    assert [row["backend"] for row in csv.DictReader(backends.out.splitlines())] == ["dense", "sparse"] * 2
    for run, says in (
        (unknown, "'fast' is not a backend"), (nothing, "has no dense backend to compare with"),
        (mixed, "measures layers of its own"), (sizes, "'none' is not a whole number"),
        (lost, "belong to --profile"),
    ):  # fmt: skip
        assert run.code == 2 and says in run.message
