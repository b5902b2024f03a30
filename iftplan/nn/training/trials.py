"""A worker of a training sweep: trials from a queue, one run directory each, until none is left."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from iftplan.base.documents import Document, loads, read_text
from iftplan.base.errors import IftplanError, MeasureError, error_text, was_interrupted
from iftplan.models.spec import ModelSpec
from iftplan.nn.reading.read import read_model
from iftplan.nn.training.loop import Loop, Moment, Watcher
from iftplan.nn.training.records.claims import BusyError
from iftplan.nn.training.run import execute
from iftplan.plans.document.plan import plan_document
from iftplan.plans.request import make_plan
from iftplan.runs.records import parse_result
from iftplan.runs.settings import PlanConfig, RunConfig
from iftplan.runs.sweeps.leases import LostError
from iftplan.runs.sweeps.queue import Claim, TrialQueue, require_kept
from iftplan.runs.sweeps.targets import Mirror, RunTarget

Say = Callable[[str], None]
_EVERY = 30.0
"""Seconds between lines about a trial that is being trained."""
_WAIT = 0.5
"""Seconds between looks at what other workers do."""
_BUSY = 5.0
"""Seconds before another look after a trial that another worker turned out to have."""


@dataclass(slots=True)
class Models:
    """Models as they were read, once for each process.

    Attributes:
        read: source, its input and whether its widths were asked for → the spec.
    """

    read: dict[tuple[str, str, bool], ModelSpec] = field(default_factory=dict)

    def spec(self, asked: PlanConfig) -> ModelSpec:
        """Spec of a plan's model, with its widths if the family changes them or looks for blocks by them."""
        key = asked.model, asked.input, asked.request.reads_widths
        if key not in self.read:
            self.read[key] = read_model(asked.model, asked.inputs, widths=key[2])
        return self.read[key]


def work(
    queue: TrialQueue,
    run_of: Callable[[Claim], RunConfig],
    say: Say,
    *,
    parent: int | None = None,
    target: str = "",
) -> None:
    """Train until every trial is finished or failed, by this worker or by another.

    Args:
        queue: of the trials.
        run_of: the settings of one.
        say: takes a sentence on progress.
        parent: process whose end also ends this one; None for none.
        target: URL to which run directories are copied; "" for none.
    """
    models, told = Models(), False
    copies = RunTarget(target) if target else None
    while True:
        claim = queue.claim()
        if claim is None and not (left := queue.left()):
            return
        if claim is None:
            if not told:
                say(f"waiting for {len(left)} that other workers train: {', '.join(sorted(left)[:5])}")
            told = True
            _watch_parent(parent)
            time.sleep(_WAIT)
            continue
        told = False
        try:
            _take(queue, claim, run_of(claim), models, say, parent, copies)
        except (LostError, BusyError) as error:
            say(f"{claim.name}: {error}")
            claim.lease.release()
            time.sleep(_BUSY)


def _take(
    queue: TrialQueue,
    claim: Claim,
    run: RunConfig,
    models: Models,
    say: Say,
    parent: int | None,
    target: RunTarget | None,
) -> None:
    began, directory = time.monotonic(), queue.directory / claim.name
    noted = partial(_noted, say, claim.name)
    go_on = partial(_go_on, claim, parent)
    try:
        if target is None:
            found = train_trial(run, directory, models, noted, go_on)
        else:
            found = _train_elsewhere(run, Mirror(target, directory), models, noted, go_on)
    except (LostError, BusyError):
        raise
    except (IftplanError, RuntimeError, MemoryError) as error:
        if not isinstance(error, IftplanError) and _ends_the_worker(error):
            raise
        reason = str(error) if isinstance(error, IftplanError) else error_text(error)
        queue.fail(claim, reason)
        say(f"{claim.name}: failed: {reason}")
        return
    queue.finish(claim, _objectives(found))
    done, total = queue.ended()
    say(
        f"{claim.name}: {found['metric_name']} {found['metric']:.4f} after {time.monotonic() - began:.1f} s, {done} of {total}"
    )


