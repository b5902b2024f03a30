"""The `iftplan` command: one app, one place where errors become messages and exit statuses."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import typer

from iftplan.base.errors import IftplanError, one_line, was_interrupted
from iftplan.base.suggestions import did_you_mean
from iftplan.cli import completion
from iftplan.cli.group import Commands
from iftplan.cli.help import WIDEST
from iftplan.cli.output import UNREAD, Interrupted, say, silence, write_error
from iftplan.cli.process import end_interruptible, own_process

# typer carries a click of its own and names no base of its errors but through them.
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__bases__[0])
_MACHINES = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EIO,
)
_SIGNALLED = 128  # and the number of the signal
_INTERRUPTED = 130  # as shells count it: 128 and the number of the signal

app = typer.Typer(
    name="iftplan",
    cls=Commands,
    help="Plan, check and train sparse networks at unchanged FLOPs, exact to the MAC.",
    epilog="Begin with: iftplan plan zoo:resnet18-cifar --transform wide --sparsity 0.75",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST},
)


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
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status (see `docs/reference/cli.md`)."""
    if arguments is None:
        own_process()
    given = list(sys.argv[1:] if arguments is None else arguments)
    with completion.whole_words(os.environ):
        status = _run(given)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:  # whoever read us has gone, or the disk is full
        silence(sys.stdout)
        gone = isinstance(error, BrokenPipeError)
        if not status and not gone:
            say(f"iftplan: {write_error(error)}")
        status = status or (UNREAD if gone else 2)
    sys.exit(status)


def _run(given: list[str]) -> int:
    try:
        status = app(given, prog_name="iftplan", standalone_mode=False)
    except _UsageError as error:
        return _misused(error, given)
    except Interrupted as error:
        end_interruptible()
        say(f"iftplan: {error}.")
        return _INTERRUPTED
    except (typer.Abort, KeyboardInterrupt):
        return _interrupted()
    except SystemExit as error:  # of code that is not ours: its status says nothing about what was asked
        if isinstance(error.code, int) and (error.code > _SIGNALLED or completion.is_requested(os.environ)):
            return error.code
        _show(error, given)
        status_given = "" if error.code is None else repr(error.code)
        say(
            f"iftplan: your Python called sys.exit({status_given}) before there was a result. Remove the call, or raise an error in its place."
        )
        return 3
    except OSError as error:
        if (wrong := _surroundings(error)) is None:
            return _fault(error, given)
        _show(error, given)
        say(f"iftplan: {wrong}")
        return 2
    except IftplanError as error:
        _show(error, given)
        say(f"iftplan: {error}")
        return error.exit_code
    except UnicodeEncodeError as error:
        _show(error, given)
        say(
            f"iftplan: {error.object[error.start]!a} cannot be written as {error.encoding}; name files in UTF-8, and if your terminal has another encoding, write with -o FILE or set PYTHONIOENCODING=utf-8."
        )
        return 2
    except Exception as error:
        return _fault(error, given)
    if status == _INTERRUPTED:  # typer's for Ctrl-C
        return _interrupted()
    return status if isinstance(status, int) else 0


def _surroundings(error: OSError) -> str | None:
    """What is wrong with the machine rather than with us; None where it may be us."""
    try:
        Path.cwd()
    except OSError:
        return (
            "the current folder is not there any more; change to one that is (cd), and run the command again."
        )
    if error.errno == errno.ENOSPC and error.filename is None:
        return write_error(error)
    if error.errno == errno.ENOENT and "temporary directory" in str(error):
        return "there is no writable folder for temporary files. Set TMPDIR to one."
    if error.errno in _MACHINES:
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{error.strerror}. Once that is fixed, run the command again."
    return None


def _interrupted() -> int:
    end_interruptible()
    say("iftplan: stopped before there was a result; nothing was written.")
    return _INTERRUPTED


def _misused(error: typer.BadParameter, given: Sequence[str]) -> int:
    """Unknown commands and options, in the one paragraph that every other error has."""
    if not given:
        error.show()  # the help, asked for by giving nothing
        return error.exit_code
    command = error.ctx.command_path if error.ctx else "iftplan"
    text = error.format_message().strip().rstrip(".").replace("\n\t", " ")  # of a list of choices
    text += _meant(text)
    told = f"{text[:1].lower()}{text[1:]}"
    say(
        f"iftplan: {told} See {command} --help."
        if told.endswith("?")
        else f"iftplan: {told}; see {command} --help."
    )
    return error.exit_code


def _meant(text: str) -> str:
    """The nearest of the choices that a message lists, as a question; empty where none is near."""
    listed = re.search(r"'([^']+)' is not one of (.+)$", text, re.DOTALL)
    meant = did_you_mean(listed[1], re.findall(r"'([^']+)'", listed[2]), cutoff=0.75) if listed else ""
    return f".{meant}" if meant else ""


def _fault(error: Exception, given: list[str]) -> int:
    """A mistake of ours: no traceback unless asked for, and never the status of a pass or a failed check."""
    _show(error, given)
    if was_interrupted(error):
        return _interrupted()
    told = one_line(error) or "no message"
    say(
        f"iftplan: an error of our own, {type(error).__name__}: {told}. Please report it with the output of the same command with --debug."
    )
    return 3


def _show(error: BaseException, given: list[str]) -> None:
    if "--debug" in given:
        traceback.print_exception(error)
