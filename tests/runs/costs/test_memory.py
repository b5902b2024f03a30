"""Bytes of training and bits of indices, against applied models and against what any index has to hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import iftplan as ift
from iftplan.masks import Unstructured, parse_mask
from iftplan.nn import apply, masked_weights
from iftplan.runs.costs.memory import TrainingMemory, index_bits, masked_matrices, optimizer_states
from iftplan.runs.costs.utilization import Utilization

STRUCTURES = ("unstructured", "2:4", "1:8", "2:8+pad", "2:4T", "block4x4", "fan-in", "channel", "diagonal")


def net() -> torch.nn.Sequential:
    layers = [torch.nn.Linear(32, 64, bias=False), torch.nn.ReLU(), torch.nn.Linear(64, 64, bias=False)]
    return torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Linear(64, 8, bias=False))


@pytest.mark.parametrize("family", ["wide", "parallel", "factorized", "doped", "2=doped, wide"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_bytes_are_those_of_the_applied_model_and_its_optimizer(family: str, optimizer: str) -> None:
    plan = ift.plan(net(), family, "3/4", inputs="3x32", keep_dense="last")
    model = apply(plan, net(), nonlinear=False)
    if optimizer == "sgd":
        made: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    else:
        made = torch.optim.AdamW(model.parameters())
    model(torch.ones(3, 32)).sum().backward()
    made.step()
    memory = TrainingMemory.of(plan, optimizer)  # type: ignore[arg-type]
    assert memory.parameter_bytes == sum(p.numel() * p.element_size() for p in model.parameters())
    assert memory.gradient_bytes == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    states = [t for state in made.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    assert memory.optimizer_bytes == sum(t.nbytes for t in states if t.ndim)
    assert memory.mask_bytes == sum(w.mask.nbytes for w in masked_weights(model))
    assert memory.training_bytes == (2 + memory.states) * memory.parameter_bytes + memory.mask_bytes
    dense = sum(p.nbytes for p in net().parameters())
    assert memory.dense_training_bytes == (2 + memory.states) * dense
    sizes = [m * n for x in plan.layers if x.maskable for m, n in masked_matrices(x, plan.transform)]
    assert sum(sizes) == memory.maskable


def test_sgd_without_momentum_keeps_nothing() -> None:
    assert [optimizer_states("sgd", m) for m in (0, 0.9)] == [0, 1]


@given(st.sampled_from(STRUCTURES), st.integers(1, 6), st.integers(1, 6), st.floats(0, 1))
def test_indices_hold_at_least_what_names_a_mask_and_at_most_a_bit_a_weight_where_any_mask_may_be(
    notation: str, inputs: int, outputs: int, part: float
) -> None:
    structure, matrices = parse_mask(notation), ((8 * inputs, 8 * outputs),)
    counts = structure.counts(matrices)
    nnz = counts[round(part * (len(counts) - 1))]
    if (
        structure.density is not None
    ):  # a short group says so by a zero among its values, not among its indices
        nnz = counts[-1]
    bits = structure.index_bits(matrices, nnz)
    assert bits >= structure.log2_masks(matrices, nnz) - 1e-6
    if structure == Unstructured():
        assert bits <= 64 * inputs * outputs


@pytest.mark.parametrize(
    ("notation", "nnz", "bits"),
    [
        ("unstructured", 10, 10 * 10 + 257 * 4),  # 1024 columns, 256 rows, and where each begins
        ("unstructured", 200_000, 1024 * 256),  # a bitmap is smaller
        ("2:4", 131_072, 2 * 131_072),  # as sparse tensor cores have it
        ("block4x4", 160, 10 * 8 + 65 * 4),  # 256 columns and 64 rows of blocks
        ("fan-in", 512, 512 * 10),
        ("channel", 1024, 8),  # one of 256
        ("diagonal", 512, 2 * 10),  # two of 1024
    ],
)
def test_index_bits_by_hand(notation: str, nnz: int, bits: int) -> None:
    assert parse_mask(notation).index_bits(((1024, 256),), nnz) == bits


def test_a_plan_s_indices_are_the_sum_over_its_masks() -> None:
    plan = ift.plan(net(), "parallel", "3/4", inputs="3x32", keep_dense="last")
    by_hand = 0
    for layer in plan.layers:
        if layer.maskable:
            by_hand += Unstructured().index_bits(masked_matrices(layer, "parallel"), layer.nnz)
    assert index_bits(plan) == by_hand > 0
    none = {layer.name: 0 for layer in plan.layers}
    assert index_bits(plan, none) < by_hand


def test_utilization_is_a_part_of_the_peak() -> None:
    """Chips of 10 GFLOP/s that take a second for 1 GMAC of masks, and computed 4 for it."""
    use = Utilization(10**9, 4 * 10**9, 1.0, 1e10)
    assert (use.flops_per_second, use.mfu, use.hfu) == (2e9, 0.2, 0.8)
    assert str(use) == "2 GFLOP/s in 1 s of steps; MFU 0.2000, HFU 0.8000 of 10 GFLOP/s"
    assert Utilization(1, 1, 1.0).mfu is None
    assert Utilization(0, 0, 0.0, 1.0).hfu == 0
