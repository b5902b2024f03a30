"""The command behind docs/results.md: its arms exist, its means and errors are those of the definition."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from math import sqrt
from pathlib import Path
from types import ModuleType

import pytest
from cli_runs import many

ROOT = Path(__file__).parents[1]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks/results.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["results"] = module  # frozen dataclasses look their module up
    spec.loader.exec_module(module)
    return module


results = load()


def row(arm: str, method: str, seed: int, metric: float) -> dict[str, object]:
    return {
        "arm": arm,
        "method": method,
        "seed": seed,
        "metric": metric,
        "metric_name": "accuracy",
        "nnz": 0 if method == "dense" else 10,
        "maskable_weights": 0 if method == "dense" else 40,
        "forward_macs": 1234567,
        "train_ratio": 1.0,
        "itop": 1.0,
    }


def test_means_errors_and_paired_differences_by_hand() -> None:
    dense, sparse = (0.60, 0.64, 0.62), (0.61, 0.68, 0.63)
    rows = [row("dense", "dense", s, m) for s, m in enumerate(dense)]
    rows += [row("wide, set", "set", s, m) for s, m in enumerate(sparse)]
    found = results.table(rows).set_index("arm")
    error = sqrt(((0.60 - 0.62) ** 2 + (0.64 - 0.62) ** 2 + 0) / 2) / sqrt(3)
    assert found.loc["dense", "accuracy"] == f"62.00 ± {100 * error:.2f}"
    # differences 1, 4 and 1: mean 2, deviation √3, error 1
    assert found.loc["wide, set", "against dense"] == "+2.00 ± 1.00"
    assert found.loc["wide, set", "forward MACs"] == "1 234 567"


def test_families_run_with_the_first_seed_only() -> None:
    assert len(list(results.arms(0))) == len(results.METHODS) + len(results.FAMILIES) + 1
    assert [arm.method for arm in results.arms(1)] == list(results.METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", results.EXPERIMENTS)
def test_every_arm_is_one_that_the_command_takes(experiment: str, tmp_path: Path) -> None:
    options = shlex.split(results.EXPERIMENTS[experiment])
    commands = [
        ["train", *options, "--data", "nowhere.txt", "--dry-run", "--out", "none", *arm.options]
        for arm in results.arms(0)
    ]
    for run in many(commands, tmp_path):
        assert run.code == 0, run.err
        assert re.search(r"forward MACs a sample +[\d ]+", run.out)
