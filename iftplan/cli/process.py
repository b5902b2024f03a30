"""The process that a command runs in: its own, or somebody else's who calls `main` from Python."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_process: dict[str, bool] = {"ours": False}


def own_process() -> None:
    """Say that this process runs one command and ends, so that it may be watched and arranged for that."""
    _process["ours"] = True
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # until now there was nobody to say what is done
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_interruptible() -> None:
    """Let no further Ctrl-C break into the end of this process, where it would show as tracebacks of others' clean-up."""
    if is_ours() and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def is_ours() -> bool:
    """Whether this process runs one command and ends."""
    return _process["ours"]


def same_command(*more: str, without: str = "") -> list[str]:
    """Words of the command that this process runs, to run it again; empty where the process is somebody else's.

    Args:
        *more: words at its end.
        without: a flag that is left out.
    """
    return [word for word in sys.argv[1:] if word != without] + [*more] if is_ours() else []


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Import what lasts as long as the process: no garbage is looked for in it, and Ctrl-C takes effect at its end.

    PyTorch is a million objects, and to look through them takes a third of the time of importing it. A library of C that was
    imported by half can be neither used nor imported again, so an interruption in between would end as an error of its own.
    """
    if not is_ours():
        yield
        return
    collecting = gc.isenabled()
    gc.disable()
    try:
        with _late_interruption():
            yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@contextmanager
def _late_interruption() -> Iterator[None]:
    """Hold an interruption back until the end, where it is raised; in other threads than the first there is none."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield
        return
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
