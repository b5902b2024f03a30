"""Algorithms that choose masks, one file each: a run names one by its line in `iftplan.runs.methods`."""

from __future__ import annotations

from functools import cache

from iftplan.base.folders import classes_of
from iftplan.nn.masking.algorithms.base import RunMethod


@cache
def run_methods() -> dict[str, type[RunMethod]]:
    """Algorithm by the name that runs have for it, of all files in this folder."""
    found = classes_of(__name__, RunMethod)  # type: ignore[type-abstract]
    return {method.name: method for method in found if "name" in vars(method)}
