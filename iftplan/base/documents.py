"""Documents on disk: canonical JSON, digests, atomic writing, and reading that says where something is wrong.

The only code that reads JSON and TOML. Every document has `"schema": "iftplan.<kind>/<version>"`, sorted keys and a SHA-256
`digest` of its canonical form. Reading validates types strictly and refuses unknown keys.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

from iftplan.base.errors import InputError

Document = dict[str, Any]


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical form: sorted keys, no spaces, without the digest itself."""
    from hashlib import sha256  # not at start: tables need none

    body = {key: value for key, value in document.items() if key != "digest"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return sha256(canonical.encode()).hexdigest()


def with_digest(document: Mapping[str, Any]) -> Document:
    """The document with its digest under "digest"."""
    return {**document, "digest": digest(document)}


def dumps(document: Mapping[str, Any]) -> str:
    """Readable JSON with sorted keys, one final newline."""
    return json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(text: str, path: str) -> None:
    """Write a file in one step: readers see the old content or the new one, never half of it.

    Raises:
        InputError: the place cannot be written; nothing was changed.
    """
    write_bytes(text.encode(), path)


def write_bytes(content: bytes, path: str) -> None:
    """Write a file of any kind in one step, as `write_text` does; an existing file keeps its mode and links.

    Raises:
        InputError: the place cannot be written; nothing was changed.
    """
    temporary = ""
    try:
        target = Path(os.path.realpath(path))  # what a link points to is written, and the link stays
        before = target.stat() if target.exists() else None
        if before is not None and not target.is_file():  # a device or pipe cannot be replaced
            target.write_bytes(content)
            return
        if before is not None and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "Permission denied")
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).chmod(_new_mode() if before is None else stat.S_IMODE(before.st_mode))
        if before is not None:
            with suppress(OSError, AttributeError):
                os.chown(temporary, before.st_uid, before.st_gid)
        Path(temporary).replace(target)
    except OSError as error:
        if temporary:
            with suppress(OSError):
                Path(temporary).unlink()
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); nothing was changed. Name a file in a directory that exists and that you may write to, or - for stdout."
        ) from error


