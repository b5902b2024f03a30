"""The `iftplan` command: one app, one place where errors become messages and exit statuses."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import click
import typer

from iftplan.cli import audit, diff, models, plan, solve, spec
from iftplan.cli.output import say
from iftplan.errors import IftplanError

app = typer.Typer(
    name="iftplan",
    help="Plan, check and train sparse iso-FLOP networks, exact to the MAC.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for name, module in (
    ("solve", solve),
    ("plan", plan),
    ("audit", audit),
    ("diff", diff),
    ("spec", spec),
    ("models", models),
):
    app.command(name, epilog=module.EXAMPLE.replace("\n\n", "\n\n\b\n"))(module.command)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"iftplan {version('iftplan')}")  # noqa: T201  (what was asked for)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status (see `docs/cli.md`)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read us has gone; what is left to write goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 2
    sys.exit(status)


def _run(given: list[str]) -> int:
    try:
        status = app(given, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return 130
    except BrokenPipeError:
        raise
    except IftplanError as error:
        _show(error, given)
        say(f"iftplan: {error}")
        return error.exit_code
    except Exception as error:
        _show(error, given)
        told = " ".join(str(error).split()) or "no message"
        say(
            f"iftplan: an error of our own, {type(error).__name__}: {told}. Please report it with the output of the same command with --debug."
        )
        return 3
    return status if isinstance(status, int) else 0


def _show(error: Exception, given: list[str]) -> None:
    if "--debug" in given:
        traceback.print_exception(error)
