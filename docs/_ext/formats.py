"""`{formats}`: every document that iftplan writes or reads, from the very types that it validates them with.

A key's meaning is its line under "Attributes:" in the docstring of its type; a key without one fails the build.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Union, get_args, get_origin

from document_kinds import FORMATS, Format
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typing_extensions import is_typeddict


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an object.

    Attributes:
        name: as it stands in the file.
        kind: what its value may be, in JSON's words.
        required: whether it has to be there.
        default: what stands in for it where it is left out; empty where nothing does.
        meaning: for people.
    """

    name: str
    kind: str
    required: bool
    default: str
    meaning: str


_ENVELOPE = (
    Key("schema", "text", True, "", "kind and version"),
    Key("convention", '"mac"', True, "", "what counts are in"),
    Key("digest", "text", True, "", "SHA-256 of everything else, in canonical form"),
)


def tables_of(form: Format) -> Iterator[tuple[type, tuple[Key, ...]]]:
    """The keys of a document, and of every object inside it."""
    for kind, keys in tables(form.kind):
        yield kind, (*keys, *_ENVELOPE) if form.sealed and kind is form.kind else keys


def tables(kind: type) -> Iterator[tuple[type, tuple[Key, ...]]]:
    """The keys of an object, and of every object inside it, each once."""
    waiting, done = [kind], []
    while waiting:
        current = waiting.pop(0)
        if current in done:
            continue
        done.append(current)
        hints = typing.get_type_hints(current, include_extras=True)
        hints = {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}
        waiting += [inner for hint in hints.values() for inner in _objects(hint)]
        yield current, tuple(_keys(current, hints))


def _keys(kind: type, hints: Mapping[str, Any]) -> Iterator[Key]:
    meanings = attributes(kind)
    defaults = {f.name: f for f in fields(kind)} if is_dataclass(kind) else {}
    for name, hint in hints.items():
        if twin := name.removesuffix("_exact") * name.endswith("_exact"):
            meanings.setdefault(name, f"the same as `{twin}`, in lowest terms.")
        if name not in meanings:
            raise ValueError(f"{kind.__module__}.{kind.__qualname__}: no word on {name} under Attributes")
        required, default = get_origin(hint) is not NotRequired, ""
        if name in defaults:
            required, default = _default(defaults[name])
        yield Key(name, words(hint), required, default, meanings[name])


def _default(field: Any) -> tuple[bool, str]:
    import dataclasses
    import json

    if field.default_factory is not dataclasses.MISSING:
        return False, ""
    if field.default is dataclasses.MISSING:
        return True, ""
    return False, "" if field.default is None else json.dumps(field.default)


_ATTRIBUTE = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n        .*)*)", re.M)


def attributes(kind: type) -> dict[str, str]:
    """Name → meaning, of the docstring's section "Attributes"."""
    found: dict[str, str] = {}
    for base in reversed(getattr(kind, "__mro__", (kind,))):
        _, _, section = (inspect.getdoc(base) or "").partition("Attributes:\n")
        for names, meaning in _ATTRIBUTE.findall(section):
            found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return found


def title(kind: type) -> str:
    """What an object is called where another's key mentions it."""
    words = re.findall(r"[A-Z]+[a-z]*", kind.__name__.lstrip("_"))
    return " ".join(word.lower() for word in words if word not in ("Object", "Table", "Config", "Spec"))


def _objects(hint: Any) -> Iterator[type]:
    if is_typeddict(hint) or is_dataclass(hint):
        yield hint
    for inner in get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint):
        yield from _objects(inner)


_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}


def words(hint: Any) -> str:
    """A type in JSON's words, such as: list of text; number or null; whole number, by name."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Annotated, NotRequired, typing.Required):
        return words(inner[0])
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(words(arm) for arm in inner)
    if origin in (list, tuple):
        return "list of " + words(inner[0])
    if origin in (dict, Mapping) or getattr(origin, "__name__", "") == "Mapping":
        named = f"one for each of {words(inner[0])}" if get_origin(inner[0]) is Literal else "by name"
        return f"{words(inner[1])}, {named}"
    if hint in _PLAIN:
        return _PLAIN[hint]
    if is_typeddict(hint) or is_dataclass(hint):
        return title(hint)
    return _special(hint)


def _special(hint: Any) -> str:
    from enum import Enum

    if isinstance(hint, type) and issubclass(hint, Enum):
        return " or ".join(f'`"{member.value}"`' for member in hint)
    if hint is Fraction:
        return '`"p/q"`'
    if hint in (object, Any):
        return "anything"
    raise ValueError(f"no words for the type {hint!r}")


# --- as nodes --------------------------------------------------------------------------------------------


class Formats(SphinxDirective):
    """A section for each kind of document, a table for each object in it."""

    def run(self) -> list[nodes.Node]:
        """Title, what it is, and its tables."""
        return [self._section(form) for form in FORMATS]

    def _section(self, form: Format) -> nodes.section:
        name = re.sub(r"\W+", "-", form.schema.removeprefix("iftplan."))
        section = nodes.section(ids=[name], names=[form.schema])
        section += nodes.title("", "", nodes.literal("", form.schema))
        section += nodes.paragraph("", "", *_marked(form.about))
        for kind, keys in tables_of(form):
            if kind is not form.kind:
                section += nodes.paragraph("", "", nodes.strong("", title(kind).capitalize()))
            section += _table(keys)
        self.state.document.note_explicit_target(section)
        return section


def _table(keys: tuple[Key, ...]) -> nodes.table:
    group = nodes.tgroup("", *(nodes.colspec(colwidth=w) for w in (22, 26, 52)), cols=3)
    head = nodes.row("", *(nodes.entry("", nodes.paragraph("", t)) for t in ("key", "value", "meaning")))
    group += nodes.thead("", head)
    group += nodes.tbody("", *(_row(key) for key in keys))
    return nodes.table("", group, classes=["keys"])


def _row(key: Key) -> nodes.row:
    value = key.kind if key.required else f"{key.kind}; may be left out"
    if key.default:
        value = f"{key.kind}; by default `{key.default}`"
    cells = ([nodes.literal("", key.name)], _marked(value), _marked(key.meaning))
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


def _marked(text: str) -> list[nodes.Node]:
    """Text with what stands in backquotes as literals."""
    parts = re.split(r"`+([^`]+)`+", text)
    return [nodes.literal("", p) if i % 2 else nodes.Text(p) for i, p in enumerate(parts) if p]


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directive known."""
    app.add_directive("formats", Formats)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
