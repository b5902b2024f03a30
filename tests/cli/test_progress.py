"""Progress of many runs and waiting for one answer: a bar or a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial

from iftplan.cli.commands.training.sweep.training import _notes_once
from iftplan.cli.output import Interrupted
from iftplan.cli.progress import counted, counting
from iftplan.runs.sweeps.queue import TrialQueue, storage_at
from tests.support.cli_runs import many
from tests.support.processes.terminals import errors_on_terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_stand_above_a_bar_that_counts_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    ended = iter([(3, 12), (4, 12)])
    with counting(lambda: next(ended)) as tell:
        before = sys.stderr
        tell("one: accuracy 0.5")
        assert sys.stderr is before
    shown = terminal.getvalue()
    assert "one: accuracy 0.5" in shown
    assert shown.index("3/12") < shown.rindex("4/12")


def test_only_lines_are_said_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with counting(lambda: pytest.fail("nobody looks")) as tell:
        tell("one: accuracy 0.5")
    assert stderr.getvalue() == "one: accuracy 0.5\n"


def test_ended_trials_are_counted_against_all_that_are_to_be(tmp_path: Path) -> None:
    def named(trial: FrozenTrial) -> str:
        return f"at-{trial.params['x']}" if trial.params else ""

    storage = storage_at(str(tmp_path / "journal.log"))
    grid = TrialQueue(storage, "grid", tmp_path)
    assert grid.ended() == (0, 0)
    grid.add(["a", "b", "c"])
    for count, end in enumerate((lambda c: grid.finish(c, [1, 2]), lambda c: grid.fail(c, "diverged")), 1):
        claim = grid.claim()
        assert claim is not None and grid.ended() == (count - 1, 3)
        end(claim)
        assert grid.ended() == (count, 3)

    search = TrialQueue(
        storage, "search", tmp_path, limit=5, ask=lambda s: s.ask({"x": FloatDistribution(0, 1)}), named=named
    )
    claim = search.claim()
    assert claim is not None and search.ended() == (0, 5)
    search.finish(claim, [1, 2])
    assert search.ended() == (1, 5)


# --- on a terminal a command says what it does before it imports what takes seconds ----------------------

NET = """
from torch import nn


def net():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
"""
CONFIGURATION = '[models.net]\nsource = "net.py:net"\ninputs = ["5x8"]\n'

MARKING = """
import importlib.abc, os, sys


class Marker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            sys.stderr.flush()
            os.write(2, b"<torch>")


sys.meta_path.insert(0, Marker())
from iftplan.cli.main import main

main(sys.argv[1:])
"""
"""`iftplan` with a mark on stderr where torch begins to be imported."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("waiting")
    (home / "net.py").write_text(NET)
    (home / "iftplan.toml").write_text(CONFIGURATION)
    many(
        [
            [
                "plan",
                "net.py:net",
                "--transform",
                "parallel",
                "--sparsity",
                "0.5",
                "--input",
                "5x8",
                "-o",
                "plan.json",
            ]
        ],
        home,
    )
    return home


COMMANDS = {
    "audit": "audit plan.json --model net.py:net",
    "plan": "plan net.py:net --transform parallel --sparsity 0.5 --input 5x8",
    "spec": "spec net.py:net --input 5x8",
    "train": "train plan.json --model net.py:net --dry-run",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_wait_is_told_before_torch_is_imported(folder: Path, name: str) -> None:
    shown = errors_on_terminal(["-c", MARKING, *COMMANDS[name].split()], folder)
    before, mark, _ = shown.text.partition("<torch>")
    assert mark, "torch was not imported at all"
    assert before.startswith("importing PyTorch …")
    assert shown.first < shown.whole / 2


def test_check_says_what_it_measures_long_before_it_has(folder: Path) -> None:
    shown = errors_on_terminal(["-m", "iftplan", "check", "--no-cache"], folder)
    assert shown.status == 0
    assert shown.text.startswith("measuring 1 model …")
    assert shown.first < shown.whole / 2


def test_check_counts_the_models_that_are_measured(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    both = [CONFIGURATION, CONFIGURATION.replace("models.net", "models.other")]
    (tmp_path / "iftplan.toml").write_text("".join(both))
    shown = errors_on_terminal(["-m", "iftplan", "check", "--no-cache"], tmp_path)
    assert shown.status == 0
    assert shown.text.startswith("measuring 2 models …")
    assert "0/2" in shown.text and "2/2" in shown.text


def test_a_terminal_without_a_cursor_gets_a_line(folder: Path) -> None:
    shown = errors_on_terminal(["-m", "iftplan", *COMMANDS["spec"].split()], folder, TERM="dumb")
    assert shown.text.startswith("importing PyTorch …\r\n")
    assert "\x1b" not in shown.text


def test_elsewhere_there_is_one_plain_line(folder: Path) -> None:
    words = COMMANDS["spec"].split()
    done = subprocess.run(
        [sys.executable, "-m", "iftplan", *words, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "reading net.py:net and its widths …\n"


@pytest.mark.parametrize(
    ("begun", "told"),
    [
        (0, "stopped with 0 of 3 timings done"),
        (2, "stopped with 1 of 3 timings done, and nothing was written"),
    ],
)
def test_ctrl_c_says_how_many_timings_were_done(begun: int, told: str) -> None:
    with pytest.raises(Interrupted, match=told), counted(3) as tell:
        for i in range(begun):
            tell(f"timing {i} …")
        raise KeyboardInterrupt


def test_a_note_that_holds_for_many_runs_is_said_once() -> None:
    said: list[str] = []
    tell = _notes_once(said.append)
    for line in (
        "a: note: Train for longer.",
        "b: note: Train for longer.",
        "a: accuracy 0.5",
        "b: accuracy 0.5",
    ):
        tell(line)
    assert said == ["a: note: Train for longer.", "a: accuracy 0.5", "b: accuracy 0.5"]


def test_a_reason_that_many_runs_fail_for_is_said_once() -> None:
    said: list[str] = []
    tell = _notes_once(said.append)
    for line in ("a: failed: no data.", "b: failed: no data.", "c: failed: too small."):
        tell(line)
    assert said == ["a: failed: no data.", "b: failed for the same reason", "c: failed: too small."]
