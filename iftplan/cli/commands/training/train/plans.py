"""The plan of a run: read, made from the run's settings, or that of a run to continue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from iftplan.base.errors import InputError, StaleError

if TYPE_CHECKING:
    from iftplan.base.documents import Document
    from iftplan.plans.plan import Plan
    from iftplan.runs.settings import RunConfig


def plan_of(run: RunConfig, no_cache: bool) -> tuple[Plan, Document]:
    """The plan that settings name, read or made, and its document.

    Raises:
        InputError: they name a file that is no plan.
    """
    from iftplan.cli.arguments import document_in, plan_in
    from iftplan.plans.document.plan import plan_document

    if run.plan.file:
        document = document_in(run.plan.file)
        if document is None:
            raise InputError(
                f"{run.plan.file!r} is not a plan file. Make one with iftplan plan MODEL -o plan.json, or set plan.model in a --config file."
            )
        return plan_in(document, run.plan.file), document
    made = _made(run, no_cache)
    return made, plan_document(made)


def resumed_plan(directory: Path) -> tuple[Plan, Document]:
    """The plan in a run's directory, and its document.

    Raises:
        StaleError: it is not the plan that the run was started with.
    """
    from iftplan.base.documents import loads, read_text
    from iftplan.cli.arguments import plan_in

    path = directory / "plan.json"
    document = loads(read_text(str(path)), str(path))
    record = loads(read_text(str(directory / "run.json")), str(directory / "run.json"))
    made = plan_in(document, str(path))
    if document["digest"] != record["plan_digest"]:
        raise StaleError(
            f"{path} is not the plan that the run was started with (digest {document['digest'][:12]}…, not {record['plan_digest'][:12]}…). Restore that plan, or start a new run in another directory."
        )
    return made, document


def _made(run: RunConfig, no_cache: bool) -> Plan:
    from iftplan.cli.arguments import spec_of
    from iftplan.plans.request import make_plan

    request = run.plan.request
    widths = request.reads_widths
    spec = spec_of(run.plan.model, run.plan.inputs, widths=widths, no_cache=no_cache, watched=False)
    return make_plan(spec, request)
