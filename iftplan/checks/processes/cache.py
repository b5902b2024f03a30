"""Measurements kept from one check to the next, each with what it was read from; never a pass that is not one.

An entry that cannot be read, was written for something else, or was read from anything that has changed since, is
as good as none.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from iftplan.base.documents import digest, dumps, loads, read_text, with_digest, write_text
from iftplan.base.errors import IftplanError
from iftplan.checks.processes.dependencies import Footprint
from iftplan.models.cost import ModelCost
from iftplan.models.cost_document import parse_measured

SCHEMA = "iftplan.cached/1"
FOLDER = ".iftplan_cache"


class CheckCache:
    """Cache of measurements in one folder.

    Args:
        folder: where they are; None keeps nothing.
        environment: what runs the models, see `dependencies.environment`.
    """

    def __init__(self, folder: Path | None, environment: str) -> None:
        self._folder = folder
        self._environment = environment

    def find(self, slot: str, request: Mapping[str, Any], footprint: Footprint) -> ModelCost | None:
        """Measurement in a slot, if nothing that it depends on has changed; else None.

        Args:
            slot: name of the measurement's file.
            request: what is measured and how.
            footprint: looks at what was read.
        """
        if self._folder is None:
            return None
        path = self._path(slot)
        try:
            entry = loads(read_text(str(path)), path.name)
            current = entry["schema"] == SCHEMA and entry["digest"] == digest(entry)
            if not current or entry["key"] != self._key(request) or not footprint.unchanged(entry["reads"]):
                return None
            return parse_measured(entry["measured"])
        except (IftplanError, KeyError, TypeError, AttributeError, ValueError):
            return None

    def keep(self, slot: str, request: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Put a worker's answer into a slot, unless it depends on what cannot be looked at again.

        Args:
            slot: name of the measurement's file.
            request: what was measured and how.
            answer: the worker's: `measured`, `reads` and `outward`.
        """
        if self._folder is None or answer["outward"] or request["nonzeros"]:
            return
        entry = {
            "schema": SCHEMA,
            "key": self._key(request),
            "reads": answer["reads"],
            "measured": answer["measured"],
        }
        with suppress(IftplanError, OSError):  # a cache that cannot be written costs time, nothing else
            self._folder.mkdir(parents=True, exist_ok=True)
            ignore = self._folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
            write_text(dumps(with_digest(entry)), str(self._path(slot)))

    def _path(self, slot: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{sha256(slot.encode()).hexdigest()[:32]}.json"

    def _key(self, request: Mapping[str, Any]) -> str:
        return digest({"environment": self._environment, "request": dict(request)})
