"""Links between the processes of a run, and what is said where one breaks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

from iftplan.base.errors import UnreachableError


@contextmanager
def watched_links(timeout: int) -> Iterator[None]:
    """Compute with other processes, whose silence is an error in words.

    Args:
        timeout: seconds that this process waits for them.

    Raises:
        UnreachableError: one of them has ended, or has not answered for so long.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_broken_link(error):
            raise
        raise UnreachableError(
            f"another process of this run ended or did not answer within {timeout} seconds (training.timeout): {_first_line(error)}. "
            "Its own message says why, if it had one. The run continues from its last checkpoint when it is resumed; "
            "torchrun does so by itself with --max-restarts, where the command has --auto-resume."
        ) from error


def _is_broken_link(error: RuntimeError) -> bool:
    """Whether a collective failed: gloo has no class of errors of its own."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def _first_line(error: RuntimeError) -> str:
    """What is said of the failure, without the place in somebody's source and the advice after it."""
    said = re.sub(r"^\[[^\]]*\]\s*", "", str(error).strip().partition("\n")[0])
    return said.partition(". ")[0].rstrip(".")
