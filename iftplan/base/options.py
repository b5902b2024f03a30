"""Messages name arguments as Python has them, `keep_dense=['fc']`; on the command line they become its options."""

from __future__ import annotations

import re
import shlex
from ast import literal_eval
from collections.abc import Mapping
from typing import Final

_OPTIONS: Final[Mapping[str, str]] = {
    "allow": "--allow",
    "attention": "--attention",
    "attention_before": "--attention-before",
    "better": "--better",
    "budget": "--budget",
    "close": "--close",
    "compute": "--compute",
    "context": "--context",
    "convention": "--convention",
    "cost": "--x",
    "data": "--data",
    "device": "--device",
    "family": "--transform",
    "gain": "--y",
    "heads": "--heads",
    "inputs": "--input",
    "keep_dense": "--keep-dense",
    "mask": "--structure",
    "may_stay_uncalled": "--allow-uncalled",
    "memory": "--memory",
    "model": "--model",
    "nonzeros": "--nonzeros",
    "objective": "--objective",
    "parametrization": "--parametrization",
    "params": "--params",
    "profile": "--profile",
    "redistributed": "--redistributed",
    "scope": "--scope",
    "served": "--served",
    "sparsity": "--sparsity",
    "task": "--task",
    "tokens": "--tokens",
    "trust": "--trust",
    "within": "--within",
}
"""Argument that a message names → the option that stands for it."""

_JOINED: Final = ("keep_dense",)
"""Options that take a list in one word; others are given once for each."""

_SPAN = re.compile(r"`([^`]+)`")
_ARGUMENT = re.compile(r"(\w+)(?:=(.+))?")


def in_options(text: str) -> str:
    """The same text for the command line: arguments between backticks as options, commands without backticks.

    Example:
        >>> in_options("keep it dense with `keep_dense=['first', 'fc']`, or see `iftplan plan --help`.")
        'keep it dense with --keep-dense first,fc, or see iftplan plan --help.'
    """
    return _SPAN.sub(_as_option, text)


def _as_option(span: re.Match[str]) -> str:
    if span[1].startswith("iftplan "):
        return span[1]
    found = _ARGUMENT.fullmatch(span[1])
    if found is None or found[1] not in _OPTIONS:
        return span[0]
    name, value = found[1], found[2]
    option = _OPTIONS[name]
    if value is None:
        return option
    try:
        given = literal_eval(value)
    except (ValueError, SyntaxError):
        return span[0]
    if given is True:
        return option
    values = [str(one) for one in given] if isinstance(given, list | tuple) else [str(given)]
    words = [",".join(values)] if name in _JOINED else values
    return " ".join(f"{option} {shlex.quote(word)}" for word in words)
