"""Algorithm × distribution × optimizer: after many steps counts are exact and nothing is off the masks."""

from __future__ import annotations

from typing import Literal

import pytest

from iftplan.nn import MEST, SET, SNFS, Force, Gradual, GraNet, GraSP, Order, RigL, Saliency, Static, SynFlow
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.runs.schedules import Constant
from tests.support.mask_matrix import OPTIMIZERS, UPDATES, hold_to, planned, trained

ALGORITHMS: dict[str, Algorithm] = {
    "static": Static(),
    "SET": SET(UPDATES),
    "MEST": MEST(UPDATES),
    "SNFS": SNFS(UPDATES, redistribution="none"),
    "SNFS, redistributed": SNFS(UPDATES),
    "RigL": RigL(UPDATES),
    "GMP": Gradual(UPDATES),
    "GraNet": GraNet(UPDATES),
    "GraNet, global": GraNet(UPDATES, scope="global"),
    "SNIP": Saliency(),
    "SNIP, global": Saliency("global"),
    "GraSP": GraSP(),
    "GraSP, global": GraSP("global"),
    "FORCE": Force(),
    "FORCE, global": Force("global"),
    "SynFlow": SynFlow(),
    "SynFlow, global": SynFlow("global"),
}
SWITCHED: dict[str, Algorithm] = {
    "SET, regrown": SET(UPDATES, Constant(0.4), Order.REPLACE, regrow=True, keep_values=False),
    "RigL, as published": RigL(UPDATES, order=Order.REPLACE),
    "RigL, restarted": RigL(UPDATES, Constant(0.5), regrow=False, keep_values=False),
    "iterative SNIP": Force(rounds=5, regrow=False),
    "SET, redistributed": SET(UPDATES, Constant(0.4), redistribution="magnitude"),
    "RigL, redistributed": RigL(UPDATES, order=Order.REPLACE, redistribution="nonzeros"),
    "MEST, soft": MEST(UPDATES, soft=True),
    "GraNet, from a half": GraNet(UPDATES, Constant(0.4), Order.REPLACE, initial=0.5, keep_values=False),
    "GMP, replacing": Gradual(UPDATES, Order.REPLACE),
}


def counted(algorithm: str) -> Literal["layer", "weights", "macs"]:
    """In what an algorithm keeps the plan's counts."""
    return "macs" if "redistributed" in algorithm else "weights" if "global" in algorithm else "layer"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("distribution", ["uniform", "er", "erk"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_counts_are_exact_and_nothing_is_off_the_masks(
    algorithm: str, distribution: str, optimizer: str
) -> None:
    plan = planned(distribution)
    masks = trained(plan, ALGORITHMS[algorithm], optimizer)
    hold_to(plan, masks, by=counted(algorithm))
    expected = {"static": 0, "SNIP": 1, "GraSP": 1, "FORCE": 10, "SynFlow": 1, "GMP": 8, "GraNet": 8}
    assert masks.exploration.updates == expected.get(algorithm.removesuffix(", global"), 7)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW fused"])
@pytest.mark.parametrize("algorithm", SWITCHED)
def test_no_switch_changes_that(algorithm: str, optimizer: str) -> None:
    plan = planned("erk")
    hold_to(plan, trained(plan, SWITCHED[algorithm], optimizer), by=counted(algorithm))


def test_the_distributions_are_three() -> None:
    counts = {tuple(x.nnz for x in planned(d).layers if x.maskable) for d in ("uniform", "er", "erk")}
    assert len(counts) == 3
