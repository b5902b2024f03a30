"""A measurement is taken from the cache only while it would come out the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iftplan.base.documents import dumps, with_digest
from iftplan.checks.processes.cache import CheckCache
from iftplan.checks.processes.dependencies import Footprint
from iftplan.models.cost import ModelCost
from iftplan.models.cost_document import measured_document

MEASURED = ModelCost({"b": 3, "a": 4}, {"b": 1, "norm": 2}, {"relu": 5}, {"my::op": 1}, ("spare",), ("one",))
REQUEST = {
    "source": "net.py:build",
    "builds": "",
    "inputs": ["4x16"],
    "allow": [],
    "nonzeros": False,
    "cross_check": False,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text("x = 1")
    return tmp_path


def answer(folder: Path, **more: Any) -> dict[str, Any]:
    footprint = Footprint(folder)
    reads = {"file:net.py": footprint.state("file:net.py")}
    return {"measured": measured_document(MEASURED), "reads": reads, "outward": [], **more}


def found(folder: Path, request: dict[str, Any] = REQUEST, environment: str = "e", slot: str = "net") -> Any:
    return CheckCache(folder / "cache", environment).find(slot, request, Footprint(folder))


def kept(folder: Path) -> Path:
    CheckCache(folder / "cache", "e").keep("net", REQUEST, answer(folder))
    (entry,) = (folder / "cache").glob("*.json")
    return entry


def test_what_was_kept_is_found_with_its_layers_in_order(folder: Path) -> None:
    kept(folder)
    again = found(folder)
    assert again == MEASURED
    assert list(again.macs) == ["b", "a"]
    assert (folder / "cache" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [("source", "net.py:other"), ("inputs", ["8x16"]), ("allow", ["a::b=1"]), ("builds", "x.py:y"), ("nonzeros", True), ("cross_check", True)],
)  # fmt: skip
def test_other_settings_find_nothing(folder: Path, key: str, value: object) -> None:
    kept(folder)
    assert found(folder, {**REQUEST, key: value}) is None


def test_another_environment_slot_or_content_finds_nothing(folder: Path) -> None:
    kept(folder)
    assert found(folder, environment="torch 3") is None
    assert found(folder, slot="other") is None
    (folder / "net.py").write_text("x = 2")
    assert found(folder) is None
    (folder / "net.py").unlink()
    assert found(folder) is None
    (folder / "net.py").write_text("x = 1")
    assert found(folder) == MEASURED


def resealed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def spoil(entry: Path) -> None:
        document = json.loads(entry.read_text())
        change(document)
        entry.write_text(dumps(with_digest(document)))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entry: entry.write_bytes(b"\xff\xfe"),
        lambda entry: entry.write_text(""),
        lambda entry: entry.write_text("[]"),
        lambda entry: entry.write_text("{}"),
        lambda entry: entry.write_text(entry.read_text()[:-30]),
        lambda entry: entry.write_text(entry.read_text().replace('"macs": 3', '"macs": 2')),
        lambda entry: (entry.unlink(), entry.mkdir()),
        lambda entry: entry.write_text(dumps({**json.loads(entry.read_text()), "reads": {}})),
        resealed(lambda document: document.update(schema="iftplan.cached/2")),
        resealed(lambda document: document.update(reads=None)),
        resealed(lambda document: document.pop("measured")),
        resealed(lambda document: document["measured"].update(digest="0")),
        resealed(lambda document: document["measured"]["layers"][0].update(macs="many")),
    ],
)  # fmt: skip
def test_a_spoilt_entry_is_as_good_as_none(folder: Path, spoil: Callable[[Path], object]) -> None:
    entry = kept(folder)
    assert found(folder) is not None
    spoil(entry)
    assert found(folder) is None


def test_what_cannot_be_looked_at_again_is_not_kept(folder: Path) -> None:
    cache = CheckCache(folder / "cache", "e")
    cache.keep("net", REQUEST, answer(folder, outward=["socket.connect"]))
    assert found(folder) is None
    thinned = {**REQUEST, "nonzeros": True}
    cache.keep("net", thinned, answer(folder))
    assert found(folder, thinned) is None


def test_without_a_folder_nothing_is_kept_and_an_unwritable_one_is_no_failure(folder: Path) -> None:
    CheckCache(None, "e").keep("net", REQUEST, answer(folder))
    assert not (folder / "cache").exists()
    (folder / "cache").write_text("a file in the way")
    CheckCache(folder / "cache", "e").keep("net", REQUEST, answer(folder))
    assert found(folder) is None
