"""The command that comes next: said on a terminal after each step, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli_runs import many
from tests.support.processes.terminals import errors_on_terminal

NET = """
from torch import nn


def net():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def larger():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
"""
CONFIGURATION = """
[models.net]
source = "net.py:net"
inputs = ["5x8"]
budget.macs = {}
"""
OPTIONS = "--transform wide --sparsity 0.75"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("next")
    (home / "net.py").write_text(NET)
    (home / "iftplan.toml").write_text(CONFIGURATION.format(7))
    commands = (
        "spec net.py:net --input 5x8 -o spec.json",
        "plan spec.json -o own.json",
        "plan zoo:digits-cnn -o zoo.json",
    )
    assert [run.code for run in many([text.split() for text in commands], home)] == [0, 0, 0]
    subprocess.run(["git", "init", "-q"], cwd=home, check=True)
    return home


def next_of(words: str, folder: Path, status: int = 0) -> str:
    shown = errors_on_terminal(["-m", "iftplan", *words.split()], folder, COLUMNS="300")
    assert shown.status == status, shown.text
    found = [line for line in shown.text.splitlines() if "next: " in line]
    assert len(found) <= 1 and (not found or shown.text.rstrip().endswith(found[0])), "one line, the last"
    return found[0].rpartition("next: iftplan ")[2] if found else ""


@pytest.mark.parametrize(
    ("words", "follows"),
    [
        ("solve --layer conv3x3", f"plan MODEL {OPTIONS} -o plan.json"),
        (
            "solve --layer conv3x3 --sparsity 0.5,0.75 --transform parallel --structure 2:4",
            "plan MODEL --transform parallel --sparsity 0.5 --structure 2:4 -o plan.json",
        ),
        ("models", f"plan MODEL {OPTIONS} -o plan.json"),
        ("spec zoo:digits-cnn -o s.json", f"plan s.json {OPTIONS} -o plan.json"),
        ("spec zoo:digits-cnn", "spec zoo:digits-cnn -o spec.json"),
        ("plan zoo:digits-cnn --sparsity 3/4", "plan zoo:digits-cnn --sparsity 3/4 -o plan.json"),
        ("plan zoo:digits-cnn -o p.json", "audit p.json"),
        ("plan spec.json -o p.json", "audit p.json --model net.py:net"),
        ("plan net.py:net --input 5x8 -o q.json", "audit q.json"),
        ("plan net.py:net --input 5x8 -o q.json --no-cache", "audit q.json --model net.py:net"),
        ("plan zoo:digits-cnn -o p.csv", ""),
        ("plan zoo:digits-cnn --format json", ""),
        ("plan zoo:digits-cnn --format csv", ""),
        ("audit zoo.json", "train zoo.json --method rigl"),
        ("audit own.json --model net.py:net", "train own.json --model net.py:net --data PATH --method rigl"),
        ("audit own.json --trust -o r.json", "train own.json --trust --data PATH --method rigl"),
        ("audit net.py:net --input 5x8", f"plan net.py:net --input 5x8 {OPTIONS} -o plan.json"),
        ("audit net.py:net --input 5x8 --budget 1M", "check"),
        ("sweep zoo:digits-cnn --sparsities 0.5", "sweep zoo:digits-cnn --sparsities 0.5 -o sweep.csv"),
        ("sweep zoo:digits-cnn --sparsities 0.5 -o s.csv", "pareto s.csv --y log2_masks"),
        ("pareto zoo.json --y log2_masks", "pareto zoo.json --y log2_masks -o pareto.html"),
        ("train --dry-run --seed 3", "train --seed 3"),
        ("train --steps 2 --out runs/a", "pareto runs"),
        ("advise --params 1e8 --compute 1e21", ""),
    ],
)
def test_a_terminal_is_told_what_comes_next(folder: Path, words: str, follows: str) -> None:
    assert next_of(words, folder) == follows


@pytest.mark.parametrize(
    ("words", "follows"),
    [
        ("audit net.py:larger --input 5x8 --against net.py:net", "diff net.py:net net.py:larger --input 5x8"),
        ("audit net.py:larger --input 5x8 --budget 1k", ""),
        ("check", "diff --base HEAD net"),
    ],
)
def test_a_check_that_fails_is_followed_by_what_changed(folder: Path, words: str, follows: str) -> None:
    assert next_of(words, folder, status=1) == follows


def test_what_is_said_runs(folder: Path) -> None:
    """From a model to a trained plan by the lines alone."""
    words = "spec zoo:digits-cnn -o chain.json"
    for expected in ("plan", "audit", "train", "pareto"):
        words = next_of(words, folder)
        assert words.split()[0] == expected
        words += " --steps 2 --out chain" if expected == "train" else ""
    assert words == "pareto chain"


def test_elsewhere_nothing_is_said(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "iftplan", "plan", "zoo:digits-cnn", "-o", "p.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "next:" not in done.stdout + done.stderr
