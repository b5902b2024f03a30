"""Another revision of the repository as a folder, for as long as it is looked at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from iftplan.base.errors import InputError

_OF_A_HOOK = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
)
"""What git tells its hooks, and what would turn a command about another folder back on this one."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """Revision of the repository on disk.

    Attributes:
        original: the repository's own working tree.
        root: where the revision is.
        folder: what corresponds in it to the folder that was asked for.
    """

    original: Path
    root: Path
    folder: Path


@contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Checkout]:
    """Check a revision out beside the working tree, which is left alone, and take it away again whatever happens.

    Args:
        revision: as git reads it: a branch, a tag, a commit.
        folder: inside a repository.

    Raises:
        InputError: no repository, no such revision, or git refuses.
    """
    found = _git(
        folder,
        "rev-parse",
        "--show-toplevel",
        said=f"{folder} is in no git repository, so it has no revision {revision!r}; compare two files or models instead: iftplan diff BASE HEAD.",
    )
    original = Path(found).resolve()
    commit = _git(
        folder,
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        f"{revision}^{{commit}}",
        said=(
            f"git knows no revision {revision!r} here; name a branch, a tag or a commit, and in CI fetch it first (a shallow clone has one commit)."
        ),
    )
    with terminating(), tempfile.TemporaryDirectory(prefix="iftplan-") as temporary:
        root = Path(temporary).resolve() / "tree"
        try:
            # no hooks: a checkout to look at is nobody's work
            _git(
                folder,
                "-c",
                "core.hooksPath=/dev/null",
                "worktree",
                "add",
                "--quiet",
                "--detach",
                str(root),
                commit,
            )
            yield Checkout(original, root, root / folder.resolve().relative_to(original))
        finally:
            with suppress(InputError):
                _git(folder, "worktree", "remove", "--force", "--force", str(root))
            with suppress(InputError):
                _git(folder, "worktree", "prune")


def _git(folder: Path, *arguments: str, said: str = "") -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={name: value for name, value in os.environ.items() if name not in _OF_A_HOOK},
        )
    except OSError as error:
        raise InputError(f"git cannot be run ({error.strerror}), and a revision is read with it.") from error
    if done.returncode:
        told = " ".join(done.stderr.split()) or f"status {done.returncode}"
        if "safe.directory" in told:  # a container's user is rarely who checked out: there is a repository
            said = ""
        raise InputError(said or f"git {arguments[0]} failed in {folder}: {told}")
    return done.stdout.strip()


@contextmanager
def terminating() -> Iterator[None]:
    """Let a request to end, as CI sends on a cancelled run, unwind what has to be taken away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
