"""The `iftplan` command: one app, one place where errors become messages and exit statuses."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from iftplan.cli import audit, diff, models, plan, solve, spec
from iftplan.cli.output import say, unwritten
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
        from importlib.metadata import version

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
    status = _run(given)
    try:
        sys.stdout.flush()
    except OSError as error:  # whoever read us has gone, or the disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not status:
            say(f"iftplan: {unwritten(error)}")
        status = status or 2
    sys.exit(status)


def _run(given: list[str]) -> int:
    try:
        app(given)  # ends with SystemExit, whether it went well, was misused or was interrupted
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            return _fault(error, given)
        say(f"iftplan: {unwritten(error)}")
        return 2
    except IftplanError as error:
        _show(error, given)
        say(f"iftplan: {error}")
        return error.exit_code
    except Exception as error:
        return _fault(error, given)
    return 0


def _fault(error: Exception, given: list[str]) -> int:
    """A mistake of ours: no traceback unless asked for, and never the status of a pass or a failed check."""
    _show(error, given)
    told = " ".join(str(error).split()) or "no message"
    say(
        f"iftplan: an error of our own, {type(error).__name__}: {told}. Please report it with the output of the same command with --debug."
    )
    return 3


def _show(error: Exception, given: list[str]) -> None:
    if "--debug" in given:
        traceback.print_exception(error)
