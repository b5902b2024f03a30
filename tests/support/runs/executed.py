"""Training runs in this process, from settings to a run directory; whole, or stopped and resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iftplan.base.documents import Document
from iftplan.models.zoo.specs import zoo_spec
from iftplan.nn.reading.read import read_model
from iftplan.nn.training.loop import Loop, Moment, Watcher
from iftplan.nn.training.run import execute
from iftplan.plans.document.plan import plan_document
from iftplan.plans.plan import Plan
from iftplan.plans.request import make_plan
from iftplan.runs.document import merge, parse_run
from iftplan.runs.settings import RunConfig

SMALL = {
    "training": {"steps": 12, "batch_size": 32, "threads": 1, "precision": "32-true"},
    "method": {"interval": 2},
}
"""Settings of a run on digits that takes a second."""


class StoppedRunError(Exception):
    """The run was stopped by the test."""


def small_run(settings: Mapping[str, Any]) -> RunConfig:
    """A small run on digits with other settings over it."""
    return parse_run(merge(SMALL, settings), "the test")


def plan_of(run: RunConfig) -> Plan:
    """The plan that a run's settings ask for."""
    request = run.plan.request
    asked, widths = run.plan, request.policy().widens
    known = zoo_spec(asked.model, asked.inputs, widths=widths)
    return make_plan(known or read_model(asked.model, asked.inputs, widths=widths), request)


def executed(
    run: RunConfig, directory: Path, *, plan: Plan | None = None, stop: int = 0, resume: bool = False
) -> Document:
    """Result of a run.

    Args:
        run: the settings.
        directory: of its records.
        plan: what is trained, where it was made before.
        stop: steps after which the run is stopped; 0 for none.
        resume: continue the run in the directory.

    Raises:
        StoppedRunError: it was stopped.
    """
    made = plan or plan_of(run)

    @contextmanager
    def watching(loop: Loop) -> Iterator[Watcher]:
        def watch(moment: Moment) -> None:
            if stop and moment.step >= stop:
                raise StoppedRunError

        yield watch

    found = execute(
        run,
        made,
        plan_document(made),
        directory,
        source=run.plan.model,
        say=lambda text: None,
        watching=watching,
        resume=resume,
    )
    assert found is not None
    return found
