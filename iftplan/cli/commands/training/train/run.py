"""A run on a terminal: progress, how to continue it, and what came out."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from iftplan.cli.output import Interrupted, say, say_next

if TYPE_CHECKING:
    from iftplan.base.documents import Document
    from iftplan.cli.progress import Watcher
    from iftplan.nn.training.loop import Loop
    from iftplan.plans.plan import Plan
    from iftplan.runs.settings import RunConfig


def train(
    run: RunConfig,
    plan: Plan,
    document: Document,
    directory: Path,
    source: str,
    loggers: Sequence[str],
    *,
    resume: bool | None,
    peak: float | Literal["measured"] | None,
    save: str,
) -> None:
    """Execute a plan, write the trained network where one is asked for, and show what came out.

    Args:
        run: settings.
        plan: what is trained.
        document: of the plan.
        directory: of the run.
        source: of the plan's model.
        loggers: their names.
        resume: whether a run there is continued; None where it is if there is one.
        peak: FLOPs a second that the machine is capable of, "measured", or None for no report of its use.
        save: file for the trained network's kept weights; empty for none.
    """
    from iftplan.cli.process import lasting_imports

    with lasting_imports():
        from iftplan.nn.training.records.loggers import logger_named
        from iftplan.nn.training.run import execute

    found = [logger_named(name, directory) for name in loggers]
    finished = False

    def watching(loop: Loop) -> AbstractContextManager[Watcher]:
        nonlocal finished
        finished = loop.is_over  # before the first step of this start
        return watched(loop, directory)

    outcome = execute(
        run,
        plan,
        document,
        directory,
        source=source,
        say=say,
        watching=watching,
        loggers=found,
        resume=resume,
        peak=peak,
    )
    if outcome is not None:
        if save:
            _save(run, plan, source, directory, save)
        _report(outcome, directory, finished=finished)


def _save(run: RunConfig, plan: Plan, source: str, directory: Path, file: str) -> None:
    """Write the network that the run's result tells of, by its kept weights."""
    from iftplan.nn.export.sparse_files.save import save_sparse
    from iftplan.nn.masking.loading import load_masked_
    from iftplan.nn.training.from_checkpoint import checkpoint_at, evaluated_weights
    from iftplan.nn.training.network import network_of
    from iftplan.nn.warmstart.adapters import merged

    _, state = checkpoint_at(directory, say)
    save_sparse(load_masked_(network_of(run, plan, source), merged(evaluated_weights(state))), file)
    say(f"written: {file}")


@contextmanager
def watched(loop: Loop, directory: Path) -> Iterator[Watcher]:
    """Progress, and how to continue for whoever interrupts it.

    Args:
        loop: that trains.
        directory: of the run.

    Raises:
        Interrupted: it was; says how to continue.
    """
    from iftplan.cli.progress import watching

    first = loop.fabric.is_global_zero
    try:
        with watching(loop.length.steps, loop.task.metric, done=loop.step, quiet=not first) as watch:
            yield watch
    except KeyboardInterrupt as error:
        told = f"stopped at step {loop.step} of {loop.length.steps}"
        how = f"continue with: iftplan train --resume --out {shlex.quote(str(directory))}"
        rank = loop.fabric.global_rank
        raise Interrupted(f"{told}; {how}" if first else f"process {rank} {told}") from error


def _report(found: Document, directory: Path, *, finished: bool) -> None:
    from iftplan.cli.output import Format, emit
    from iftplan.runs.tables import result_table

    emit([result_table(found)], dict, Format.TABLE, None)
    if finished:
        say(f"the run in {directory} was finished already, so nothing was trained")
    else:
        say(f"written: {directory}/result.json, metrics.csv, run.json, plan.json and checkpoints")
    say_next(["pareto", str(directory.parent if directory.parent.name else directory)])
