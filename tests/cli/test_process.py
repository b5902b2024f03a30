"""The process of a command: imports that an interruption does not cut in two."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from iftplan.cli import main, process


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(process._process, "ours", True)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_interruption_of_imports_is_raised_when_they_are_done(ours: None) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), process.lasting_imports():
        signal.raise_signal(signal.SIGINT)
        done.append("half of a library")
        signal.raise_signal(signal.SIGINT)
        done.append("the other half")
    assert len(done) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert gc.isenabled()


def test_an_error_of_an_import_is_its_own(ours: None) -> None:
    with pytest.raises(ImportError, match="no such library"), process.lasting_imports():
        raise ImportError("no such library")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_and_other_peoples_processes_keep_their_handlers(ours: None) -> None:
    seen = []

    def elsewhere() -> None:
        with process.lasting_imports():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    own = lambda *_: None  # noqa: E731  (a handler of the caller's)
    signal.signal(signal.SIGINT, own)
    with process.lasting_imports():
        seen.append(signal.getsignal(signal.SIGINT))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert seen == [signal.default_int_handler, own]


class _Interrupted:
    """What Ctrl-C is while Python makes a class: Python 3.11 raises a RuntimeError from it."""

    def __set_name__(self, owner: type, name: str) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("wrong", "code", "told"),
    [
        (lambda *_, **__: type("Made", (), {"it": _Interrupted()}), 130, "stopped before there was a result"),
        (lambda *_, **__: int("one"), 3, "an error of our own, ValueError"),
    ],
)
def test_an_interruption_that_became_an_error_is_an_interruption(
    wrong: Callable[..., object],
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(main, "app", wrong)
    with pytest.raises(SystemExit) as end:
        main.main([])
    assert end.value.code == code
    assert told in capsys.readouterr().err


_PRESSES = """
import os, signal, sys

class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Press())
"""


@pytest.mark.parametrize("name", ["iftplan.cli.main", "typer", "iftplan.cli.group"])
def test_an_interruption_before_the_command_is_loaded_shows_no_traceback(name: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_PRESSES.format(name=name))
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "iftplan", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_an_interruption_of_the_command_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_PRESSES.format(name="iftplan.cli.commands.planning.solve"))
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "iftplan", "solve", "--layer", "conv3x3", "--sparsity", "0.75"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert done.stderr
