"""Run directories at a URL that fsspec knows, such as s3://bucket/sweep, for hosts without a common disk.

A run is trained in a directory of its own host and copied to the target at every checkpoint: `run.json` before what a
run writes once it has begun, checkpoints after what they need, `result.json` last of all, each file under another name
first. Another host copies the run back and continues it. So the target is at each moment as a disk is whose process was
killed.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iftplan.base.documents import Document, loads
from iftplan.base.errors import InputError, MeasureError, error_text
from iftplan.runs.records import parse_result
from iftplan.runs.sweeps.outages import PATIENCE

_RESULT = "result.json"
_RUN = "run.json"
_MANIFEST = "manifest.json"
"""Of a checkpoint that is a folder."""
_PAUSE = 5.0
_Stamp = tuple[int, int]


class RunTarget:
    """The run directories at a URL.

    Args:
        url: of the directory that holds them.

    Raises:
        InputError: fsspec or the package for this kind of URL is missing, or the URL cannot be read.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True)
            self._files.exists(self._root)
        except Exception as error:  # of whichever package serves the URL
            raise InputError(
                f"--out {url} cannot be opened ({error_text(error)}). Name a directory, or a URL that fsspec can open; s3:// needs: pip install s3fs."
            ) from error

    def result(self, name: str) -> Document | None:
        """Result of a run; None where it has none yet."""
        path = f"{self._root}/{name}/{_RESULT}"
        try:
            text = self._files.cat_file(path).decode()
        except FileNotFoundError:
            return None
        return parse_result(loads(text, path), path)

    def put(self, source: Path, path: str) -> None:
        """Copy a file to a path below the root, so that it is there wholly or not at all."""
        whole = f"{self._root}/{path}"
        parent, _, name = whole.rpartition("/")
        part = f"{parent}/.{name}.part"
        self._files.makedirs(parent, exist_ok=True)
        self._files.put_file(str(source), part)
        self._files.mv(part, whole)

    def get(self, name: str, directory: Path) -> list[str]:
        """Copy a run's files into a directory, but for checkpoints that are there in part; their names, relative to the run."""
        root = f"{self._root}/{name}"
        places = {path.partition(f"{root.lstrip('/')}/")[2]: path for path in self._files.find(root)}
        found = []
        for inner, path in places.items():
            folder = inner.rpartition("/")[0]
            half = folder.startswith("checkpoint-") and f"{folder}/{_MANIFEST}" not in places
            if not half and not _hidden(inner):
                (directory / inner).parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # whoever lost the run removes it just now
                    self._files.get_file(path, str(directory / inner))
                    found.append(inner)
        return found

    def remove(self, path: str) -> None:
        """Remove a file below the root, if it is there."""
        with suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{path}")


@dataclass(slots=True)
class Mirror:
    """One run directory and its copy at the target.

    Attributes:
        target: of all runs.
        directory: of this run, on this host.
        copied: size and time of change of each file that the target has from this host.
    """

    target: RunTarget
    directory: Path
    copied: dict[str, _Stamp] = field(default_factory=dict)

    def fetch(self) -> None:
        """Copy what the target has of the run to this host; nothing where it had not begun.

        Raises:
            MeasureError: the target does not answer.
        """
        try:
            self.target.get(self.directory.name, self.directory)
        except FileNotFoundError:
            return
        except Exception as error:  # of whichever package serves the URL
            raise _unreachable(self.target.url, error) from error
        if not (self.directory / _RUN).exists():
            shutil.rmtree(self.directory, ignore_errors=True)
        self.copied = dict(self._files())

    def behind(self) -> bool:
        """Whether a checkpoint was written that the target does not have."""
        return any(name.startswith("checkpoint-") for name in self._files().keys() - self.copied.keys())

    def send(self) -> None:
        """Copy what changed since to the target, and remove what this host removed.

        Raises:
            MeasureError: the target does not take it.
        """
        here = dict(self._files())
        try:
            for name in sorted(here, key=_order):
                if self.copied.get(name) != here[name]:
                    self.target.put(self.directory / name, f"{self.directory.name}/{name}")
                    self.copied[name] = here[name]
            for name in sorted(self.copied.keys() - here.keys(), key=_order, reverse=True):
                self.target.remove(f"{self.directory.name}/{name}")
                del self.copied[name]
        except Exception as error:  # of whichever package serves the URL
            raise _unreachable(self.target.url, error) from error

    def send_patiently(self) -> None:
        """Copy what changed, and try again for `PATIENCE` seconds.

        Raises:
            MeasureError: the target does not take it.
        """
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return self.send()
            except MeasureError:
                if time.monotonic() > end:
                    raise
            time.sleep(_PAUSE)

    def _files(self) -> Mapping[str, _Stamp]:
        found = {}
        for folder, _, names in os.walk(self.directory):
            for path in (Path(folder, name) for name in names):
                name = path.relative_to(self.directory).as_posix()
                with suppress(FileNotFoundError):  # an old checkpoint, removed by the thread that writes them
                    if not _hidden(name):
                        stat = path.stat()
                        found[name] = stat.st_size, stat.st_mtime_ns
        return found


def _hidden(name: str) -> bool:
    """Whether a file is a lock or half-written; `.metadata` in a checkpoint's folder is neither."""
    return name.startswith(".") or (name.rpartition("/")[2].startswith(".") and name.endswith(".part"))


def _order(name: str) -> Any:
    """Place of a file among those that are sent."""
    if name.startswith("checkpoint-"):
        folder, _, inner = name.rpartition("/")
        return 3, folder or name, inner == _MANIFEST, inner
    begun = 2 if name.endswith(".csv") else 0  # the plan is there before a run begins, its tables after
    return {_RUN: 1, _RESULT: 4}.get(name, begun), name


def _unreachable(url: str, error: Exception) -> MeasureError:
    return MeasureError(
        f"{url} cannot be reached ({error_text(error, 200)}). Once it can, run the same command again; a grid takes --retry-failed."
    )
