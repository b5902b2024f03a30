"""Checkpoints that stay whole if the process is killed at any moment: written beside the old one, checked, renamed.

A checkpoint is one file, an archive as torch writes it whose comment is the SHA-256 of all bytes before: there
is no second file that could belong to another moment. It is written under another name, flushed to the disk and
renamed; the file that it replaces, or that is old enough to go, goes after that. So at each moment the folder
holds the previous checkpoints, and the new one wholly or not at all. What a disk or a person did to a file later
shows in the checksum, and the checkpoint before it is used.

A sharded checkpoint is a folder instead, to which each process writes what it holds (`shard_files`). It is written
under another name too, by a thread beside the training, and renamed when its manifest is on the disk.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from hashlib import file_digest, sha256
from io import SEEK_END, BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from iftplan.base.errors import InputError
from iftplan.nn.training.records import shard_files

SCHEMA = "iftplan.checkpoint/1"
_NAME = re.compile(r"checkpoint-(\d{9,})(\.pt)?")
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
    path = _write_file(directory, step, state)
    _prune(directory, step, max(1, keep), best)
    return path


def write_sharded(
    directory: Path, step: int, state: Mapping[str, Any], *, keep: int = 2, best: int | None = None
) -> Future[Path]:
    """Begin to write the folder `checkpoint-{step:09d}`, of which every process writes what it holds.

    The share of this process is copied before this returns, and a thread writes the copy while training goes on. Wait
    for the result before the next checkpoint is written and before the process ends. A collective: all processes call it.

    Args:
        directory: an existing folder that all processes see.
        step: optimizer steps taken.
        state: as in `write`, with sharded tensors as they are and others alike in all processes.
        keep: how many to keep, at least one.
        best: step of a checkpoint that stays beside those.

    Returns:
        The checkpoint, once it is whole. It raises an `InputError` in all processes where one could not write.

    Raises:
        TypeError: something in the state could not be loaded again.
    """
    rank, world = _ranks()
    rest, tensors = shard_files.split(state)
    _check_plain(rest, "state")
    copied = shard_files.share(tensors, rank, world)
    group = distributed.new_group(backend="gloo") if world > 1 else None

    def written() -> Path:
        try:
            path = _write_folder(directory, step, rest, copied, group)
            if rank == 0:
                _prune(directory, step, max(1, keep), best)
            return path
        finally:
            copied.clear()
            if group is not None:
                distributed.destroy_process_group(group)

    thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
    try:
        return thread.submit(written)
    finally:
        thread.shutdown(wait=False)


def gather(path: Path) -> Path:
    """Single file of a sharded checkpoint, written beside it; one process holds all of it.

    Raises:
        InputError: the checkpoint is refused, or the disk does not take the file.
    """
    return _write_file(path.parent, step_of(path), read(path))


def shard(path: Path) -> Path:
    """Folder in the sharded form of a checkpoint that is one file, written beside it by one process.

    Raises:
        InputError: the checkpoint is refused, or the disk does not take the folder.
    """
    rest, tensors = shard_files.split(read(path))
    return _write_folder(path.parent, step_of(path), rest, tensors, None)


def _write_folder(directory: Path, step: int, rest: Any, tensors: dict[str, Tensor], group: Any) -> Path:
    """Write a folder under another name, seal it and rename it; every process goes on only if all could."""
    path = directory / f"checkpoint-{step:09d}"
    temporary = directory / f".{path.name}.tmp"
    rank = _ranks()[0] if group is not None else 0

    def begin() -> None:
        if rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()

    def digests() -> dict[str, str]:
        if rank == 0:
            shard_files.write_state(temporary, step, rest)
        return {file.name: shard_files.sha256_of(file) for file in shard_files.files_of(temporary, rank)}

    def end(files: Mapping[str, str]) -> None:
        if rank == 0:
            shard_files.write_manifest(temporary, step, files)
            _sync(temporary)
            if path.exists():
                _remove(path)
            temporary.rename(path)
            _sync(directory)

    try:
        _together(group, begin)
        # torch tells all processes of the failure of one by itself
        shard_files.write_shards(temporary, tensors, group)
        parts = _together(group, digests)
        _together(group, lambda: end({name: value for part in parts for name, value in part.items()}))
    except Exception as error:
        if rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise _unwritten(path, error) from error
    return path


def _together(group: Any, work: Callable[[], Any]) -> list[Any]:
    """Results of all processes of a group; all of them fail if one does."""
    result, problem = None, ""
    try:
        result = work()
    except Exception as error:
        if group is None:
            raise
        problem = _reason(error)
    if group is None:
        return [result]
    found: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(found, (result, problem), group=group)
    for _, said in found:
        if said:
            raise RuntimeError(said)
    return [value for value, _ in found]


def _ranks() -> tuple[int, int]:
    """Number of this process, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _unwritten(path: Path, error: BaseException) -> InputError:
    return InputError(
        f"{path} cannot be written ({_reason(error)}); the checkpoints that were there are untouched. Make room, or name a folder that you may write to, and continue with `iftplan train --resume`."
    )


