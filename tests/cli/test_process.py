"""The process of a command: imports that an interruption does not cut in two."""

from __future__ import annotations

import gc
import signal
import threading

import pytest

from iftplan.cli import process


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
