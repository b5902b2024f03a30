"""Networks that torch.compile or a data-parallel wrapper stands around: asked for, planned, masked and measured as without it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch import nn as tnn
from torch.optim.swa_utils import AveragedModel

import iftplan as ift
from iftplan import nn
from iftplan.base.errors import MeasureError
from iftplan.models.spec import InputSpec


class Three(tnn.Module):
    """Three layers with keyword inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = tnn.Linear(16, 32), tnn.Linear(32, 32), tnn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.c(self.b(self.a(x).relu()).relu())
        return found


WRAPPERS: dict[str, Callable[[tnn.Module], tnn.Module]] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),  # type: ignore[return-value, dict-item]
    "data parallel": tnn.DataParallel,
    "average": AveragedModel,
}
X = torch.zeros(2, 16)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_network_is_the_network_inside(wrapper: str) -> None:
    wrapped, net = WRAPPERS[wrapper](Three()), Three()
    spec = ift.read_model(wrapped, X)
    assert spec == ift.read_model(net, X)
    plan = ift.plan(wrapped, "wide", "3/4", inputs=X)
    assert plan == ift.plan(net, "wide", "3/4", inputs=X)
    applied = nn.apply(plan, wrapped)
    assert [w.name for w in nn.masked_weights(nn.apply(plan, net))] == ["b.weight"]
    assert applied(X).shape == (2, 4)
    assert ift.audit(applied, plan).passed
    assert nn.measure_applied(plan, WRAPPERS[wrapper](nn.apply(plan, net))).passed
    sparse = nn.sparsify(wrapped, "1/2")
    assert sparse(X).shape == (2, 4)
    assert ift.read_model(sparse, X).assumptions == (
        "1 weight is under masks and counted as dense; nn.measure_applied counts what the masks of a plan keep, and `iftplan audit MODEL --nonzeros` what any masks keep.",
    )


class Staged(tnn.Module):
    """Two stages, of which compilers and engines like to wrap one alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = tnn.Linear(16, 32)
        self.stages = tnn.Sequential(tnn.Sequential(tnn.Linear(32, 32), tnn.ReLU()), tnn.Linear(32, 32))
        self.head = tnn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.stages(self.stem(x)))
        return found


@pytest.mark.parametrize("family", ["wide", "parallel"])
@pytest.mark.parametrize("wrapper", ["compiled", "data parallel"])
@pytest.mark.parametrize("places", [(0, 1), ()])
def test_wrapped_parts_change_no_names(wrapper: str, family: str, places: tuple[int, ...]) -> None:
    def partly(net: tnn.Module) -> tnn.Module:
        assert isinstance(net, Staged)
        for i in places:
            net.stages[i] = WRAPPERS[wrapper](net.stages[i])
        if not places:
            net.stages = WRAPPERS[wrapper](net.stages)  # type: ignore[assignment]
        return net

    plan = ift.plan(Staged(), family, "3/4", inputs=X)
    net = partly(Staged())
    names = [name for name, _ in net.named_modules()]
    assert ift.read_model(net, X) == ift.read_model(Staged(), X)
    assert nn.measure(net, X) == nn.measure(Staged(), X)
    assert ift.plan(net, family, "3/4", inputs=X) == plan
    assert ift.audit(plan, model=net).passed
    applied = nn.apply(plan, net)
    assert applied(X).shape == (2, 4)
    assert ift.audit(applied, plan).passed
    assert ift.audit(partly(nn.apply(plan, Staged())), plan).passed
    assert [name for name, _ in net.named_modules()] == names
    assert nn.sparsify(net, "1/2", keep_dense="stages.1")(X).shape == (2, 4)
    assert net(X).shape == (2, 4)


def test_a_network_that_nothing_was_applied_to_does_not_pass() -> None:
    plan = ift.plan(Three(), "wide", "3/4", inputs=X)
    report = ift.audit(Three(), plan)
    assert not report.passed
    assert report.problems[0].startswith("the Three is the dense network that the plan was made for")
    assert ift.audit(nn.finalize(nn.apply(plan, Three())), plan).passed


def test_a_schedule_without_an_update_is_warned_of() -> None:
    model = nn.sparsify(Three(), "1/2")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.warns(UserWarning, match="Masks never change: the first update would be at step 100"):
        nn.Masking(model, optimizer, "rigl", steps=12).finish()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.Masking(model, optimizer, nn.RigL(interval=2), steps=12).finish()
    with pytest.warns(
        UserWarning, match="The mask schedule ends at step 75, but the run ends after 10 steps"
    ) as told:
        nn.Masking(model, optimizer, nn.RigL(interval=2, end=75), steps=10).finish()
    assert [warning.filename for warning in told] == [__file__]  # the caller's line, not one of ours
    with pytest.warns(UserWarning, match="the plan's sparsity is never reached"):
        nn.Masking(model, optimizer, nn.Gradual(interval=2, end=75), steps=10).finish()


def test_indices_that_are_no_whole_numbers_are_refused_before_they_are_counted() -> None:
    model = tnn.Sequential(tnn.Embedding(10, 4), tnn.Linear(4, 3))
    with pytest.raises(MeasureError, match="1x5:int64"):
        nn.measure(model, (InputSpec((1, 5)),))
    assert nn.measure(model, ift.read_model(model, "1x5:int64").inputs).macs == 60
