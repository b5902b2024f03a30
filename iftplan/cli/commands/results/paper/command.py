"""`iftplan paper`: the tables and figures of the Sparse-IFT paper, counted here and trained here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from iftplan.base.errors import InputError
from iftplan.cli import completion
from iftplan.cli.options import FormatOption, OutputOption
from iftplan.cli.output import emit, say_next
from iftplan.cli.process import same_command

if TYPE_CHECKING:
    from iftplan.base.documents import Document
    from iftplan.cli.output import Format
    from iftplan.models.spec import ModelSpec
    from iftplan.report.table import Table
    from iftplan.runs.results.published.entries import PaperEntry

EXAMPLE = """
Example:

  $ iftplan paper table14

  Table 14: sizes of Sparse Wide GPT-3 Small
  rounding    sparsity   hidden   feed-forward   masked matrices   whole model
  ────────────────────────────────────────────────────────────────────────────
  dense              0      768           3072          1.000000      1.000000
  published        0.5     1092           4344          1.007161      1.174530
  floor            0.5     1086           4344          0.999786      1.166978
  cover            0.5     1087           4345          1.000000      1.168494
  …
"""

RUN_PANEL = "Training (with --run)"


WidthRounding = Literal["cover", "floor", "published"]


class Size(StrEnum):
    """Size at which the rows of a table are trained."""

    SMALL = "small"
    PAPER = "paper"


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            autocompletion=completion.paper,
            help="A table or figure: table1 to table19, figure1 to figure3; without it, the list of all.",
        ),
    ] = "",
    rounding: Annotated[
        WidthRounding | None,
        typer.Option(
            "--round",
            help="Rounding of widths: cover (up, so that the budget can be spent), floor (down, as the paper's code does), or published (table14 and table15 alone).",
            show_default="cover; all three in table14",
        ),
    ] = None,
    run: Annotated[
        bool,
        typer.Option(
            "--run",
            help="Train every row of the table, and print the results beside the published ones; the same command continues where it stopped.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = False,
    size: Annotated[
        Size,
        typer.Option(
            "--size",
            help="Networks and recipes: small (one recipe for all rows) or paper (each row's own network and recipe, which takes the paper's data and a cluster).",
            rich_help_panel=RUN_PANEL,
        ),
    ] = Size.SMALL,
    model: Annotated[
        str,
        typer.Option(
            "--rows",
            metavar="MODEL",
            help="Rows of this model of the table, such as ResNet-18.",
            show_default="with --size small, those of the first one",
            rich_help_panel=RUN_PANEL,
        ),
    ] = "",
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            autocompletion=completion.recipes,
            help="Bundled settings of the small runs, such as cifar10-resnet8.",
            show_default="digits, or shakespeare-gpt for language",
            rich_help_panel=RUN_PANEL,
        ),
    ] = "",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Training data, as in iftplan train.",
            show_default="that of the recipe",
            rich_help_panel=RUN_PANEL,
        ),
    ] = "",
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds",
            metavar="LIST",
            help="Random seeds, with commas; each row is a run with each of them.",
            show_default="0,1,2",
            rich_help_panel=RUN_PANEL,
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One setting of all runs, such as optimizer.lr=0.05; repeat it for more.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs", min=1, help="Length of each run in passes over the data.", rich_help_panel=RUN_PANEL
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, help="Length of each run in optimizer steps.", rich_help_panel=RUN_PANEL
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Directory that holds the run directories.",
            show_default="paper/NAME",
            rich_help_panel=RUN_PANEL,
        ),
    ] = "",
    workers: Annotated[
        int,
        typer.Option(
            "--workers", min=1, help="Number of parallel training processes.", rich_help_panel=RUN_PANEL
        ),
    ] = 1,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Print the Sparse-IFT paper's tables beside iftplan's own numbers.

    Published accuracies come with the package; sizes, MACs and search spaces are computed. With --run, the rows are trained.
    """
    from iftplan.runs.results.published.document import contents_document, entry_document
    from iftplan.runs.results.published.entries import paper_entry
    from iftplan.runs.results.published.tables import contents_table, entry_table

    given = {
        "--rows": model, "--recipe": recipe, "--data": data, "--seeds": seeds, "--set": settings, "--epochs": epochs, "--steps": steps,
        "--out": out, "--size": size is Size.PAPER, "--workers": workers > 1,
    }  # fmt: skip
    if not run and (options := [option for option, value in given.items() if value]):
        raise InputError(f"{options[0]} needs --run. Add it, or leave {options[0]} out.")
    if not name:
        if run:
            raise InputError("--run needs a table. Name one, such as table2.")
        emit(
            [contents_table()],
            contents_document,
            form,
            output,
            records=lambda: contents_document()["entries"],
        )
        say_next(["paper", "table2"], form, output)
        return
    entry = paper_entry(name)
    if run:
        if rounding is not None:
            raise InputError("--round is for what is counted; runs take --set plan.rounding=floor.")
        from iftplan.cli.commands.results.paper.running import Reproduction, reproduce

        asked = Reproduction(
            size is Size.PAPER, model, recipe, data, seeds or "0,1,2", tuple(settings or ()), epochs, steps,
            out or f"paper/{entry.name}", workers,
        )  # fmt: skip
        reproduce(entry, asked, form, output)
        return
    table = entry_table(entry, _read, rounding)
    table = replace(table, notes=(*table.notes, *_ways_to_train(entry)))
    _write(table, lambda: entry_document(entry, _read, table, rounding), form, output)
    say_next(_next(entry), form, output)


def _write(table: Table, document: Callable[[], Document], form: Format | None, output: str | None) -> None:
    emit([table], document, form, output, summary=[table], records=lambda: document()["rows"])


def _read(source: str) -> ModelSpec:
    from iftplan.cli.arguments import spec_of

    return spec_of(source, (), widths=True)


def _ways_to_train(entry: PaperEntry) -> tuple[str, ...]:
    """Sentences with the command that trains the rows, here and at the paper's size."""
    from iftplan.runs.results.published.costs import SETTINGS

    results = entry.results()
    if entry.name == "figure1":
        return ("to draw it: iftplan pareto --paper -o figure1.png",)
    if not entry.can_be_trained:
        return ()
    data = " --data TEXT_FILE" if entry.small_recipe == "shakespeare-gpt" else ""
    small = f"to train it here, by the recipe {entry.small_recipe}: iftplan paper {entry.name} --run{data}"
    settings = [SETTINGS.get((r.task, r.model)) for r in results]
    if not all(setting and setting.recipe for setting in settings):
        return (small,)
    return small, f"at the paper's size: iftplan paper {entry.name} --run --size paper --data FOLDER"


def _next(entry: PaperEntry) -> Sequence[str]:
    """Words of the command that trains the rows here."""
    if entry.name == "figure1":
        return ["pareto", "--paper", "-o", "figure1.png"]
    return same_command("--run") if entry.can_be_trained else []
