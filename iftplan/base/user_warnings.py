"""Warnings that show the line of whoever called, not one of ours."""

from __future__ import annotations

import sys
import warnings
from typing import Final

_INSIDE: Final = frozenset(
    {"accelerate", "iftplan", "lightning", "lightning_fabric", "pytorch_lightning", "torch", "transformers"}
)
"""Packages whose lines a warning of ours does not show: ours, and those that call us in a training loop."""


def warn_user(sentence: str) -> None:
    """Warn at the line from which iftplan, or the trainer around it, was called."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        level, frame = level + 1, frame.f_back
    warnings.warn(sentence, stacklevel=level)
