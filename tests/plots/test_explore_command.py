"""`iftplan explore`: which model a page is of, what it opens with, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import iftplan as ift
from iftplan.models.zoo.specs import zoo_spec
from tests.support.cli_runs import iftplan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan, a spec, a sweep of one model and one of two, and a plan that would run Python code."""
    place = tmp_path_factory.mktemp("explore")
    for words in (
        "plan zoo:digits-cnn --transform parallel --sparsity 3/4 -o plan.json",
        "spec zoo:digits-cnn -o spec.json",
        "sweep zoo:digits-cnn --transforms wide --sparsities 0.5 -o sweep.json",
        "sweep zoo:digits-cnn zoo:resnet8-cifar --transforms wide --sparsities 0.5 -o two.json",
    ):
        assert iftplan(*words.split(), cwd=place).code == 0
    return place


def page(place: Path, *words: str) -> tuple[Any, Any]:
    """The model that a page holds, and the document that it opens with."""
    done = iftplan("explore", *words, "-o", "page.html", cwd=place)
    assert (done.code, done.message.splitlines()[0]) == (0, "written: page.html"), done.err
    text = (place / "page.html").read_text("utf-8")
    found = [re.search(rf'id="{name}">(.*?)</script>', text, re.S) for name in ("model", "document")]
    model, opened = (json.loads(one[1]) for one in found if one)
    return model, opened


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        (["zoo:digits-cnn"], None),
        (["spec.json"], None),
        (["plan.json"], "iftplan.plan/1"),
        (["sweep.json"], "iftplan.sweep/1"),
        (["zoo:digits-cnn", "--show", "plan.json"], "iftplan.plan/1"),
        (["two.json", "--model", "zoo:digits-cnn"], "iftplan.sweep/1"),
    ],
)
def test_the_page_is_of_the_model_that_is_named(folder: Path, words: list[str], schema: str | None) -> None:
    model, opened = page(folder, *words)
    assert model["source"] == "zoo:digits-cnn"
    assert model["ownInputs"]
    assert (opened and opened["schema"]) == schema


def test_a_model_of_one_s_own_is_named_with_its_input(folder: Path) -> None:
    (folder / "net.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4))\n"
    )
    model, _ = page(folder, "net.py:net", "--input", "2x8")
    assert (model["source"], model["inputs"], model["ownInputs"]) == ("net.py:net", ["2x8"], False)
    assert [layer["name"] for layer in model["layers"]] == ["0", "1", "2"]


def test_python_that_a_plan_names_is_not_run_unless_it_is_named(folder: Path) -> None:
    (folder / "trap.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "foreign.json").write_text(json.dumps({**plan, "model": "trap.py:net"}))
    done = iftplan("explore", "foreign.json", cwd=folder)
    assert done.code == 2
    assert not (folder / "ran").exists()
    sweep = {"schema": "iftplan.sweep/1", "rows": [{"model": "trap.py:net"}]}
    (folder / "rows.json").write_text(json.dumps(sweep))
    done = iftplan("explore", "rows.json", cwd=folder)
    assert done.code == 2
    assert "would run Python code, trap.py:net" in done.err
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("two.json", "has rows of 2 models; choose one with --model"),
        ("plan.json --show sweep.json", "give one of them"),
        (
            "zoo:digits-cnn --show spec.json",
            "--show spec.json is a document of kind spec; it takes a plan, an audit or a sweep",
        ),
        ("zoo:digits-cnn --show net", "--show net is no JSON file"),
        ("zoo:digits-cnn --model zoo:resnet18", "leave it out"),
        ("zoo:digits-cnn -o no/such/page.html", "no/such"),
    ],
)
def test_what_does_not_go_together_is_refused(folder: Path, words: str, says: str) -> None:
    done = iftplan("explore", *words.split(), cwd=folder)
    assert done.code == 2
    assert says in done.err
    assert not (folder / "explore.html").exists()


def test_what_was_planned_for_one_module_is_refused(folder: Path) -> None:
    ift.save(ift.plan(zoo_spec("zoo:retinanet-r18"), "wide", within="backbone"), str(folder / "part.json"))
    rows = {"schema": "iftplan.sweep/1", "rows": [{"model": "zoo:retinanet-r18", "scope": "module:neck"}]}
    (folder / "parts.json").write_text(json.dumps(rows))
    for file, module in (("part.json", "backbone"), ("parts.json", "module:neck")):
        done = iftplan("explore", file, cwd=folder)
        assert done.code == 2
        assert f"{file} transforms one module alone ({module}), and the page plans whole models" in done.err


def test_a_file_of_another_model_is_refused(folder: Path) -> None:
    done = iftplan("explore", "zoo:resnet8-cifar", "--show", "plan.json", cwd=folder)
    assert done.code == 2
    assert "--show plan.json is of another model than zoo:resnet8-cifar" in done.err


def test_what_was_planned_at_a_budget_of_its_own_is_refused(folder: Path) -> None:
    ift.save(ift.plan("zoo:digits-cnn", "wide", budget="0.5x"), str(folder / "half.json"))
    rows = {"schema": "iftplan.sweep/1", "rows": [{"model": "zoo:digits-cnn", "budget": "200k"}]}
    (folder / "halves.json").write_text(json.dumps(rows))
    for words, budget in (
        (("half.json",), "1/2"),
        (("zoo:digits-cnn", "--show", "half.json"), "1/2"),
        (("halves.json",), "200k"),
    ):
        done = iftplan("explore", *words, cwd=folder)
        assert done.code == 2
        assert f"{words[-1]} was planned at a budget of its own ({budget})" in done.err
