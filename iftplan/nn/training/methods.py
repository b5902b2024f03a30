"""From a run's method settings to an algorithm of `iftplan.nn.masking`."""

from __future__ import annotations

from typing import assert_never

from iftplan.nn.masking.algorithm import Algorithm, Order
from iftplan.nn.masking.gradual import Gradual
from iftplan.nn.masking.rigl import RigL
from iftplan.nn.masking.saliency import Saliency
from iftplan.nn.masking.set import SET
from iftplan.nn.masking.static import Static
from iftplan.runs import MethodConfig
from iftplan.schedules import Constant, Cosine, Exponential, Linear, Power, Schedule, Updates


def algorithm_of(config: MethodConfig, steps: int) -> Algorithm | None:
    """The algorithm for a run of so many steps; None where there are no masks."""
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
        case "gradual":
            return Gradual(updates, order)
        case "snip":
            return Saliency(config.ranking)
        case _:
            assert_never(config.name)


def updates_of(config: MethodConfig, steps: int) -> Updates:
    """When masks change in a run of so many steps."""
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
