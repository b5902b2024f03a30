"""The fixtures in somebody's own test suite, run by pytest in a process of its own."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from torch import nn

from iftplan import api
from iftplan.base.errors import InputError, MeasureError
from iftplan.checks.assertions import flop_budget, iso_flop
from iftplan.nn import apply, finalize, sparsify
from iftplan.plans.plan import Plan
from tests.support.places import ROOT

pytest_plugins = ["pytester"]

INSTALLED = any(point.name == "iftplan" for point in entry_points(group="pytest11"))
PLUGIN = () if INSTALLED else ("-p", "iftplan.checks.pytest_plugin")
ROW = "1x8"


def net(hidden: int = 16) -> nn.Module:
    return nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, 4))


def message(caught: pytest.ExceptionInfo[AssertionError]) -> list[str]:
    return str(caught.value).splitlines()


def test_a_budget_that_holds_gives_its_report() -> None:
    assert flop_budget(net(), 192, ROW).measured_macs == 192
    assert flop_budget(net(), "384 FLOPs", ROW).passed
    assert flop_budget(net(), 190, ROW, tolerance="2%").passed
    assert flop_budget("zoo:resnet18-cifar", "560M").measured_macs == 555_468_800


def test_a_budget_that_breaks_shows_the_layers_by_cost() -> None:
    with pytest.raises(AssertionError) as caught:
        flop_budget(net(), 191, ROW)
    lines = message(caught)
    assert lines[0] == "Sequential: 192 MACs, +1 (+0.524 %) against budget 191"
    assert [line.split() for line in lines[-2:]] == [["0", "128", "66.67%"], ["2", "64", "33.33%"]]


def test_masks_are_counted_where_that_is_asked_for_and_named_where_not() -> None:
    masked = sparsify(nn.Sequential(nn.Linear(16, 16, bias=False)), "3/4", keep_dense="none")
    with pytest.raises(AssertionError, match="`nonzeros=True` counts those that they keep"):
        flop_budget(masked, 64, "1x16")
    assert flop_budget(masked, 64, "1x16", nonzeros=True).measured_macs == 64
    with pytest.raises(AssertionError) as refused:
        flop_budget(masked, 63, "1x16", nonzeros=True)
    assert "nonzeros" not in str(refused.value)


def test_another_model_is_held_layer_by_layer() -> None:
    assert iso_flop(net(), net(), ROW).passed
    with pytest.raises(AssertionError) as caught:
        iso_flop(net(24), net(), ROW)
    lines = message(caught)
    assert lines[0] == "Sequential: 288 MACs, +96 (+50 %) against Sequential"
    assert lines[-2].split() == ["0", "128", "192", "66.67%", "+64"]
    assert lines[-1].split() == ["2", "64", "96", "33.33%", "+32"]
    assert iso_flop(net(17), net(), ROW, tolerance=0.07).passed
    with pytest.raises(AssertionError):
        iso_flop(net(15), net(), ROW, tolerance="1%")


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "parallel.json"
    api.save(api.plan(api.read_model(net(), ROW), "parallel", "3/4", keep_dense=()), str(path))
    return path


def test_a_plan_is_held_on_masks_and_on_baked_in_zeros(plan_file: Path) -> None:
    plan = api.load(str(plan_file))
    assert isinstance(plan, Plan)
    sparse = apply(plan, net())
    report = iso_flop(sparse, plan)
    assert report.measured_macs == 192
    assert report.layers[0].expected_macs is not None
    assert iso_flop(sparse, str(plan_file)).measured_macs == 192
    baked = finalize(sparse)
    assert iso_flop(baked, plan).measured_macs == 192
    with torch.no_grad():
        for parameter in baked.parameters():
            parameter.fill_(1)
    with pytest.raises(AssertionError, match=r"768 MACs, \+576 \(\+300 %\) against plan"):
        iso_flop(baked, plan)


def test_masks_of_a_source_are_counted(
    plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that is built from its source has masks of its own, which may keep more than the plan does."""
    (tmp_path / "sources_with_masks.py").write_text(
        f"""
import iftplan as ift
from iftplan.nn import apply
from tests.checks.test_pytest_plugin import net

def as_planned():
    return apply(ift.load({str(plan_file)!r}), net())

def full():
    network = as_planned()
    for name, mask in network.named_buffers():
        if name.endswith("mask"):
            mask.fill_(True)
    return network
""",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert iso_flop("sources_with_masks:as_planned", str(plan_file)).measured_macs == 192
    with pytest.raises(AssertionError, match=r"\+576"):
        iso_flop("sources_with_masks:full", str(plan_file))


def test_the_dense_network_of_a_plan_fails_as_in_an_audit(plan_file: Path) -> None:
    plan = api.load(str(plan_file))
    assert isinstance(plan, Plan)
    told = "Sequential is the dense network that the plan was made for, and not the planned one"
    for reference in (plan, str(plan_file)):
        with pytest.raises(AssertionError, match=told):
            iso_flop(net(), reference)
    assert not api.audit(net(), plan).passed
    with pytest.raises(AssertionError, match="288 MACs"):
        iso_flop(net(24), plan, tolerance="1%")
    with pytest.raises(AssertionError) as caught:
        iso_flop(net(24), plan, tolerance="1%")
    assert told not in str(caught.value)


@pytest.mark.parametrize("family", ["wide", "parallel", "doped"])
def test_a_plan_that_changes_nothing_is_met_by_its_dense_network(family: str) -> None:
    plan = api.plan(net(), family, 0, inputs=ROW, keep_dense=())
    assert iso_flop(net(), plan).passed
    assert api.audit(net(), plan).passed
    assert not any(layer.changes for layer in plan.layers)
    factorized = api.plan(net(), "factorized", 0.5, inputs=ROW, keep_dense=())
    assert all(layer.changes for layer in factorized.layers)
    with pytest.raises(AssertionError, match="the dense network that the plan was made for"):
        iso_flop(net(), factorized, tolerance=1)


def test_what_cannot_be_told_is_no_pass() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    with pytest.raises(MeasureError, match="module idle has weights"):
        flop_budget(Idle(), "1G", ROW)
    with pytest.raises(InputError, match="does not say what its inputs are"):
        flop_budget(net(), "1G")
    with pytest.raises(InputError, match="negative"):
        flop_budget(net(), "1G", ROW, tolerance=-1)
    with pytest.raises(InputError, match="is not a count"):
        flop_budget(net(), "lots", ROW)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 4), nn.Linear(6, 4)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.left(a) + self.right(b)


