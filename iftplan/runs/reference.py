"""The choices of the code of arXiv 2303.11525 (github.com/CerebrasResearch/Sparse-IFT) where they are not the paper's.

The tables of the paper follow its text; whoever compares with runs of that code wants these. Budgets are closed either way,
where the code closes that of the wide family alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from iftplan.runs.document import merge, parse_run, run_object
from iftplan.runs.settings import RunConfig

REFERENCE: Mapping[str, Any] = MappingProxyType(
    {
        "plan": {"rounding": "floor", "pointwise": "masked", "nonlinear": "reference"},
        "method": {"count_from": 1, "anneal_from": "begin"},
    }
)
"""Settings of a run, by section."""


def as_reference(run: RunConfig) -> RunConfig:
    """The run with the choices of the paper's code.

    Example:
        >>> as_reference(RunConfig()).plan.rounding
        'floor'
    """
    return parse_run(merge(run_object(run), REFERENCE), "the run")
