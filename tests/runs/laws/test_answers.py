"""What laws answer on the command line and in Python, and what they refuse."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.runs.laws.advice.question import LawQuestion, ask
from iftplan.runs.laws.advice.sparse import Advice
from iftplan.runs.laws.named import FITS, published
from iftplan.runs.laws.sparse import LAWS
from tests.support.cli_runs import iftplan, many

T5 = Path(__file__).parent / "data" / "t5_runs.csv"
BUDGETED = ("dense", "average", "joint-moe", "moe-sparsity", "fine-grained-moe")


@pytest.mark.parametrize("name", [name for name in FITS if name != "sparse"])
def test_every_law_answers_without_a_question(name: str) -> None:
    for fit in FITS[name]:
        answer = ask(published(name, fit), LawQuestion())
        assert answer.rows
        assert len({tuple(row) for row in answer.rows}) == 1, "rows have the same keys"
        assert str(answer).count("\n") > len(answer.rows)


@pytest.mark.parametrize("name", BUDGETED)
def test_rows_cost_what_was_asked(name: str) -> None:
    served = 1e10
    answer = ask(published(name), LawQuestion(compute=1e21, served=served))
    for row in answer.rows:
        active = row.get("active_params") or row.get("params") or row["first_params"] * row["average_density"]
        compute = row.get("compute", 1e21)
        assert 6 * active * row["data"] + 2 * active * served == pytest.approx(compute)


@pytest.mark.parametrize("name", ["joint-moe", "moe-sparsity", "fine-grained-moe"])
def test_the_best_row_has_the_least_loss(name: str) -> None:
    answer = ask(published(name), LawQuestion(compute=1e20))
    assert answer.best is not None
    assert answer.rows[answer.best]["loss"] == min(row["loss"] for row in answer.rows)
    assert [record["best"] for record in answer.records()].count(True) == 1


def test_a_given_size_takes_the_data_that_is_left() -> None:
    [*_, last] = ask(published("joint-moe"), LawQuestion(params=1e9, compute=1e20)).rows
    assert last["active_params"] == 1e9
    assert last["data"] == pytest.approx(1e20 / 6e9)


def test_a_memory_favours_few_experts() -> None:
    free = ask(published("joint-moe"), LawQuestion(compute=1e21))
    tight = ask(published("joint-moe"), LawQuestion(compute=1e21, memory=2e9, context=8192))
    assert free.rows[free.best or 0]["experts"] == 32
    assert tight.rows[tight.best or 0]["experts"] == 4
    assert all(row["memory"] <= 2e9 * (1 + 1e-9) for row in tight.rows)


def test_what_does_not_fit_is_left_out_and_named() -> None:
    answer = ask(published("joint-moe"), LawQuestion(params=5e8, compute=1e20, memory=1.5e9))
    assert [row["experts"] for row in answer.rows] == [1, 2, 4]
    assert any("does not fit into the memory: 8, 16, 32 experts" in note for note in answer.notes)
    with pytest.raises(InfeasibleError, match="100 M active parameters needs"):
        ask(published("joint-moe"), LawQuestion(params=1e12, memory=1e9))


def test_finer_experts_pay_with_more_compute_until_the_router_costs_too_much() -> None:
    def best(compute: float) -> float:
        answer = ask(published("fine-grained-moe"), LawQuestion(compute=compute))
        return answer.rows[answer.best or 0]["granularity"]

    assert best(1e18) < best(1e21)


@pytest.mark.parametrize(
    ("name", "question", "says"),
    [
        ("routed", LawQuestion(compute=1e20), "takes `params`"),
        ("activation", LawQuestion(params=1e8), "takes `tokens`"),
        ("dense", LawQuestion(memory=1e9), "not asked for `memory`"),
        ("joint-moe", LawQuestion(context=1e3), "give `memory` with it"),
    ],
)
def test_what_a_law_does_not_know_is_refused(name: str, question: LawQuestion, says: str) -> None:
    with pytest.raises(InputError, match=says):
        ask(published(name), question)


def test_a_budget_that_inference_uses_up_is_refused() -> None:
    with pytest.raises(InfeasibleError, match="give more than 2e\\+22"):
        ask(published("dense"), LawQuestion(params=1e9, compute=1e20, served=1e13))


def test_the_command_answers_refuses_and_fits(tmp_path: Path) -> None:
    words = [
        "advise --law joint-moe --format json",
        "advise --law joint-moe --format csv",
        "advise --law moe-sparsity --kappa 2",
        "advise --memory 1e9",
        "advise --law routed --compute 1e20",
        "advise --law kaplan",
        "advise --law dense --plot x.png",
        "advise --linear",
        "advise --resamples 5",
        f"advise --fit {T5} --resamples 8 --format json",
        f"advise --law dense --fit {T5} --resamples 8 --compute 1e19",
        "advise --law joint-moe --theme dark --plot y.png --served 0",
    ]
    answered, table, *refused, fitted, dense, drawn = many([w.split() for w in words], tmp_path)
    found = json.loads(answered.out)
    assert found["schema"] == "iftplan.law/1"
    assert found["rows"][0]["active_params"] == pytest.approx(1.73e9, rel=0.01)
    assert "fitted" not in found
    rows = list(csv.DictReader(io.StringIO(table.out)))
    assert [row["best"] for row in rows] == ["False"] * 5 + ["True"]
    assert [run.code for run in refused] == [2] * 7
    for run, said in zip(
        refused,
        ("--kappa belongs to the law sparse", "--memory is not for the law sparse", "it takes --params", "there are sparse", "--plot draws", "Add --fit RUNS", "Add --fit RUNS"),
        strict=True,
    ):  # fmt: skip
        assert said in run.err
    found = json.loads(fitted.out)
    assert found["data"] == str(T5)
    assert found["fitted"]["runs"] == 48
    assert found["fitted"]["intervals"]["b_s"][0] < found["fitted"]["constants"]["b_s"]
    assert found["optimal_sparsity"] == pytest.approx(0.573, abs=0.01)
    assert any("so 100 M non-zero parameters is extrapolated" in note for note in found["notes"])
    assert any("have their best sparsity from 0." in note for note in found["notes"])
    assert dense.code == 0, dense.err
    assert "fitted to 48 runs" in dense.out
    assert "low" in dense.out
    assert drawn.code == 0
    assert (tmp_path / "y.png").read_bytes().startswith(b"\x89PNG")


def test_a_fit_without_scipy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from iftplan.runs.laws.fitting.fit import fit_law
    from iftplan.runs.laws.fitting.runs import read_runs

    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    law = published("sparse")
    with pytest.raises(InputError, match=r"iftplan\[train\]"):
        fit_law(law, read_runs(str(T5), law))


def test_the_command_needs_no_option(tmp_path: Path) -> None:
    run = iftplan("advise", cwd=tmp_path)
    assert run.code == 0
    assert "0.5245 (best)" in run.out


@pytest.mark.parametrize(
    "wrong",
    [{"compute": 0.0}, {"params": 0.0}, {"served": -1e10}, {"tokens": float("inf")}, {"memory": -1.0}],
)
def test_a_size_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"`{next(iter(wrong))}` is"):
        LawQuestion(**wrong)


def test_the_sparse_law_is_asked_otherwise_and_taken_by_its_equation_too() -> None:
    with pytest.raises(InputError, match="Advice does"):
        ask(published("sparse"), LawQuestion())
    assert Advice(published("sparse", "t5-c4"), 1e8, 1e20).sparsity == pytest.approx(  # type: ignore[arg-type]
        Advice(LAWS["t5-c4"], 1e8, 1e20).sparsity
    )
