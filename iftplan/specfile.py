"""Model specs as documents: a model without its weights, to plan from where no torch is."""

from __future__ import annotations

from pydantic import TypeAdapter

from iftplan.documents import Document, check, sealed
from iftplan.spec import ModelSpec
from iftplan.validation import validated

SCHEMA = "iftplan.spec/1"


def spec_document(spec: ModelSpec) -> Document:
    """The spec as a JSON object, sealed with its digest."""
    body = TypeAdapter(ModelSpec).dump_python(spec, mode="json")
    return sealed({"schema": SCHEMA, "convention": "mac", **body})


def parse_spec(document: Document, where: str = "spec") -> ModelSpec:
    """A spec from its document.

    Raises:
        InputError: names the path inside the document.
    """
    check(document, SCHEMA, where)
    body = {key: value for key, value in document.items() if key not in ("schema", "convention", "digest")}
    return validated(ModelSpec, body, where)
