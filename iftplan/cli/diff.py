"""`iftplan diff`: what changed between two models, plans or audit reports."""

from __future__ import annotations

from typing import Annotated

import typer

from iftplan.cli.options import ConventionOption, FormatOption, InputOption, OutputOption, inputs_of
from iftplan.cli.output import emit, say
from iftplan.cli.subjects import called, document_in, plan_in, spec_in, spec_of
from iftplan.diffs import Ledger, diff, diff_document
from iftplan.documents import schema_of
from iftplan.errors import InputError
from iftplan.report.diffs import diff_page, diff_table
from iftplan.spec import InputSpec, ModelSpec
from iftplan.units import Convention

EXAMPLE = """
Example:

  $ iftplan diff zoo:resnet18-cifar zoo:resnet34-cifar

  zoo:resnet18-cifar → zoo:resnet34-cifar
  layer                                                  change   base MACs    head MACs    difference
  ────────────────────────────────────────────────────────────────────────────────────────────────────
  resnet.encoder.stages.0.layers.2.layer.0.convolution   added            0   37 748 736   +37 748 736
  resnet.encoder.stages.0.layers.2.layer.1.convolution   added            0   37 748 736   +37 748 736
  …

With --exit-code it ends with 1 if anything differs.
"""


def command(
    base: Annotated[str, typer.Argument(metavar="BASE", help="A model, plan or audit report.")],
    head: Annotated[str, typer.Argument(metavar="HEAD", help="A model, plan or audit report.")],
    input: InputOption = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if anything differs.")] = False,
    form: FormatOption = None,
    output: OutputOption = None,
    convention: ConventionOption = Convention.MAC,
) -> None:
    """Compare two ledgers layer by layer, biggest contribution first."""
    inputs = inputs_of(input)
    if base == head == "-":
        raise InputError("both BASE and HEAD are -, and stdin can be read once; name a file for one of them.")
    found = diff(_ledger(base, inputs), _ledger(head, inputs))
    table = diff_table(found, convention)
    emit(
        [table],
        lambda: diff_document(found, convention),
        form,
        output,
        summary=[table],
        page=lambda: diff_page(found, convention),
    )
    if exit_code and found.changes:
        say(f"{len(found.changes)} layers differ")
        raise typer.Exit(1)


def _ledger(text: str, inputs: tuple[InputSpec, ...]) -> Ledger:
    document = document_in(text)
    if document is None:
        return _spec_ledger(text, spec_of(text, inputs))
    match schema_of(document, text):
        case "spec":
            return _spec_ledger(text, spec_in(document, text, inputs))
        case "plan":
            plan = plan_in(document, text)
            return Ledger(
                f"{called(text)} ({plan.transform} {plan.model})", {x.name: x.macs for x in plan.layers}
            )
        case "audit":
            from iftplan.reportfile import parse_measured

            subject, layers = parse_measured(document, text)
            return Ledger(f"{called(text)} ({subject})", layers)
        case kind:
            raise InputError(
                f"{text} is a {kind} document; diff takes models, specs, plans and audit reports."
            )


def _spec_ledger(text: str, spec: ModelSpec) -> Ledger:
    layers = {w.layer.name: w.layer.dense_macs for w in spec.layers}
    return Ledger(called(text), layers | {p.name: p.macs for p in spec.products})
