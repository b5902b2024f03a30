"""Commands by name, imported when they are asked for: until then each is a name and a sentence."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from iftplan.cli.commands import MODULES, SUMMARIES

_ELSEWHERE = {
    "apply": "A plan is applied in Python: iftplan.nn.apply(plan, model)",
    "export": "A trained network is exported in Python: iftplan.nn.finalize(model)",
    "show": "A plan is shown by iftplan diff MODEL PLAN or iftplan plot macs PLAN, a model by iftplan spec MODEL",
    "count": "A model is counted by iftplan audit MODEL",
    "measure": "A model is measured by iftplan audit MODEL",
    "compare": "Two models or plans are compared by iftplan diff BASE HEAD, runs by iftplan pareto",
    "resume": "A run is resumed by iftplan train --resume --out DIR",
    "init": "A configuration is begun by hand: iftplan check says how",
}
"""Commands that one may look for → where what they would do is found."""


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
        if args and args[0] in _ELSEWHERE:
            ctx.fail(f"no such command {args[0]!r}. {_ELSEWHERE[args[0]]}")
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and command_named(name), rest


def command_named(name: str) -> TyperCommand:
    """Command with its options, its module imported."""
    from iftplan.cli.help import Command

    module = import_module(f"iftplan.cli.commands.{MODULES[name]}")
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name, cls=Command, epilog=module.EXAMPLE.replace("\n\n", "\n\n\b\n"))(module.command)
    command = get_command(alone)
    assert isinstance(command, TyperCommand)
    return command