def test_inputs_are_taken_as_everywhere_else() -> None:
    batch = {"a": torch.zeros(2, 8), "b": torch.zeros(2, 6)}
    for given in ((batch,), (tuple(batch.values()),), tuple(batch.values()), ("2x8", "2x6")):
        assert flop_budget(Pair(), 112, *given).measured_macs == 112
        assert iso_flop(Pair(), Pair(), *given).measured_macs == 112
    assert flop_budget(net(), 384, inputs=torch.zeros(2, 8)).measured_macs == 384
    assert flop_budget(net(), 384, (2, 8)).measured_macs == 384
    assert iso_flop(net(), net(), inputs="2x8").measured_macs == 384
    with pytest.raises(InputError, match="given twice"):
        flop_budget(net(), 384, "2x8", inputs="2x8")


def test_wrong_arguments_are_met_in_words() -> None:
    with pytest.raises(InputError, match=r"nonzero'; it takes model.*Did you mean 'nonzeros'\?"):
        flop_budget(net(), "1M", ROW, nonzero=True)  # type: ignore[call-arg]
    with pytest.raises(InputError, match=r"Did you mean 'inputs'\?"):
        iso_flop(net(), net(), batch=torch.zeros(1, 8))  # type: ignore[call-arg]
    with pytest.raises(InputError, match=r"`inputs='1x3x224x224'`"):
        flop_budget(net(), "1M")
    plan = api.plan("zoo:digits-cnn", "wide", 0.75)
    with pytest.raises(InputError, match=r"a Plan is no network.*iftplan\.audit\(plan\)"):
        flop_budget(plan, "1M")  # type: ignore[arg-type]


def test_a_long_table_is_cut_with_its_rest_counted() -> None:
    deep = nn.Sequential(*(nn.Linear(8, 8) for _ in range(50)))
    with pytest.raises(AssertionError) as caught:
        flop_budget(deep, 1, ROW)
    assert message(caught)[-1] == "… and 40 more layers (pytest -vv or layers=None lists all)"
    with pytest.raises(AssertionError) as caught:
        flop_budget(deep, 1, ROW, layers=None)
    assert len(message(caught)) == 4 + 50


def test_layers_that_agree_are_counted_and_not_listed() -> None:
    deep, deeper = (nn.Sequential(*(nn.Linear(8, 8) for _ in range(n))) for n in (40, 41))
    with pytest.raises(AssertionError) as caught:
        iso_flop(deeper, deep, ROW)
    headline, _, columns, _, row, rest = message(caught)
    assert headline == "Sequential: 2 624 MACs, +64 (+2.5 %) against Sequential"
    assert columns.split()[:2] == ["layer", "expected"]
    assert row.split() == ["40", "0", "64", "2.44%", "+64"]
    assert rest.startswith("… and 40 more layers")


