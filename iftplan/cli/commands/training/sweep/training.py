"""The runs of `iftplan sweep --train`: who trains them, and what came of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from iftplan.base.documents import Document, loads, read_text
from iftplan.base.errors import InputError
from iftplan.cli.commands.training.sweep.jobs import work_as_jobs
from iftplan.cli.output import Interrupted, say
from iftplan.cli.progress import counting
from iftplan.runs.document import parse_run
from iftplan.runs.records import parse_result
from iftplan.runs.sweeps.campaign import Campaign, Search, campaign_object
from iftplan.runs.sweeps.grid import (
    PLANNED,
    UNFINISHED,
    Grid,
    GridPoint,
    grid_runs,
    planned_rows,
    row_of_run,
    trained_row,
)
from iftplan.runs.sweeps.search import SamplerName, shares, space_of, trained_objectives
from iftplan.runs.sweeps.tables import search_table
from iftplan.runs.sweeps.targets import RunTarget

if TYPE_CHECKING:
    from iftplan.families.family import Family
    from iftplan.models.spec import ModelSpec
    from iftplan.report.table import Table
    from iftplan.runs.settings import RunConfig
    from iftplan.runs.sweeps.queue import TrialQueue

_BOOT = """
import sys
sys.path.insert(0, sys.argv.pop(1))  # the same iftplan as the sweep's own
from iftplan.nn.training.trials import serve
serve()
"""


@dataclass(frozen=True, slots=True)
class Training:
    """Settings by which a grid is trained.

    Attributes:
        variants: all other settings, by those of them that are varied; one, "", where none is.
        methods: how masks change; the base's where none is given.
        seeds: one run each.
        directory: of the run directories.
        storage: of the record; "" for a journal beside them.
        workers: processes.
        search: a sampler, for a search in place of the grid.
        trials: of the search.
        retry: try again what failed.
        target: URL of the run directories, in place of the directory.
        submit: "slurm" or "local", which starts the workers as jobs; "" for processes of this command.
        job: settings of a job, by submitit's names.
    """

    variants: Mapping[str, RunConfig]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    directory: Path
    storage: str
    workers: int
    search: SamplerName | None
    trials: int
    retry: bool
    target: str = ""
    submit: str = ""
    job: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def base(self) -> RunConfig:
        """Settings of the first variant."""
        return next(iter(self.variants.values()))


def train_points(
    grid: Grid, specs: Mapping[str, ModelSpec], families: Mapping[str, Family], training: Training
) -> tuple[list[GridPoint], Sequence[Table]]:
    """Train all points that can be planned; their rows, and tables of what a search found.

    Args:
        grid: of plans.
        specs: model → its spec.
        families: by name; only built-in ones can be trained.
        training: methods, seeds and processes.

    Raises:
        InputError: an unknown method, a family that a run cannot name, or a record that cannot be opened.
    """
    from iftplan.families.builtin import FAMILIES

    if own := [name for name, family in families.items() if FAMILIES.get(name) is not family]:
        raise InputError(
            f"--train knows the built-in families only. Plan with {own[0]} by iftplan plan, and train that plan with iftplan train."
        )
    methods = training.methods or (training.base.method.name,)
    for method in methods:
        parse_run({"method": {"name": method}}, "--methods")
    training = replace(training, methods=methods)
    if not training.target:
        training.directory.mkdir(parents=True, exist_ok=True)
    elif "://" not in training.storage:
        raise InputError(
            f"--out {training.target} needs --storage URL of a database, for a journal lies on a disk that all workers see."
        )
    if training.search is None:
        return _grid(grid, specs, training), ()
    return _search(grid, specs, training.search, training)


def _grid(grid: Grid, specs: Mapping[str, ModelSpec], training: Training) -> list[GridPoint]:
    runs: dict[str, RunConfig] = {}
    labels: dict[str, str] = {}
    for label, base in training.variants.items():
        found = grid_runs(grid, base, training.methods, training.seeds)
        if runs and found.keys() <= runs.keys():
            raise InputError(
                f"--vary makes no other runs with {label}: it changes how these runs are computed, not what comes out, or nothing that their methods look at. Vary another setting."
            )
        runs |= found
        labels |= dict.fromkeys(found, label)
    rows = train_runs(runs, specs, training)
    return [replace(row, varied=labels[name] or None) for name, row in rows.items()]


def train_runs(
    runs: Mapping[str, RunConfig], specs: Mapping[str, ModelSpec], training: Training
) -> dict[str, GridPoint]:
    """Train all runs whose plans can be made, and return the row of each by its name.

    Args:
        runs: by name.
        specs: model → its spec.
        training: where, and with how many processes.
    """
    rows = dict(zip(runs, planned_rows(specs, (run.plan for run in runs.values())), strict=True))
    able = {name: run for name, run in runs.items() if rows[name].outcome == PLANNED}
    reasons: Mapping[str, str] = {}
    if able:
        with _campaign(training, able, None).on_this_host() as campaign:
            queue = campaign.queue()
            result_of, _ = _results(training)
            queue.add(able, again=training.retry, has_result=lambda name: result_of(name) is not None)
            _train(campaign, queue, training)
            reasons = queue.reasons()
    _say_failed(reasons, len(able), training)
    return _rows(runs, rows, reasons, training)


def _say_failed(reasons: Mapping[str, str], total: int, training: Training) -> None:
    """Say how failed runs are tried again, where the same command does not."""
    if reasons and not training.retry:
        say(
            f"{len(reasons)} of {total} run{'s' * (total != 1)} failed, and the same command does not try them again; --retry-failed does"
        )


def _search(
    grid: Grid, specs: Mapping[str, ModelSpec], sampler: SamplerName, training: Training
) -> tuple[list[GridPoint], Sequence[Table]]:
    """Runs that a search chose, and as many that chance did."""
    choices = space_of(grid, training.methods)
    base = replace(training.base, seed=training.seeds[0])
    found: dict[str, dict[str, GridPoint]] = {}
    for name in dict.fromkeys((sampler, "random")):
        with _campaign(training, {}, Search(name, choices, training.trials, base)).on_this_host() as campaign:
            queue = campaign.queue()
            _train(campaign, queue, training)
            runs = dict(islice(_chosen(campaign, queue), training.trials))  # a record may hold more
        rows = dict(zip(runs, planned_rows(specs, (run.plan for run in runs.values())), strict=True))
        reasons = queue.reasons()
        found[name] = _rows(runs, rows, reasons, training)
    points = {
        name: [p for row in rows.values() if (p := trained_objectives(row))] for name, rows in found.items()
    }
    axes = "of the metric against training MACs; 1 would be the best of both at once"
    both = {run: row for rows in found.values() for run, row in rows.items()}  # both may choose the same run
    return list(both.values()), [search_table(shares(points), training.trials, axes)]


def _chosen(campaign: Campaign, queue: TrialQueue) -> Iterable[tuple[str, RunConfig]]:
    assert campaign.search is not None
    for trial in queue.trials():
        yield campaign.search.name_of(trial), campaign.search.run_of(trial.params)


def _campaign(training: Training, runs: Mapping[str, RunConfig], search: Search | None) -> Campaign:
    place = training.storage or str(training.directory / "journal.log")
    return Campaign(training.directory.absolute(), place, runs, search, training.target)


def _rows(
    runs: Mapping[str, RunConfig],
    rows: Mapping[str, GridPoint],
    reasons: Mapping[str, str],
    training: Training,
) -> dict[str, GridPoint]:
    """What came of every run; `result.json` has the last word."""
    found = {}
    result_of, place = _results(training)
    for name, run in runs.items():
        if document := result_of(name):
            found[name] = trained_row(rows[name], run, document, f"{place}/{name}")
        else:
            planned = rows[name].outcome == PLANNED
            found[name] = row_of_run(rows[name], run, reasons.get(name, UNFINISHED) if planned else None)
    return found


def _results(training: Training) -> tuple[Callable[[str], Document | None], str]:
    """Function that reads the result of a run, None where there is none, and the place of all runs."""
    if training.target:
        target = RunTarget(training.target)
        return target.result, target.url
    directory = training.directory

    def result_in(name: str) -> Document | None:
        record = str(directory / name / "result.json")
        return parse_result(loads(read_text(record), record), record) if Path(record).exists() else None

    return result_in, str(directory)


def _train(campaign: Campaign, queue: TrialQueue, training: Training) -> None:
    try:
        with counting(queue.ended) as say:
            tell = _notes_once(say)
            if training.submit:
                folder = Path("iftplan-jobs") if training.target else training.directory / ".jobs"
                asked = campaign_object(campaign), training.submit, training.workers, training.job
                work_as_jobs(*asked, folder, queue.ended, tell)
            elif training.workers > 1:
                _train_together(campaign, training.workers, tell)
            else:
                from iftplan.nn.training.trials import work

                work(queue, campaign.run_of, tell, target=campaign.target)
    except KeyboardInterrupt as error:
        ended, total = queue.ended()
        raise Interrupted(
            f"stopped with {ended} of {total} runs finished; run the same command again to continue"
        ) from error


def _notes_once(tell: Callable[[str], None]) -> Callable[[str], None]:
    """The same function, except that a note or a reason of many runs is passed on for the first of them alone."""
    told: set[str] = set()

    def once(text: str) -> None:
        note = text.partition(": note: ")[2]
        name, _, reason = text.partition(": failed: ")
        if reason in told and reason:
            tell(f"{name}: failed for the same reason")
        elif note not in told:
            tell(text)
        told.update({note, reason} - {""})

    return once


def _train_together(campaign: Campaign, workers: int, tell: Callable[[str], None]) -> None:
    """Worker processes, until all of them have ended; what they say comes through one pipe."""
    request = json.dumps({"campaign": campaign_object(campaign), "parent": os.getpid()})
    said, saying = os.pipe()
    processes = [_worker(request, workers, saying) for _ in range(workers)]
    os.close(saying)
    try:
        with os.fdopen(said, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                tell(line.rstrip("\n"))
        for process in processes:
            if status := process.wait():
                tell(
                    f"a worker process ended with status {status}; another one takes its run over, or the same command does"
                )
    finally:  # after an interruption; else they have ended
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def _worker(request: str, workers: int, saying: int) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[5]
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    process = subprocess.Popen(
        [sys.executable, "-c", _BOOT, str(root)],
        stdin=subprocess.PIPE,
        stderr=saying,
        text=True,
        env={"OMP_NUM_THREADS": threads, **os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert process.stdin is not None
    process.stdin.write(request)
    process.stdin.close()
    return process
