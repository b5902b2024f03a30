"""An answer is taken from the cache only while it would come out the same, and only where this user kept it."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iftplan.base.documents import dumps
from iftplan.cache.dependencies import Footprint
from iftplan.cache.secret import read_secret
from iftplan.cache.store import MOST_ENTRIES, Store

ANSWER = {"schema": "some/1", "b": 3, "a": {"z": 1, "y": 2}}
REQUEST = {"source": "net.py:build", "builds": "", "inputs": ["4x16"], "allow": [], "cross_check": False}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text("x = 1")
    return tmp_path


def keep(
    folder: Path, answer: dict[str, Any] = ANSWER, slot: str = "net", outward: tuple[str, ...] = ()
) -> None:
    reads = {"file:net.py": Footprint(folder).state("file:net.py")}
    Store(folder / "cache", "e").keep(slot, REQUEST, answer, reads=reads, outward=outward)


def found(folder: Path, request: dict[str, Any] = REQUEST, environment: str = "e", slot: str = "net") -> Any:
    return Store(folder / "cache", environment).find(slot, request, Footprint(folder))


def kept(folder: Path) -> Path:
    keep(folder)
    (entry,) = (folder / "cache").glob("*.json")
    return entry


def test_what_was_kept_is_found_in_its_order(folder: Path) -> None:
    kept(folder)
    again = found(folder)
    assert again == ANSWER
    assert list(again) == list(ANSWER) and list(again["a"]) == ["z", "y"]
    assert (folder / "cache" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [("source", "net.py:other"), ("inputs", ["8x16"]), ("allow", ["a::b=1"]), ("builds", "x.py:y"), ("cross_check", True)],
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
    assert found(folder) == ANSWER


def altered(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """An entry that somebody wrote who does not know the secret."""

    def spoil(path: Path) -> None:
        outer = json.loads(path.read_text())
        entry = json.loads(outer["entry"])
        change(entry)
        path.write_text(dumps({**outer, "entry": json.dumps(entry)}))

    return spoil


def in_its_place(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        path.unlink()
        make(path)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_text(""),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("{}"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text(path.read_text()[:-30]),
        lambda path: path.write_text(path.read_text().replace(r'\"b\": 3', r'\"b\": 2')),
        lambda path: path.write_text(re.sub(r'"signature": "\w+"', '"signature": "é"', path.read_text())),
        lambda path: path.write_text(re.sub(r'"signature": "\w+"', '"signature": null', path.read_text())),
        lambda path: path.write_text(path.read_text().replace("cached/2", "cached/3")),
        altered(lambda entry: entry.update(reads={})),
        altered(lambda entry: entry["answer"].update(b=2)),
        in_its_place(Path.mkdir),
        in_its_place(os.mkfifo),
        in_its_place(lambda path: path.symlink_to("/dev/zero")),
        in_its_place(lambda path: path.write_bytes(b" " * (64 * 2**20 + 1))),
    ],
)  # fmt: skip
def test_a_spoilt_or_forged_entry_is_as_good_as_none_and_is_replaced(
    folder: Path, spoil: Callable[[Path], object]
) -> None:
    entry = kept(folder)
    assert found(folder) is not None
    spoil(entry)
    assert found(folder) is None
    keep(folder)
    if not entry.is_dir():
        assert found(folder) == ANSWER


def test_an_entry_that_another_user_kept_is_as_good_as_none(folder: Path, home: Path) -> None:
    kept(folder)
    (home / "iftplan" / "cache.key").unlink()
    assert found(folder) is None
    keep(folder)
    assert found(folder) == ANSWER


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key.chmod(0o644),
        lambda key: key.write_bytes(b"short"),
        in_its_place(os.mkfifo),
        in_its_place(Path.mkdir),
    ],
)
def test_without_a_secret_of_ones_own_nothing_is_kept(
    folder: Path, home: Path, spoil: Callable[[Path], object]
) -> None:
    assert read_secret() == read_secret() is not None
    spoil(home / "iftplan" / "cache.key")
    assert read_secret() is None
    keep(folder)
    assert found(folder) is None and not (folder / "cache").exists()


def test_a_home_that_cannot_be_written_keeps_nothing(folder: Path, home: Path) -> None:
    home.write_text("a file in the way")
    keep(folder)
    assert found(folder) is None


def test_what_cannot_be_looked_at_again_is_not_kept(folder: Path) -> None:
    keep(folder, outward=("socket.connect",))
    assert found(folder) is None


def test_without_a_folder_nothing_is_kept_and_an_unwritable_one_is_no_failure(folder: Path) -> None:
    Store(None, "e").keep("net", REQUEST, ANSWER, reads={}, outward=())
    assert not (folder / "cache").exists()
    (folder / "cache").write_text("a file in the way")
    keep(folder)
    assert found(folder) is None


def test_a_folder_that_is_a_link_is_neither_read_nor_written(folder: Path) -> None:
    kept(folder)
    shutil.move(folder / "cache", folder / "elsewhere")
    (folder / "cache").symlink_to(folder / "elsewhere")
    assert found(folder) is None
    shutil.rmtree(folder / "elsewhere")
    (folder / "elsewhere").mkdir()
    keep(folder)
    assert not list((folder / "elsewhere").iterdir())


def test_an_entry_that_is_a_link_is_not_written_through(folder: Path) -> None:
    entry = kept(folder)
    entry.unlink()
    (folder / "precious").write_text("precious")
    entry.symlink_to(folder / "precious")
    keep(folder)
    assert (folder / "precious").read_text() == "precious"
    assert found(folder) == ANSWER


def test_the_oldest_entries_go(folder: Path) -> None:
    for i in range(MOST_ENTRIES + 3):
        keep(folder, slot=str(i))
        for path in (folder / "cache").glob("*.json"):
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
    assert len(list((folder / "cache").glob("*.json"))) == MOST_ENTRIES
    assert found(folder, slot="0") is None
    assert found(folder, slot=str(MOST_ENTRIES + 2)) == ANSWER


def _keep_many(folder: str) -> None:
    for i in range(40):
        keep(Path(folder), slot=str(i % 4))


def test_processes_at_once_never_see_half_an_entry(folder: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    both = [spawn.Process(target=_keep_many, args=(str(folder),)) for _ in range(2)]
    for process in both:
        process.start()
    seen = [found(folder, slot=str(i % 4)) for i in range(200)]
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert all(answer in (None, ANSWER) for answer in seen)
    assert [found(folder, slot=str(i)) for i in range(4)] == [ANSWER] * 4


def _secret(queue: Any) -> None:
    queue.put(read_secret())


def test_processes_at_once_make_one_secret(home: Path) -> None:
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    all_of_them = [fork.Process(target=_secret, args=(queue,)) for _ in range(6)]
    for process in all_of_them:
        process.start()
    assert len({queue.get(timeout=30) for _ in all_of_them}) == 1
    for process in all_of_them:
        process.join()
    assert [path.name for path in (home / "iftplan").iterdir()] == ["cache.key"]
