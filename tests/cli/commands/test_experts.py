"""Mixtures of experts on the command line, from a plan to a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli_runs import iftplan


def test_a_mixture_is_planned_and_audited(tmp_path: Path) -> None:
    made = iftplan("plan", "zoo:gpt-char", "--transform", "experts:8x2", "-o", "moe.json", cwd=tmp_path)
    assert made.code == 0, made.err
    document = json.loads((tmp_path / "moe.json").read_text())
    assert document["transform"] == "experts"
    assert document["experts"]["mixture"] == "experts:8x2"
    assert document["residual_macs"] == 0
    audited = iftplan("audit", "moe.json", "--format", "json", cwd=tmp_path)
    assert audited.code == 0, audited.err
    report = json.loads(audited.out)
    assert report["reference"] == "plan: experts:8x2"
    assert set(report["counters"].values()) == {document["planned"]["model"]}


def test_choices_of_many_experts_are_not_written_out(tmp_path: Path) -> None:
    made = iftplan("plan", "zoo:gpt-char", "--transform", "experts:200x90", "--budget", "9x", cwd=tmp_path)
    assert made.code == 0, made.err
    assert "C(200, 90) choices" in made.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("plan", "zoo:gpt-char", "--transform", "experts:8"), "Write --transform experts:8x2"),
        (
            ("plan", "zoo:gpt-char", "--transform", "experts:8x2", "--sparsity", "0.5"),
            "--sparsity and --structure are about masks",
        ),
        (("plan", "zoo:resnet18", "--transform", "experts:8x2"), "no feed-forward block"),
        (
            ("solve", "--layer", "linear:4-4", "--sparsity", "0.5", "--transform", "experts:8x2"),
            "no single layer",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = iftplan(*arguments, cwd=tmp_path)
    assert done.code == 2
    assert says in done.message


def test_a_sweep_has_rows_of_experts(tmp_path: Path) -> None:
    done = iftplan(
        *("sweep", "zoo:gpt-char", "--transforms", "experts:8x2,experts:16x1,wide", "--sparsities", "0.5"),
        *("--format", "csv"),
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    assert [line.split(",")[1] for line in done.out.splitlines()[1:]] == [
        "experts:8x2",
        "experts:16x1",
        "wide",
    ]