def _write_file(directory: Path, step: int, state: Mapping[str, Any]) -> Path:
    path = directory / f"checkpoint-{step:09d}.pt"
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
        raise _unwritten(path, error) from error
    return path


def newest(
    directory: Path, warn: Callable[[str], object], target: shard_files.Target | None = None
) -> tuple[int, dict[str, Any]] | None:
    """The step and state of the newest checkpoint that is whole, on the CPU; None where there is none at all.

    Args:
        directory: where `write` or `write_sharded` wrote.
        warn: told of each checkpoint that is refused: what, why, and what is used in its place.
        target: as in `read`.

    Raises:
        InputError: there are checkpoints, and none is whole.
    """
    refused: list[str] = []
    for step, path in sorted(_found(directory), reverse=True):
        try:
            state = read(path, target)
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


def read(path: Path, target: shard_files.Target | None = None) -> dict[str, Any]:
    """The state in one checkpoint, checked against its checksum, its name and its schema; nothing in it is run.

    Args:
        path: a file or a folder.
        target: of a folder, what a tensor is loaded into, such as `states.parts_like(model)`: then all processes call
            this together, and each loads its own parts. Without one, tensors are whole.

    Raises:
        InputError: it is torn, was changed, or is not a checkpoint of that step.
    """
    if path.is_dir():
        return _read_folder(path, target)
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


def _read_folder(path: Path, target: shard_files.Target | None) -> dict[str, Any]:
    step, (rank, world) = step_of(path), _ranks()
    group = distributed.group.WORLD if target is not None and world > 1 else None
    rank, world = (rank, world) if group is not None else (0, 1)

    state: dict[str, Any] = {}
    files: dict[str, str] = {}
    try:
        _together(group, lambda: files.update(shard_files.check_files(path, step, rank=rank, world=world)))
        _together(group, lambda: state.update(shard_files.read_shards(path, step, files, target)))
    except Exception as error:  # whatever bytes make of an unpickler
        reason = _reason(error)
        known = reason if reason.startswith(f"{path} is refused") else ""  # from another process it is text
        raise InputError(known or f"{path} is refused: it cannot be loaded ({reason}).") from error
    return state


def path_of(directory: Path, step: int) -> Path:
    """File of the checkpoint of a step; the folder where there is one instead."""
    file = directory / f"checkpoint-{step:09d}.pt"
    folder = file.with_suffix("")
    return folder if folder.is_dir() and not file.exists() else file


def is_named(path: Path) -> bool:
    """Whether a path has a checkpoint's name."""
    return _NAME.fullmatch(path.name) is not None


def step_of(path: Path) -> int:
    """The step that a checkpoint's name says.

    Raises:
        InputError: it is no checkpoint's name.
    """
    name = _NAME.fullmatch(path.name)
    if name is None:
        raise InputError(
            f"{path} is not a checkpoint of iftplan; checkpoints are named checkpoint-000000100.pt, or checkpoint-000000100 where they are sharded."
        )
    return int(name[1])


def _found(directory: Path) -> list[tuple[int, Path]]:
    names = ((_NAME.fullmatch(path.name), path) for path in directory.glob("checkpoint-*"))
    return [(int(name[1]), path) for name, path in names if name]


def _prune(directory: Path, step: int, keep: int, best: int | None) -> None:
    """Remove what is too old, what came after the step, and what killed runs left half-written."""
    found = _found(directory)
    kept = {best, *sorted({other for other, _ in found if other <= step}, reverse=True)[:keep]}
    gone = (path for other, path in found if other > step or other not in kept)
    for path in (*gone, *directory.glob(".checkpoint-*.tmp")):
        with suppress(OSError):  # a file that stays is no harm, and the new one is safe
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a checkpoint; a folder under another name, so that no half of it is taken for one."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if not path.name.startswith("."):
        path = path.rename(path.parent / f".{path.name}.old.tmp")
    shutil.rmtree(path, ignore_errors=True)


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
    """Write the folder's entries to the disk too; only then is a rename safe."""
    if os.name == "nt":  # there a folder cannot be opened
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: BaseException) -> str:
    """Reason of a failure in one line; the system's own message where torch wraps a disk error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _check_plain(value: object, where: str) -> None:
    """Refuse a state that weights-only loading would refuse, before the run that made it is gone."""
    if isinstance(value, dict) and type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple) and type(value) in (list, tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif type(value) not in _LEAVES:
        raise TypeError(f"{where} is a {type(value).__name__}, which could not be loaded again")
