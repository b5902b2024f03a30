"""LSTM, GRU, RNN and their cells between two linear layers: widened, masked, applied and counted alike by every engine.

By hand: a layer with input i, hidden size h and g gates holds matrices (g·h, i) and (g·h, h), and every one of them meets
every position once; the gates of one neuron grow together.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import iftplan as ift
from iftplan import nn as inn
from iftplan.models.spec import InputSpec
from iftplan.nn.reading.widths.trace import trace_widths
from iftplan.plans.plan import Scope
from iftplan.runs.schedules import Updates

STEPS, BATCH = 3, 2
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


class Between(nn.Module):
    def __init__(self, kind: Any, **options: Any) -> None:
        super().__init__()
        self.cell = issubclass(kind, nn.RNNCellBase)
        self.first, self.middle = nn.Linear(8, 16), kind(16, 12, **options)
        features = (options.get("proj_size") or 12) * (2 if options.get("bidirectional") else 1)
        self.last = nn.Linear(features, 5)

    def forward(self, x: Tensor) -> Tensor:
        if not self.cell:
            return self.last(self.middle(self.first(x))[0])
        state = None
        for step in self.first(x).unbind(0):
            state = self.middle(step, state)
        return self.last(state[0] if isinstance(state, tuple) else state)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
    "batch first, no bias": {"batch_first": True, "bias": False},
    "tanh or relu": {"nonlinearity": "relu"},
    "projected": {"proj_size": 6, "num_layers": 2, "bidirectional": True},
}
CASES = [
    (kind, name)
    for kind in (nn.LSTM, nn.GRU, nn.RNN)
    for name in OPTIONS
    if (name != "projected" or kind is nn.LSTM) and (name != "tanh or relu" or kind is nn.RNN)
] + [(kind, "plain") for kind in (nn.LSTMCell, nn.GRUCell, nn.RNNCell)]


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_it_is_widened_applied_and_measured_alike_by_three_engines(kind: Any, options: str) -> None:
    model = Between(kind, **OPTIONS[options])
    plan = ift.plan(ift.read_model(model, f"{STEPS}x{BATCH}x8"), "wide", 0.75)
    assert plan.residual_macs == 0
    wide = inn.apply(plan, model)
    report = inn.measure_applied(plan, wide, engines=("meta", "fvcore", "flop_counter"))
    assert report.passed, report.problems
    assert set(report.counters.values()) == {plan.macs(Scope.MODEL)}
    middle: Any = wide.middle
    gates = GATES[kind.__name__.removesuffix("Cell")]
    assert (middle.input_size, middle.hidden_size) == (32, 24)
    assert getattr(middle, "proj_size", 0) == (12 if options == "projected" else 0)
    shapes = {name: tuple(p.shape) for name, p in middle.named_parameters()}
    back = 12 if options == "projected" else 24
    for name, shape in shapes.items():
        if "weight_ih" in name:
            assert shape == (gates * 24, 2 * back if "_l1" in name else 32)
        elif "weight_hh" in name:
            assert shape == (gates * 24, back)
        elif "weight_hr" in name:
            assert shape == (12, 24)
        else:
            assert shape == (gates * 24,)
    wide(torch.randn(STEPS, BATCH, 8)).square().mean().backward()  # on real values, and every weight trains
    assert all(p.grad is not None for p in middle.parameters())


def test_widths_are_those_of_inputs_and_hidden_sizes() -> None:
    couplings = trace_widths(Between(nn.LSTM).to("meta"), (InputSpec((STEPS, BATCH, 8)),))
    free = {name: width for name, width in couplings.widths.items() if not width.fixed}
    assert sorted(width.size for width in free.values()) == [12, 16]
    dense = {name: width.size for name, width in couplings.widths.items()}
    positions = STEPS * BATCH
    macs = {name: p.at(dense) for name, p in couplings.weight_macs.items()}
    assert macs["middle.weight_ih_l0"] == positions * 4 * 12 * 16
    assert macs["middle.weight_hh_l0"] == positions * 4 * 12 * 12


def test_a_first_state_that_is_given_keeps_its_size() -> None:
    class Given(Between):
        def forward(self, x: Tensor) -> Tensor:
            state = torch.zeros(1, BATCH, 12)
            return self.last(self.middle(self.first(x), state)[0])

    couplings = trace_widths(Given(nn.GRU), (InputSpec((STEPS, BATCH, 8)),))
    assert [width.size for width in couplings.widths.values() if not width.fixed] == [16]


def test_masks_of_an_lstm_hold_through_training() -> None:
    torch.manual_seed(0)
    model = Between(nn.LSTM, num_layers=2)
    plan = ift.plan(ift.read_model(model, f"{STEPS}x{BATCH}x8"), "wide", 0.75)
    sparse = inn.apply(plan, model)
    optimizer = torch.optim.SGD(sparse.parameters(), 0.1)
    masks = inn.Masking(sparse, optimizer, inn.RigL(Updates(end=6, interval=2)))
    for _ in range(6):
        optimizer.zero_grad()
        sparse(torch.randn(STEPS, BATCH, 8)).square().mean().backward()
        masks.step()
        optimizer.step()
    assert inn.measure_applied(plan, sparse).passed
    rows = {layer.weight: layer.nnz for layer in plan.layers if layer.maskable}
    assert {n: rows[n] for n in masks.nnz} == dict(masks.nnz)


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 16), nn.Bilinear(16, 16, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.last(self.middle(hidden, hidden))


def test_a_bilinear_layer_is_widened_and_its_cost_grows_with_the_cube() -> None:
    model = Bilinear()
    plan = ift.plan(ift.read_model(model, "6x8"), "wide", 0.75, scope="matrices")
    wide = inn.apply(plan, model)
    assert tuple(wide.middle.weight.shape) == (24, 32, 32)
    assert (wide.middle.in1_features, wide.middle.in2_features, wide.middle.out_features) == (32, 32, 24)
    report = inn.measure_applied(plan, wide, engines=("meta", "fvcore", "flop_counter"))
    assert report.passed, report.problems
    row = next(layer for layer in plan.layers if layer.name == "middle")
    assert (row.dense_macs, row.macs) == (6 * 12 * (16 * 16 + 16), 6 * 24 * (32 * 32 + 32))
    assert wide(torch.randn(6, 8)).shape == (6, 5)
