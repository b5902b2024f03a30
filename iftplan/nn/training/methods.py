"""From a run's method settings to an algorithm of `iftplan.nn.masking`."""

from __future__ import annotations

from collections.abc import Collection
from math import log
from typing import Final, assert_never

from iftplan.masks import NM, MaskStructure, Unstructured
from iftplan.nn.masking.algorithms.base import Algorithm, Order
from iftplan.nn.masking.algorithms.gradual import Gradual
from iftplan.nn.masking.algorithms.iterative import Iterative
from iftplan.nn.masking.algorithms.mask_decay import MaskDecay
from iftplan.nn.masking.algorithms.rigl import RigL
from iftplan.nn.masking.algorithms.saliency import Saliency
from iftplan.nn.masking.algorithms.set import SET
from iftplan.nn.masking.algorithms.srigl import SRigL
from iftplan.nn.masking.algorithms.srste import SRSTE
from iftplan.nn.masking.algorithms.static import Static
from iftplan.nn.masking.algorithms.ste import STE
from iftplan.nn.masking.algorithms.structure_decay import StructureDecay
from iftplan.nn.masking.algorithms.transposable import Transposable
from iftplan.runs.schedules import Constant, Cosine, Exponential, Linear, Power, Schedule, Updates
from iftplan.runs.settings import MethodConfig

ROUNDS: Final = 10
"""Of iterative pruning, where the structure does not say how many."""

FAINT: Final = 1000
"""An exponential decay's D is 1/FAINT when it is cut off, where β is not said."""


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
    order = Order(config.order)
    updates = updates_of(config, steps)
    match config.name:
        case "dense" | "densified":
            return None
        case "static":
            return Static()
        case "set" | "rigl":
            kind = SET if config.name == "set" else RigL
            own = config.name == "rigl"  # RigL lets the just-dropped come back at once, SET does not
            regrow = own if config.regrow is None else config.regrow
            return kind(updates, _annealing(config), order, regrow, config.keep_values)
        case "srigl":
            return SRigL(updates, _annealing(config), order, config.ablation, config.keep_values, exempt)
        case "gradual":
            return Gradual(updates, order)
        case "iterative":
            return Iterative(updates.end, config.rounds or _rounds(structure), updates.begin, order)
        case "snip":
            return Saliency(config.ranking)
        case "ste" | "srste" | "transposable" | "mask-decay" | "structure-decay":
            return _straight(config, updates)
        case _:
            assert_never(config.name)


def _rounds(structure: MaskStructure) -> int:
    """One weight of every group at a time."""
    return max(1, structure.of - structure.kept) if isinstance(structure, NM) else ROUNDS


def _straight(
    config: MethodConfig, updates: Updates
) -> STE | SRSTE | Transposable | MaskDecay | StructureDecay:
    refresh, pull = config.refresh or 1, config.pull or 0.0
    match config.name:
        case "ste":
            return STE(refresh)
        case "srste":
            return SRSTE(SRSTE().pull if config.pull is None else pull, refresh)
        case "transposable":
            return Transposable(config.refresh or Transposable().refresh, pull)
        case "structure-decay":
            return StructureDecay(updates.end, updates.begin, config.straight, pull, refresh)
        case _:
            beta = _beta(config, updates) if config.beta is None else config.beta
            return MaskDecay(beta, updates.begin, config.decay, updates.end, config.straight, pull, refresh)


def _beta(config: MethodConfig, updates: Updates) -> float:
    span = max(1, updates.end - updates.begin)
    return (1.0 if config.decay == "linear" else log(FAINT)) / span


def updates_of(config: MethodConfig, steps: int) -> Updates:
    """Steps of a run at which masks change, out of so many steps."""
    return Updates(
        end=round(config.end * steps),
        interval=config.interval,
        begin=round(config.begin * steps),
        at_begin=config.at_begin,
        at_end=config.at_end,
    )


def _annealing(config: MethodConfig) -> Schedule:
    match config.annealing:
        case "cosine":
            return Cosine(config.fraction)
        case "constant":
            return Constant(config.fraction)
        case "linear":
            return Linear(config.fraction)
        case "power":
            return Power(config.fraction, config.exponent)
        case "exponential":
            return Exponential(config.fraction, config.exponent)
        case _:
            assert_never(config.annealing)