def _new_mode() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def read_text(path: str) -> str:
    """Text of a file, or of stdin for `-`, without a byte order mark and with plain newlines.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        content = _stdin() if path == "-" else Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{path!a} cannot be read ({why}); give an existing file, or - for stdin."
        ) from error
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            raise InputError(f"{path} is {encoding} text, and iftplan reads UTF-8; save it as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} cannot be read (it is not UTF-8 text); give an existing file, or - for stdin."
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def _stdin() -> bytes:
    buffer = getattr(sys.stdin, "buffer", None)
    return buffer.read() if buffer else sys.stdin.read().encode()


def loads(text: str, where: str) -> Document:
    """Parse a JSON object, naming line and column of a mistake.

    Raises:
        InputError: not JSON, no object, or JSON with what no document holds (see `check_values`).
    """
    try:
        document = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where} is not JSON ({_reason(error)}); give a JSON document that iftplan wrote."
        ) from error
    if not isinstance(document, dict):
        raise InputError(
            f"{where} contains a JSON {type(document).__name__}, but a document must be an object, {{…}}."
        )
    return check_values(document, where)


def parse_toml(text: str, where: str, parse_float: Callable[[str], Any] = float) -> Document:
    """Parse TOML, naming line and column of a mistake.

    Args:
        text: of the file.
        where: the file, for messages.
        parse_float: makes numbers of their text, such as `Fraction`.

    Raises:
        InputError: not TOML, or TOML with what no document holds (see `check_values`).
    """
    import tomllib  # not at start: tables need none

    try:
        found = tomllib.loads(text, parse_float=parse_float)
    except (ValueError, RecursionError) as error:
        told = _reason(error)
        raise InputError(
            f"{where} is not TOML: {told[:1].lower()}{told[1:]}; a line reads lr = 0.1, a section [optimizer]."
        ) from error
    return check_values(found, where)


def csv_rows(text: str, where: str, wanted: Iterable[str] = ()) -> list[dict[str, str]]:
    """The rows of a CSV table, each a value for every column.

    Args:
        text: the table, its first line the names of columns.
        where: the table, for people.
        wanted: columns that it has at least.

    Raises:
        InputError: no CSV, a column that is there twice, or a row of another length.
    """
    import csv  # not at start: tables need none
    import io

    try:
        lines = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise InputError(f"{where} is not CSV ({error}).") from error
    header, *rows = lines or [[]]
    for problem in duplicate_name("column", header):
        raise InputError(f"{where}: {problem}.")
    if lacking := [name for name in wanted if name not in header]:
        raise InputError(
            f"{where} has no column {', '.join(lacking)}, so it is not the table that is expected here; its "
            f"columns are {', '.join(header) or 'none'}."
        )
    found = []
    for i, row in enumerate((row for row in rows if row), start=1):
        if len(row) != len(header):
            raise InputError(f"{where}: row {i} has {len(row)} values for {len(header)} columns.")
        found.append(dict(zip(header, row, strict=True)))
    return found


def _reason(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return f"line {error.lineno}, column {error.colno}: {error.msg}"
        case RecursionError():
            return "its brackets are nested too deep"
    told = str(error)
    return "a number has thousands of digits" if "integer string conversion" in told else told


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed as a number")


def _unique(pairs: list[tuple[str, Any]]) -> Document:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:60]!r} is given twice in one object")
    return found


_DEEPEST = 50
_DIGITS = 60


def check_values(document: Document, where: str) -> Document:
    """The document itself, after a check that its numbers are finite and its text can be shown.

    Raises:
        InputError: says where it holds an infinite number, more digits than any count has, brackets nested deeper than any
            document's, half a character or a NUL.
    """
    queue: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    for path, value in queue:  # grows while it is walked: no depth of brackets is a depth of calls
        wrong = _unsound(value)
        if wrong is None and len(path) > _DEEPEST:
            wrong = f": brackets are nested deeper than {_DEEPEST}"
        if wrong:
            place = ".".join(map(str, path[:8])) or "the document"
            raise InputError(f"{where}: {place.encode('ascii', 'backslashreplace').decode()}{wrong}.")
        if isinstance(value, dict):
            queue += (((*path, key), item) for key, item in value.items())
            queue += (((*path, key), key) for key in value)
        elif isinstance(value, list):
            queue += (((*path, i), item) for i, item in enumerate(value))
    return document


def _unsound(value: Any) -> str | None:
    match value:
        case bool():
            return None
        case int() if abs(value) >= 10**_DIGITS:
            return f": a number has {len(str(abs(value)))} digits; a count can have at most {_DIGITS}"
        case float() if not isfinite(value):
            return f" = {value}; it must be a finite number"
        case str() if "\0" in value:
            return ": text contains a NUL character, which a name cannot have"
        case str() if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            return f": text contains half of a surrogate pair ({next(c for c in value if 0xD800 <= ord(c) <= 0xDFFF)!a})"
    return None


def schema_of(document: Mapping[str, Any], where: str) -> str:
    """The kind of a document, for instance `plan` of `iftplan.plan/1`.

    Raises:
        InputError: it has no schema of ours.
    """
    schema = document.get("schema")
    if not isinstance(schema, str) or not schema.startswith("iftplan.") or "/" not in schema:
        raise InputError(
            f'{where} has no iftplan schema (found {schema!r}); a document of iftplan has one, such as "schema": "iftplan.plan/1".'
        )
    return schema.removeprefix("iftplan.").split("/")[0]


def check(document: Mapping[str, Any], schema: str, where: str) -> None:
    """Refuse another schema, an unknown version, a wrong digest.

    Args:
        document: as it was read.
        schema: the kind and version that are read, such as "iftplan.plan/1".
        where: the file, for messages.

    Raises:
        InputError: which of them, and what was expected.
    """
    found = f"iftplan.{schema_of(document, where)}"
    if document["schema"] != schema:
        kind, version = schema.split("/")
        problem = "an unknown version" if found == kind else "another kind of document"
        raise InputError(
            f"{where} is {problem}: its schema is {document['schema']!r}, and {schema!r} (version {version}) is "
            "expected."
        )
    check_values(dict(document), where)
    expected = digest(document)
    if document.get("digest") != expected:
        raise InputError(
            f"{where}: its digest is {str(document.get('digest'))[:16]}…, but its content has {expected[:16]}…, "
            "so it was changed after it was written. Make it again rather than editing it."
        )


def duplicate_name(where: str, names: Iterable[str]) -> Iterator[str]:
    """Sentence about the first name that appears twice; none if all names differ."""
    seen: set[str] = set()
    for i, name in enumerate(names):
        if name in seen:
            yield f"{where}.{i}: the name {name!r} appears twice"
            return
        seen.add(name)
