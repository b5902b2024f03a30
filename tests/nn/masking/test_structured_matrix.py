"""Method × structure × optimizer: after 200 steps counts are exact, structures hold, and nothing is off the masks."""

from __future__ import annotations

import pytest
from torch import Tensor

from iftplan.masks import parse_mask
from iftplan.nn import (
    CAST,
    MEST,
    SET,
    SNFS,
    SRSTE,
    STE,
    Force,
    Gradual,
    GraNet,
    GraSP,
    Iterative,
    MaskDecay,
    Masking,
    RigL,
    Saliency,
    SRigL,
    Static,
    StructureDecay,
    SynFlow,
    TopKAST,
    Transposable,
    masked_weights,
)
from iftplan.nn.masking.algorithms.at_start.ranking import AtStart
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.nn.masks.checking import holds
from iftplan.nn.masks.masked_weights import to_matrix
from iftplan.runs.schedules import Constant, Updates
from tests.support.mask_matrix import OPTIMIZERS, STEPS, UPDATES, hold_to, planned, trained

ROWS = ("unstructured", "2:4", "block2x4", "fan-in", "channel")
ALL = (*ROWS, "2:4T")
OFTEN = Updates(end=150, interval=5)

METHODS: dict[str, tuple[Algorithm, tuple[str, ...]]] = {
    "static": (Static(), ("2:4", "block2x4", "fan-in")),
    "GMP": (Gradual(UPDATES), ("2:4", "block2x4", "fan-in")),
    "SNIP": (Saliency(), ("2:4", "block2x4", "fan-in")),
    "GraSP": (GraSP(), ("2:4", "block2x4", "fan-in")),
    "FORCE": (Force(), ("2:4", "block2x4", "fan-in")),
    "SynFlow": (SynFlow(), ("2:4", "block2x4", "fan-in")),
    "GraNet": (GraNet(UPDATES), ("2:4", "block2x4", "fan-in")),
    "SNFS": (SNFS(OFTEN, Constant(0.3), redistribution="none"), ROWS),
    "MEST": (MEST(OFTEN, Constant(0.3)), ROWS),
    "SET": (SET(OFTEN, Constant(0.3)), ROWS),
    "RigL": (RigL(OFTEN, Constant(0.3)), ROWS),
    "iterative": (Iterative(150, 2), ROWS),
    "STE": (STE(refresh=10), ALL),
    "SR-STE": (SRSTE(refresh=5), ALL),
    "mask decay": (MaskDecay(0.01, begin=20, refresh=10), ALL),
    "mask decay, unfinished": (MaskDecay(0.001, begin=20, refresh=10), ALL),
    "structure decay": (StructureDecay(150, refresh=10), ("2:4", "2:4T")),
    "structure decay, geometric": (StructureDecay(150, refresh=10, shape="geometric"), ("2:4",)),
    "CAST": (CAST(0.1, end=150), ROWS),
    "transposable": (Transposable(), ("2:4T",)),
    "Top-KAST": (TopKAST(0.2, refresh=5), ALL),
}
PAIRS = [(method, structure) for method, (_, able) in METHODS.items() for structure in able]


def moved(masks: Masking) -> bool:
    return masks.exploration.itop_rate > masks.density


def hold_structure(masks: Masking, structure: str) -> None:
    for weight in masked_weights(masks.model):
        assert holds(parse_mask(structure), to_matrix(weight.mask, weight)), weight.name


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW amsgrad"])
@pytest.mark.parametrize(("method", "structure"), PAIRS)
def test_counts_structures_and_slots(method: str, structure: str, optimizer: str) -> None:
    plan, algorithm = planned("uniform", structure), METHODS[method][0]
    masks = trained(plan, algorithm, optimizer)
    if "unfinished" not in method:  # a mask that is still there is full
        hold_structure(masks, structure)
        assert dict(masks.nnz) == {x.weight: x.nnz for x in plan.layers if x.maskable}
    for weight in masked_weights(masks.model):
        assert not weight.parameter[~weight.mask].any()
    if isinstance(algorithm, Static | Gradual | GraNet | AtStart | MEST | SNFS | SET | RigL | Iterative):
        hold_to(plan, masks)
    masks.finish()
    hold_to(plan, masks)
    hold_structure(masks, structure)
    assert moved(masks) == (method != "static")


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name not in ("SGD", "AdamW amsgrad")])
@pytest.mark.parametrize("method", ["RigL", "SR-STE"])
def test_every_optimizer(method: str, optimizer: str) -> None:
    plan = planned("uniform", "2:4")
    masks = trained(plan, METHODS[method][0], optimizer)
    masks.finish()
    hold_to(plan, masks)
    hold_structure(masks, "2:4")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_srigl_has_one_fan_in_for_all_neurons_that_are_left(optimizer: str) -> None:
    plan = planned("uniform", "fan-in")
    masks = trained(plan, SRigL(UPDATES, Constant(0.4)), optimizer)
    planned_nnz = {x.weight: x.nnz for x in plan.layers if x.maskable}
    for weight in masked_weights(masks.model):
        counts = [n for n in to_matrix(weight.mask, weight).sum(1).tolist() if n]
        inputs = weight.mask[0].numel()
        assert set(counts) == {min(inputs, planned_nnz[weight.name] // len(counts))}
        slots = (v for v in masks.optimizer.state[weight.parameter].values() if isinstance(v, Tensor))
        for value in (weight.parameter, *(v for v in slots if v.shape == weight.mask.shape)):
            assert not value[~weight.mask].any()
    assert masks.steps == STEPS
    assert masks.exploration.updates == 7
