"""Rules by which inputs of matrices are set to zero while a network runs on data, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from fractions import Fraction

from iftplan.base.errors import InputError
from iftplan.base.suggestions import did_you_mean
from iftplan.base.units import decimal_text, parse_fraction
from iftplan.models.dynamic.shares import part


class SelectionRule(StrEnum):
    """SelectionRule by which an input x_j of a matrix W is left out for one token."""

    ZEROS = "zeros"
    """None is: only the zeros that the network itself makes are counted."""
    TEAL = "teal"
    """All but the largest |x_j| (as WINA's paper, arXiv 2505.19427, states TEAL)."""
    WINA = "wina"
    """All but the largest |x_j|·‖W_:,j‖₂ (arXiv 2505.19427)."""
    CETT = "cett"
    """Those of |x_j|·‖W_:,j‖₂ < ε, with ε for each matrix from the error that it makes (arXiv 2411.02335)."""


@dataclass(frozen=True, slots=True)
class InputSelection:
    """Inputs of matrices that are set to zero while a network runs.

    Attributes:
        rule: how they are chosen.
        value: share of the inputs of each token that are left out (TEAL, WINA), or the error ‖Σ_off W_:,j·x_j‖/‖W·x‖ that a
            threshold makes on average (CETT).
        layers: modules whose inputs are chosen, as globs; all others are only counted.
        thresholds: ε of each weight, where they are known already; else they are found on the data.
    """

    rule: SelectionRule = SelectionRule.ZEROS
    value: Fraction = Fraction(0)
    layers: tuple[str, ...] = ("*",)
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def covers(self, module: str) -> bool:
        """Whether inputs of a module are chosen."""
        return self.rule is not SelectionRule.ZEROS and any(fnmatchcase(module, glob) for glob in self.layers)

    def __str__(self) -> str:
        """The selection as it is written."""
        if self.rule is SelectionRule.ZEROS:
            return self.rule.value
        where = "" if self.layers == ("*",) else f"@{','.join(self.layers)}"
        return f"{self.rule.value}:{decimal_text(self.value)}{where}"


def parse_selection(text: str) -> InputSelection:
    """InputSelection as it is written: `zeros`, or `RULE:VALUE` with `@GLOB,GLOB` for some of the modules.

    Raises:
        InputError: an unknown rule, or a value that is missing or outside its range.

    Example:
        >>> parse_selection("wina:0.5@*.mlp.*").covers("h.0.mlp.c_proj")
        True
    """
    ruled, _, globs = text.partition("@")
    name, _, value = ruled.partition(":")
    if name not in tuple(SelectionRule):
        meant = did_you_mean(name, SelectionRule, cutoff=0.3)
        raise InputError(f"selection {text!r} names no rule.{meant} Rules are {', '.join(SelectionRule)}.")
    rule = SelectionRule(name)
    if rule is SelectionRule.ZEROS:
        if text != name:
            raise InputError(f"selection {text!r}: zeros are counted in every layer; write zeros alone.")
        return InputSelection()
    if not value:
        meaning = "error" if rule is SelectionRule.CETT else "share of inputs that are left out"
        raise InputError(
            f"selection {text!r} lacks its {meaning}; write it behind a colon, such as {rule}:0.5."
        )
    layers = tuple(part for part in globs.split(",") if part) or ("*",)
    return InputSelection(rule, part("its value", parse_fraction(value, "selection")), layers)
