"""One run, from its first step or its newest checkpoint to its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import monotonic
from typing import Any, Final, Literal

import torch

from iftplan.base.documents import Document, dumps, write_text
from iftplan.base.memory import keep_memory
from iftplan.nn.timing.peak import measured_peak
from iftplan.nn.training.loop import Loop, Watcher
from iftplan.nn.training.parallel.links import watched_links
from iftplan.nn.training.records.claims import claim, is_begun
from iftplan.nn.training.setup import begin, result, start
from iftplan.plans.plan import Plan
from iftplan.runs.costs.utilization import Utilization
from iftplan.runs.settings import RunConfig

_DTYPES: Final = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Precisions → types that products are computed in, where it is not float32."""

_PATIENCE = 60.0
"""Seconds within which a process that lost the others has noticed, or its host has killed it."""


def execute(
    run: RunConfig,
    plan: Plan,
    document: Document,
    directory: Path,
    *,
    source: str,
    say: Callable[[str], None],
    watching: Callable[[Loop], AbstractContextManager[Watcher]],
    loggers: Sequence[Any] = (),
    resume: bool | None = False,
    peak: float | Literal["measured"] | None = None,
) -> Document | None:
    """Train a run and write its directory; `result.json` is written last, when all other files are complete.

    Args:
        run: the settings.
        plan: what is trained.
        document: the same, as it is written.
        directory: of the records.
        source: of the dense model.
        say: takes a sentence on progress or on what is doubtful.
        watching: given the loop, a context whose value is called after each step.
        loggers: of the engine.
        resume: continue the run in the directory; None to begin it where there is none, and to wait for a process that
            holds it, as one does that was cut off.
        peak: FLOPs a second of the machine, against which its use is reported; "measured" to find out.

    Returns:
        The result; None in all processes of a run but the first.

    Raises:
        InputError: another process trains in the directory, or it holds a run that is not to be continued.
        UnreachableError: another process of the run has ended, or does not answer.
    """
    began = monotonic()
    with watched_links(run.training.timeout):
        loop = start(run, plan, document, directory, source=source, say=say, loggers=list(loggers))
    if loop.fabric.device.type == "cpu":
        keep_memory()
    first = loop.fabric.is_global_zero
    patience = _PATIENCE if resume is None else 0
    with claim(directory, fresh=resume is False, patience=patience) if first else nullcontext():
        with watched_links(run.training.timeout):
            begun = loop.fabric.broadcast(is_begun(directory)) if resume is None else resume
            begin(loop, document, say, resume=begun)
            with watching(loop) as watch:
                loop.run(watch)
            use = _utilization(loop, peak) if first else None
            outcome = result(loop, plan)  # in all processes: each may hold a part of the weights
        if first and loop.step < loop.length.steps:
            waited = run.training.patience
            say(
                f"stopped at step {loop.step} of {loop.length.steps}: {waited} evaluation{'s' * (waited != 1)} without a better loss on the validation data"
            )
        if not first:
            return None
        timing = {"schema": "iftplan.timing/1", "wall_seconds": monotonic() - began, **_use(use)}
        if peak is not None and use is not None:
            say(f"speed: {use}")
        write_text(dumps(timing), str(directory / "timing.json"))
        write_text(dumps(outcome), str(directory / "result.json"))
        return outcome


def _utilization(loop: Loop, peak: float | Literal["measured"] | None) -> Utilization:
    """Work and time of the steps since the run was last started; the peak is measured in the run's precision."""
    step, macs = loop.began
    samples = (loop.step - step) * loop.config.training.batch_size
    spent = loop.spending.macs - macs
    sparse = loop.config.training.execution != "dense" or loop.growing is not None
    if peak == "measured":
        dtype = _DTYPES.get(str(loop.fabric._precision.precision), torch.float32)
        peak = measured_peak(loop.fabric.device, dtype) * loop.fabric.world_size
    return Utilization(spent, spent if sparse else samples * loop.spending.executed_step, loop.seconds, peak)


def _use(found: Utilization | None) -> Document:
    """Speed of the last start as its timing holds it; nothing where it took no step."""
    if found is None or not found.seconds:
        return {}
    told: Document = {
        "step_seconds": found.seconds,
        "train_macs": found.macs,
        "executed_macs": found.executed,
    }
    return (
        told if found.peak is None else told | {"peak_flops": found.peak, "mfu": found.mfu, "hfu": found.hfu}
    )
