"""Commands by name, imported when they are asked for: until then each is a name and a sentence."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from iftplan.cli.commands import SUMMARIES

_FOLDERS = ("bench", "sweep")
"""Commands of several files, of which `command` is the first."""


class Commands(TyperGroup):
    """Group of all commands, none of which is imported to list it.

    Args:
        **more: as typer has it.
    """

    def __init__(self, **more: Any) -> None:
        listed = {name: TyperCommand(name, short_help=summary) for name, summary in SUMMARIES.items()}
        super().__init__(**{**more, "commands": listed})

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Name, command and arguments of what is to run.

        Args:
            ctx: as typer has it.
            args: the words after `iftplan`.
        """
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and command_named(name), rest


def command_named(name: str) -> TyperCommand:
    """Command with its options, its module imported."""
    from iftplan.cli.help import Command

    module = import_module(f"iftplan.cli.commands.{name}{'.command' if name in _FOLDERS else ''}")
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name, cls=Command, epilog=module.EXAMPLE.replace("\n\n", "\n\n\b\n"))(module.command)
    command = get_command(alone)
    assert isinstance(command, TyperCommand)
    return command
