"""The page as one HTML file: no network, no library, nothing but what stands in it."""

from __future__ import annotations

import html
import json
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from string import Template
from typing import Any

from iftplan.base.documents import Document
from iftplan.models.spec import ModelSpec
from iftplan.plots.explorer.description import describe

PLANNER = ("exact.js", "budget.js", "planner.js")
"""The planner in JavaScript, without a page: whatever runs JavaScript can plan with these, in this order."""


def planner_script() -> str:
    """Source of the planner alone."""
    return "\n".join(_text(name) for name in PLANNER)


def explorer_page(spec: ModelSpec, *, document: Document | None = None, own_inputs: bool = True) -> str:
    """The page of a model as a self-contained HTML document.

    Args:
        spec: with its couplings, where wide plans are to be tried.
        document: a plan, audit or sweep that it opens with.
        own_inputs: whether the model knows its inputs, so that the command need not name them.

    Raises:
        InputError: a layer of a kind that only single layers have.
    """
    script = f"{planner_script()}\n{_text('page.js')}"
    return Template(_text("page.html")).substitute(
        title=html.escape(f"{spec.source}: plans of equal MACs"),
        style=_text("page.css"),
        model=_data({**describe(spec), "ownInputs": own_inputs}),
        document=_data(document),
        script=script,
        hash=b64encode(sha256(script.encode()).digest()).decode(),
    )


def _text(name: str) -> str:
    return (files("iftplan.plots.explorer") / name).read_text(encoding="utf-8")


def _data(value: Any) -> str:
    """JSON that cannot end the element it stands in, whatever names it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
