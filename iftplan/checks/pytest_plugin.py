"""The pytest plugin: two fixtures that hold a model's cost, and show the layer table when it does not hold.

pytest loads this module in every run of an environment that has iftplan, so it imports nothing of iftplan, and
torch least of all, before a test asks for one of the fixtures.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from iftplan.checks.assertions import FlopBudget, IsoFlop


@pytest.fixture
def iso_flop(request: pytest.FixtureRequest) -> IsoFlop:
    """`iso_flop(model, reference, *inputs, tolerance=…)`: the model costs what the reference costs."""
    from iftplan.checks.assertions import iso_flop

    return partial(iso_flop, layers=None) if _lists_all(request) else iso_flop


@pytest.fixture
def flop_budget(request: pytest.FixtureRequest) -> FlopBudget:
    """`flop_budget(model, budget, *inputs, tolerance=…)`: the model costs no more than the budget."""
    from iftplan.checks.assertions import flop_budget

    return partial(flop_budget, layers=None) if _lists_all(request) else flop_budget


def _lists_all(request: pytest.FixtureRequest) -> bool:
    """Whether messages list all layers, as `pytest -vv` asks."""
    return request.config.get_verbosity() >= 2
