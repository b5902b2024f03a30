"""From a run's method settings to an algorithm of `iftplan.nn.masking`."""

from __future__ import annotations

from collections.abc import Collection

from iftplan.masks import MaskStructure, Unstructured
from iftplan.nn.masking.algorithms import run_methods
from iftplan.nn.masking.algorithms.base import Algorithm, Asked
from iftplan.runs.methods import METHODS
from iftplan.runs.schedules import Updates
from iftplan.runs.settings import MethodConfig


def algorithm_of(
    config: MethodConfig,
    steps: int,
    structure: MaskStructure = Unstructured(),  # noqa: B008  (a frozen value)
    exempt: Collection[str] | None = None,
) -> Algorithm | None:
    """The algorithm for a run of so many steps; None where there are no masks.

    Args:
        config: the method and its switches.
        steps: of the run.
        structure: of the masks.
        exempt: weights whose neurons are never ablated; None for the last masked one.
    """
    if not METHODS[config.name].masked:
        return None
    asked = Asked(config, updates_of(config, steps), structure, exempt)
    algorithm: Algorithm = run_methods()[config.name].of(asked)  # type: ignore[assignment]
    return algorithm


def updates_of(config: MethodConfig, steps: int) -> Updates:
    """Updates of the masks in a run of so many steps."""
    return Updates(
        end=round(config.end * steps),
        interval=config.interval,
        begin=round(config.begin * steps),
        at_begin=config.at_begin,
        at_end=config.at_end,
        count_from=config.count_from,
        anneal_from=config.anneal_from,
    )
