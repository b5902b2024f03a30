"""The reference of file formats says what the program writes and reads: every kind, every key."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NotRequired

import pytest
from pydantic import TypeAdapter, ValidationError
from typer.testing import CliRunner
from typing_extensions import TypedDict

import iftplan as ift
from iftplan.base.documents import Document
from iftplan.cli.main import app
from iftplan.families.builtin import family_named
from iftplan.families.document import solve_document
from iftplan.families.steps import explain
from iftplan.plans.audit.diff import LayerCosts, diff, diff_document
from iftplan.runs.document import read_recipe
from iftplan.runs.recipes.files import recipe_files
from iftplan.runs.results.pruning import PrunedPoint, PruningCurve, pruning_document
from tests.support.pages.documents import documents
from tests.support.places import ROOT, page_named

sys.path.insert(0, str(ROOT / "docs" / "_ext"))  # the extensions of the site

from document_kinds import FORMATS
from formats import attributes, tables, tables_of, words

KINDS = {form.schema: form for form in FORMATS}


def test_every_kind_of_document_has_a_place() -> None:
    sources = [*(ROOT / "iftplan").rglob("*.py")]
    written = {
        schema
        for source in sources
        for schema in re.findall(r'"(iftplan\.[a-z]+/\d+)"', source.read_text(encoding="utf-8"))
    }
    assert len(written) > 10
    page = page_named("formats.md").read_text(encoding="utf-8")
    assert {schema for schema in written if schema not in KINDS and schema not in page} == set()
    assert {schema for schema in KINDS if schema.startswith("iftplan.") and "/" in schema} <= written


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.schema)
def test_every_key_has_a_type_and_a_meaning(form: Any) -> None:
    for kind, keys in tables_of(form):
        assert keys, kind
        assert all(key.name and key.kind and key.meaning for key in keys)


def _more() -> Iterator[Document]:
    points = (PrunedPoint("wanda", 5, 10, 60, 0.8, 0.5), PrunedPoint("magnitude", 1, 10, 20, 0.9, 0.1))
    dense = ("m", "w", "d", "accuracy", 0.9, 0.1, 100, "2:4", "uniform", 8, Fraction(1, 100))
    yield pruning_document(PruningCurve(*dense, points))
    yield diff_document(diff(LayerCosts("a", {"x": 1}), LayerCosts("b", {"y": 2})))
    symbolic = explain(ift.solve("conv3x3", "wide", "1/2"), family_named("wide"))
    yield solve_document({"conv3x3": [symbolic]})


@pytest.mark.parametrize(
    "document", [*(d for _, d in documents()), *_more()], ids=lambda document: document["schema"]
)
def test_what_is_written_is_what_the_reference_says(document: Document) -> None:
    form = KINDS[document["schema"]]
    envelope = ("schema", "convention", "digest") if form.sealed else ()
    body = {key: value for key, value in document.items() if key not in envelope}
    reader = TypeAdapter(form.kind)
    reader.validate_json(json.dumps(body))
    with pytest.raises(ValidationError):
        reader.validate_json(json.dumps({**body, "unheard_of": 1}))


@pytest.mark.parametrize(
    "command",
    [
        "advise --params 1e8 --compute 1e20",
        "advise --law joint-moe",
        "advise --law activation --data relu-2.4b",
        "models",
        "paper",
        "paper table1",
        "paper table2",
        "paper table14",
        "paper table15",
        "paper table18",
        "paper figure3",
        "pareto --paper --task CIFAR-100",
        "sweep zoo:digits-cnn --transforms none --sparsities 0.5",
    ],
    ids=lambda command: " ".join(command.split()[:2]),
)
def test_what_is_printed_is_what_the_reference_says(command: str) -> None:
    printed = CliRunner().invoke(app, [*command.split(), "--format", "json"]).stdout
    document = json.loads(printed)
    kind: Any = KINDS[document["schema"]].kind
    TypeAdapter(kind).validate_json(printed)


@pytest.mark.slow
def test_a_run_writes_what_the_reference_says(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "iftplan", "train", "--steps", "2", "--out", "run"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    for name, schema in (("run", "run"), ("result", "result"), ("timing", "timing"), ("plan", "plan")):
        text = (tmp_path / "run" / f"{name}.json").read_text(encoding="utf-8")
        kind: Any = KINDS[f"iftplan.{schema}/1"].kind
        TypeAdapter(kind).validate_json(text)


def test_recipes_hold_settings_that_the_reference_lists() -> None:
    known = {key.name for _, keys in tables(KINDS["run settings"].kind) for key in keys}
    for name in recipe_files():
        for section, settings in read_recipe(name).items():
            assert {section, *(settings if isinstance(settings, dict) else ())} <= known, name


# --- how types are read ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Inner:
    """Something.

    Attributes:
        size: how large,
            in metres.
    """

    size: int = 3


class _Outer(TypedDict):
    """Something else.

    Attributes:
        name, title: what it is called.
        parts: inside it.
    """

    name: str
    title: NotRequired[str]
    parts: list[_Inner]


class _Silent(TypedDict):
    """Says nothing of its key."""

    key: int


def test_objects_inside_objects_have_tables_of_their_own() -> None:
    (outer, keys), (inner, (size,)) = tables(_Outer)
    assert (outer, inner) == (_Outer, _Inner)
    assert [(k.name, k.kind, k.required) for k in keys] == [
        ("name", "text", True),
        ("title", "text", False),
        ("parts", "list of inner", True),
    ]
    assert (size.default, size.meaning) == ("3", "how large, in metres.")
    assert attributes(_Outer)["title"] == "what it is called."


def test_a_key_without_a_meaning_is_refused() -> None:
    with pytest.raises(ValueError, match=r"_Silent: no word on key under Attributes"):
        list(tables(_Silent))


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (int | None, "whole number or null"),
        (dict[Literal["a", "b"], int], 'whole number, one for each of `"a"` or `"b"`'),
        (dict[str, list[float]], "list of number, by name"),
        (tuple[str, ...], "list of text"),
        (Fraction, '`"p/q"`'),
    ],
)
def test_types_have_words(hint: Any, expected: str) -> None:
    assert words(hint) == expected


def test_a_type_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="no words for the type"):
        words(complex)
