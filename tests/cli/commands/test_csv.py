"""CSV of every command: one row a thing, JSON's keys and their units for headings, numbers that pandas reads as numbers."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

from iftplan.cli.commands import SUMMARIES
from iftplan.cli.group import command_named
from tests.support.cli_runs import Run, many

NET = """
from torch import nn


def build():
    return nn.Sequential(nn.Linear(1600, 3200), nn.ReLU(), nn.Linear(3200, 1000))
"""
CONFIG = """
[models.net]
source = "net.py:build"
inputs = ["2x1600"]
budget.macs = "20M"
budget.flops = "40M"
budget.parameters = "10M"
[models.broken]
source = "net.py:nothing"
inputs = ["2x1600"]
"""
WORDS = {
    "solve": "solve --layer linear:1600-3200@2 --layer conv3x3:64-128@16x16 --sparsity 0.75 --transform wide,parallel,lowrank",
    "solve flop": "solve --layer linear:1600-3200@2 --sparsity 0.75 --transform wide --convention flop",
    "plan": "plan net.py:build --input 2x1600 --sparsity 0.75 --keep-dense none --transform parallel",
    "audit": "audit net.py:build --input 2x1600",
    "check": "check",
    "diff": "diff zoo:digits-cnn p.json",
    "spec": "spec net.py:build --input 2x1600",
    "prune": "prune zoo:digits-cnn --data digits --sparsity 0.5 --method wanda --samples 8",
    "sweep": "sweep zoo:digits-cnn --transforms wide --sparsities 0.5,0.75",
    "pareto": "pareto p.json q.json --y log2_masks",
    "paper": "paper table2",
    "advise": "advise --params 1e8 --compute 1e21",
    "bench": "bench --layer linear:1600-3200@2 --dry-run",
    "models": "models",
}
NUMBERS = {
    "solve": "sparsity nnz capacity density dense_macs macs residual_macs log2_masks_bits maskable_weights multiplier branches rank",
    "solve flop": "dense_flops flops residual_flops",
    "plan": "nnz capacity density dense_macs macs log2_masks_bits",
    "audit": "measured_macs",
    "check": "measured_macs parameters limits_macs_allowed limits_macs_deviation limits_flops_allowed limits_parameters_allowed",
    "diff": "base_macs head_macs difference_macs",
    "spec": "macs",
    "prune": "sparsity nnz maskable_weights macs metric loss",
    "sweep": "sparsity macs ratio nnz log2_masks",
    "pareto": "x_inference_macs_forward_pass_of_one_sample y_search_space_log2_of_the_number_of_masks_bits",
    "paper": "sparsity published macs dense_macs scope_macs dense_scope_macs maskable_weights log2_masks_bits train_macs dense_train_macs",
    "advise": "sparsity data_seen_tokens loss optimal_compute_flops",
    "bench": "sparsity nnz density count",
    "models": "",
}
ROWS = {
    "solve": 6,
    "solve flop": 1,
    "plan": 2,
    "audit": 2,
    "check": 2,
    "spec": 2,
    "prune": 1,
    "sweep": 2,
    "paper": 10,
    "advise": 5,
    "bench": 1,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("csv")
    (folder / "net.py").write_text(NET)
    (folder / "iftplan.toml").write_text(CONFIG)
    plans = [
        f"plan zoo:digits-cnn --sparsity {s} -o {name}.json".split()
        for name, s in (("p", "0.5"), ("q", "0.75"))
    ]
    forms = [f"{words} --format {form}".split() for form in ("csv", "json") for words in WORDS.values()]
    done = many([*plans, *forms], folder)
    names = [f"{name}{suffix}" for suffix in ("", " json") for name in WORDS]
    return dict(zip(names, done[2:], strict=True))


@pytest.mark.parametrize("command", WORDS)
def test_pandas_reads_numbers_as_numbers(runs: dict[str, Run], command: str) -> None:
    assert runs[command].code == (2 if command == "check" else 0), runs[command].err
    frame = pd.read_csv(io.StringIO(runs[command].out))
    for column in NUMBERS[command].split():
        assert pd.api.types.is_numeric_dtype(frame[column]), (column, list(frame[column]))
    assert len(frame) == ROWS.get(command, len(frame)) > 0
    assert frame.columns.is_unique


UNITS = {"bits", "macs", "flops", "tokens"}
NAMES = {"macs", "flops", "parameters"}
"""Quantities that name an entry of a list in JSON and a part of a heading in CSV."""


def keys_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from keys_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)


@pytest.mark.parametrize("command", [name for name in WORDS if not name.endswith("flop")])
def test_headings_are_the_keys_of_json_and_their_units(runs: dict[str, Run], command: str) -> None:
    document = json.loads(runs[f"{command} json"].out)
    keys = set(keys_of(document)) | ({"macs"} if command == "spec" else set())  # follows from its sizes
    for heading in pd.read_csv(io.StringIO(runs[command].out)).columns:
        bare = re.sub(rf"_({'|'.join(UNITS)})$", "", heading)
        if command == "pareto":  # what an axis shows stands in the document beside its points
            bare = re.sub(r"^([xy])(_error)?_.*", r"\1\2", bare)
        parts = bare.split("_")
        nested = parts[0] in keys and parts[-1] in keys and set(parts[1:-1]) <= NAMES
        assert heading in keys or bare in keys or nested, heading


def test_that_check_can_fail(runs: dict[str, Run]) -> None:
    assert "layer" not in set(keys_of(json.loads(runs["audit json"].out)))


def test_every_command_with_formats_is_tried() -> None:
    """`plot` writes figures and `train` a directory; everything else has a table."""
    with_format = {
        name for name in SUMMARIES if any("--format" in p.opts for p in command_named(name).params)
    }
    assert with_format == {words.split()[0] for words in WORDS.values()}


def test_the_numbers_are_the_ones_worked_out_by_hand(runs: dict[str, Run]) -> None:
    frames = {name: pd.read_csv(io.StringIO(runs[name].out)) for name in WORDS}
    first, second = 2 * 1600 * 3200, 2 * 3200 * 1000
    for name, column in (("audit", "measured_macs"), ("spec", "macs"), ("plan", "dense_macs")):
        assert list(frames[name][column]) == [first, second]
    check = frames["check"].iloc[0]
    assert (check["measured_macs"], check["limits_macs_allowed"], check["limits_flops_allowed"]) == (
        first + second,
        20e6,
        40e6,
    )
    assert check["limits_macs_deviation"] == pytest.approx((first + second) / 20e6 - 1)
    wide = frames["solve"].query("transform == 'wide'").iloc[0]
    assert (wide["macs"], wide["multiplier"], wide["out_channels"]) == (first, 2, 6400)
    assert frames["solve flop"]["flops"][0] == 2 * first
