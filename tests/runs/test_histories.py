"""What a run writes as it goes, read back: masks, and loss against cost with its seeds taken together."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path

import pytest

from iftplan.base.documents import digest
from iftplan.base.errors import InputError
from iftplan.runs.histories.learning import _name, learning_curves, read_learning
from iftplan.runs.histories.masks import read_history
from iftplan.runs.results.pareto import Estimate

HEADER = "step,test_loss,train_macs\n"


def run(
    directory: Path,
    rows: str,
    *,
    seed: int | None = None,
    method: str = "rigl",
    header: str = HEADER,
    lr: float = 0.1,
    begun: str = "",
    inside: bool | str = True,
) -> str:
    """A run directory with a loss, and with a record where it has a seed."""
    directory.mkdir()
    (directory / "metrics.csv").write_text(header + rows, encoding="utf-8")
    if seed is not None:
        config = {
            "seed": seed, "method": {"name": method}, "optimizer": {"lr": lr}, "start": {"checkpoint": begun},
            "plan": {"nonlinear": inside},
        }  # fmt: skip
        record = {"schema": "iftplan.run/1", "config": config, "seed": seed, "plan_digest": "a" * 64}
        record["digest"] = digest(record)
        (directory / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return str(directory)


def test_a_history_is_read_and_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("step,itop,churn,density\n10,0.25,0.1,0.25\n20,0.3,0.05,0.25\n")
    assert read_history(str(tmp_path)).itop == (0.25, 0.3)
    file.write_text("step,itop,churn,density\n10,0.25,nan,0.25\n")
    with pytest.raises(InputError, match=r"row 1: churn is nan"):
        read_history(str(tmp_path))
    file.write_text("step,itop\n10,0.2\n")
    with pytest.raises(InputError, match="has no column churn, density"):
        read_history(str(tmp_path))
    with pytest.raises(InputError, match="does not exist"):
        read_history(str(tmp_path / "none"))


def test_seeds_of_one_configuration_are_one_curve_with_its_error(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "wide-seed0", "10,2,300\n20,1.5,600\n", seed=0),
        run(tmp_path / "wide-seed1", "10,1,500\n20,1.0,800\n", seed=1),
        run(tmp_path / "other", "10,3,300\n20,2,600\n", seed=1, lr=0.2),
        run(tmp_path / "set", "10,3,300\n20,2,600\n", seed=2, method="set"),
        run(tmp_path / "short", "10,1,500\n", seed=3),
    ]
    which, curves = learning_curves([read_learning(name) for name in runs])
    assert which == "test"
    assert [(curve.name, curve.runs) for curve in curves] == [
        ("wide", 2), ("other", 1), ("set", 1), ("short", 1),
    ]  # fmt: skip
    assert curves[0].train_macs == (400.0, 700.0)
    # 2 and 1: mean 1.5, deviation 1/√2, error 1/2
    assert curves[0].loss == (Estimate(1.5, 0.5, 2), Estimate(1.25, 0.25, 2))
    assert curves[1].loss == (Estimate(3.0), Estimate(2.0))


def test_runs_that_differ_in_more_than_the_seed_are_curves_of_their_own(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "a", "10,2,300\n", seed=0),
        run(tmp_path / "twice", "10,1,300\n", seed=0),
        run(tmp_path / "norm", "10,1,300\n", seed=1, inside="norm"),
        run(tmp_path / "m0", "10,1,300\n", seed=0, begun="runs/magnitude-0"),
        run(tmp_path / "w1", "10,1,300\n", seed=1, begun="runs/wanda-1"),
        run(tmp_path / "m1", "10,1,300\n", seed=1, begun="runs/magnitude-1"),
    ]
    found = learning_curves([read_learning(name) for name in runs])[1]
    assert [(curve.name, curve.runs) for curve in found] == [
        ("a", 1), ("twice", 1), ("norm", 1), ("m", 2), ("w1", 1),
    ]  # fmt: skip


def test_runs_without_a_record_are_never_taken_together(tmp_path: Path) -> None:
    runs = [run(tmp_path / name, "10,2,300\n") for name in ("a0", "a1")]
    assert [curve.name for curve in learning_curves([read_learning(name) for name in runs])[1]] == [
        "a0",
        "a1",
    ]


def test_validation_counts_where_every_run_keeps_some(tmp_path: Path) -> None:
    header = "step,test_loss,train_macs,validation_loss\n"
    kept = read_learning(run(tmp_path / "kept", "10,2,300,4\n", header=header))
    plain = read_learning(run(tmp_path / "plain", "10,2,300\n"))
    which, curves = learning_curves([kept])
    assert (which, curves[0].loss) == ("validation", (Estimate(4.0),))
    which, curves = learning_curves([kept, plain])
    assert (which, [curve.loss for curve in curves]) == ("test", [(Estimate(2.0),)] * 2)


def test_a_run_that_came_apart_has_no_mean_there(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "0", "10,nan,300\n20,inf,400\n30,1,500\n", seed=0),
        run(tmp_path / "1", "10,1,300\n20,1,400\n30,1,500\n", seed=1),
    ]
    histories = [read_learning(name) for name in runs]
    assert isnan(histories[0].losses["test"][0])
    ((curve,),) = [learning_curves(histories)[1]]
    assert curve.loss == (None, None, Estimate(1.0, 0.0, 2))
    assert curve.name == "0", "a name that is nothing but a seed stays"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("10,2,300\n20,1,200\n", "row 2: train_macs is '200'"),
        ("10,2,1.5\n", "row 1: train_macs is '1.5'"),
        ("10,2,-3\n", "row 1: train_macs is '-3'"),
        ("10,2," + "9" * 5000 + "\n", "row 1: train_macs"),
        ("10,2,300\n20,much,400\n", "row 2: test_loss is 'much'"),
        ("10,2,300\n10,2,400\n", "row 2: step is 10 after 10"),
        ("", "has no rows yet"),
    ],
)
def test_a_loss_that_no_run_writes_is_refused_with_its_place(tmp_path: Path, rows: str, told: str) -> None:
    with pytest.raises(InputError, match=told.replace("'", ".")):
        read_learning(run(tmp_path / "run", rows))


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["wide-rigl-seed0-1a2b3c45", "wide-rigl-seed1-99aabbcc"], "wide-rigl"),
        (["run-0", "run-1"], "run"),
        (["seed0", "seed1"], "seed0"),
    ],
)
def test_a_mean_over_seeds_is_named_after_none(names: list[str], shown: str) -> None:
    assert _name(names) == shown
