"""Interleaved rounds: every candidate runs once in each, so that a slow moment of the machine affects all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median, quantiles
from time import perf_counter, thread_time

from iftplan.base.errors import InputError
from iftplan.nn.timing.work import Elsewhere, Lost, Work
from iftplan.plans.speed.timings import Timing

_SHORTEST = 0.01
"""Seconds that a measurement lasts at least; what is shorter is repeated within it."""


def race(
    work: Mapping[str, Work | Elsewhere],
    macs: Mapping[str, int],
    prepared: Mapping[str, float],
    rounds: int,
    threads: int,
    left_out: dict[str, str] | None = None,
) -> tuple[Timing, ...]:
    """Seconds of every candidate, round by round.

    One thread is measured in its own processor time, which other programs do not disturb; several in elapsed time.

    Args:
        work: candidates by name; those that begin with "dense" are what ratios are to.
        macs: of one run of each.
        prepared: seconds that were spent once.
        rounds: how many.
        threads: that the candidates use; 0 where another device computes, in elapsed time.
        left_out: hears which were lost on the way, and why.

    Raises:
        InputError: no dense candidate is there to compare with.
    """
    if not any(name.startswith("dense") for name in work):
        reasons = "".join(
            f"; {name}: {why}" for name, why in (left_out or {}).items() if name.startswith("dense")
        )
        raise InputError(
            f"none of the dense backends that were named runs here{reasons}. Name dense, which always does."
        )
    clock = thread_time if threads == 1 else perf_counter
    timers = {name: _timer(run, clock) for name, run in work.items()}
    lost: dict[str, str] = {} if left_out is None else left_out

    def timed(name: str, repeats: int) -> float:
        if name in lost:
            return 0.0
        try:
            return timers[name](repeats)
        except Lost as reason:
            lost[name] = str(reason)
            return 0.0

    repeats = {}
    for name in work:
        timed(name, 1)  # warm-up: compilation, allocation, caches
        repeats[name] = max(1, round(_SHORTEST / max(timed(name, 1), 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name in work:
            times[name].append(timed(name, repeats[name]))
    best = [min(times[name][i] for name in work if name.startswith("dense")) for i in range(rounds)]
    found = []
    for name, seconds in times.items():
        if name in lost:
            continue
        ratios = [mine / dense for mine, dense in zip(seconds, best, strict=True)]
        low, _, high = quantiles(ratios, n=4, method="inclusive") if rounds > 1 else ratios * 3
        typical = median(seconds)
        found.append(
            Timing(
                name, typical, median(ratios), low, high, 2e-9 * macs[name] / typical, prepared.get(name, 0.0)
            )
        )
    return tuple(found)


def _timer(run: Work | Elsewhere, clock: Callable[[], float]) -> Callable[[int], float]:
    """Seconds of one run, the mean of some."""
    if isinstance(run, Elsewhere):
        return run.seconds

    def seconds(repeats: int) -> float:
        begin = clock()
        for _ in range(repeats):
            run()
        return (clock() - begin) / repeats

    return seconds
