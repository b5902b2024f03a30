"""Plans as networks of shapes."""

from __future__ import annotations

import pytest
from torch import nn

import iftplan as ift
from iftplan.families.derivation import family
from iftplan.families.symbols import b, d, m, n
from iftplan.nn.application.measuring import measure_plan


@pytest.mark.parametrize("structure", ["branches", "structure"])
def test_a_family_of_ones_own_has_no_modules_and_is_refused_by_name(structure: str) -> None:
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    model = ift.read_model(network, "1x8", widths=False)
    own = family("shared", cost=b * m * n * d + m, unknown=b, structure=structure)
    plan = ift.plan(model, own, "1/2")
    with pytest.raises(ift.MeasureError, match=r"'shared'.*parallel.*--against"):
        measure_plan(plan, network)
