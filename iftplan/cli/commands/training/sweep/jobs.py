"""Workers of a training sweep as jobs of a scheduler, started with submitit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iftplan.base.errors import InputError

if TYPE_CHECKING:
    from iftplan.base.documents import Document

_MINUTES = 24 * 60
_LOOK = 1.0


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

    try:
        executor = submitit.AutoExecutor(folder=folder.absolute(), cluster=submit)
        executor.update_parameters(**{"name": "iftplan-sweep", "timeout_min": _MINUTES, **settings})
        jobs = executor.map_array(work_on, [campaign] * workers)
    except Exception as error:  # of submitit, of the scheduler's commands, of the folder
        told = " ".join(str(error).split())[:300]
        raise InputError(
            f"--submit {submit} cannot start jobs ({type(error).__name__}: {told}). Check --job, and that the scheduler's commands work here."
        ) from error
    tell(f"submitted {workers} jobs: {', '.join(job.job_id for job in jobs)}; their output is in {folder}")
    try:
        last = 0
        while not all(job.done() for job in jobs):
            done, total = ended()
            if done > last:
                tell(f"{done} of {total} runs finished")
            last = done
            time.sleep(_LOOK)
    except KeyboardInterrupt:
        for job in jobs:
            job.cancel()
        raise
    for job in jobs:
        if failure := job.exception():
            lines = str(failure).strip().splitlines() or [type(failure).__name__]
            tell(f"job {job.job_id} ended early: {lines[-1]}; its output is in {folder}")
