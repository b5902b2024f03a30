"""Progress of many runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial

from iftplan.cli.progress import counting
from iftplan.runs.sweeps.queue import TrialQueue, storage_at


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
