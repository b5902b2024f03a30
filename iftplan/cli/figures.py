"""Figures as files: which names mean a picture, and the options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.errors import InputError

if TYPE_CHECKING:
    from iftplan.plots.files import Picture

FIGURE_PANEL = "Figure"
FORMS = (".png", ".svg", ".pdf")


class ThemeName(StrEnum):
    """Colours of a figure."""

    LIGHT = "light"
    DARK = "dark"
    PRINT = "print"


ThemeOption = Annotated[
    ThemeName,
    typer.Option(
        "--theme",
        help="Colours of the figure: light, dark, or print (grey).",
        rich_help_panel=FIGURE_PANEL,
    ),
]
TitleOption = Annotated[
    str,
    typer.Option("--title", metavar="TITLE", help="Title above the figure.", rich_help_panel=FIGURE_PANEL),
]


def figure_form(file: str, also: tuple[str, ...] = ()) -> str:
    """The suffix of a figure's file.

    Raises:
        InputError: it is none that a figure is written as.
    """
    suffix = Path(file).suffix.lower()
    if suffix not in (*FORMS, *also):
        raise InputError(
            f"{file!r} has no ending of a figure. Name the file with one of {', '.join((*FORMS, *also))}."
        )
    return suffix


def write_picture(picture: Callable[[], Picture], file: str) -> None:
    """Draw, and write in one step.

    Raises:
        InputError: the name is no picture's, or the place cannot be written.
    """
    from iftplan.base.documents import write_bytes
    from iftplan.plots.files import encode

    suffix = figure_form(file)
    write_bytes(encode(picture(), suffix[1:]), file)
