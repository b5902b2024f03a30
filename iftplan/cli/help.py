"""How `--help` looks: at the terminal's width, with placeholders in words and defaults without brackets of their own."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from iftplan.cli.output import PAGES, Format

WIDEST = 160
"""Columns beyond which lines are hard to read."""

_PLACEHOLDERS = {"str": "TEXT", "int": "N", "int range": "N", "float": "NUMBER", "float range": "NUMBER"}
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


def _describe(option: Any, command: str) -> None:
    if option.param_type_name != "option":
        return
    if "--format" in option.opts and command not in _REPORTING:
        option.metavar = f"<{'|'.join(_TABLES)}>"
        option.help = "table (default on stdout), json (default in a file), csv, markdown or latex."
    elif option.metavar is None and not option.is_flag and option.type.name in _PLACEHOLDERS:
        option.metavar = _PLACEHOLDERS[option.type.name]
    if isinstance(option.show_default, str):  # in brackets of its own otherwise
        option.help = f"{option.help}  [default: {option.show_default}]"
        option.show_default = False
