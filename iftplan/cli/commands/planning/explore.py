"""`iftplan explore`: one page with sliders, in which a model is planned in the browser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.errors import InputError
from iftplan.cli import completion
from iftplan.cli.arguments import document_in, spec_of
from iftplan.cli.help import MODEL_PANEL, OUTPUT_PANEL
from iftplan.cli.kept_answers import made_here
from iftplan.cli.options import HEADS_HELP, AllowOption, InputOption, NoCacheOption, inputs_of
from iftplan.cli.output import say
from iftplan.models.spec import Heads, InputSpec, ModelSpec

if TYPE_CHECKING:
    from iftplan.base.documents import Document

EXAMPLE = """
Example:

  $ iftplan explore zoo:resnet18 -o resnet18.html

  written: resnet18.html
"""

_OPENED = ("plan", "audit", "sweep")


def command(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=completion.models,
            help="A model or a spec as in iftplan models; or a plan or sweep, which the page of its model opens with.",
        ),
    ],
    input: InputOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            autocompletion=completion.models,
            help="Source of the model, where a plan or sweep does not name a bundled one.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    show: Annotated[
        str | None,
        typer.Option(
            "--show", metavar="FILE", help="Plan, audit or sweep of the model to open the page with."
        ),
    ] = None,
    heads: Annotated[
        Heads,
        typer.Option(
            "--heads",
            help=HEADS_HELP,
        ),
    ] = "number",
    allow: AllowOption = None,
    no_cache: NoCacheOption = False,
    browse: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="File of the page; - for stdout.",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = "explore.html",
) -> None:
    """Try plans of a model in one offline page with sliders.

    The page needs no network and no installation: it holds the model's cost polynomials and plans in the browser, to the
    MAC as iftplan plan does. It copies the command of what was chosen, and opens plans, audits and sweeps.
    """
    from iftplan.base.documents import write_text
    from iftplan.models.zoo.entries import ZOO
    from iftplan.plots.explorer.page import explorer_page

    asked = _subject(subject, model, show, inputs_of(input), heads, no_cache=no_cache)
    spec = spec_of(asked.source, asked.inputs, widths=True, heads=asked.heads, allow=allow, no_cache=no_cache)
    if asked.opened is not None:
        _refuse_modules(asked.opened, show or subject)
        _refuse_budgets(asked.opened, show or subject)
    if asked.opened is not None and show is not None:
        _refuse_another(asked.opened, show, spec)
    name = spec.source.removeprefix("zoo:")
    own = spec.source.startswith("zoo:") and name in ZOO and ZOO[name].inputs == spec.inputs
    page = explorer_page(spec, document=asked.opened, own_inputs=own)
    if output == "-":
        print(page)  # noqa: T201  (what was asked for)
        return
    if output == "":
        raise InputError("-o names no file; write -o explore.html, or -o - for stdout.")
    write_text(page, output)
    say(f"written: {output}")
    if browse:
        _open_in_browser(output)


@dataclass(frozen=True, slots=True)
class _Subject:
    """What the page is of, and what it opens with."""

    source: str
    inputs: tuple[InputSpec, ...]
    heads: Heads
    opened: Document | None


def _subject(
    subject: str,
    model: str | None,
    show: str | None,
    inputs: tuple[InputSpec, ...],
    heads: Heads,
    *,
    no_cache: bool,
) -> _Subject:
    document = document_in(subject)
    kind = _kind(document, subject)
    shown = _shown(show) if show is not None else None
    if document is None or kind == "spec":
        if model is not None:
            raise InputError(
                f"--model goes with a plan or a sweep, and {subject} is a model itself; leave it out."
            )
        return _Subject(subject, inputs, heads, shown)
    if shown is not None:
        raise InputError(
            f"{subject} is a {kind} that the page opens with, and --show {show} another; give one of them."
        )
    if kind not in ("plan", "sweep"):
        raise InputError(
            f"{subject} is no model, plan or sweep but a document of kind {kind}, which names no model; write iftplan explore MODEL"
            + (f" --show {subject}." if kind in _OPENED else ".")
        )
    if kind == "plan":
        from iftplan.cli.arguments import plan_in

        plan = plan_in(document, subject)
        noted = plan.model if made_here(document, no_cache) else ""
        source = model or noted or _trusted(plan.model, subject)
        return _Subject(source, inputs or plan.inputs, plan.heads, document)
    models = list(dict.fromkeys(row.get("model") for row in document.get("rows", [])))
    if model is None and len(models) != 1:
        raise InputError(
            f"{subject} has rows of {len(models)} models; choose one with --model, or write iftplan explore MODEL --show {subject}."
        )
    return _Subject(model or _trusted(str(models[0]), subject), inputs, heads, document)


def _kind(document: Document | None, where: str) -> str:
    from iftplan.base.documents import schema_of

    return schema_of(document, where) if document is not None else ""


def _shown(file: str) -> Document:
    document = document_in(file)
    if document is None or _kind(document, file) not in _OPENED:
        named = f"a document of kind {_kind(document, file)}" if document is not None else "no JSON file"
        raise InputError(
            f"--show {file} is {named}; it takes a plan, an audit or a sweep that iftplan wrote with -o FILE.json."
        )
    return document


def _refuse_another(document: Document, file: str, spec: ModelSpec) -> None:
    """Refuse a file that the page of a model cannot show, because nothing in it is of that model."""
    names = {w.layer.name for w in spec.layers} | {p.name for p in spec.products}
    if "rows" in document:
        same = any(row.get("model") == spec.source for row in document["rows"])
    else:
        same = any(layer.get("name") in names for layer in document.get("layers", []))
    if not same:
        raise InputError(
            f"--show {file} is of another model than {spec.source}; show a file of this one, or name the other model."
        )


def _refuse_modules(document: Document, file: str) -> None:
    """Refuse what was planned for one module alone, because the page plans whole models."""
    rows = document.get("rows", [document])
    found = next((row for row in rows if "within" in row or "module" in str(row.get("scope"))), None)
    if found is not None:
        named = found.get("within") or found["scope"]
        raise InputError(
            f"{file} transforms one module alone ({named}), and the page plans whole models. Show a plan of "
            "scope matrices, layers or model without --within."
        )


def _refuse_budgets(document: Document, file: str) -> None:
    """Refuse what was planned at a budget of its own, because the page plans at the dense model's cost."""
    rows = document.get("rows", [document])
    found = next((row["budget"] for row in rows if row.get("budget")), None)
    if found is not None:
        raise InputError(
            f"{file} was planned at a budget of its own ({found}), and the page plans at the dense model's cost. "
            "Show a plan without --budget."
        )


def _trusted(source: str, where: str) -> str:
    """A document's own source; Python of its own is not run unless somebody names it."""
    from iftplan.models.sources import parse_source

    if not source:
        raise InputError(f"{where} does not say what its model is built from; name it with --model.")
    if parse_source(source).runs_user_code:
        raise InputError(
            f"{where} would run Python code, {source}. A document is only data, so iftplan runs this code only if you name it: --model {source}."
        )
    return source


def _open_in_browser(file: str) -> None:
    import webbrowser
    from pathlib import Path

    if not webbrowser.open(Path(file).resolve().as_uri()):
        say(f"no browser was found here; open {file} in one.")
