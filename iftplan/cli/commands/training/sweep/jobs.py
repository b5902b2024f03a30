"""Workers of a training sweep as jobs of a scheduler, started with submitit."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iftplan.base.errors import InputError, error_text

if TYPE_CHECKING:
    from iftplan.base.documents import Document

_MINUTES = 24 * 60
_LOOK = 1.0
_LOOKS = 30
"""Looks at results between two questions to the scheduler."""


def job_settings(given: Sequence[str]) -> Mapping[str, str | int]:
    """Settings of a job from `KEY=VALUE` texts; whole numbers are numbers.

    Raises:
        InputError: a text has no key or no value.
    """
    found: dict[str, str | int] = {}
    for text in given:
        key, _, value = text.partition("=")
        if not key or not value:
            raise InputError(
                f"--job {text!r} is not KEY=VALUE. Write it as in --job slurm_partition=gpu --job timeout_min=600."
            )
        found[key] = int(value) if value.isdecimal() else value
    return found


def work_as_jobs(
    campaign: Document,
    submit: str,
    workers: int,
    settings: Mapping[str, str | int],
    folder: Path,
    ended: Callable[[], tuple[int, int]],
    tell: Callable[[str], None],
) -> None:
    """Submit one array of jobs, each of which is a worker, and wait until all have ended.

    Args:
        campaign: as a JSON object.
        submit: "slurm" or "local".
        workers: number of jobs.
        settings: of each job, by submitit's names.
        folder: of what jobs read and write, seen by all of them.
        ended: how many runs have, and how many there are.
        tell: hears of the jobs.

    Raises:
        InputError: submitit or the scheduler is missing, or a setting is none of theirs.
    """
    try:
        import submitit
    except ImportError as error:
        raise InputError(
            "--submit needs submitit, which is not installed. Install it with: pip install 'iftplan[cluster]'."
        ) from error
    from iftplan.nn.training.trials import work_on

    logging.getLogger("submitit").setLevel(logging.CRITICAL)  # it warns on stdout, where the table goes
    try:
        executor = submitit.AutoExecutor(folder=folder.absolute(), cluster=submit)
        executor.update_parameters(**{"name": "iftplan-sweep", "timeout_min": _MINUTES, **settings})
        jobs = executor.map_array(work_on, [campaign] * workers)
    except Exception as error:  # of submitit, of the scheduler's commands, of the folder
        raise InputError(
            f"--submit {submit} cannot start jobs ({error_text(error, 300)}). Check --job, and that the scheduler's commands work here."
        ) from error
    tell(f"submitted {workers} jobs: {', '.join(job.job_id for job in jobs)}; their output is in {folder}")
    try:
        lost = wait_for(jobs, ended, tell, _queued if submit == "slurm" else None)
    except KeyboardInterrupt:
        for job in jobs:
            job.cancel()
        raise
    for job in jobs:
        if job.job_id in lost:
            tell(f"job {job.job_id} left the queue without a result; its output is in {folder}")
        elif failure := job.exception():
            lines = str(failure).strip().splitlines() or [type(failure).__name__]
            tell(f"job {job.job_id} ended early: {lines[-1]}; its output is in {folder}")


def wait_for(
    jobs: Sequence[Any],
    ended: Callable[[], tuple[int, int]],
    tell: Callable[[str], None],
    queued: Callable[[Sequence[str]], set[str] | None] | None,
) -> set[str]:
    """Wait until all jobs have ended; numbers of those that left the queue without a result.

    submitit learns of a job that was cancelled from Slurm's accounting, which many clusters do not have.

    Args:
        jobs: submitit's.
        ended: how many runs have, and how many there are.
        tell: hears of finished runs.
        queued: those of the given jobs that wait or run; None where it is not known, or for a scheduler without a queue.
    """
    left, absent, lost = list(jobs), set[str](), set[str]()
    last = looks = 0
    while left := [job for job in left if not job.done() and job.job_id not in lost]:
        done, total = ended()
        if done > last:
            tell(f"{done} of {total} runs finished")
        last, looks = done, looks + 1
        time.sleep(_LOOK)
        if queued is not None and looks % _LOOKS == 0:
            names = {job.job_id for job in left}
            found = queued(sorted(names))
            missing = set[str]() if found is None else names - found
            lost |= absent & missing  # twice: a result may be on its way over a shared disk
            absent = missing
    return lost


def _queued(names: Sequence[str]) -> set[str] | None:
    numbers = ",".join(sorted({name.partition("_")[0] for name in names}))
    asked = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={numbers}"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    forgotten = "Invalid job id" in done.stderr  # said of jobs that ended a while ago
    if done.returncode and not forgotten:
        return None
    return set(done.stdout.split())
