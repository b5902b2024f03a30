"""A share of a matrix of cases for the suite; all of them where the environment has IFTPLAN_MATRIX=whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from typing import Any

WHOLE = os.environ.get("IFTPLAN_MATRIX") == "whole"


def sampled(first: Sequence[Any], *others: Sequence[Any], of: int) -> list[tuple[Any, ...]]:
    """One in `of` of all combinations, with every value of every axis.

    Each value of the first axis meets one in `of` combinations of the others, and the next one meets their neighbours.

    Raises:
        ValueError: a value of some axis would be in no case.
    """
    rest = list(product(*others))
    cases = [
        (value, *combination)
        for i, value in enumerate(first)
        for j, combination in enumerate(rest)
        if WHOLE or (i + j) % of == 0
    ]
    for number, axis in enumerate((first, *others)):
        missing = [value for value in axis if all(case[number] != value for case in cases)]
        if missing:
            raise ValueError(f"one in {of} leaves out {missing}")
    return cases
