"""What a person guesses first: batches as a loader gives them, plans from a source or a network, audits of one's own network."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import iftplan as ift
from iftplan import nn as inn
from iftplan.nn.reading import read
from iftplan.plans import Scope
from tests.support.hand_specs import chain


class Towers(nn.Module):
    """Two inputs that meet."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(8, 32), nn.Linear(8, 32)
        self.join, self.head = nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
        out: Tensor = self.head(self.join(self.image(x) + self.text(y) * scale))
        return out


class OfBatch(Towers):
    """The same of one nested batch."""

    def forward(self, batch: Mapping[str, Any], scale: float = 1.0) -> Tensor:  # type: ignore[override]
        return super().forward(batch["x"], batch["more"]["y"], scale)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


A = torch.zeros(2, 8)
NESTED = {"x": A, "more": {"y": A}}
MACS = 2 * (2 * 8 * 32 + 32 * 32 + 32 * 4)


@pytest.mark.parametrize(
    ("model", "given", "named"),
    [
        (Towers, (A, A), {}),
        (Towers, ((A, A),), {}),
        (Towers, ([A, A],), {}),
        (Towers, ({"x": A, "y": A},), {}),
        (Towers, ({"x": A, "y": A, "scale": 0.5},), {}),
        (Towers, ("2x8", "2x8"), {}),
        (Towers, ([(2, 8), (2, 8)],), {}),
        (Towers, (), {"inputs": (A, A)}),
        (Towers, (), {"inputs": {"x": "2x8", "y": (A)}}),
        (OfBatch, (NESTED,), {}),
        (OfBatch, (NESTED, 2.0), {}),
        (OfBatch, ((NESTED, 2.0),), {}),
        (OfBatch, ({"batch": NESTED, "scale": 2.0},), {}),
        (OfBatch, ({"x": "2x8", "more": {"y": "2x8:float32"}},), {}),
    ],
)
def test_batches_are_read_as_they_come(
    model: Callable[[], nn.Module], given: tuple[object, ...], named: Mapping[str, object]
) -> None:
    spec = ift.read_model(model(), *given, **named)  # type: ignore[arg-type]
    assert spec.macs == MACS
    assert len(spec.layers) == 4


@pytest.mark.parametrize("shape", [(2, 64), [2, 64], torch.Size([2, 64]), "2x64", torch.zeros(2, 64)])
def test_a_shape_stands_for_a_tensor(shape: object) -> None:
    assert str(ift.read_model(network(), shape).inputs[0]) == "2x64"


def test_a_plan_is_made_from_a_source_a_network_or_a_document(tmp_path: Path) -> None:
    spec = ift.read_model("zoo:digits-cnn")
    plan = ift.plan(spec, "wide", 0.75)
    assert ift.plan("zoo:digits-cnn", "wide", 0.75) == plan
    ift.save(spec, str(tmp_path / "spec.json"))
    assert ift.plan(str(tmp_path / "spec.json"), "wide", 0.75) == plan
    ift.save(plan, str(tmp_path / "plan.json"))
    with pytest.raises(ift.InputError, match="is a plan, not a model"):
        ift.plan(str(tmp_path / "plan.json"), "wide", 0.75)
    batch = torch.zeros(2, 64)
    own = ift.plan(network(), "wide", 0.75, inputs=batch)
    assert own == ift.plan(ift.read_model(network(), batch), "wide", 0.75)
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 2))\n"
    )
    assert ift.plan(f"{file}:make", "wide", 0.75, inputs="1x8").widths


def test_couplings_are_read_only_where_the_family_widens(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    whole = read.read_model

    def noting(*given: Any, widths: bool, **named: Any) -> Any:
        asked.append(widths)
        return whole(*given, widths=widths, **named)

    monkeypatch.setattr(read, "read_model", noting)
    for family in ("Wide", "doped", "None"):
        ift.plan(network(), family, 0.75, inputs="1x64")
    assert asked == [True, False, False]


def test_what_cannot_be_planned_is_refused_before_a_model_is_read() -> None:
    with pytest.raises(ift.InputError, match="Did you mean 'wide'"):
        ift.plan("nowhere.py:make", "wyde", 0.75)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ({"distribution": "ERK"}, {"distribution": "erk"}),
        ({"scope": "Model"}, {"scope": "model"}),
        ({"close": "Width"}, {"close": "width"}),
        ({"mask": "Block4x4"}, {"mask": "block4x4"}),
        (
            {"mask_updates": "Dynamic", "parametrization": "SUPAR"},
            {"mask_updates": "dynamic", "parametrization": "supar"},
        ),
        ({"keep_dense": "first, last"}, {"keep_dense": ("first", "last")}),
        ({"keep_dense": None}, {"keep_dense": "none"}),
        ({"sparsity": None}, {"sparsity": "3/4"}),
    ],
)
def test_names_are_taken_in_any_case(given: Mapping[str, Any], same: Mapping[str, Any]) -> None:
    def plan(options: Mapping[str, Any]) -> ift.plan:  # type: ignore[valid-type]
        return ift.plan("zoo:digits-cnn", "WIDE", **{"sparsity": 0.75, **options})

    assert plan(given) == plan(same)


def test_a_pattern_brings_its_sparsity() -> None:
    assert ift.plan(network(), "none", mask="2:4", inputs="1x64").sparsity == 1 / 2


def test_a_scope_is_named_in_any_case_and_an_unknown_one_is_no_zero() -> None:
    plan = ift.plan(chain(), "wide", 0.75)
    assert plan.macs("Model") == plan.macs(Scope.MODEL)
    for ask in (plan.macs, plan.dense_macs, plan.ratio):
        with pytest.raises(ift.InputError, match="scope 'total' is none of matrices, layers, model"):
            ask("total")


def test_a_network_is_audited_against_a_plan() -> None:
    batch = torch.zeros(2, 64)
    net = network()
    plan = ift.plan(net, "wide", 0.75, inputs=batch)
    applied = inn.apply(plan, net)
    report = ift.audit(applied, plan, inputs=batch)
    assert report.passed and report.measured_macs == plan.macs("layers")
    assert len(report.layers) == len(plan.layers)
    assert ift.audit(applied, plan) == report
    finalized = ift.audit(inn.finalize(applied), plan, inputs=batch)
    assert finalized.passed and finalized.measured_macs == plan.macs("model")
    next(inn.masked_weights(applied)).mask.fill_(True)
    assert not ift.audit(applied, plan, inputs=batch).passed
    larger = ift.audit(inn.finalize(inn.apply(plan, net)), plan, inputs="4x64")
    assert not larger.passed and larger.measured_macs == 2 * plan.macs("model")


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert ift.__version__ == version("iftplan")
