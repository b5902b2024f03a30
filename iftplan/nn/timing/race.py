"""Interleaved rounds: every candidate runs once in each, so that what slows the machine down slows all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median, quantiles
from time import perf_counter, thread_time

from iftplan.timings import Timing

Work = Callable[[], object]

_SHORTEST = 0.01
"""Seconds that a measurement lasts at least; what is shorter is repeated within it."""


def race(
    work: Mapping[str, Work],
    macs: Mapping[str, int],
    prepared: Mapping[str, float],
    rounds: int,
    threads: int,
) -> tuple[Timing, ...]:
    """Times of every candidate.

    One thread is measured in its own processor time, which other programs do not disturb; several in elapsed time.

    Args:
        work: candidates by name; those that begin with "dense" are what ratios are to.
        macs: of one run of each.
        prepared: seconds that were spent once.
        rounds: how many.
        threads: that the candidates use.
    """
    clock = thread_time if threads == 1 else perf_counter
    repeats = {name: _repeats(run, clock) for name, run in work.items()}
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            begin = clock()
            for _ in range(repeats[name]):
                run()
            times[name].append((clock() - begin) / repeats[name])
    best = [min(times[name][i] for name in work if name.startswith("dense")) for i in range(rounds)]
    found = []
    for name, seconds in times.items():
        ratios = [mine / dense for mine, dense in zip(seconds, best, strict=True)]
        low, _, high = quantiles(ratios, n=4, method="inclusive") if rounds > 1 else ratios * 3
        typical = median(seconds)
        found.append(
            Timing(
                name, typical, median(ratios), low, high, 2e-9 * macs[name] / typical, prepared.get(name, 0.0)
            )
        )
    return tuple(found)


def _repeats(run: Work, clock: Callable[[], float]) -> int:
    run()  # warm-up: compilation, allocation, caches
    begin = clock()
    run()
    return max(1, round(_SHORTEST / max(clock() - begin, 1e-6)))
