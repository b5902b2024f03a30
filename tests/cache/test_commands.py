"""What commands keep of a model, and when they read it anew: a change of anything that it is made of is seen."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from iftplan.base.documents import dumps, with_digest

NET = """
import ctypes, os, pathlib
from torch import nn
from parts.sizes import WIDE

HERE = pathlib.Path(__file__).parent
FACTOR = 1


def native(path):
    libc = ctypes.CDLL(None)
    found = ctypes.create_string_buffer(16)
    opened = libc.open(str(path).encode(), os.O_RDONLY)
    libc.read(opened, found, 16)
    libc.close(opened)
    return int(found.value)


def build():
    width = FACTOR * WIDE + int((HERE / "data.txt").read_text()) + native(HERE / "native.bin")
    width += int(os.environ.get("EXTRA_WIDTH", "0")) + len(list((HERE / "listed").iterdir()))
    width += (HERE / "flag").exists()
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))
"""
WIDTH = 10 + 3 + 5 + 0 + 1 + 0


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "listed").mkdir()
    files = {
        "net.py": NET,
        "parts/__init__.py": "",
        "parts/sizes.py": "WIDE = 10\n",
        "data.txt": "3",
        "native.bin": "5",
        "listed/one": "",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def run(project: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a home of its own."""
    return subprocess.run(
        [sys.executable, "-m", "iftplan", *words],
        cwd=project,
        env={**os.environ, "XDG_CACHE_HOME": str(project.parent / "home"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def spec(project: Path, *words: str, **environment: str) -> tuple[int, bool]:
    """The MACs that a spec has, and whether the model was read for it."""
    done = run(
        project,
        "spec",
        "net.py:build",
        "--input",
        "1x8",
        "--no-widths",
        "--format",
        "csv",
        *words,
        **environment,
    )
    assert not done.returncode, done.stderr
    rows = csv.DictReader(done.stdout.splitlines())
    return sum(int(row["macs"]) for row in rows), "reading" in done.stderr


def macs(width: int) -> int:
    return 8 * width + width * 4


CHANGES: Mapping[str, tuple[Callable[[Path], object], int]] = {
    "its source": (lambda p: (p / "net.py").write_text(NET.replace("FACTOR = 1", "FACTOR = 2")), 10),
    "a module that it imports": (lambda p: (p / "parts/sizes.py").write_text("WIDE = 11\n"), 1),
    "a module that is found before it": (lambda p: (p / "parts.py").write_text(""), 0),
    "a file that Python reads": (lambda p: (p / "data.txt").write_text("4"), 1),
    "a file that is read past Python": (lambda p: (p / "native.bin").write_text("7"), 2),
    "a folder that it lists": (lambda p: (p / "listed/two").write_text(""), 1),
    "a file that it looks for": (lambda p: (p / "flag").write_text(""), 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_what_a_model_is_made_of_is_seen(project: Path, what: str) -> None:
    assert spec(project) == (macs(WIDTH), True)
    assert spec(project) == (macs(WIDTH), False)
    change, more = CHANGES[what]
    change(project)
    assert spec(project) == (macs(WIDTH + more), True)
    assert spec(project) == (macs(WIDTH + more), False)


def test_all_of_them_one_after_the_other(project: Path) -> None:
    """With the variables of the environment, options, and what says nothing of the model."""
    width = WIDTH
    assert spec(project) == (macs(width), True)
    for name in ("its source", "a file that is read past Python", "a file that it looks for"):
        change, more = CHANGES[name]
        change(project)
        width += more
        assert spec(project) == (macs(width), True), name
    assert spec(project, EXTRA_WIDTH="2") == (macs(width + 2), True)
    assert spec(project, EXTRA_WIDTH="2") == (macs(width + 2), False)
    assert spec(project) == (macs(width), True)
    (project / "unread.txt").write_text("")
    os.utime(project / "net.py")
    assert spec(project, UNREAD="1") == (macs(width), False)
    assert spec(project, "--no-cache") == (macs(width), True)
    assert spec(project, "--allow", "some::operator=0") == (macs(width), True)


def test_every_command_takes_what_another_kept(project: Path) -> None:
    words = ("net.py:build", "--input", "1x8", "--keep-dense", "none")
    assert "reading" in run(project, "plan", *words, "--transform", "wide", "-o", "wide.json").stderr
    for again in (
        ("plan", *words, "--transform", "wide", "--sparsity", "0.5"),
        ("plan", *words, "--transform", "parallel"),
        ("spec", "net.py:build", "--input", "1x8"),
        ("sweep", *words, "--sparsities", "0.5"),
        ("diff", "net.py:build", "wide.json", "--input", "1x8"),
    ):
        done = run(project, *again)
        assert not done.returncode and "reading" not in done.stderr, (again, done.stderr)
        assert "reading" in run(project, *again, "--no-cache").stderr
    assert len(list((project / ".iftplan_cache").glob("*.json"))) == 2, (
        "one reading, and whose plan wide.json is"
    )


def test_an_audit_is_kept_with_everything_that_was_asked(project: Path) -> None:
    words = ("audit", "net.py:build", "--input", "1x8", "--format", "json")

    def measured(*more: str) -> tuple[str, bool]:
        done = run(project, *words, *more)
        return done.stdout, "measuring" in done.stderr

    first, made = measured()
    assert made
    assert measured() == (first, False)
    assert measured("--no-cache") == (first, True)
    for more in (("--budget", "100"), ("--budget", "1M"), ("--engine", "flop_counter")):
        text, made = measured(*more)
        assert made and text != first
        assert measured(*more) == (text, False)
    assert run(project, *words, "--budget", "100").returncode == 1
    (project / "data.txt").write_text("4")
    assert measured()[1]


def test_a_plan_is_audited_anew_where_its_model_or_the_plan_is_another(project: Path) -> None:
    for name in ("0.5", "0.75"):
        made = run(
            project, "plan", "net.py:build", "--input", "1x8", "--sparsity", name, "--keep-dense", "none", "-o", f"{name}.json"
        )  # fmt: skip
        assert not made.returncode, made.stderr
    audit = ("audit", "0.5.json", "--model", "net.py:build")
    assert "building" in run(project, *audit).stderr
    assert "building" not in run(project, *audit).stderr
    shutil.copy(project / "0.75.json", project / "0.5.json")
    assert "building" in run(project, *audit).stderr
    untrusted = run(project, "audit", "0.5.json", "--no-cache")
    assert untrusted.returncode == 2 and "would run Python code" in untrusted.stderr
    (project / "data.txt").write_text("9")
    assert run(project, *audit).returncode == 4


def test_the_python_of_a_plan_is_named_once_by_whoever_made_it_here(project: Path) -> None:
    plan = ("--input", "1x8", "--keep-dense", "none", "-o", "own.json")
    refused = "would run Python code, net.py:build"
    assert run(project, "plan", "net.py:build", *plan, "--no-cache").returncode == 0
    assert refused in run(project, "audit", "own.json").stderr
    assert run(project, "plan", "net.py:build", *plan).returncode == 0
    for words in (("audit", "own.json"), ("explore", "own.json"), ("train", "own.json", "--dry-run")):
        done = run(project, *words)
        assert done.returncode == 0, done.stderr

    document = json.loads((project / "own.json").read_text())
    other = {**document, "notes": [*document["notes"], "another"]}
    (project / "other.json").write_text(dumps(with_digest({k: v for k, v in other.items() if k != "digest"})))
    assert refused in run(project, "audit", "other.json").stderr  # a plan that somebody else made

    elsewhere = Path(shutil.copytree(project, project.parent / f"{project.name}-elsewhere"))
    assert refused in run(elsewhere, "audit", "own.json").stderr  # with another net.py, perhaps

    assert run(project, "spec", "net.py:build", "--input", "1x8", "-o", "spec.json").returncode == 0
    assert (
        run(
            project, "plan", "spec.json", "--keep-dense", "none", "--sparsity", "0.5", "-o", "of.json"
        ).returncode
        == 0
    )
    assert refused in run(project, "audit", "of.json").stderr  # the spec was named, and not its source


def test_nobody_else_can_note_who_made_a_plan(project: Path) -> None:
    """The notes come with the repository, signed by another user."""
    plan = ("plan", "net.py:build", "--input", "1x8", "--keep-dense", "none", "-o", "own.json")
    theirs = str(project / "theirs")
    assert run(project, *plan, XDG_CACHE_HOME=theirs).returncode == 0
    assert run(project, "audit", "own.json", XDG_CACHE_HOME=theirs).returncode == 0
    assert "would run Python code" in run(project, "audit", "own.json").stderr


def test_a_committed_cache_forges_nothing(project: Path) -> None:
    """Entries that somebody else made, of a model that cost less, come with the repository."""
    budget = ("audit", "net.py:build", "--input", "1x8", "--budget", str(macs(WIDTH) - 1))
    (project / "data.txt").write_text("2")
    assert run(project, *budget, XDG_CACHE_HOME=str(project / "theirs")).returncode == 0
    (entry,) = (project / ".iftplan_cache").glob("*.json")
    outer = json.loads(entry.read_text())
    inner = json.loads(outer["entry"])
    from iftplan.cache.dependencies import Footprint

    (project / "data.txt").write_text("3")
    footprint = Footprint(project)
    inner["reads"] = {key: footprint.state(key) for key in inner["reads"]}
    entry.write_text(json.dumps({**outer, "entry": json.dumps(inner)}))
    done = run(project, *budget)
    assert done.returncode == 1 and "measuring" in done.stderr


def test_a_damaged_cache_is_met_without_a_word(project: Path) -> None:
    assert spec(project)[1]
    for entry in (project / ".iftplan_cache").glob("*.json"):
        entry.write_bytes(entry.read_bytes()[:100])
    assert spec(project) == (macs(WIDTH), True)
    shutil.rmtree(project / ".iftplan_cache")
    (project / ".iftplan_cache").write_text("a file in the way")
    done = run(project, "spec", "net.py:build", "--input", "1x8")
    assert not done.returncode and done.stderr == "reading net.py:build and its widths …\n"


def test_two_commands_at_once_answer_alike(project: Path) -> None:
    words = [sys.executable, "-m", "iftplan", "spec", "net.py:build", "--input", "1x8", "--format", "json"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(project.parent / "home")}
    both = [
        subprocess.Popen(words, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in both]
    assert said[0] == said[1] and [process.returncode for process in both] == [0, 0]
    assert run(project, *words[3:]).stdout.encode() == said[0]