def test_an_error_shows_the_test_and_not_what_is_inside() -> None:
    with pytest.raises(MeasureError, match="Linear could not be run on 1x8:int64") as caught:
        flop_budget(nn.Linear(8, 4), 1, "1x8:int64")
    assert caught.value.__suppress_context__
    assert {Path(entry.path).name for entry in caught.traceback} == {"test_pytest_plugin.py", "assertions.py"}
    assert [Path(entry.path).name for entry in caught.traceback.filter(caught)] == ["test_pytest_plugin.py"]


SUITE = """
from torch import nn


def net(hidden=16):
    return nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, 4))


def test_within(flop_budget, iso_flop):
    assert flop_budget(net(), 192, "1x8").passed
    iso_flop(net(), net(), "1x8")


def test_wider(iso_flop):
    iso_flop(net(24), net(), "1x8", tolerance="1%")
"""


@pytest.mark.slow
def test_fixtures_in_a_suite_fail_with_the_layer_table(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    done = pytester.runpytest_subprocess(*PLUGIN, "-q")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(
        [
            "E *AssertionError: Sequential: 288 MACs, +96 (+50 %) against Sequential",
            "E *layer   expected MACs   measured MACs    share   difference",
            "E *0                 128             192   66.67%          +64",
            "E *2                  64              96   33.33%          +32",
        ]
    )
    done.stdout.no_fnmatch_line("*assertions.py*")


@pytest.mark.slow
def test_a_suite_that_does_not_ask_pays_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing_was_loaded():
            ours = {name for name in sys.modules if name.startswith("iftplan")}
            assert ours <= {"iftplan", "iftplan.checks", "iftplan.checks.pytest_plugin"} and ours
            assert not {"torch", "pydantic", "sympy"} & set(sys.modules)
        """
    )
    pytester.runpytest_subprocess(*PLUGIN, "-q").assert_outcomes(passed=1)
    shown = pytester.runpytest_subprocess(*PLUGIN, "--fixtures", "-q").stdout.str()
    assert "the model costs what the reference costs" in shown


def test_the_entry_point_is_declared() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"iftplan": "iftplan.checks.pytest_plugin"}
    assert "iftplan.checks.pytest_plugin" in sys.modules or not INSTALLED


def test_masks_of_both_networks_count() -> None:
    half, tenth = (
        sparsify(nn.Sequential(nn.Linear(16, 20, bias=False)), s, keep_dense="none") for s in ("1/2", "9/10")
    )
    with pytest.raises(AssertionError, match=r"160 MACs, \+128 \(\+400 %\)"):
        iso_flop(half, tenth, "1x16")
    assert iso_flop(half, nn.Sequential(nn.Linear(16, 10, bias=False)), "1x16").measured_macs == 160
    assert iso_flop(half, half, "1x16").passed


class Idle(nn.Module):
    """A network with an auxiliary head that its forward pass leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.aux = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x)


def test_a_reference_that_was_not_measured_is_none() -> None:
    alone = nn.Sequential(nn.Linear(8, 8))
    with pytest.raises(MeasureError, match="Idle, which is the reference, could not be measured: module aux"):
        iso_flop(alone, Idle(), ROW)
    assert iso_flop(alone, Idle(), ROW, may_stay_uncalled=["aux"]).passed
    with pytest.raises(MeasureError, match=r"pass `may_stay_uncalled=\['aux'\]`"):
        flop_budget(Idle(), 64, ROW)
    assert flop_budget(Idle(), 64, ROW, may_stay_uncalled=["aux"]).passed
    with pytest.raises(AssertionError, match="a cost of 0 is no reference"):
        iso_flop(alone, nn.Identity(), ROW)


def test_zeros_of_a_source_are_counted(
    plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sources_with_zeros.py").write_text(
        f"""
import iftplan as ift
from iftplan.nn import apply, finalize
from tests.checks.test_pytest_plugin import net
from torch.nn.utils import prune

def finalized():
    return finalize(apply(ift.load({str(plan_file)!r}), net()))

def pruned():
    network = net()
    prune.l1_unstructured(network[0], "weight", 0.5)
    return network
""",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert iso_flop("sources_with_zeros:finalized", str(plan_file)).measured_macs == 192
    assert flop_budget("sources_with_zeros:finalized", 192, ROW, nonzeros=True).measured_macs == 192
    assert iso_flop("sources_with_zeros:pruned", net(8), ROW, tolerance=1).measured_macs == 128


def test_zeros_of_a_weight_that_computes_in_part_make_no_cost() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(8, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.w[:5])

    network = Part()
    assert flop_budget(network, 20, "1x4", nonzeros=True).measured_macs == 20
    with torch.no_grad():
        network.w[5:] = 0
    with pytest.raises(MeasureError, match="with a part of its weights only, so its cost depends"):
        flop_budget(network, 13, "1x4", nonzeros=True)
