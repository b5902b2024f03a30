"""The pytest plugin: two fixtures that hold a model's cost, and show the layer table when it does not hold.

pytest loads this module in every run of an environment that has iftplan, so it imports nothing of iftplan, and
torch least of all, before a test asks for one of the fixtures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from iftplan.checks.assertions import FlopBudget, IsoFlop


@pytest.fixture
def iso_flop() -> IsoFlop:
    """`iso_flop(model, reference, *inputs, tolerance=…)`: the model costs what the reference costs."""
    from iftplan.checks import assertions

    return assertions.iso_flop


@pytest.fixture
def flop_budget() -> FlopBudget:
    """`flop_budget(model, budget, *inputs, tolerance=…)`: the model costs no more than the budget."""
    from iftplan.checks import assertions

    return assertions.flop_budget
