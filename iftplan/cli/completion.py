"""What a shell may complete: names of bundled models, transforms and recipes."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, redirect_stdout


def models(incomplete: str) -> Iterator[str]:
    """`zoo:NAME` of every bundled model."""
    from iftplan.models.zoo import ZOO

    yield from (f"zoo:{name}" for name in ZOO if f"zoo:{name}".startswith(incomplete))


def is_requested(environ: Mapping[str, str]) -> bool:
    """Whether a shell asks what a word could become."""
    return "_IFTPLAN_COMPLETE" in environ


@contextmanager
def whole_words(environ: MutableMapping[str, str]) -> Iterator[None]:
    """Undo that bash divides words at colons: join them before they are read, and answer from the colon on."""
    words, at = environ.get("COMP_WORDS", "").split(), environ.get("COMP_CWORD", "")
    if environ.get("_IFTPLAN_COMPLETE") != "complete_bash" or ":" not in words or not at.isdecimal():
        yield
        return
    joined: list[str] = []
    current = int(at)
    for i, word in enumerate(words):
        if i > 0 and (word == ":" or words[i - 1] == ":"):
            joined[-1] += word
            current -= i <= int(at)
        else:
            joined.append(word)
    environ.update(COMP_WORDS=" ".join(joined), COMP_CWORD=str(current))
    try:
        with redirect_stdout(io.StringIO()) as found:
            yield
    finally:
        sys.stdout.writelines(f"{line.rpartition(':')[2]}\n" for line in found.getvalue().splitlines())


def transforms(incomplete: str) -> Iterator[str]:
    """Names of families and `none`, after the commas that are there."""
    from iftplan.families.builtin import FAMILIES

    before, comma, last = incomplete.rpartition(",")
    yield from (f"{before}{comma}{name}" for name in (*FAMILIES, "none") if name.startswith(last))


def recipes(incomplete: str) -> Iterator[str]:
    """Names of bundled recipes."""
    from importlib.resources import files

    found = (file.name for file in (files("iftplan.runs") / "recipes").iterdir())
    names = sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))
    yield from (name for name in names if name.startswith(incomplete))
