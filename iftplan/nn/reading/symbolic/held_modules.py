"""Modules that keep their widths because something in them cannot be followed at others."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from iftplan.base.errors import InfeasibleError, MeasureError


class StuckError(InfeasibleError):
    """A module computes something that cannot be followed at other widths.

    Attributes:
        module: its path; empty for the model itself.
        why: what it does, as the end of "it keeps its widths: …".
    """

    def __init__(self, module: str, why: str) -> None:
        super().__init__(f"module {module or '(model)'}: {why}")
        self.module = module
        self.why = why

    @staticmethod
    def at(where: str, why: str) -> StuckError:
        """The error for the place of an equation, written "module at line"."""
        module, at, line = where.partition(" at ")
        module = module if at and module != "(model)" else ""
        return StuckError(module, f"{why} ({line or where})")


class NotRunError(StuckError, MeasureError):
    """A module raises at symbolic widths."""


def also_held(model: nn.Module, held: Mapping[str, str], stuck: StuckError) -> dict[str, str] | None:
    """The modules to hold after this one got stuck, and its like in other blocks: path → why.

    If it is held already, the smallest module around it that is not. None where that is the whole model.

    Args:
        model: the model that is read.
        held: path of each module that keeps its widths already → why.
        stuck: the module that cannot be followed, and why.
    """
    path = stuck.module
    while path and _within(path, held):
        path = path.rpartition(".")[0]
    modules = dict(model.named_modules())
    if path not in modules or not path:
        return None
    like = [p for p, m in modules.items() if _pattern(p) == _pattern(path) and type(m) is type(modules[path])]
    return {**held, **dict.fromkeys(like, stuck.why)}


def paths_within(model: nn.Module, held: Mapping[str, str]) -> frozenset[str]:
    """The held modules and all that are inside them."""
    return frozenset(path for path, _ in model.named_modules() if _within(path, held))


def _within(path: str, held: Mapping[str, str]) -> bool:
    return any(path == h or path.startswith(f"{h}.") for h in held)


def _pattern(path: str) -> str:
    return re.sub(r"\d+", "#", path)
