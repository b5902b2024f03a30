"""Claim a run directory: one process trains in it at a time, and it holds one run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from iftplan.base.errors import InputError

RECORDS = ("run.json", "metrics.csv", "result.json")
_LOCK = ".lock"


class BusyError(InputError):
    """Another process trains in the directory now."""


def is_begun(directory: Path) -> bool:
    """Whether a run has begun in the directory."""
    return any((directory / name).exists() for name in RECORDS)


def refuse_taken(directory: Path) -> None:
    """Refuse a directory that holds a run already.

    Raises:
        InputError: it holds a run.
    """
    if is_begun(directory):
        raise InputError(
            f"{directory} already contains a run; continue it with: iftplan train --resume --out "
            f"{shlex.quote(str(directory))}, or name another directory with --out."
        )


@contextmanager
def claim(directory: Path, *, fresh: bool, patience: float = 0) -> Iterator[None]:
    """Lock a run directory while a run writes into it; the system releases the lock when the process dies.

    Args:
        directory: of the run; made where it is missing.
        fresh: whether it must not hold a run yet.
        patience: seconds to wait for a process that trains there.

    Raises:
        BusyError: another process trains there.
        InputError: it holds a run, or it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / _LOCK)
        lock.acquire(timeout=patience)
    except Timeout as error:
        raise BusyError(
            f"another process is training in {directory} now; wait for it, or name another directory with --out."
        ) from error
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written ({error.strerror}); name a directory that you may write to with --out."
        ) from error
    try:
        if fresh:
            refuse_taken(directory)  # again: whoever held it may have trained in the meantime
        yield
    finally:
        lock.release()
