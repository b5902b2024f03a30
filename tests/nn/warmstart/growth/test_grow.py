"""Growth steps in training: the optimizer, masks and random numbers go on, runs resume to the bit, and cost their schedule."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adafactor, Adam, Optimizer

from iftplan.base.errors import InputError
from iftplan.models.spec import Couplings, InputSpec
from iftplan.nn import (
    Masking,
    RigL,
    current_widths,
    grow_,
    masked_weights,
    measure,
    read_model,
    sparsify_,
    unit_slopes_,
)
from iftplan.nn.layers.widen import widen_
from iftplan.nn.warmstart.growth.growable import growable_widths
from iftplan.runs import growth_costs, within_steps
from iftplan.runs.costs.growth import GrowthSchedule

ONE = (InputSpec((1, 2, 6, 6)),)


class Network(nn.Sequential):
    """Two convolutions with norms, a pool, dropout and two linear layers; the third width ends in a flattened map."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU(),
            nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 3),
        )  # fmt: skip


def start(seed: int = 0) -> tuple[Network, Couplings, dict[str, str]]:
    """A network, its couplings, and the symbols of the widths by what they are."""
    torch.manual_seed(seed)
    model = Network()
    unit_slopes_(model)
    couplings = traced()
    named = {"first": "0.weight", "second": "3.weight", "hidden": "8.weight"}
    return model, couplings, {what: str(couplings.shapes[name][0]) for what, name in named.items()}


@cache
def traced() -> Couplings:
    model = Network()
    unit_slopes_(model)
    couplings = read_model(model, ONE, widths=True).couplings
    assert couplings is not None
    return couplings


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 2, 6, 6, generator=generator), torch.randint(3, (8,), generator=generator)


def loss_of(model: nn.Module, step: int) -> Callable[[], Tensor]:
    x, y = batch(step)
    return lambda: functional.cross_entropy(model(x), y)


