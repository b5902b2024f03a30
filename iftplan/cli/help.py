"""How `--help` looks: at the terminal's width, in panels, with placeholders and defaults in words."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

from iftplan.cli.output import PAGES, Format

WIDEST = 160
"""Columns beyond which lines are hard to read."""

MODEL_PANEL = "Reading the model"
OUTPUT_PANEL = "Output"

_NUMBERS = {"int": "N", "int range": "N", "float": "NUMBER", "float range": "NUMBER"}
_LONGEST = 40  # characters of choices that are listed before an option's help rather than in it
_LOWER_BOUND = re.compile(r"; x>=\d+|\s*\[x>=\d+\]")  # goes without saying
_REPORTING = ("audit", "check", "diff")
_TABLES = tuple(form.value for form in Format if form not in PAGES)


class Command(TyperCommand):
    """A command whose options are described as people write them.

    Args:
        name: of the command.
        params: its options and arguments, whose help is changed.
        **more: as click has it.
    """

    def __init__(self, name: str | None, *, params: list[Any], **more: Any) -> None:
        for option in params:
            _describe(option, name or "")
        super().__init__(name, params=params, **more)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the command's name, without Typer's braces around what is required.

        Args:
            ctx: as click has it.
        """
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, a section for each panel.

        Args:
            ctx: as click has it.
            formatter: that takes the text.
        """
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            usual = "Options" if param.param_type_name == "option" else "Arguments"
            panel = panels.setdefault(getattr(param, "rich_help_panel", None) or usual, [])
            if (record := param.get_help_record(ctx)) is not None:
                panel.append((record[0], _LOWER_BOUND.sub("", record[1])))
        for title, records in panels.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _describe(option: Any, command: str) -> None:
    if option.param_type_name != "option":
        return
    choices = "|".join(
        str(getattr(choice, "value", choice)) for choice in getattr(option.type, "choices", ())
    )
    if "--format" in option.opts and command not in _REPORTING:
        option.metavar = f"<{'|'.join(_TABLES)}>"
        option.help = "table (default on stdout), json (default in a file), csv, markdown or latex."
    elif option.metavar is None and len(choices) > _LONGEST:
        option.metavar = option.opts[0].strip("-").upper()
    elif option.metavar is None and option.type.name in _NUMBERS:
        option.metavar = _NUMBERS[option.type.name]
    if isinstance(option.show_default, str):  # in brackets of its own otherwise
        option.help = f"{option.help}  [default: {option.show_default}]"
        option.show_default = False
