"""Algorithms that choose masks, one file each, by when they do: a run names one by its line in `iftplan.runs.methods`."""

from __future__ import annotations

from functools import cache

from iftplan.base.arguments import one_of
from iftplan.base.errors import InputError
from iftplan.base.folders import classes_of
from iftplan.base.user_warnings import warn_user
from iftplan.masks import MaskStructure
from iftplan.nn.masking.algorithms.base import Algorithm, Asked, RunMethod, Scheduled
from iftplan.nn.masking.algorithms.dense_weights.top_kast import TopKAST
from iftplan.runs.cautions import schedule_cautions
from iftplan.runs.schedules import Updates
from iftplan.runs.settings import MethodConfig

_LATE = ("The mask schedule ends", "Pruning ends")
SCHEDULE_WARNINGS = "|".join(("Masks never change", *_LATE, "Top-KAST chooses"))
"""Beginnings of the warnings of `for_training`, for whoever says more about a schedule."""


@cache
def run_methods() -> dict[str, type[RunMethod]]:
    """Algorithm by the name that runs have for it, of all files in this folder and those in it."""
    found = classes_of(__name__, RunMethod)  # type: ignore[type-abstract]
    return {method.name: method for method in found if "name" in vars(method)}


def algorithm_named(name: str, structure: MaskStructure) -> Algorithm:
    """Algorithm of that name, in any case, with the defaults that runs have: those of its paper, ending at 75 % of training.

    Args:
        name: such as "rigl".
        structure: of the masks.

    Raises:
        InputError: no such algorithm; says which there are.
    """
    chosen = one_of("algorithm", name, list(run_methods()))
    config = MethodConfig(chosen)
    algorithm: Algorithm = run_methods()[chosen].of(Asked(config, Updates(config.end), structure))  # type: ignore[assignment]
    return algorithm


def for_training(algorithm: Algorithm | str, structure: MaskStructure, steps: int | None) -> Algorithm:
    """Algorithm as it runs in a training: by its name if that was given, and with fractions of training as steps.

    Args:
        algorithm: a value, or a name.
        structure: of the masks.
        steps: optimizer steps of the whole training; None where they are not known.

    Raises:
        InputError: no such algorithm, or one that needs to know the length of training.
    """
    found = algorithm_named(algorithm, structure) if isinstance(algorithm, str) else algorithm
    if not isinstance(found, RunMethod):
        return found
    if steps is not None:
        lasting = found.over(steps)
        _warn_of_schedule(lasting, steps)
        return lasting
    if found.needs_length:
        name = type(found).__name__
        raise InputError(
            f"{name} changes masks until a fraction of training, so it has to know how long that is; give `steps`, as in Masking(model, optimizer, {name}(), steps=10_000), or an end in steps, {name}(end=7500)."
        )
    return found


def _warn_of_schedule(algorithm: Algorithm, steps: int) -> None:
    """Warn where masks stay as they are for the whole training, or training ends before their schedule or the plan's counts."""
    if isinstance(algorithm, TopKAST):
        found = algorithm.cautions(steps)
    elif isinstance(algorithm, Scheduled) and not any(map(algorithm.due, range(steps))):
        found = schedule_cautions(algorithm.updates, steps)[:1]
    elif isinstance(algorithm, RunMethod):
        found = [sentence for sentence in algorithm.cautions(steps) if sentence.startswith(_LATE)]
    else:
        return
    for sentence in found:
        warn_user(sentence)