def train(model: nn.Module, optimizer: Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        optimizer.zero_grad()
        loss_of(model, step)().backward()
        optimizer.step()


def adam(model: nn.Module) -> Optimizer:
    return Adam(model.parameters(), 0.01)


def momentum(model: nn.Module) -> Optimizer:
    norms = [p for p in model.parameters() if p.dim() == 1]
    weights: dict[str, Any] = {"params": [p for p in model.parameters() if p.dim() > 1]}
    return SGD([weights, {"params": norms, "weight_decay": 0.1}], 0.05, 0.9)


@pytest.mark.parametrize("make", [adam, momentum])
@pytest.mark.parametrize("how", ["gradmax", "replicas"])
def test_old_weights_keep_the_optimizers_state_and_new_ones_have_none(make: Any, how: Any) -> None:
    model, couplings, widths = start()
    optimizer = make(model)
    train(model, optimizer, 0, 3)
    old = {name: dict(optimizer.state[p]) for name, p in model.named_parameters()}
    groups = [
        [n for n, p in model.named_parameters() if any(p is q for q in g["params"])]
        for g in optimizer.param_groups
    ]
    grow_(model, couplings, {widths["second"]: 6} if how == "replicas" else {widths["first"]: 5}, ONE, how=how,
          loss=loss_of(model, 3), optimizer=optimizer)  # fmt: skip
    assert {id(p) for p in model.parameters()} == {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert groups == [
        [n for n, p in model.named_parameters() if any(p is q for q in g["params"])]
        for g in optimizer.param_groups
    ]
    assert len(optimizer.state) == len(old)
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            before = old[name][key]
            if not isinstance(value, Tensor) or value.dim() == 0:
                assert value == before
                continue
            assert value.shape == parameter.shape
            front = tuple(slice(n) for n in before.shape)
            assert torch.equal(value[front], before)
            assert float(value.abs().sum()) == pytest.approx(
                float(before.abs().sum()), rel=1e-6
            )  # zero elsewhere
    train(model, optimizer, 3, 5)
    assert optimizer.state[model[3].weight]["exp_avg" if make is adam else "momentum_buffer"].abs().sum() > 0


def test_replicas_grow_every_width_and_keep_the_function() -> None:
    model, couplings, widths = start()
    train(model, adam(model), 0, 3)
    model.eval()
    x, _ = batch(9)
    for sizes in ({"first": 5}, {"second": 7, "hidden": 9}, {"first": 6, "second": 8, "hidden": 16}):
        before = model(x)
        growth = grow_(model, couplings, {widths[k]: n for k, n in sizes.items()}, ONE, how="replicas")
        assert torch.allclose(model(x), before, atol=1e-5)
        assert {widths[k]: n for k, n in sizes.items()} == {
            k: after for k, (_, after) in growth.widths.items()
        }
    assert current_widths(model, couplings)[widths["hidden"]] == 16


def test_random_numbers_and_buffers_are_not_spent() -> None:
    model, couplings, widths = start()
    state, statistics = torch.get_rng_state(), model.get_buffer("1.running_mean").clone()
    grow_(model, couplings, {widths["first"]: 5, widths["hidden"]: 10}, ONE, loss=loss_of(model, 0))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.get_buffer("1.running_mean"), torch.cat([statistics, torch.zeros(2)]))
    assert torch.equal(model.get_buffer("1.running_var")[3:], torch.ones(2))
    assert int(model.get_buffer("1.num_batches_tracked")) == 0


@pytest.mark.parametrize("how", ["gradmax", "replicas"])
def test_masks_keep_their_density_and_what_they_kept(how: Any) -> None:
    model, couplings, widths = start()
    sparsify_(model, 0.75, keep_dense="none")
    masks = {n: b.clone() for n, b in model.named_buffers() if n.endswith("_mask")}
    grow_(model, couplings, {widths["first"]: 6}, ONE, how=how, loss=loss_of(model, 0))
    assert {"0.weight_mask", "3.weight_mask"} <= masks.keys()
    for name, before in masks.items():
        after = model.get_buffer(name)
        weight = model.get_parameter(name.removesuffix("_mask"))
        assert after.shape == weight.shape
        assert int(after.sum()) == int(before.sum()) * after.numel() // before.numel()
        assert torch.equal(after[tuple(slice(n) for n in before.shape)], before)
        assert not weight[~after].any()
    assert model[3].weight[:, 3:].any()


def test_an_algorithm_goes_on_with_a_new_masking() -> None:
    model, couplings, widths = start()
    sparsify_(model, 0.75, keep_dense="none")
    optimizer = adam(model)
    masks = Masking(model, optimizer, RigL(end=20, interval=2), steps=20)

    def go_on(first: int, last: int) -> None:
        for step in range(first, last):
            optimizer.zero_grad()
            loss_of(model, step)().backward()
            masks.step()
            optimizer.step()

    go_on(0, 5)
    masks.release()
    grow_(model, couplings, {widths["first"]: 6}, ONE, loss=loss_of(model, 5), optimizer=optimizer)
    kept = sum(int(w.mask.sum()) for w in masked_weights(model))
    steps, masks = masks.steps, Masking(model, optimizer, RigL(end=20, interval=2), steps=20)
    masks.steps = steps
    before = {w.name: w.mask.clone() for w in masked_weights(model)}
    go_on(5, 9)
    assert masks.exploration.updates == 2  # in steps 6 and 8
    assert any(not torch.equal(w.mask, before[w.name]) for w in masked_weights(model))
    assert kept == sum(int(w.mask.sum()) for w in masked_weights(model))
    assert all(not w.parameter[~w.mask].any() for w in masked_weights(model))


def test_structured_masks_and_factored_states_are_refused_before_anything_changes() -> None:
    model, couplings, widths = start()
    optimizer = Adafactor(model.parameters())
    train(model, optimizer, 0, 1)
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match="Adafactor keeps 'row_var'"):
        grow_(model, couplings, {widths["first"]: 6}, ONE, how="replicas", optimizer=optimizer)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    patterned = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    found = read_model(patterned, (InputSpec((2, 8)),), widths=True).couplings
    assert found is not None
    sparsify_(patterned, 0.5, structure="2:4", keep_dense="none")
    (width,) = (name for name, w in found.widths.items() if not w.fixed)
    with pytest.raises(InputError, match="2:4"):
        grow_(patterned, found, {width: 12}, (InputSpec((2, 8)),), how="replicas")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [({"first": 2}, "cannot grow to 2"), ({"first": 3}, "no width grows"), ({"x": 9}, "no width 'x'")],
)
def test_widths_that_do_not_grow_are_refused(sizes: Mapping[str, int], words: str) -> None:
    model, couplings, widths = start()
    with pytest.raises(InputError, match=words):
        grow_(model, couplings, {widths.get(k, k): n for k, n in sizes.items()}, ONE, how="replicas")


def test_random_outgoing_weights_are_as_long_as_gradmaxs_and_learn_less() -> None:
    grown = {}
    for how in ("gradmax", "random"):
        model, couplings, widths = start()
        x, _ = batch(9)
        before = model.eval()(x)
        model.train()
        growth = grow_(model, couplings, {widths["first"]: 5}, ONE, how=how, loss=loss_of(model, 0))
        assert torch.allclose(model.eval()(x), before, atol=1e-6)
        weight = model[3].weight.detach().double()
        lengths = weight.transpose(0, 1).flatten(1).norm(dim=1)
        assert torch.allclose(lengths[3:], lengths[:3].mean().expand(2), rtol=1e-5)
        assert not model[0].weight[3:].any()
        grown[how] = growth.gradients[widths["first"]]
    assert 0 < grown["random"] < grown["gradmax"]
    model, couplings, widths = start()
    silent = grow_(model, couplings, {widths["first"]: 5}, ONE, how="random")
    assert (silent.loss, silent.gradients) == (None, {})


