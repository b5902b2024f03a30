"""The only part of iftplan that imports torch: reading, building, measuring and applying plans to networks.

Names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iftplan.nn.application import apply, apply_
    from iftplan.nn.applied_audit import measure_applied
    from iftplan.nn.finalization import densify, finalize
    from iftplan.nn.gradients import TrainingCost, training_cost
    from iftplan.nn.masks import enforce_, masked_weights
    from iftplan.nn.sources import build
    from iftplan.nn.trace import read_model

_HOMES = {
    "TrainingCost": "gradients",
    "apply": "application",
    "apply_": "application",
    "build": "sources",
    "densify": "finalization",
    "enforce_": "masks",
    "finalize": "finalization",
    "masked_weights": "masks",
    "measure_applied": "applied_audit",
    "read_model": "trace",
    "training_cost": "gradients",
}

__all__ = [
    "TrainingCost",
    "apply",
    "apply_",
    "build",
    "densify",
    "enforce_",
    "finalize",
    "masked_weights",
    "measure_applied",
    "read_model",
    "training_cost",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'iftplan.nn' has no attribute {name!r}")
    return getattr(import_module(f"iftplan.nn.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
