"""`iftplan pareto`: the frontier of plans, runs and published results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.errors import InputError
from iftplan.base.units import Convention
from iftplan.cli import completion
from iftplan.cli.figures import FORMS, ThemeName, ThemeOption, TitleOption
from iftplan.cli.options import ConventionOption, FormatOption, OutputOption
from iftplan.cli.output import emit, say, say_next, text_lines
from iftplan.cli.process import same_command
from iftplan.runs.results.axes import Cost, Gain
from iftplan.runs.results.pareto import Sense

if TYPE_CHECKING:
    from iftplan.runs.results.observations import Observation
    from iftplan.runs.results.tradeoff import TradeOff

EXAMPLE = """
Example:

  $ iftplan pareto --paper --task CIFAR-100

  on the frontier                  training MACs, whole run   accuracy (%)     ±   seeds
  ──────────────────────────────────────────────────────────────────────────────────────
  MobileNetV2 dense                                2.643e15           72.4   0.2       1
  MobileNetV2 parallel 0.5 rigl                    2.649e15           72.9             1
  MobileNetV2 wide 0.5 rigl                        2.649e15           73.4             1
  MobileNetV2 wide 0.75 rigl                       2.661e15           73.7             1
  MobileViT-S parallel 0.75 rigl                   1.334e16           74.4             1
  MobileViT-S wide 0.5 rigl                        1.342e16           74.6             1
  MobileViT-S wide 0.75 rigl                       1.368e16           74.8             1
  ResNet-18 lowrank 0.75                           1.666e16             76             1
  ResNet-18 wide 0.5 set                           1.666e16           78.8             1
  ResNet-18 wide 0.9 set                           1.666e16           79.8             1
  ResNet-18 wide 0.9 rigl                          1.704e16           80.1             1
  BotNet-50 wide 0.5 rigl                          3.813e16           80.3             1
  BotNet-50 parallel 0.75 rigl                     3.825e16           80.5             1
  BotNet-50 wide 0.75 rigl                         3.841e16           80.6             1
  14 of 54 configurations are on the frontier: lower training MACs, whole run and higher accuracy are better
  ResNet-18 dense, accuracy 77 at 1.666e16: the same for the same cost, at 1.666e16
  MobileNetV2 dense, accuracy 72.4 at 2.643e15: no cost matches, for even the cheapest other configuration is better
  MobileViT-S dense, accuracy 73.5 at 1.325e16: the same for 4.99× less, at 2.653e15
  BotNet-50 dense, accuracy 79.8 at 3.797e16: the same for 2.28× less, at 1.666e16
  equal cost within 5 %: 5 at 2.653e15, 5 at 1.34e16, 36 at 1.674e16, 5 at 3.816e16
"""


def command(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUNS]...",
            help="Run directories, folders of them, tables of a sweep (.csv or .parquet), or plans.",
        ),
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Add published results, from the paper's tables.")
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="TASK",
            autocompletion=completion.tasks,
            help="Data set of the results: ImageNet, CIFAR-100, WikiText-103 …",
            show_default="ImageNet, with --paper alone",
        ),
    ] = None,
    x: Annotated[
        Cost | None,
        typer.Option(
            "--x",
            help="Cost axis: training (MACs of the whole run), inference (MACs of one sample), or params (non-zero weights).",
            show_default="training for runs, inference for plans",
        ),
    ] = None,
    y: Annotated[
        Gain,
        typer.Option(
            "--y",
            help="Quality axis: metric (accuracy, perplexity …), or the size of the search space as log2_masks (bits to name a mask) or maskable_weights.",
        ),
    ] = Gain.METRIC,
    better: Annotated[
        Sense | None,
        typer.Option(
            "--better",
            help="Which values are better, higher or lower, for a metric that iftplan does not know.",
        ),
    ] = None,
    title: TitleOption = "",
    theme: ThemeOption = ThemeName.LIGHT,
    form: FormatOption = None,
    output: OutputOption = None,
    convention: ConventionOption = Convention.MAC,
) -> None:
    """Compare plans, runs and published results on a cost–quality plot.

    It marks the Pareto frontier, and reads off what equal quality costs. -o FILE draws it as .png, .svg, .pdf or .html.
    """
    from iftplan.runs.results.document import tradeoff_document
    from iftplan.runs.results.tables import tradeoff_table
    from iftplan.runs.results.tradeoff import tradeoff

    observations = _observations(runs or (), paper=paper, task=task)
    found = tradeoff(observations, x, y, convention=convention, better=better)
    table = tradeoff_table(found)
    if form is None and output and Path(output).suffix.lower() in PICTURES:
        from iftplan.base.documents import write_bytes

        write_bytes(_picture(found, Path(output).suffix.lower(), title, theme.value), output)
        say(*text_lines(table), f"written: {output}")
        return
    emit([table], lambda: tradeoff_document(found), form, output, summary=[table])
    if output in (None, "-"):
        say_next(same_command("-o", "pareto.html"), form, output)


PICTURES = (*FORMS, ".html")


def _picture(found: TradeOff, suffix: str, title: str, theme: str) -> bytes:
    if suffix == ".html":
        from iftplan.plots.interactive import pareto_page

        return pareto_page(found, title=title).encode()
    from iftplan.plots.files import encode
    from iftplan.plots.pareto import pareto_picture

    return encode(pareto_picture(found, title=title, theme=theme), suffix[1:])


def _observations(runs: Sequence[str], *, paper: bool, task: str | None) -> list[Observation]:
    from iftplan.runs.results.reading import read_observations

    if not runs and not paper:
        raise InputError(
            "nothing was given to compare. Name run directories, tables of a sweep or plans, or add --paper for published results."
        )
    found = [o for subject in runs for o in read_observations(subject)]
    if task and found:
        _tell_of_several(found, task)
        found = [_of_task(o, task) for o in found]
    if paper:
        if runs and task is None:
            raise InputError(
                "--paper with runs needs their data set: --task ImageNet, CIFAR-100, WikiText-103 …"
            )
        found += _published(task or "ImageNet")
    return found


def _tell_of_several(found: Sequence[Observation], task: str) -> None:
    """Say that runs whose data lie under several names are taken for one data set."""
    names = sorted({o.task for o in found if o.task})
    if len(names) > 1:
        say(
            f"note: runs on {', '.join(names)} are all taken for {task}; results on different data sets cannot be compared"
        )


def _of_task(o: Observation, task: str) -> Observation:
    """A run whose data the user says the name of; digits are known to be no other."""
    if o.task == "digits" and task != "digits":
        raise InputError(
            f"{o.source} was trained on digits, and --task is {task}. Results on different data sets cannot be compared; draw them separately."
        )
    return replace(o, task=task)


def _published(task: str) -> tuple[Observation, ...]:
    from iftplan.cli.arguments import spec_of
    from iftplan.runs.results.published.costs import published_observations
    from iftplan.runs.results.published.results import published_results

    return published_observations(published_results(task), lambda source: spec_of(source, (), widths=True))
