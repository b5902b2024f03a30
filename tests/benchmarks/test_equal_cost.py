"""The command behind the table of docs/results/places.md: every family at the cost of the dense model, with its own numbers."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import iftplan as ift
from tests.support.programs import program

equal_cost = program("equal_cost")
MODEL = "zoo:gpt-char"


@pytest.fixture(scope="module")
def rows() -> list[Any]:
    return list(equal_cost.rows_of(MODEL, list(equal_cost.FAMILIES), 0, 0, None))


def test_every_family_costs_what_the_dense_model_does(rows: list[Any]) -> None:
    dense, *others = rows
    assert [row.family for row in rows] == ["dense", *equal_cost.FAMILIES]
    for row in others:
        assert dense.macs == row.dense_macs
        # patterns and ranks leave a part unspent, less than widths of whole patterns or one rank of a layer cost
        assert 0.96 < row.macs / row.dense_macs <= 1
        assert row.bytes == 2 * row.kept if not row.bits else row.bytes > 2 * row.kept
        assert row.time == 0
        assert (row.places > row.kept) == (
            row.family.partition("/")[0] in ("wide", "nm", "parallel", "factorized", "doped")
        )
        assert bool(row.bits) == (row.places > row.kept and "/" not in row.family)


def test_kept_values_are_those_of_the_plan(rows: list[Any]) -> None:
    """Beside planned layers there are embeddings, biases and norms, whose number the widths alone decide."""
    dense, wide = rows[0], rows[1]
    plan = ift.plan(ift.read_model(MODEL), "wide", "3/4", scope="model")
    zeros = sum(layer.capacity - layer.nnz for layer in plan.layers)
    assert wide.places - wide.kept == zeros
    assert wide.bits == plan.cardinality.log2_masks
    assert dense.kept == dense.places < wide.places


def test_measured_rows_are_kept_and_drawn(rows: list[Any], tmp_path: Path) -> None:
    file, picture = tmp_path / "rows.jsonl", tmp_path / "equal.svg"
    timed = [replace(row, time=1 + i / 10) for i, row in enumerate(rows) if i]
    file.write_text("".join(f"{json.dumps(asdict(row))}\n" for row in timed))
    found = list(equal_cost.rows_of(MODEL, list(equal_cost.FAMILIES), 5, 0, file))
    assert found[1:] == timed
    equal_cost.picture(found, picture)
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