def _ends_the_worker(error: BaseException) -> bool:
    """Whether nothing else can be trained either: it was Ctrl-C, or the accelerator is lost."""
    return was_interrupted(error) or type(error).__name__ == "AcceleratorError"


def _train_elsewhere(
    run: RunConfig, mirror: Mirror, models: Models, say: Say, go_on: Callable[[], None]
) -> Document:
    """Result of a run whose directory is a copy: fetched before, sent at each checkpoint and in the end."""

    def go_on_and_send() -> None:
        go_on()
        if mirror.behind():
            try:
                mirror.send()
            except MeasureError as error:  # the next checkpoint may get through
                say(f"note: {error}")

    shutil.rmtree(mirror.directory, ignore_errors=True)  # what another host has made since is newer
    try:
        mirror.fetch()
        found = train_trial(run, mirror.directory, models, say, go_on_and_send)
        go_on()
        mirror.send_patiently()
    finally:
        shutil.rmtree(mirror.directory, ignore_errors=True)
    return found


def _objectives(found: Document) -> tuple[float, float]:
    sign = -1 if found["metric_name"] == "accuracy" else 1
    return sign * float(found["metric"]), float(found["train_macs"])


def train_trial(
    run: RunConfig, directory: Path, models: Models, say: Say, go_on: Callable[[], None]
) -> Document:
    """Result of a run: read where it is finished, continued where it was begun, else made.

    Args:
        run: its settings.
        directory: of the run.
        models: as they were read in this process.
        say: takes a sentence on progress.
        go_on: called after each step; raises to end the training.
    """
    record = directory / "result.json"
    if record.exists():  # its worker was killed before it could tell
        return parse_result(loads(read_text(str(record)), str(record)), str(record))
    planned = make_plan(models.spec(run.plan), run.plan.request)
    found = execute(
        run,
        planned,
        plan_document(planned),
        directory,
        source=run.plan.model,
        say=say,
        watching=partial(_watching, say=say, go_on=go_on),
        resume=(directory / "run.json").exists(),
    )
    assert found is not None, "a trial is one process"
    return found


def _noted(say: Say, name: str, text: str) -> None:
    say(f"{name}: {text}")


@contextmanager
def _watching(loop: Loop, say: Say, go_on: Callable[[], None]) -> Iterator[Watcher]:
    """Context that says a line of progress now and then, and ends training where `go_on` raises."""
    last = time.monotonic()

    def watch(moment: Moment) -> None:
        nonlocal last
        go_on()
        if moment.score is not None and time.monotonic() - last > _EVERY:
            last = time.monotonic()
            name = loop.task.metric
            say(f"step {moment.step}/{moment.steps}  {name} {moment.score.metric(name):.4f}")

    yield watch


def _go_on(claim: Claim, parent: int | None) -> None:
    _watch_parent(parent)
    require_kept(claim)


def _watch_parent(parent: int | None) -> None:
    if parent is not None and os.getppid() != parent:
        raise SystemExit("the sweep that this worker belongs to was ended")


def serve() -> None:
    """A worker process: its campaign comes on stdin."""
    asked = loads(sys.stdin.read(), "stdin")
    with suppress(KeyboardInterrupt):  # the sweep says so, once
        work_on(asked["campaign"], parent=asked["parent"])


def work_on(campaign: Document, parent: int | None = None) -> None:
    """Train the trials of a campaign until none is left, as one of its workers.

    Args:
        campaign: as a JSON object.
        parent: process whose end also ends this one; None for none.
    """
    from iftplan.runs.sweeps.campaign import parse_campaign

    with parse_campaign(campaign).on_this_host() as mine:
        work(mine.queue(), mine.run_of, _say, parent=parent, target=mine.target)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  (messages go where the sweep's own go)
