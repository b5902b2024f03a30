"""Plan, check and train sparse iso-FLOP networks, exact to the MAC.

    import iftplan as ift

    model = ift.read_model("zoo:resnet18-cifar")
    plan = ift.plan(model, "wide", "3/4")
    print(plan)
    ift.save(plan, "wide75.json")

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iftplan.api import audit, load, plan, read_model, save, solve
    from iftplan.base.errors import IftplanError, InfeasibleError, InputError, MeasureError, StaleError
    from iftplan.families.derivation import family

_HOMES = {
    **dict.fromkeys(("audit", "load", "plan", "read_model", "save", "solve"), "iftplan.api"),
    "family": "iftplan.families.derivation",
    **dict.fromkeys(
        ("IftplanError", "InfeasibleError", "InputError", "MeasureError", "StaleError"), "iftplan.base.errors"
    ),
}

__all__ = [
    "IftplanError",
    "InfeasibleError",
    "InputError",
    "MeasureError",
    "StaleError",
    "audit",
    "family",
    "load",
    "plan",
    "read_model",
    "save",
    "solve",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'iftplan' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
