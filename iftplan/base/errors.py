"""What can go wrong, as users see it: a message of one paragraph and an exit status."""

from __future__ import annotations

import re
import sys


class IftplanError(Exception):
    """A failure that the user can mend; its text says what was given, why it cannot be, and what can.

    Attributes:
        exit_code: the process status the command line ends with.
    """

    exit_code = 2


class InputError(IftplanError):
    """An option, an argument, a layer, a file or a document is not valid."""


class InfeasibleError(IftplanError):
    """The request is well-formed, but no structure satisfies its equation."""


class TooSmallError(InfeasibleError):
    """A layer's structure would round to nothing: a rank below 1."""


class MeasureError(IftplanError):
    """The model could not be measured: an unknown operator, or a model that would not run."""

    exit_code = 3


class EndedError(MeasureError):
    """A forward pass ended the process instead of returning."""


class DivergedError(IftplanError):
    """Processes of one run disagree about state that must be identical."""

    exit_code = 3


class UnreachableError(IftplanError):
    """Another process of a run does not answer; whoever started this one may start it again."""

    exit_code = 3


class StaleError(IftplanError):
    """The model is no longer the one that the plan was made for."""

    exit_code = 4


def needs_torch(what: str, error: ImportError) -> str:
    """Sentence on PyTorch, which is missing; empty where something else could not be imported.

    Args:
        what: needs it.
        error: of the import.
    """
    if "torch" in sys.modules or not re.search(r"\btorch\b", f"{error.name} {error}"):
        return ""
    return f"{what} needs PyTorch, which cannot be imported ({error}). Install it with: pip install 'iftplan[torch]'."


def one_line(error: object, most: int | None = None) -> str:
    """The text of an error in one line.

    Args:
        error: anything with a text.
        most: characters that are kept; None for all.

    Example:
        >>> one_line(ValueError("no\\n  such thing"), 7)
        'no such'
    """
    return " ".join(str(error).split())[:most]


def was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C led to an error: Python 3.11 makes a RuntimeError of what is raised while a class is made.

    Example:
        >>> was_interrupted(ValueError("no such thing"))
        False
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def error_text(error: BaseException, most: int | None = None) -> str:
    """The kind and the text of an error, in one line.

    Args:
        error: that was raised.
        most: characters of its text that are kept; None for all.

    Example:
        >>> error_text(ValueError("no such thing"))
        'ValueError: no such thing'
    """
    return f"{type(error).__name__}: {one_line(error, most)}"
