"""The files of a data set with their sizes and times, by which a run notices that its data changed."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np

from iftplan.base.documents import write_bytes
from iftplan.base.errors import InputError, StaleError

RECORD = "data-files.gz"
"""Name of the record in a run directory: the folder, then a line for each file with its size, its time and its name."""
_SHOWN = 3
Stamps = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


class FileNames(Sequence[str]):
    """File names in one piece of memory, which processes share; a million names cost no more than their letters.

    Args:
        names: in their order.
    """

    __slots__ = ("_ends", "_letters")

    def __init__(self, names: Iterable[str]) -> None:
        found = [os.fsencode(name) for name in names]
        self._letters = b"".join(found)
        self._ends = np.cumsum([0, *map(len, found)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return os.fsdecode(self._letters[self._ends[place] : self._ends[place + 1]])


@dataclass(frozen=True, slots=True, eq=False)
class DataFiles:
    """Files of a data set.

    Attributes:
        root: folder that they lie in.
        names: paths below it.
        sizes: bytes of each.
        times: of the last change of each, in nanoseconds.
    """

    root: Path
    names: FileNames
    sizes: Stamps
    times: Stamps

    @classmethod
    def of(cls, root: Path, names: Sequence[str]) -> DataFiles:
        """Sizes and times of files below a folder, as they are now."""
        found = ((root / name).stat() for name in names)
        stamps = np.array([(one.st_size, one.st_mtime_ns) for one in found], dtype=np.int64).reshape(-1, 2)
        return cls(root, FileNames(names), stamps[:, 0].copy(), stamps[:, 1].copy())

    @classmethod
    def at(cls, path: Path, pattern: str) -> DataFiles:
        """One file, or the files of a folder that match a pattern; hidden files are left out."""
        if not path.is_dir():
            return cls.of(path.parent, [path.name])
        found = (p.relative_to(path) for p in sorted(path.rglob(pattern)) if p.is_file())
        return cls.of(path, [str(p) for p in found if not any(part.startswith(".") for part in p.parts)])

    def joined(self, other: DataFiles) -> DataFiles:
        """Files of both: these, and others of the same folder."""
        columns = ((a.sizes, a.times) for a in (self, other))
        sizes, times = (np.concatenate(column) for column in zip(*columns, strict=True))
        return DataFiles(self.root, FileNames([*self.names, *other.names]), sizes, times)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int, offset: int = 0, size: int = -1) -> bytes:
        """Content of a file, or a part of it; the file must be as it was.

        Args:
            index: of the file.
            offset: byte at which the part begins.
            size: bytes of it; -1 for all that follow.

        Raises:
            InputError: the file is gone, cannot be read or was changed.
        """
        path = self.root / self.names[index]
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise InputError(
                f"{path} cannot be read any more ({error.strerror}), but the run has begun with it; restore it."
            ) from error
        if (found.st_size, found.st_mtime_ns) != (self.sizes[index], self.times[index]):
            raise InputError(f"{path} was changed while the run trained on it; restore it.")
        return content

    def write(self, directory: Path) -> None:
        """Write the record into a run directory."""
        lines = (
            f"{size} {time} {_escaped(name)}\n"
            for size, time, name in zip(self.sizes.tolist(), self.times.tolist(), self.names, strict=True)
        )
        text = "".join((f"{_escaped(str(self.root.resolve()))}\n", *lines))
        write_bytes(gzip.compress(text.encode("ascii"), 6, mtime=0), str(directory / RECORD))

    def check(self, directory: Path) -> None:
        """Compare the files with the record in a run directory; runs of versions that wrote no record pass.

        If the data were moved, only names and sizes are compared, because copying may change times.

        Raises:
            StaleError: says which files are gone, new or changed.
            InputError: the record cannot be read.
        """
        path = directory / RECORD
        if not path.exists():
            return
        before = _read(path)
        problems = [text for text in _changes(before, self) if text]
        if problems:
            raise StaleError(
                f"the data in {self.root} changed since the run in {directory} began: {'; '.join(problems)}. Restore "
                f"them, or start another run. If you know that the contents are the same, delete {path} and resume."
            )


def _read(path: Path) -> DataFiles:
    try:
        root, *lines = gzip.decompress(path.read_bytes()).decode("ascii").splitlines()
        rows = [line.split(" ", 2) for line in lines]
        sizes, times = (np.array([int(row[i]) for row in rows], dtype=np.int64) for i in (0, 1))
        return DataFiles(Path(_plain(root)), FileNames(_plain(row[2]) for row in rows), sizes, times)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise InputError(
            f"{path} is damaged ({error}), so it cannot be told whether the data changed; if they did not, delete it."
        ) from error


def _changes(before: DataFiles, now: DataFiles) -> Iterator[str]:
    old, new = ({name: i for i, name in enumerate(files.names)} for files in (before, now))
    yield _told("missing", [name for name in before.names if name not in new])
    yield _told("new", [name for name in now.names if name not in old])
    pairs = [(name, i, new[name]) for name, i in old.items() if name in new]
    resized = [
        f"{name} ({before.sizes[i]} bytes before, {now.sizes[j]} now)"
        for name, i, j in pairs
        if before.sizes[i] != now.sizes[j]
    ]
    yield _told("of another size", resized)
    if before.root == now.root.resolve():
        same = (item for item in pairs if before.sizes[item[1]] == now.sizes[item[2]])
        yield _told("modified", [name for name, i, j in same if before.times[i] != now.times[j]])


def _told(what: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what}: {', '.join(islice(names, _SHOWN))}{more}" if names else ""


def _escaped(name: str) -> str:
    return name.encode("unicode_escape").decode("ascii")


def _plain(name: str) -> str:
    return name.encode("ascii").decode("unicode_escape")
