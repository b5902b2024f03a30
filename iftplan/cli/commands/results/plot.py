"""`iftplan plot`: pictures of plans, layers and runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.errors import InputError
from iftplan.base.units import Convention
from iftplan.cli import completion
from iftplan.cli.figures import ThemeName, ThemeOption, TitleOption, figure_form, write_picture
from iftplan.cli.help import OUTPUT_PANEL
from iftplan.cli.options import ConventionOption
from iftplan.cli.output import say

if TYPE_CHECKING:
    from iftplan.plots.files import Picture

EXAMPLE = """
Example:

  $ iftplan plot cardinality conv3x3:64-128@16x16 -o cardinality.png

  written: cardinality.png
"""


class PlotKind(StrEnum):
    """Kind of picture."""

    MACS = "macs"
    DENSITY = "density"
    CARDINALITY = "cardinality"
    SPACE = "space"
    LOSS = "loss"
    UPDATES = "updates"
    SPECTRA = "spectra"


def command(
    kind: Annotated[
        PlotKind,
        typer.Argument(
            metavar="KIND",
            help="macs or density (of a plan, layer by layer); cardinality (search space of a layer or model in every family); space (search space against MACs of plans and sweeps); loss (loss of runs against the MACs of training, runs that differ in the seed as one line); updates (mask churn and explored weights of runs); spectra (spectral measures of the masks of runs).",
        ),
    ],
    subjects: Annotated[
        list[str],
        typer.Argument(
            metavar="SUBJECT...",
            autocompletion=completion.models,
            help="A plan, a layer, a model, tables of a sweep, or run directories, as the kind of figure needs.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="File of the figure: .png, .svg or .pdf.",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ],
    title: TitleOption = "",
    theme: ThemeOption = ThemeName.LIGHT,
    convention: ConventionOption = Convention.MAC,
) -> None:
    """Draw one figure of a plan, a layer, a model or runs."""
    figure_form(output)
    draw = _picture(kind, subjects, convention)
    write_picture(lambda: draw(title, theme.value), output)
    say(f"written: {output}")


Draw = Callable[[str, str], "Picture"]


def _picture(kind: PlotKind, subjects: Sequence[str], convention: Convention) -> Draw:
    """What draws, with title and theme still to come; subjects are read here."""
    match kind:
        case PlotKind.MACS | PlotKind.DENSITY:
            return _of_plan(kind, _single(kind, subjects), convention)
        case PlotKind.CARDINALITY:
            return _cardinality(_single(kind, subjects))
        case PlotKind.SPACE:
            return _space(subjects, convention)
        case PlotKind.LOSS:
            return _loss(subjects, convention)
        case PlotKind.UPDATES:
            return _updates(subjects)
        case PlotKind.SPECTRA:
            return _spectra(subjects)


def _single(kind: PlotKind, subjects: Sequence[str]) -> str:
    if len(subjects) != 1:
        raise InputError(
            f"{kind} draws one subject, and {len(subjects)} are given ({', '.join(subjects)}). Draw a figure of each."
        )
    return subjects[0]


def _of_plan(kind: PlotKind, subject: str, convention: Convention) -> Draw:
    from iftplan.cli.arguments import document_in, plan_in
    from iftplan.plots.layers import density_picture, macs_picture

    document = document_in(subject)
    if document is None:
        raise InputError(f"{subject!r} is not a plan file. Make one with iftplan plan MODEL -o plan.json.")
    plan = plan_in(document, subject)
    if kind is PlotKind.DENSITY:
        return lambda title, theme: density_picture(plan, title=title, theme=theme)
    return lambda title, theme: macs_picture(plan, convention=convention, title=title, theme=theme)


def _cardinality(subject: str) -> Draw:
    from iftplan.cli.arguments import spec_of
    from iftplan.plots.search_spaces import cardinality_picture

    drawn = subject if _names_a_layer(subject) else spec_of(subject, (), widths=True)
    return lambda title, theme: cardinality_picture(drawn, title=title, theme=theme)


def _names_a_layer(subject: str) -> bool:
    """Layers begin with what they are, models with where they come from."""
    from iftplan.models.notation import parse_layer

    if subject == "-" or subject.endswith(".json") or ".py:" in subject:
        return False
    try:
        parse_layer(subject)
    except InputError:
        return False
    return True


def _space(subjects: Sequence[str], convention: Convention) -> Draw:
    from iftplan.plots.pareto import pareto_picture
    from iftplan.runs.results.axes import Cost, Gain
    from iftplan.runs.results.reading import read_observations
    from iftplan.runs.results.tradeoff import tradeoff

    observations = [o for subject in subjects for o in read_observations(subject)]
    found = tradeoff(observations, Cost.INFERENCE, Gain.LOG2_MASKS, convention=convention)
    return lambda title, theme: pareto_picture(found, title=title, theme=theme)


def _loss(subjects: Sequence[str], convention: Convention) -> Draw:
    from iftplan.plots.learning import learning_picture
    from iftplan.runs.histories.learning import read_learning
    from iftplan.runs.histories.reading import read_all

    histories = read_all(subjects, read_learning)
    return lambda title, theme: learning_picture(histories, convention=convention, title=title, theme=theme)


def _updates(subjects: Sequence[str]) -> Draw:
    from iftplan.plots.updates import updates_picture
    from iftplan.runs.histories.masks import read_history
    from iftplan.runs.histories.reading import read_all

    histories = read_all(subjects, read_history)
    return lambda title, theme: updates_picture(histories, title=title, theme=theme)


def _spectra(subjects: Sequence[str]) -> Draw:
    from iftplan.plots.spectra import spectra_picture
    from iftplan.runs.histories.reading import read_all
    from iftplan.runs.histories.spectra import read_spectra

    histories = read_all(subjects, read_spectra)
    return lambda title, theme: spectra_picture(histories, title=title, theme=theme)
