"""What is doubtful about a sparse training run, said in sentences before it costs anything.

Pure functions over numbers: whoever starts a run asks them and decides where the sentences go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from iftplan.base.units import count
from iftplan.runs.schedules import Updates

FEW = 20
"""Updates below which a method that moves its masks sees little of what they could be (arXiv 2102.02887)."""

FAINT = 0.01
"""Part of the peak learning rate below which what has just grown hardly trains."""


def schedule_cautions(
    updates: Updates,
    steps: int,
    *,
    rate: Callable[[int], float] | None = None,
    arrives: bool = False,
) -> list[str]:
    """Warnings about when masks change in a run; none is an error.

    Args:
        updates: when masks change.
        steps: optimizer steps of the whole run.
        rate: the learning rate by step, where it is known in advance.
        arrives: whether counts reach the plan's only at the schedule's end, as in gradual pruning.

    Example:
        >>> schedule_cautions(Updates(end=7500), 10_000)
        []
        >>> print(*schedule_cautions(Updates(end=750), 1000))
        Masks change 7 times in 1 000 steps: with fewer than about 20 updates, a method explores few masks (arXiv 2102.02887). An interval of 35 steps gives 21 updates.
    """
    updates = updates.over(steps)
    due = _due(updates, steps, arrives)
    found = [*_number(updates, steps, due, arrives), *_end(updates, steps, arrives)]
    return [*found, *_rate(due, steps, rate)] if rate and due and steps > 1 else found


def arrival_cautions(arrival: int, steps: int) -> list[str]:
    """Warnings about gradual pruning: whether it reaches the plan's sparsity, and how late.

    Args:
        arrival: the step at which masks first have the plan's counts.
        steps: optimizer steps of the whole run.

    Example:
        >>> arrival_cautions(750, 1000)
        []
        >>> print(*arrival_cautions(1000, 1000))
        Pruning ends at step 1 000, but the run ends after 1 000 steps, so the plan's sparsity is never reached. End pruning earlier, or train for longer.
    """
    return [_too_late(arrival, steps)] if arrival >= steps else []


def weight_cautions(
    kept: Mapping[str, int], silent: Mapping[str, tuple[int, int]] | None = None
) -> list[str]:
    """Warnings about the present masks: layers with no weights, or with many outputs that have none.

    Args:
        kept: weights that each mask keeps.
        silent: by weight, how many of its outputs have no weight left, and how many outputs there are.

    Example:
        >>> weight_cautions({"1.weight": 0})
        ['Every weight of 1.weight is pruned: nothing passes through it.']
    """
    empty = [name for name, left in kept.items() if left == 0]
    return [
        *(f"Every weight of {name} is pruned: nothing passes through it." for name in empty),
        *(
            f"{dead} of {outputs} outputs of {name} have no weight left; constant fan-in masks keep every output alive."
            for name, (dead, outputs) in (silent or {}).items()
            if name not in empty and 2 * dead >= outputs > 0
        ),
    ]


def _due(updates: Updates, steps: int, arrives: bool) -> list[int]:
    """Steps of a run at which masks change."""
    begin = updates.first - updates.count_from
    grid = {*range(begin, min(updates.last + 1, steps), updates.interval), updates.last}
    return sorted(step for step in grid if 0 <= step < steps and _changes(updates, step, arrives))


def _changes(updates: Updates, step: int, arrives: bool) -> bool:
    return updates.due(step) or (arrives and step == updates.last)


def _number(updates: Updates, steps: int, due: list[int], arrives: bool) -> Iterator[str]:
    last = min(updates.last, steps - 1)
    interval = (last - updates.first) // (FEW + (not arrives))
    advice = "Train for longer."
    if interval > 0:
        followed = len(_due(replace(updates, interval=interval), steps, arrives))
        advice = f"An interval of {count(interval)} step{'s' * (interval != 1)} gives {followed} updates."
    if not due:
        yield f"Masks never change: the first update would be at step {count(updates.first + updates.interval - updates.count_from)}, the schedule ends at step {count(updates.last)} and the run has {count(steps)} steps. {advice}"
    elif len(due) < FEW:
        times = "once" if len(due) == 1 else f"{len(due)} times"
        yield (
            f"Masks change {times} in {count(steps)} steps: with fewer than about {FEW} updates, a method "
            f"explores few masks (arXiv 2102.02887). {advice}"
        )


def _end(updates: Updates, steps: int, arrives: bool) -> Iterator[str]:
    end, run = count(updates.last), count(steps)
    if arrives and updates.last >= steps:
        yield _too_late(updates.last, steps)
    elif updates.last > steps:
        yield (
            f"The mask schedule ends at step {end}, but the run ends after {run} steps, so masks still change "
            "when training stops. RigL's authors end the schedule after three quarters of the run."
        )
    elif not arrives and 2 * updates.last < steps:
        yield (
            f"Masks stop changing at step {end} of {run}, in the first half of the run. RigL's authors end the "
            "schedule after three quarters of it."
        )


def _too_late(arrival: int, steps: int) -> str:
    return (
        f"Pruning ends at step {count(arrival)}, but the run ends after {count(steps)} steps, so the plan's "
        "sparsity is never reached. End pruning earlier, or train for longer."
    )


def _rate(due: list[int], steps: int, rate: Callable[[int], float]) -> Iterator[str]:
    """Updates after the learning rate has all but vanished; a warm-up before its peak is none of these."""
    peak = max(range(steps), key=rate) if steps <= 1000 else max(range(0, steps, steps // 1000), key=rate)
    faint = [step for step in due if step > peak and rate(step) < FAINT * rate(peak)]
    if faint:
        yield (
            f"{len(faint)} of {len(due)} mask updates, from step {count(faint[0])} on, happen when the learning "
            f"rate is below {FAINT:.0%} of its peak, so weights that grow then hardly train. End the mask "
            "schedule earlier, or let the learning rate decay later."
        )
