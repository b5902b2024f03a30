"""Another revision of the repository: as a folder, for as long as it is looked at, and what models cost there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from iftplan.base.errors import InputError
from iftplan.checks.baseline import Baseline
from iftplan.checks.check import Around, Costs, Failure, measure_models
from iftplan.checks.configuration import Configuration, ConfiguredModel
from iftplan.checks.configuration_file import read_config
from iftplan.models.cost import ModelCost

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
    """Check out a revision beside the working tree, which stays as it is, and always remove it afterwards.

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
    commit = _commit(revision, folder)
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


def is_revision(name: str, folder: Path) -> bool:
    """Whether git knows a revision of that name in the repository that a folder is in."""
    try:
        return bool(_commit(name, folder))
    except InputError:
        return False


def _commit(revision: str, folder: Path) -> str:
    return _git(
        folder,
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        f"{revision}^{{commit}}",
        said=f"git knows no revision {revision!r} here; name a branch, a tag or a commit, and in CI fetch it first (a shallow clone has one commit).",
    )


def _git(folder: Path, *arguments: str, said: str = "") -> str:
    command = ["git", "-C", str(folder), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in _OF_A_HOOK}
    try:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as git:
            try:
                out, err = git.communicate()
            except BaseException:  # to end git would leave behind what it started, which writes on
                git.communicate()
                raise
    except OSError as error:
        raise InputError(f"git cannot be run ({error.strerror}), and a revision is read with it.") from error
    if git.returncode:
        told = " ".join(err.split()) or f"status {git.returncode}"
        if "safe.directory" in told:  # a container's user is rarely who checked out: there is a repository
            said = ""
        raise InputError(said or f"git {arguments[0]} failed in {folder}: {told}")
    return out.strip()


@contextmanager
def terminating() -> Iterator[None]:
    """Clean up before the process ends when it is asked to terminate, as CI does when it cancels a run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def revision_baseline(
    revision: str,
    config: Configuration,
    models: Sequence[ConfiguredModel],
    *,
    cache: Path | None,
    jobs: int | None,
    around: Around,
) -> tuple[Baseline, tuple[str, ...]]:
    """Costs of the models at a revision, each with its configuration there, or today's where there is none.

    Args:
        revision: anything that git understands.
        config: the configuration here.
        models: those that are measured.
        cache: folder of measurements; None for none.
        jobs: parallel processes; None for automatic.
        around: given how many models are to be measured, opens while they are, with a function for each that is done.

    Returns:
        The baseline, without the models that the revision does not have, and a sentence for each of those.

    Raises:
        InputError: no such revision; or its models import from the working tree, so that it cannot be told.
    """
    with checked_out(revision, config.folder) as checkout:
        theirs = checkout.folder / config.path.name
        known = {model.name: model for model in _configured(theirs)}
        wanted = [known.get(model.name, model) for model in models if checkout.folder.is_dir()]
        costs = measure_models(
            wanted,
            checkout.folder,
            cache=cache,
            jobs=jobs,
            variant="revision",
            paths=(checkout.original, checkout.root),
            around=around,
        )
        _refuse_ours(revision, costs.read, checkout)
    measured = {
        n: found for n, found in costs.found.items() if isinstance(found, ModelCost) and not found.unknown_ops
    }
    inputs = {m.name: tuple(map(str, m.inputs)) for m in wanted}
    notes = tuple(_missing(revision, [m.name for m in models], costs))
    return Baseline(revision, measured, inputs, saved=False), notes


def _configured(path: Path) -> tuple[ConfiguredModel, ...]:
    try:
        return read_config(path).models if path.is_file() else ()
    except InputError:  # before [tool.iftplan] was begun, or as another version wrote it
        return ()


def _refuse_ours(revision: str, read: Iterable[str], checkout: Checkout) -> None:
    """A package that is installed from the working tree would be measured in place of the revision's."""
    ours = Path(__file__).resolve().parents[1]
    for key in sorted(read):
        kind, _, place = key.partition(":")
        if Path(place).is_relative_to(ours):
            continue  # what measures is the same for both
        if kind == "file" and Path(place).is_absolute() and Path(place).is_relative_to(checkout.original):
            raise InputError(
                f"at {revision} the models import {Path(place).relative_to(checkout.original)} from the working tree, where an installed package points to; name the source by its file, as in path/file.py:factory, or, for comparisons with a revision alone, install the package without -e."
            )


def _missing(revision: str, names: Sequence[str], costs: Costs) -> Iterable[str]:
    for name in names:
        found = costs.found.get(name)
        if found is None:
            yield f"{name} is not there at {revision}"
        elif isinstance(found, Failure):
            yield f"{name} has no cost at {revision}: {found.message}"
        elif found.unknown_ops:
            yield f"{name} has no cost at {revision}: {', '.join(found.unknown_ops)} has no formula there"
