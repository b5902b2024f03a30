"""Documents on disk: canonical JSON, digests, atomic writing, and reading that says where something is wrong.

The only JSON code. Every document has `"schema": "iftplan.<kind>/<version>"`, sorted keys and a SHA-256
`digest` of its canonical form. Reading validates types strictly and refuses unknown keys.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from iftplan.errors import InputError

Document = dict[str, Any]


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical form: sorted keys, no spaces, without the digest itself."""
    from hashlib import sha256  # not at start: tables need none

    body = {key: value for key, value in document.items() if key != "digest"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return sha256(canonical.encode()).hexdigest()


def sealed(document: Mapping[str, Any]) -> Document:
    """The document with its digest."""
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
    """Write a file of any kind in one step, as `write_text` does; a file that is there keeps its mode and its links.

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
    """The text of a file, or of stdin for `-`.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path} cannot be read ({why}); give an existing file, or - for stdin.") from error


def loads(text: str, where: str) -> Document:
    """Parse a JSON object, naming line and column of a mistake.

    Raises:
        InputError: not JSON, or no object.
    """
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        place = (
            f"line {error.lineno}, column {error.colno}: {error.msg}"
            if isinstance(error, json.JSONDecodeError)
            else str(error)
        )
        raise InputError(
            f"{where} is not JSON ({place}); give a file that iftplan wrote with -o or --format json."
        ) from error
    if not isinstance(document, dict):
        raise InputError(f"{where} holds a JSON {type(document).__name__}, and a document is an object.")
    return document


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in a document")


def schema_of(document: Mapping[str, Any], where: str) -> str:
    """The kind of a document, for instance `plan` of `iftplan.plan/1`.

    Raises:
        InputError: it has no schema of ours.
    """
    schema = document.get("schema")
    if not isinstance(schema, str) or not schema.startswith("iftplan.") or "/" not in schema:
        raise InputError(
            f'{where} has no iftplan schema (found {schema!r}); a document begins with "schema": "iftplan.plan/1" or the like.'
        )
    return schema.removeprefix("iftplan.").split("/")[0]


def check(document: Mapping[str, Any], schema: str, where: str) -> None:
    """Refuse another schema, an unknown version, a wrong digest.

    Raises:
        InputError: which of them, and what was expected.
    """
    found = f"iftplan.{schema_of(document, where)}"
    if document["schema"] != schema:
        kind, version = schema.split("/")
        problem = "an unknown version" if found == kind else "another kind of document"
        raise InputError(
            f"{where} is {problem}: {document['schema']!r} where {schema!r} (version {version}) is read."
        )
    try:
        expected = digest(document)
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where} holds half a character ({error.object[error.start]!a}), which is no text."
        ) from error
    if document.get("digest") != expected:
        raise InputError(
            f"{where}: the digest is {str(document.get('digest'))[:16]}… and the content's is {expected[:16]}…; it was changed after it was written. Make it again rather than editing it."
        )
