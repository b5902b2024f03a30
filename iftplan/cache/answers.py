"""An answer that takes a model: kept from before while it would come out the same, or made now and kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from iftplan.base.documents import Document, digest
from iftplan.cache.dependencies import Footprint, Reads, environment
from iftplan.cache.store import Store


@dataclass(frozen=True, slots=True)
class Question:
    """Question about a model.

    Attributes:
        request: everything that the answer depends on beside what is read on the way, as JSON values.
        runs_user_code: whether Python is run that is not installed.
    """

    request: Mapping[str, Any]
    runs_user_code: bool


def kept_answer(asked: Question, folder: Path | None) -> Document | None:
    """The answer of an earlier command; None where there is none, or it might come out otherwise.

    Args:
        asked: what is asked, in the working directory.
        folder: of kept answers; None where none are kept.
    """
    here = Path.cwd()
    request = _request(asked, folder, here)
    return Store(folder, environment()).find(digest(request), request, Footprint(here))


def watch_reads(folder: Path | None) -> Reads | None:
    """Record of what this process reads from here to its end, for commands; none where nothing is to be kept."""
    return None if folder is None else _recorder()


def keep_answer(asked: Question, folder: Path | None, answer: Document, reads: Reads | None) -> None:
    """Keep an answer with everything that was read for it.

    Args:
        asked: what was asked, in the working directory.
        folder: where answers are kept; None keeps nothing.
        answer: what came of it.
        reads: from `watch_reads`, begun before; None keeps nothing.
    """
    if folder is None or reads is None:
        return
    here = Path.cwd()
    states = reads.states(Footprint(here))
    unseen = ["what native libraries open"] if asked.runs_user_code and not reads.complete else []
    request = _request(asked, folder, here)
    Store(folder, environment()).keep(
        digest(request), request, answer, reads=states, outward=[*reads.outward, *unseen]
    )


@cache
def _recorder() -> Reads:
    """The one record of what this process reads."""
    return Reads()


def _request(asked: Question, folder: Path | None, here: Path) -> dict[str, Any]:
    return {**asked.request, "in": "" if folder is None else os.path.relpath(here, folder.parent)}
