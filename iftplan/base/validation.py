"""The edge where documents from strangers become values: strict types, no unknown keys, paths in messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from iftplan.base.errors import InputError

T = TypeVar("T")


def validate(kind: type[T], document: Mapping[str, Any], where: str) -> T:
    """The document as a `kind`: a TypedDict or dataclass that forbids extra keys.

    Args:
        kind: the type, which describes keys and ranges.
        document: as it was read.
        where: the file, for messages.

    Raises:
        InputError: names the path inside the document and what is wrong there.
    """
    import json

    try:
        return TypeAdapter(kind).validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        first, *rest = error.errors(include_url=False)
        path = ".".join(map(str, first["loc"])) or "the document"
        more = f" ({len(rest)} more of the kind)" if rest else ""
        raise InputError(
            f"{where}: {path}: {first['msg'].lower()}, found {_short(first['input'])}{more}; create the document "
            "again instead of editing it."
        ) from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
