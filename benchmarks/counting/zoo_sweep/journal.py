"""What was found of each model, a line of JSON each, written as soon as it is known: a sweep that stops goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

Record = dict[str, Any]


class Journal:
    """A file of records; of two for one model the later one counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        if path.exists():
            for record in _lines(path):
                self.records[record["model"]] = record

    def add(self, record: Record) -> None:
        """Write one down."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            file.write(b"" if _ends_in_a_line(file) else b"\n")
            file.write((json.dumps(record, ensure_ascii=False) + "\n").encode())
        self.records[record["model"]] = record


def _ends_in_a_line(file: BinaryIO) -> bool:
    """Whether the next record can follow; half of one was written when a sweep was stopped."""
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _lines(path: Path) -> Iterator[Record]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue  # the line that was being written when the sweep was stopped
