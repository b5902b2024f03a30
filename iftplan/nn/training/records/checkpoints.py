"""Checkpoints that a kill at any moment leaves whole: written beside, checked, swapped in.

A checkpoint is one file, an archive as torch writes it whose comment is the SHA-256 of all bytes before: there
is no second file that could belong to another moment. It is written under another name, flushed to the disk and
renamed; the file that it replaces, or that is old enough to go, goes after that. So at each moment the folder
holds the previous checkpoints, and the new one wholly or not at all. What a disk or a person did to a file later
shows in the checksum, and the checkpoint before it is used.
"""

from __future__ import annotations

import os
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import file_digest, sha256
from io import SEEK_END, BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iftplan.base.errors import InputError

SCHEMA = "iftplan.checkpoint/1"
_NAME = re.compile(r"checkpoint-(\d{9,})\.pt")
_LABEL = b"sha256:"
_COMMENT = len(_LABEL) + 64
# by type itself: weights-only loading refuses subclasses, such as enums and NumPy's numbers
_LEAVES = frozenset({type(None), bool, int, float, str, bytes, Tensor, torch.nn.Parameter})


def write(
    directory: Path, step: int, state: Mapping[str, Any], *, keep: int = 2, best: int | None = None
) -> Path:
    """Write `checkpoint-{step:09d}.pt` in one step, then remove what is no longer needed.

    Of the checkpoints up to this step the newest `keep` stay. Later ones go: whoever writes this step
    continued from before them, because they were refused. One process writes; under data parallelism rank 0.

    Args:
        directory: an existing folder.
        step: optimizer steps taken.
        state: tensors, numbers, text and None in mappings, lists and tuples; all that weights-only loading takes.
        keep: how many to keep, at least one; two, so that one is left where the newest is damaged.
        best: step of a checkpoint that stays beside those.

    Raises:
        InputError: the folder or the disk does not take it; the checkpoints there are stay as they are.
        TypeError: something in the state could not be loaded again.
    """
    _check_plain(state, "state")
    path = path_of(directory, step)
    temporary = directory / f".{path.name}.tmp"  # one name for each step: a killed run leaves no growing heap
    try:
        with temporary.open("w+b") as file:
            torch.save({"schema": SCHEMA, "step": step, "state": dict(state)}, file)
            _seal(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync(directory)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            temporary.unlink()
        raise InputError(
            f"{path} cannot be written ({_reason(error)}); the checkpoints that were there are untouched. Make room, or name a folder that you may write to, and continue with `iftplan train --resume`."
        ) from error
    _prune(directory, step, max(1, keep), best)
    return path


def newest(directory: Path, warn: Callable[[str], object]) -> tuple[int, dict[str, Any]] | None:
    """The step and state of the newest checkpoint that is whole, on the CPU; None where there is none at all.

    Args:
        directory: where `write` wrote.
        warn: told of each checkpoint that is refused: what, why, and what is used in its place.

    Raises:
        InputError: there are checkpoints, and none is whole.
    """
    refused: list[str] = []
    for step, path in sorted(_found(directory), reverse=True):
        try:
            state = read(path)
        except InputError as error:
            refused.append(str(error))
            continue
        for message in refused:
            warn(f"{message} The checkpoint of step {step} is used instead.")
        return step, state
    if refused:
        raise InputError(
            " ".join((*refused, f"No checkpoint in {directory} is complete; start again in another folder."))
        )
    return None


def read(path: Path) -> dict[str, Any]:
    """The state in one checkpoint, checked against its checksum, its name and its schema; nothing in it is run.

    Raises:
        InputError: it is torn, was changed, or is not a checkpoint of that step.
    """
    try:
        with path.open("rb") as file:
            if not _sealed(file):
                raise InputError(
                    f"{path} is refused: its checksum is wrong, so it is incomplete or was changed."
                )
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # whatever bytes make of an unpickler
        raise InputError(f"{path} is refused: it cannot be loaded ({_reason(error)}).") from error
    match content, _NAME.fullmatch(path.name):
        case {"schema": str(schema), "step": int(step), "state": dict(state)}, re.Match() as name:
            if schema == SCHEMA and step == int(name[1]):
                return state
            raise InputError(
                f"{path} is refused: it holds {schema!r} of step {step} where its name says {SCHEMA!r} of step {int(name[1])}."
            )
    raise InputError(f"{path} is refused: it is not a checkpoint of iftplan.")


def path_of(directory: Path, step: int) -> Path:
    """File of the checkpoint of a step."""
    return directory / f"checkpoint-{step:09d}.pt"


def step_of(path: Path) -> int:
    """The step that a checkpoint's name says.

    Raises:
        InputError: it is no checkpoint's name.
    """
    name = _NAME.fullmatch(path.name)
    if name is None:
        raise InputError(
            f"{path} is not a checkpoint of iftplan; checkpoints are named checkpoint-000000100.pt."
        )
    return int(name[1])


def _found(directory: Path) -> list[tuple[int, Path]]:
    names = ((_NAME.fullmatch(path.name), path) for path in directory.glob("checkpoint-*.pt"))
    return [(int(name[1]), path) for name, path in names if name]


def _prune(directory: Path, step: int, keep: int, best: int | None) -> None:
    """What is too old, what came after the step, and what killed runs left half-written."""
    found = sorted((item for item in _found(directory) if item[0] <= step), reverse=True)
    older = (path for other, path in found[keep:] if other != best)
    later = (path for other, path in _found(directory) if other > step)
    for path in (*older, *later, *directory.glob(".checkpoint-*.pt.tmp")):
        with suppress(OSError):  # a file that stays is no harm, and the new one is safe
            path.unlink()


def _seal(file: BufferedRandom) -> None:
    """Make the checksum of the archive its comment, so that the file stays an archive that torch loads."""
    end = file.seek(-22, SEEK_END)  # the end-of-archive record is 22 bytes where it has no comment
    record = file.read(22)
    if not record.startswith(b"PK\x05\x06") or record[20:] != b"\0\0":
        raise RuntimeError("torch.save wrote an archive of another form than checkpoints are made of")
    file.seek(end + 20)
    file.write(struct.pack("<H", _COMMENT))
    file.flush()
    file.seek(0)
    found = file_digest(file, sha256).hexdigest()
    file.seek(0, SEEK_END)
    file.write(_LABEL + found.encode())


def _sealed(file: BufferedReader) -> bool:
    """Whether the checksum at the end is that of all before it."""
    size = file.seek(0, SEEK_END)
    if size <= _COMMENT:
        return False
    file.seek(0)
    found, left = sha256(), size - _COMMENT
    while left and (part := file.read(min(left, 1 << 20))):
        found.update(part)
        left -= len(part)
    return file.read() == _LABEL + found.hexdigest().encode()


def _sync(directory: Path) -> None:
    """Have the folder's entries on the disk too: a rename is safe after this only."""
    if os.name == "nt":  # there a folder cannot be opened
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: BaseException) -> str:
    """One line; the system's own where torch wraps a failure of the disk into one of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _check_plain(value: object, where: str) -> None:
    """Refuse what weights-only loading would refuse, while there is still a run to ask."""
    if isinstance(value, dict) and type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple) and type(value) in (list, tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif type(value) not in _LEAVES:
        raise TypeError(f"{where} is a {type(value).__name__}, which could not be loaded again")