def test_widths_between_two_layers_are_found_by_the_layer_that_writes_them() -> None:
    """The second convolution is pooled and flattened before it is read."""
    model, couplings, widths = start()
    assert growable_widths(model, couplings, ONE) == {"0": widths["first"], "8": widths["hidden"]}


def test_gradmax_asks_for_a_loss() -> None:
    model, couplings, widths = start()
    with pytest.raises(InputError, match="give `loss`"):
        grow_(model, couplings, {widths["first"]: 6}, ONE)


@pytest.mark.parametrize("make", [adam, momentum])
@pytest.mark.parametrize("how", ["gradmax", "replicas"])
@pytest.mark.parametrize("sparsity", [None, 0.5])
def test_a_run_resumes_to_the_bit_before_and_behind_a_growth_step(
    make: Any, how: Any, sparsity: float | None
) -> None:
    def fresh(seed: int) -> tuple[Network, Couplings, dict[str, str]]:
        model, couplings, widths = start(seed)
        if sparsity:
            sparsify_(model, sparsity, seed=seed)
        return model, couplings, widths

    def grown_(model: Network, optimizer: Optimizer | None = None) -> None:
        grow_(model, couplings, sizes, ONE, how=how, loss=loss_of(model, 3), optimizer=optimizer)

    model, couplings, widths = fresh(0)
    sizes = {widths["first"]: 5, widths["hidden"]: 10}
    optimizer = make(model)
    torch.manual_seed(1)
    kept: dict[int, tuple[Any, Any, Tensor]] = {}
    for step in range(7):
        kept[step] = copy.deepcopy((model.state_dict(), optimizer.state_dict(), torch.get_rng_state()))
        if step == 3:
            grown_(model, optimizer)
        train(model, optimizer, step, step + 1)
    for at in (2, 5):  # before the growth step, and behind it
        again, _, _ = fresh(3)
        if at > 3:
            grown_(again)
        restored = make(again)
        again.load_state_dict(kept[at][0])
        restored.load_state_dict(kept[at][1])
        torch.set_rng_state(kept[at][2])
        for step in range(at, 7):
            if step == 3:
                grown_(again, restored)
            train(again, restored, step, step + 1)
        assert all(
            torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items()
        )


def spent(model: nn.Module, samples: int) -> int:
    """MACs of a step, as measured."""
    return 3 * samples * measure(model, ONE).macs


@pytest.mark.parametrize("how", ["gradmax", "replicas"])
def test_a_run_that_grows_closes_its_budget_to_the_step(how: Any) -> None:
    model, couplings, widths = start()
    stages = [{widths["first"]: n, widths["hidden"]: m} for n, m in ((3, 8), (5, 9), (8, 12))]
    wide = widen_(copy.deepcopy(model), couplings, {widths["first"]: 6, widths["hidden"]: 10})
    budget = 30 * spent(wide, 8)  # what a network of one width in between costs
    costs, growths = growth_costs(couplings, stages, 8, how)
    schedule = within_steps(costs, budget, 30, growths=growths)
    macs = [0]
    optimizer = adam(model)
    for step in range(schedule.steps):
        here = schedule.stage_at(step)
        if step and step == schedule.begins[here]:
            macs[-1] += by_hand(model, stages[here - 1], stages[here], widths) if how == "gradmax" else 0
            grow_(
                model, couplings, stages[here], ONE, how=how, loss=loss_of(model, step), optimizer=optimizer
            )
            macs[-1] += (
                spent(model, 8) if how == "gradmax" else 0
            )  # the step behind, which measures the gradient
        train(model, optimizer, step, step + 1)
        macs.append(macs[-1] + spent(model, 8))
    assert macs[-1] == schedule.macs <= budget
    assert schedule.left < min(b - a for a, b in pairwise(costs))
    assert earlier(schedule) > budget


def by_hand(
    model: nn.Module, before: Mapping[str, int], after: Mapping[str, int], widths: Mapping[str, str]
) -> int:
    """A step at the old widths, and M: 18 × (4·9) at 3·3 places, and 4 × 3 at one."""
    first = 18 * 36 * 9 if before[widths["first"]] != after[widths["first"]] else 0
    hidden = 4 * 3 if before[widths["hidden"]] != after[widths["hidden"]] else 0
    return spent(model, 8) + 8 * (first + hidden)


def earlier(schedule: GrowthSchedule) -> int:
    """MACs of the run if its cheapest growth step came one step earlier."""
    return schedule.macs + min(b.macs - a.macs for a, b in pairwise(schedule.stages))
