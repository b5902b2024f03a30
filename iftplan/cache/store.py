"""Answers in a folder, each with what it was made of; never an answer that would not come out the same.

An entry that cannot be read, that this user did not sign, that was made for something else, or from anything that has changed
since, is as good as none.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from iftplan.base.documents import Document, digest, dumps, loads, write_text
from iftplan.base.errors import IftplanError
from iftplan.cache.dependencies import Footprint
from iftplan.cache.secret import read_secret

SCHEMA = "iftplan.cached/2"
FOLDER = ".iftplan_cache"
MOST_ENTRIES = 256
"""Beyond so many, the oldest go."""
_LARGEST = 64 * 2**20  # bytes of an entry that is read


class Store:
    """Answers in one folder.

    Args:
        folder: where they are; None keeps nothing.
        environment: what runs the models, see `dependencies.environment`.
    """

    def __init__(self, folder: Path | None, environment: str) -> None:
        usable = (
            folder is not None and not folder.is_symlink()
        )  # a link in a repository points where it likes
        self._secret = read_secret() if usable else None
        self._folder = folder if self._secret is not None else None
        self._environment = environment

    def find(self, slot: str, request: Mapping[str, Any], footprint: Footprint) -> Document | None:
        """Answer in a slot, if nothing that it depends on has changed; else None.

        Args:
            slot: name of the answer's file.
            request: what is asked.
            footprint: looks at what was read.
        """
        if self._folder is None:
            return None
        path = self._path(slot)
        try:
            if not path.is_file() or path.is_symlink() or path.stat().st_size > _LARGEST:
                return None
            outer = loads(path.read_text(encoding="utf-8"), path.name)
            text = outer["entry"]
            if outer["schema"] != SCHEMA or not hmac.compare_digest(
                outer["signature"], self._signature(text)
            ):
                return None
            entry = loads(text, path.name)
            if entry["key"] != self._key(request) or not footprint.unchanged(entry["reads"]):
                return None
            answer: Document = entry["answer"]
        except (IftplanError, OSError, KeyError, TypeError, AttributeError, ValueError):
            return None
        return answer

    def keep(
        self,
        slot: str,
        request: Mapping[str, Any],
        answer: Document,
        *,
        reads: Mapping[str, str],
        outward: Iterable[str],
    ) -> None:
        """Put an answer into a slot, unless it depends on what cannot be looked at again.

        Args:
            slot: name of the answer's file.
            request: what was asked.
            answer: what came of it.
            reads: what was read, with the state of each.
            outward: what reached for something that cannot be looked at again.
        """
        if self._folder is None or any(True for _ in outward):
            return
        # as it stands, for the order of what was counted is part of it
        entry = json.dumps({"key": self._key(request), "reads": dict(reads), "answer": answer})
        sealed = {"schema": SCHEMA, "signature": self._signature(entry), "entry": entry}
        with suppress(IftplanError, OSError):  # a cache that cannot be written costs time, nothing else
            self._folder.mkdir(parents=True, exist_ok=True)
            ignore = self._folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
            path = self._path(slot)
            if path.is_symlink() or (
                path.exists() and not path.is_file()
            ):  # a link or a pipe is written into
                path.unlink()
            write_text(dumps(sealed), str(path))
            self._prune()

    def _prune(self) -> None:
        """Take the oldest entries away where there are too many."""
        assert self._folder is not None
        entries = list(self._folder.glob("*.json"))
        if len(entries) > MOST_ENTRIES:
            for path in sorted(entries, key=lambda path: path.stat().st_mtime)[:-MOST_ENTRIES]:
                path.unlink(missing_ok=True)

    def _path(self, slot: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{sha256(slot.encode()).hexdigest()[:32]}.json"

    def _key(self, request: Mapping[str, Any]) -> str:
        return digest({"environment": self._environment, "request": dict(request)})

    def _signature(self, entry: str) -> str:
        assert self._secret is not None
        return hmac.new(self._secret, entry.encode(), "sha256").hexdigest()
