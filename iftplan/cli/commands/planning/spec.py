"""`iftplan spec`: a model as data, to plan from where no torch is."""

from __future__ import annotations

from typing import Annotated

import typer

from iftplan.base.units import Convention
from iftplan.cli import completion
from iftplan.cli.arguments import spec_of
from iftplan.cli.options import (
    MODEL_HELP,
    AllowOption,
    ConventionOption,
    FormatOption,
    FrameworkOption,
    InputOption,
    NoCacheOption,
    OutputOption,
    inputs_of,
)
from iftplan.cli.output import Format, emit, file_format, say_next
from iftplan.cli.process import same_command
from iftplan.report.table import Table

EXAMPLE = """
Example:

  $ iftplan spec zoo:resnet50 -o resnet50.json

  zoo:resnet50, input 1x3x224x224: 4 089 184 256 MACs, scope model
  37 widths can move, 2 are fixed
  resnet.embedder.embedder.convolution.weight keeps 3: an input of the model (resnet.embedder.embedder.convolution at sources/zoo/resnet.py:121)
  classifier.1.weight keeps 1000: an output of the model
  written: resnet50.json

  $ iftplan plan resnet50.json --transform wide --sparsity 0.9 -o wide90.json

  scope                dense MACs    planned MACs      ratio   closing sparsity, same structure
  ─────────────────────────────────────────────────────────────────────────────────────────────
  matrices          3 969 122 304   3 708 381 740   0.934308                           0.900166
  layers (closed)   4 089 184 256   4 089 184 244   1.000000                           0.906724
  model             4 089 184 256   4 089 184 244   1.000000                           0.906724
  search space: 234.7 M maskable weights, 1.05e+08 bits to name a mask
  width multiplier k = 3.16228
  note: 12 MACs stay unspent: a weight costs 49 MACs or a multiple of that
  written: wide90.json
"""


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=completion.models,
            help=MODEL_HELP,
        ),
    ],
    input: InputOption = None,
    widths: Annotated[
        bool,
        typer.Option(
            "--widths/--no-widths",
            help="Whether to find which channels must widen together; wide plans need it, and without it reading is faster.",
        ),
    ] = True,
    allow: AllowOption = None,
    framework: FrameworkOption = None,
    no_cache: NoCacheOption = False,
    form: FormatOption = None,
    output: OutputOption = None,
    convention: ConventionOption = Convention.MAC,
) -> None:
    """Save a model's layers, MACs and coupled widths as JSON.

    iftplan plan takes the file in the model's place, also where PyTorch is not installed.
    """
    from iftplan.models.document import spec_document
    from iftplan.models.tables import spec_table

    spec = spec_of(
        model, inputs_of(input), widths=widths, allow=allow, no_cache=no_cache, framework=framework
    )
    table = spec_table(spec, convention)
    whole = Table((), (), table.title, table.notes)
    emit(
        [table],
        lambda: spec_document(spec),
        form,
        output,
        summary=[whole],
        records=spec.records,
    )
    if output in (None, "-"):
        say_next(same_command("-o", "spec.json"), form, output)
    elif file_format(output, form) is Format.JSON:
        family = "wide" if spec.couplings is not None else "parallel"
        say_next(["plan", output, "--transform", family, "--sparsity", "0.75", "-o", "plan.json"])
