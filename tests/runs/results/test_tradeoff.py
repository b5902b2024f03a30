"""Observations read from runs, tables and plans, and held against each other without mixing what does not compare."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

import pytest

import iftplan as ift
from iftplan.base.documents import dumps
from iftplan.base.errors import InputError
from iftplan.base.units import Convention
from iftplan.plans.document.plan import plan_document
from iftplan.runs.results.axes import Cost, Gain
from iftplan.runs.results.observations import Observation
from iftplan.runs.results.pareto import ReadingOutcome, Sense
from iftplan.runs.results.published.results import published_results
from iftplan.runs.results.reading import of_plan, read_observations
from iftplan.runs.results.shaping import _beginning
from iftplan.runs.results.tables import tradeoff_table
from iftplan.runs.results.tradeoff import tradeoff
from tests.support.hand_specs import chain
from tests.support.runs.directories import run_directory


def seen(value: float, macs: int = 1000, **changes: Any) -> Observation:
    given = Observation(
        f"r{value}",
        "net",
        "wide",
        0.75,
        "uniform",
        method="rigl",
        macs=macs,
        train_macs=3 * macs,
        metric="accuracy",
        value=value,
    )
    return replace(given, **changes)


def test_a_run_is_read_with_its_exact_counts(tmp_path: Path) -> None:
    run_directory(tmp_path, "a")
    run_directory(tmp_path, "b", seed=1, metric=0.8)
    found = read_observations(str(tmp_path))
    assert [o.seed for o in found] == [0, 1]
    assert found[0].train_macs == 3 * 10**20 + 1
    assert read_observations(str(tmp_path / "b")) == found[1:]


def test_a_plan_beside_a_run_says_how_many_masks_it_has(tmp_path: Path) -> None:
    directory = run_directory(tmp_path, "a")
    plan = ift.plan(chain(), "wide", "3/4")
    (directory / "plan.json").write_text(dumps(plan_document(plan)))
    assert read_observations(str(directory))[0].log2_masks == plan.cardinality.log2_masks


def test_a_plan_is_read_as_it_is(tmp_path: Path) -> None:
    plan = ift.plan(chain(), "wide", "3/4")
    ift.save(plan, str(tmp_path / "plan.json"))
    found = read_observations(str(tmp_path / "plan.json"))[0]
    assert found == of_plan(plan, str(tmp_path / "plan.json"))
    assert (found.macs, found.nnz) == (
        sum(x.macs for x in plan.layers),
        sum(x.nnz for x in plan.layers if x.maskable),
    )


TABLE = """model,transform,sparsity,seed,outcome,macs,train_macs,metric,value,unheard_of
net,wide,0.75,0,ok,1000,300000000000000000001,accuracy,0.9,x
net,wide,0.75,1,ok,1000.0,,accuracy,,x
"""


def test_a_table_is_read_and_what_is_empty_stays_unsaid(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    first, second = read_observations(str(tmp_path / "t.csv"))
    assert first.train_macs == 300000000000000000001
    assert (second.macs, second.train_macs, second.value) == (1000, None, None)


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {"model": ["net", "net"], "macs": pd.array([2**60 + 1, None], dtype="Int64"), "seed": [0, 1]}
    )
    frame.to_parquet(tmp_path / "t.parquet")
    found = read_observations(str(tmp_path / "t.parquet"))
    assert [o.macs for o in found] == [2**60 + 1, None]


@pytest.mark.parametrize(
    "content, says",
    [
        ("model,macs\nnet,many\n", "row 1: macs is 'many'"),
        ("model,macs\nnet,1.5\n", "row 1: macs is '1.5'"),
        ("model,macs,value\nnet,1,inf\n", "value is 'inf'"),
        ("a,b\n1,2\n", "has the columns a, b"),
    ],
)
def test_a_wrong_table_says_where(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=says):
        read_observations(str(tmp_path / "t.csv"))


def test_what_is_no_finished_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        read_observations(str(tmp_path))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="--resume"):
        read_observations(str(tmp_path))
    (tmp_path / "s.json").write_text('{"schema": "iftplan.spec/1"}')
    with pytest.raises(InputError, match="spec document"):
        read_observations(str(tmp_path / "s.json"))


def test_a_result_that_was_changed_is_refused(tmp_path: Path) -> None:
    directory = run_directory(tmp_path, "a")
    file = directory / "result.json"
    file.write_text(file.read_text().replace('"metric": 0.9', '"metric": 0.99'))
    with pytest.raises(InputError, match="digest"):
        read_observations(str(directory))


# --- trade-offs ---------------------------------------------------------------------------------------------


def test_two_results_of_one_seed_are_no_seeds_of_one_configuration() -> None:
    """Two starts with two seeds each, and one run given twice."""
    runs = [seen(0.8, seed=0), seen(0.6, seed=0), seen(0.9, seed=1), seen(0.7, seed=1), seen(0.8, seed=0)]
    found = tradeoff([replace(o, source=f"run{i}") for i, o in enumerate(runs)])
    assert [(entry.y.count, round(entry.y.mean, 6)) for entry in found.entries] == [(2, 85.0), (2, 65.0)]
    assert len({entry.name for entry in found.entries}) == 2


def test_runs_that_began_with_other_weights_are_no_seeds_of_each_other(tmp_path: Path) -> None:
    """Each seed with a run of its own; and two runs that are four beginnings."""
    own = [
        run_directory(
            tmp_path,
            f"own{i}",
            seed=i,
            config={"start": {"checkpoint": f"/a/dense-{i}/checkpoint-000000100.pt"}},
        )
        for i in range(2)
    ]
    others = [
        run_directory(tmp_path, f"other{i}", seed=i, config={"start": {"checkpoint": name}})
        for i, name in enumerate(("/b/dense-0", "/b/dense-1", "/b/other-0", "/b/other-1"))
    ]
    assert _beginning(PurePath("a/cnn-wide-0.9-rigl-seed0-ab12cd34")) == "cnn-wide-0.9-rigl"
    assert _beginning(PurePath("a/run-1/checkpoint-000000100")) == "run/checkpoint-000000100"
    assert (
        _beginning(PurePath("a/w-1.safetensors"))
        == _beginning(PurePath("b/w-2.safetensors"))
        == "w.safetensors"
    )
    found = tradeoff([o for path in (*own, *others) for o in read_observations(str(path))])
    assert sorted(entry.y.count for entry in found.entries) == [2, 2, 2]


def test_what_is_chosen_may_be_written_as_a_string() -> None:
    runs = [seen(0.8), seen(0.7, 500, transform="none", sparsity=0.0, method="dense")]
    named: Any = tradeoff
    assert named(runs, "inference", "metric", convention="flop", better="higher") == tradeoff(
        runs, Cost.INFERENCE, Gain.METRIC, convention=Convention.FLOP, better=Sense.HIGHER
    )
    with pytest.raises(InputError, match="'training', 'inference', 'params'"):
        named(runs, "train")


def test_weights_are_compared_among_networks_that_have_masks() -> None:
    dense = seen(0.7, transform="none", sparsity=0.0, method="dense", nnz=0, source="the dense run")
    found = tradeoff([seen(0.8, nnz=100), dense], Cost.PARAMS)
    assert [entry.x.mean for entry in found.entries] == [100]
    assert any("the dense run" in note for note in found.notes)


def test_seeds_become_one_configuration_with_its_error() -> None:
    found = tradeoff(
        [seen(0.8, seed=0), seen(0.9, seed=1), seen(0.7, 500, transform="none", sparsity=0.0, method="dense")]
    )
    wide, dense = found.entries
    assert (wide.y.mean, wide.y.error, wide.y.count) == (pytest.approx(85), pytest.approx(5), 2)
    assert dense.what.dense
    assert (dense.y.error, dense.name) == (None, "dense")
    assert found.y.title == "accuracy (%)"


def test_equal_accuracy_is_read_off_the_sparse_frontier() -> None:
    dense = seen(0.7, 4000, transform="none", sparsity=0.0, method="dense")
    found = tradeoff([dense, seen(0.6, 1000), seen(0.8, 4000, sparsity=0.9)])
    [(i, reading)] = found.readings
    assert found.entries[i].what.dense
    assert (reading.outcome, reading.ratio) == (ReadingOutcome.READ, pytest.approx(2.0))


def test_the_tolerance_is_the_one_that_was_asked_for() -> None:
    found = tradeoff([seen(0.8), seen(0.9, transform="parallel")], tolerance=0.01)
    assert "equal cost within 1 %: 2 at " in " ".join(tradeoff_table(found).notes)


def test_flops_are_two_for_each_mac() -> None:
    one, two = (tradeoff([seen(0.5)], convention=c) for c in Convention)
    assert two.entries[0].x.mean == 2 * one.entries[0].x.mean
    assert "MACs" in one.x.title
    assert "FLOPs" in two.x.title


@pytest.mark.parametrize(
    "other, says",
    [
        (
            {"convention": "flop", "source": "their.csv"},
            r"their.csv counts in 'flop' and r0.8 in 'mac'",
        ),
        ({"metric": "perplexity", "source": "b"}, "r0.8 has 'accuracy' and b has 'perplexity'"),
        ({"task": "ImageNet", "source": "b"}, "r0.8 has 'CIFAR-100' and b has 'ImageNet'"),
    ],
)
def test_what_does_not_compare_is_refused_by_both_names(other: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        tradeoff([seen(0.8, task="CIFAR-100"), replace(seen(0.9, task="CIFAR-100"), **other)])


def test_a_fraction_and_a_percentage_are_one_metric() -> None:
    found = tradeoff([seen(0.8), seen(80.0, metric="top1", transform="parallel")])
    assert {entry.y.mean for entry in found.entries} == {80.0}


def test_perplexity_is_better_when_lower() -> None:
    found = tradeoff(
        [
            seen(20.0, 1000, metric="ppl"),
            seen(15.0, 2000, metric="ppl", sparsity=0.9),
            seen(30.0, 3000, metric="ppl", sparsity=0.5),
        ]
    )
    assert [found.entries[i].y.mean for i in found.frontier] == [20.0, 15.0]


def test_an_unknown_metric_needs_its_direction() -> None:
    with pytest.raises(InputError, match="better='higher'"):
        tradeoff([seen(1.0, metric="dice")])
    assert tradeoff([seen(1.0, metric="dice")], better=Sense.HIGHER).y.title == "dice"


def test_what_lacks_a_number_is_left_out_by_name() -> None:
    found = tradeoff([seen(0.8), seen(0.9, train_macs=None, source="lost")], Cost.TRAINING)
    assert len(found.entries) == 1
    assert found.notes == ("1 of 2 have no training MACs or no metric and are left out: lost",)
    with pytest.raises(InputError, match="none of p has a metric; plans are not trained yet"):
        tradeoff([Observation("p", "net", macs=5, log2_masks=2.0)])


def test_plans_are_held_against_each_other_by_their_search_space() -> None:
    plans = [of_plan(ift.plan(chain(), "wide", s), str(s)) for s in ("1/2", "3/4")]
    found = tradeoff(plans, gain=Gain.LOG2_MASKS)
    assert [e.name for e in found.entries] == ["wide 0.5", "wide 0.75"]
    assert [e.y.mean for e in found.entries] == [p.log2_masks for p in plans]
    assert found.x.title.startswith("inference MACs")


LOWRANK = {"transform": "lowrank", "sparsity": 0.0, "method": "densified", "nnz": 0, "maskable_weights": 0}


def told_apart(home: Path, *configs: dict[str, Any], **changes: Any) -> list[tuple[str, int]]:
    """Names and counts of seeds, of two runs of each of the configurations."""
    for i, config in enumerate(configs):
        for seed in (2 * i, 2 * i + 1):
            run_directory(home, f"{i}-{seed}", seed=seed, config={**config, "seed": seed}, **changes)
    return [(e.name, e.y.count) for e in tradeoff(read_observations(str(home))).entries]


@pytest.mark.parametrize(
    "one, other, names",
    [
        ({}, {"training": {"steps": 20}}, ["steps 0", "steps 20"]),
        ({"optimizer": {"lr": 0.1}}, {"optimizer": {"lr": 0.2}}, ["lr 0.1", "lr 0.2"]),
        ({"plan": {}}, {"plan": {"round_to": 8}}, ["round_to 1", "round_to 8"]),
        ({"method": {"fraction": 0.3}}, {"method": {"fraction": 0.5}}, ["fraction 0.3", "fraction 0.5"]),
        ({"data": {"flip": False}}, {"data": {"flip": True}}, ["flip no", "flip yes"]),
    ],
    ids=["steps", "lr", "plan", "method", "data"],
)
def test_runs_of_other_settings_are_no_seeds_of_each_other(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], names: list[str]
) -> None:
    found = told_apart(tmp_path, {**one, "a_new_section": {}}, other)
    assert [count for _, count in found] == [2, 2]
    first, second = (name for name, _ in found)
    assert first != second
    assert second == f"wide 0.75, {names[1]}"
    assert first == f"wide 0.75, {names[0]}"


@pytest.mark.parametrize(
    "one, other",
    [
        ({}, {"training": {"batch_size": 128}}),  # what older runs leave unsaid is the default
        ({}, {"training": {"threads": 3, "eval_interval": 7, "checkpoint_interval": 9}}),
        (
            {},
            {
                "data": {"workers": 2},
                "training": {"timeout": 9, "recompute": True, "tensor_parallel": 2, "replicas": 2},
            },
        ),
        ({"recycling": {"measure": True}}, {}),
        ({"data": {"path": "/here/cifar10"}}, {"data": {"path": "/there/cifar10/"}}),
    ],
    ids=["defaults", "machine", "processes", "measures", "place"],
)
def test_settings_that_shape_no_training_keep_seeds_together(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert told_apart(tmp_path, one, other) == [("wide 0.75", 4)]


def test_a_control_does_not_care_for_masks(tmp_path: Path) -> None:
    found = told_apart(
        tmp_path,
        {"method": {"name": "dense", "fraction": 0.5}, "plan": {"scope": "model"}},
        {"method": {"name": "dense"}},
        transform="none", sparsity=0.0, method="dense",
    )  # fmt: skip
    assert found == [("dense", 4)]


def test_a_linear_member_is_another_model(tmp_path: Path) -> None:
    found = told_apart(tmp_path, {}, {"plan": {"nonlinear": False}}, **LOWRANK)
    assert found == [("lowrank", 2), ("lowrank linear", 2)]


def test_what_no_entry_differs_in_is_in_no_name() -> None:
    lowrank = seen(
        0.5, transform="lowrank", sparsity=0.0, structure="unstructured", scope="layers", nonlinear=False,
        method="densified", maskable_weights=0,
    )  # fmt: skip
    sparse = [seen(0.8, structure="unstructured", scope="layers"), seen(0.7, structure="2:8", sparsity=0.9)]
    found = tradeoff([lowrank, *sparse])
    assert [e.name for e in found.entries] == ["lowrank", "wide 0.75", "wide 0.9 2:8"]


# --- published results ----------------------------------------------------------------------------------------


def test_published_rows_are_read_with_family_mask_and_sparsity() -> None:
    rows = {
        (r.table, r.model, r.transform, r.method, r.nonlinear, r.sparsity): r for r in published_results()
    }
    assert rows["6", "ResNet-18", "wide", "rigl", None, Fraction(9, 10)].value == 74.4
    masked = [r for r in published_results("CIFAR-100") if r.mask]
    assert [(r.transform, r.mask, r.sparsity) for r in masked] == [
        ("wide", "4:8T", Fraction(1, 2)), ("wide", "2:8T", Fraction(3, 4)), ("wide", "1:8T", Fraction(7, 8)),
    ]  # fmt: skip
    widths = [r.sparsity for r in published_results() if r.transform == "lowrank" and r.nonlinear]
    assert widths == [0, Fraction(1, 2), Fraction(3, 4), Fraction(9, 10)], "k = (1-s)^(-1/2)"


def test_an_unknown_task_is_answered_with_those_there_are() -> None:
    with pytest.raises(InputError, match="CIFAR-100, ImageNet"):
        published_results("MNIST")
