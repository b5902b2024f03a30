"""Docstrings are written for people, in Google's form; this makes them what Sphinx reads.

napoleon does the sections. Before it, the stars, bars and underscores of formulas are kept from being markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.ext.napoleon import Config, GoogleDocstring

_CODE = re.compile(r"(`+[^`]+`+)")
_MARKUP = re.compile(r"[*|]|(?<=\w)_(?!\w)")


def escaped(lines: Sequence[str]) -> Iterator[str]:
    """The lines with markup characters escaped, but for code: in backquotes, and in examples up to a blank line."""
    example = False
    for line in lines:
        example = (example or line.lstrip().startswith(">>>")) and bool(line.strip())
        yield line if example else _escaped(line)


def _escaped(line: str) -> str:
    parts = _CODE.split(line)
    return "".join(p if i % 2 else _MARKUP.sub(r"\\\g<0>", p) for i, p in enumerate(parts))


def _process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    # of a property napoleon takes what stands before a colon for a type
    kind = "function" if what in ("property", "attribute") else what
    config = Config(napoleon_use_ivar=True, napoleon_use_rtype=False, napoleon_attr_annotations=False)
    lines[:] = GoogleDocstring(list(escaped(lines)), config, app, kind, name, obj, options).lines()


def _signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returned: str | None,
) -> tuple[str | None, str | None]:
    """Defaults that a dataclass makes anew are no Python; without them the rest can be read as such."""
    return signature and signature.replace("<factory>", "..."), returned


def setup(app: Sphinx) -> dict[str, bool]:
    """Read docstrings so."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":  # what the section is called in a docstring
            field.label = "Attributes"
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
