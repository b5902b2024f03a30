"""Masking on real weights: switches by hand, mistakes seen in published code, and models that are awkward."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

import iftplan as ift
from iftplan.base.errors import InputError, StaleError
from iftplan.nn import (
    MEST,
    SET,
    SNFS,
    Force,
    Gradual,
    GraNet,
    GraSP,
    Masking,
    Order,
    RigL,
    Saliency,
    Static,
    SynFlow,
    apply,
    holds,
    masked_weights,
)
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.nn.masking.step_masks import layer_counts, step_macs, weights_by_layer
from iftplan.plans.plan import Plan
from iftplan.runs.costs.training_cost import TrainingCost
from iftplan.runs.schedules import Constant, Updates
from tests.support.training import copies

ALWAYS = Updates(end=10**6, interval=1, at_begin=True)


class Row(nn.Module):
    """One weight under a mask that a test writes itself."""

    def __init__(self, values: list[float], mask: list[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([values], dtype=torch.float32))
        self.register_buffer("weight_mask", torch.tensor([mask]).bool())


#             0    1    2    3    4    5
VALUES = [0.9, 0.1, 0.5, 0.0, 0.0, 0.3]
MASK = [1, 1, 1, 0, 0, 1]
GRADIENT = [0.2, 0.9, 0.1, 0.4, 0.8, -0.3]  # of .5, two are dropped: 1 and 5; 1 (.9) and 4 (.8) grow


def one_step(
    algorithm: Algorithm, gradient: list[float] | None = None, **options: Any
) -> tuple[Row, Masking, optim.Optimizer]:
    """One update of one row under plain gradient descent at rate 1."""
    row = Row(VALUES, MASK)
    optimizer = optim.SGD(row.parameters(), **{"lr": 1.0, **options})
    masks = Masking(row, optimizer, algorithm)
    row.weight.grad = torch.tensor([gradient or GRADIENT])
    masks.step()
    optimizer.step()
    return row, masks, optimizer


def values(row: Row) -> list[float]:
    return [round(v, 6) for v in row.weight[0].tolist()]


def ones(row: Row) -> list[int]:
    return row.weight_mask[0].nonzero().view(-1).tolist()


# --- switches, by hand -----------------------------------------------------------------------------------


def test_an_update_that_replaces_the_step_leaves_what_it_keeps_as_it_was() -> None:
    row, masks, _ = one_step(RigL(ALWAYS, Constant(0.5), Order.REPLACE, keep_values=False))
    assert ones(row) == [0, 1, 2, 4]
    assert values(row) == [0.9, 0.0, 0.5, 0.0, 0.0, 0.0]
    assert masks.taken.dense_gradient


def test_an_update_that_follows_the_step_chooses_by_the_weights_after_it() -> None:
    # after the step: .7, -.8, .4, 0, 0, .6; the smallest are 2 and 5; of the rest 1 and 0 are kept, and by the
    # gradient of before 4 (.8) and 3 (.4) grow
    row, _, _ = one_step(RigL(ALWAYS, Constant(0.5), Order.AFTER))
    assert ones(row) == [0, 1, 3, 4]
    assert values(row) == [0.7, -0.8, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(("keep", "value"), [(True, 0.1), (False, 0.0)])
def test_a_weight_that_comes_back_at_once_keeps_its_value_or_restarts(keep: bool, value: float) -> None:
    row, _, _ = one_step(RigL(ALWAYS, Constant(0.5), Order.REPLACE, keep_values=keep))
    assert values(row) == [0.9, value, 0.5, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(("regrow", "mask"), [(True, [0, 1, 2, 4]), (False, [0, 2, 3, 4])])
def test_what_was_just_dropped_may_come_back_or_not(regrow: bool, mask: list[int]) -> None:
    row, _, _ = one_step(RigL(ALWAYS, Constant(0.5), Order.REPLACE, regrow=regrow))
    assert ones(row) == mask


@pytest.mark.parametrize("keep", [True, False])
def test_momentum_of_what_restarts_is_zero(keep: bool) -> None:
    row, masks, optimizer = one_step(RigL(ALWAYS, Constant(0.0)), momentum=0.9)
    slot = optimizer.state[row.weight]["momentum_buffer"]
    assert slot[0].tolist() == pytest.approx([0.2, 0.9, 0.1, 0, 0, -0.3])
    masks.release()
    masks = Masking(row, optimizer, RigL(ALWAYS, Constant(0.5), Order.REPLACE, keep_values=keep))
    with torch.no_grad():
        row.weight.copy_(torch.tensor([VALUES]))
    row.weight.grad = torch.tensor([GRADIENT])
    masks.step()
    optimizer.step()
    assert slot[0].tolist() == pytest.approx([0.2, 0.9 if keep else 0, 0.1, 0, 0, 0])


@pytest.mark.parametrize(
    ("at_begin", "at_end", "steps"),
    [(False, False, [4]), (True, False, [2, 4]), (False, True, [4, 6]), (True, True, [2, 4, 6])],
)
def test_updates_happen_when_they_are_due(at_begin: bool, at_end: bool, steps: list[int]) -> None:
    row = Row(VALUES, MASK)
    optimizer = optim.SGD(row.parameters(), lr=0.01)
    masks = Masking(row, optimizer, SET(Updates(6, 2, 2, at_begin, at_end), Constant(0.5)))
    seen = []
    for step in range(10):
        before = masks.exploration.updates
        row.weight.grad = torch.tensor([GRADIENT])
        masks.step()
        optimizer.step()
        if masks.exploration.updates > before:
            seen.append(step)
    assert seen == steps


def test_saliency_by_hand() -> None:
    # |θ·g| with every weight there: .18, .09, .05, .2, .16, .03; four stay
    dense = [0.9, 0.1, 0.5, 0.5, 0.2, 0.1]
    row = Row(dense, MASK)
    optimizer = optim.SGD(row.parameters(), lr=1.0)
    masks = Masking(row, optimizer, Saliency())
    assert masks.density == 1
    row.weight.grad = torch.tensor([GRADIENT])
    masks.step()
    optimizer.step()
    assert ones(row) == [0, 1, 3, 4]
    assert values(row) == [0.9, 0.1, 0.0, 0.5, 0.2, 0.0]  # nothing was trained in that step


# --- mistakes seen in published code ---------------------------------------------------------------------


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 24),
        nn.ReLU(),
        nn.Linear(24, 24),
        nn.ReLU(),
        nn.Linear(24, 24),
        nn.ReLU(),
        nn.Linear(24, 5),
    )


def planned(family: str | None = None, mask: str | None = None) -> Plan:
    spec = ift.read_model(perceptron(), "4x12", widths=family == "wide")
    return ift.plan(spec, family, "1/2", scope="matrices", mask=mask)


def network(algorithm: Algorithm | None = None, *, seed: int = 0, **options: Any) -> nn.Module:
    starts_dense = algorithm is not None and algorithm.starts_dense
    return apply(planned(**options), perceptron(), seed=seed, dense_start=starts_dense)


def train(masks: Masking, steps: int, seed: int = 0) -> None:
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        masks.optimizer.zero_grad()
        x = torch.randn(8, 12, generator=draw)
        loss = (masks.model(x) - x[:, :5]).square().mean()  # zeros would be learnt by dying
        loss.backward(create_graph=masks.wants_graph)
        masks.step()
        masks.optimizer.step()


def off(masks: Masking) -> Iterator[Tensor]:
    """Weights and optimizer state where nothing may be."""
    for weight in masked_weights(masks.model):
        yield weight.parameter[~weight.mask]
        for value in masks.optimizer.state.get(weight.parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == weight.mask.shape:
                yield value[~weight.mask]


ALGORITHMS: dict[str, Algorithm] = {
    "static": Static(),
    "SET": SET(Updates(end=30, interval=3)),
    "RigL": RigL(Updates(end=30, interval=3)),
    "GMP": Gradual(Updates(end=12, interval=4)),
    "SNFS": SNFS(Updates(end=30, interval=3)),
    "MEST": MEST(Updates(end=30, interval=3)),
    "MEST, soft": MEST(Updates(end=12, interval=3), soft=True),
    "GraNet": GraNet(Updates(end=12, interval=4)),
    "GraNet, from a half": GraNet(Updates(end=12, interval=4), initial=0.5, scope="global"),
    "SNIP": Saliency(),
    "GraSP": GraSP(),
    "FORCE": Force(),
    "SynFlow": SynFlow(),
}


@pytest.mark.parametrize("first", ["model", "masks"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_1_a_resumed_run_goes_on_with_the_masks_that_it_saved(algorithm: str, first: str) -> None:
    """Seen: masks come back into the state, and the constructor's random masks go on being applied."""
    chosen = ALGORITHMS[algorithm]

    def fresh(seed: int) -> Masking:
        model = network(chosen, seed=seed)
        return Masking(model, optim.Adam(model.parameters(), 0.01), chosen, seed=seed)

    whole = fresh(0)
    train(whole, 7)
    saved = copy.deepcopy((whole.model.state_dict(), whole.optimizer.state_dict(), whole.state_dict()))
    train(whole, 13, seed=1)

    resumed = fresh(1)  # with other masks, and other random numbers to come
    resumed.model.load_state_dict(saved[0])
    resumed.optimizer.load_state_dict(saved[1])
    if first == "masks":  # a loop that makes its masking last
        model, optimizer = resumed.model, resumed.optimizer
        del resumed
        resumed = Masking(model, optimizer, chosen, seed=1)
    resumed.load_state_dict(saved[2])
    train(resumed, 13, seed=1)
    for (name, a), (_, b) in zip(
        whole.model.state_dict().items(), resumed.model.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
    assert whole.metrics() == resumed.metrics()
    assert all(not values.any() for values in off(resumed))


def test_2_several_parameter_groups_are_nothing_special() -> None:
    """Seen: hooks that know one group only."""
    model = network()
    weights, rest = ([p for p in model.parameters() if (p.ndim > 1) is wanted] for wanted in (True, False))
    groups = [{"params": [p], "lr": 0.01 * (i + 1)} for i, p in enumerate(weights)] + [{"params": rest}]
    masks = Masking(model, optim.Adam(groups, lr=0.01), RigL(Updates(end=30, interval=3)))
    before = masks.nnz
    train(masks, 21)
    assert masks.nnz == before
    assert masks.exploration.updates == 6
    assert all(bool(w.parameter.grad[w.mask].any()) for w in masked_weights(model))
    assert all(not values.any() for values in off(masks))


def test_3_zero_gradients_cost_no_density() -> None:
    """Seen: active weights' scores are set to 0, tie with gradients of 0, and grow once more."""
    model = network()
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), RigL(ALWAYS, Constant(0.5)))
    before = masks.nnz
    for _ in range(5):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        masks.step()
        masks.optimizer.step()
    assert masks.exploration.updates == 5
    assert masks.nnz == before == {w.name: int(w.mask.sum()) for w in masked_weights(model)}


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("where", ["2.weight", "6.bias"])
def test_4_no_update_from_gradients_that_are_not_finite(order: Order, bad: float, where: str) -> None:
    """Seen: an overflowing step updates the masks by infinities."""
    model = network()
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), RigL(Updates(30, 3), order=order))
    train(masks, 3)
    before = copies(masks)
    masks.model(torch.randn(8, 12)).square().mean().backward()
    dict(model.named_parameters())[where].grad.view(-1)[0] = bad
    masks.step()  # the update of step 3; the optimizer's step is skipped
    masks.optimizer.zero_grad()
    assert all(torch.equal(before[k], m) for k, m in masks.masks().items())
    assert not masks.taken.dense_gradient
    train(masks, 1)
    assert masks.exploration.updates == 1
    assert masks.taken.dense_gradient
    train(masks, 1)
    assert masks.exploration.updates == 1  # postponed once is done once


@pytest.mark.parametrize("order", Order)
def test_4_nor_where_the_step_is_taken_all_the_same(order: Order) -> None:
    model = network()
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), RigL(Updates(30, 3), order=order))
    train(masks, 3)
    before = copies(masks)
    model(torch.randn(8, 12)).square().mean().backward()
    model[6].bias.grad[0] = float("inf")
    masks.step()
    masks.optimizer.step()
    assert all(torch.equal(before[k], m) for k, m in masks.masks().items())
    assert masks.exploration.updates == 0


def test_weights_that_are_not_finite_postpone_too() -> None:
    row, masks, _ = one_step(RigL(ALWAYS, Constant(0.5)), [float(x) for x in (3e38, 1, 1, 1, 1, 1)], lr=10.0)
    assert row.weight[0, 0] == -float("inf")
    assert ones(row) == [0, 1, 2, 5]
    assert masks.exploration.updates == 0


def test_5_counts_are_those_of_the_plan_from_the_first_step_to_the_last() -> None:
    """Seen: masks by coin flips, off by half a percent in small layers."""
    plan = planned("wide")
    expected = {layer.weight: layer.nnz for layer in plan.layers if layer.maskable}
    for seed in range(3):
        model = apply(plan, perceptron(), seed=seed)
        masks = Masking(model, optim.SGD(model.parameters(), 0.1), RigL(Updates(30, 2)), seed=seed)
        for _ in range(5):
            assert dict(masks.nnz) == expected
            train(masks, 2)


@pytest.mark.parametrize("make", [optim.Adam, optim.AdamW, optim.RAdam, optim.NAdam])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}])
def test_10_second_moments_are_masked_too(make: type, options: dict[str, float]) -> None:
    """Seen: only momentum is masked, and grown weights inherit the second moment of what was dropped."""
    model = network()
    optimizer = make(model.parameters(), 0.01, **options)
    masks = Masking(model, optimizer, RigL(Updates(30, 3)))
    train(masks, 20)
    checked = {
        key
        for w in masked_weights(model)
        for key, value in optimizer.state[w.parameter].items()
        if value.shape == w.mask.shape and not value[~w.mask].any() and value[w.mask].any()
    }
    assert checked == {"exp_avg", "exp_avg_sq"}


def test_a_grown_weight_starts_with_no_past() -> None:
    model = network()
    optimizer = optim.Adam(model.parameters(), 0.01)
    masks = Masking(model, optimizer, RigL(Updates(30, 3), Constant(0.3)))
    train(masks, 3)
    before = copies(masks)
    train(masks, 1)
    for weight in masked_weights(model):
        grown = weight.mask & ~before[weight.name]
        assert grown.any()
        assert not weight.parameter[grown].any()
        assert not optimizer.state[weight.parameter]["exp_avg_sq"][grown].any()


# --- what masks have seen --------------------------------------------------------------------------------


def test_exploration_by_hand() -> None:
    row = Row([4, 3, 2, 0, 0, 0], [1, 1, 1, 0, 0, 0])
    optimizer = optim.SGD(row.parameters(), lr=0.0)
    masks = Masking(row, optimizer, RigL(ALWAYS, Constant(0.4), regrow=False))
    assert masks.metrics() == {
        "density": 0.5, "itop": 0.5, "degree_of_constraint": 0.5, "churn": 0.0, "mask_updates": 0,
    }  # fmt: skip
    for gradient, mask in (([0, 0, 0, 1, 0, 0], [0, 1, 3]), ([0, 0, 9, 1, 2, 0], [0, 1, 2])):
        row.weight.grad = torch.tensor([gradient], dtype=torch.float32)
        masks.step()
        optimizer.step()
        assert ones(row) == mask
    # ever: 0 to 3; always: 0 and 1; one of three weights is new
    assert masks.metrics() == {
        "density": 0.5, "itop": 4 / 6, "degree_of_constraint": 2 / 6, "churn": 1 / 3, "mask_updates": 2,
    }  # fmt: skip


def test_pruning_explores_all_and_constrains_to_what_stays() -> None:
    model = network(ALGORITHMS["GMP"])
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), ALGORITHMS["GMP"])
    train(masks, 20)
    found = masks.metrics()
    assert found["itop"] == 1
    assert found["degree_of_constraint"] == found["density"] == pytest.approx(0.5, abs=0.01)
    assert found["churn"] == 0


def test_an_ordinary_step_makes_nothing_but_a_product() -> None:
    model = network()
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), RigL(Updates(10**6)))
    train(masks, 1)
    ever, called = masks.exploration.ever, []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(str(func))
            return func(*args, **(kwargs or {}))

    with Watch():
        masks.step()
    assert called == ["aten._foreach_mul_.List"]
    assert masks.exploration.ever is ever


# --- awkward models --------------------------------------------------------------------------------------


def test_an_algorithm_that_starts_dense_says_if_the_start_is_sparse() -> None:
    model = network()  # without dense_start
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), ALGORITHMS["GMP"])
    with pytest.warns(UserWarning, match="dense_start=True"):
        train(masks, 1)
    model = network(ALGORITHMS["GMP"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(Masking(model, optim.SGD(model.parameters(), 0.1), ALGORITHMS["GMP"]), 1)


def test_a_weight_that_is_computed_is_refused() -> None:
    model = network()
    nn.utils.parametrizations.weight_norm(model[2])
    with pytest.raises(InputError, match=r"2\.weight is computed"):
        Masking(model, optim.SGD(model.parameters(), 0.1))


def test_one_tensor_under_two_masks_is_refused() -> None:
    model = network()
    model[4].weight = model[2].weight
    with pytest.raises(InputError, match=r"2\.weight and 4\.weight are the same tensor"):
        Masking(model, optim.SGD(model.parameters(), 0.1))


def test_a_module_that_is_used_twice_is_masked_once() -> None:
    model = network()
    model[4] = model[2]
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), RigL(Updates(30, 3)))
    assert list(masks.masks()) == ["2.weight"]
    train(masks, 10)
    assert all(not values.any() for values in off(masks))


def test_two_maskings_of_one_optimizer_are_refused() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), 0.1)
    first = Masking(model, optimizer, RigL(Updates(30, 3)))
    with pytest.raises(InputError, match="already has a Masking"):
        Masking(model, optimizer)
    first.release()
    Masking(model, optimizer)


def test_a_masking_that_is_gone_leaves_nothing_behind() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), 0.1)
    masks = Masking(model, optimizer, RigL(Updates(30, 3)))
    gone = weakref.ref(masks)
    del masks
    gc.collect()
    assert gone() is None
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_what_is_not_an_optimizer_of_torch_is_refused() -> None:
    with pytest.raises(InputError, match="list is not a torch optimizer"):
        Masking(network(), [])
    model = network()
    with pytest.raises(InputError, match="LBFGS"):
        Masking(model, optim.LBFGS(model.parameters()))


@pytest.mark.parametrize(
    ("algorithm", "says"),
    [
        ("rigel", "algorithm = 'rigel' is not one of its choices: .*Did you mean 'rigl'"),
        ("rigl", "RigL changes masks until a fraction of training, .*give `steps`"),
        (Static, r"Static'> is not an algorithm"),
        (RigL(100), "RigL with updates 100"),  # type: ignore[arg-type]
        (SET(Updates(30, 3), 0.3), r"Constant\(0.3\)"),  # type: ignore[arg-type]
        (Gradual(Updates(30, 3), "before"), "no order 'before'; orders are replace, after"),  # type: ignore[arg-type]
    ],
)
def test_an_algorithm_that_would_fail_at_its_first_update_is_refused(algorithm: Any, says: str) -> None:
    model = network()
    with pytest.raises(InputError, match=says):
        Masking(model, optim.SGD(model.parameters(), 0.1), algorithm)


def test_a_state_of_something_else_is_refused() -> None:
    model = network()
    masks = Masking(model, optim.SGD(model.parameters(), 0.1))
    with pytest.raises(StaleError, match="of another model"):
        masks.load_state_dict(model.state_dict())


def test_a_step_without_masks_is_noticed_where_it_makes_weights_dense() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), 0.1)
    masks = Masking(model, optimizer)
    optimizer.step()  # nothing to apply
    model(torch.randn(4, 12)).sum().backward()
    with pytest.warns(UserWarning, match=r"without masks\.step\(\)"):
        optimizer.step()
    assert any(values.any() for values in off(masks))


def test_a_model_without_masks_or_values_is_refused() -> None:
    model = perceptron()
    with pytest.raises(InputError, match="no masked weights"):
        Masking(model, optim.SGD(model.parameters(), 0.1))
    with torch.device("meta"):
        shapes = apply(planned(), perceptron())
    with pytest.raises(InputError, match="meta device"):
        Masking(shapes, optim.SGD(shapes.parameters(), 0.1))


def test_a_sparse_gradient_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Embedding(8, 4, sparse=True))
    model[0].register_buffer("weight_mask", torch.rand(8, 4) < 0.5)
    masks = Masking(model, optim.SGD(model.parameters(), 0.1))
    model(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(InputError, match=r"gradient of 0\.weight is a sparse tensor"):
        masks.step()


def test_a_weight_may_be_frozen_and_join_later() -> None:
    model = network()
    late = model[2].weight.requires_grad_(False)
    optimizer = optim.Adam([p for p in model.parameters() if p.requires_grad], 0.01)
    masks = Masking(model, optimizer, RigL(Updates(100, 3), Constant(0.3)))
    first = copies(masks)
    train(masks, 7)
    assert torch.equal(masks.masks()["2.weight"], first["2.weight"])
    late.requires_grad_(True)
    optimizer.add_param_group({"params": [late]})
    train(masks, 7)
    assert not torch.equal(masks.masks()["2.weight"], first["2.weight"])
    assert all(not values.any() for values in off(masks))


def test_pruning_prunes_frozen_weights_too() -> None:
    algorithm = ALGORITHMS["GMP"]
    model = network(algorithm)
    model[2].weight.requires_grad_(False)
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    masks = Masking(model, optimizer, algorithm)
    train(masks, 20)
    assert dict(masks.nnz) == {x.weight: x.nnz for x in planned().layers if x.maskable}


def test_saliency_needs_every_gradient() -> None:
    model = network(Saliency())
    model[2].weight.requires_grad_(False)
    masks = Masking(model, optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1), Saliency())
    with pytest.raises(InputError, match=r"2\.weight has no gradient"):
        train(masks, 1)


def test_another_type_of_numbers_may_come_later() -> None:
    model = network()
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), RigL(Updates(100, 3)))
    train(masks, 4)
    model.double()
    draw = torch.Generator().manual_seed(0)
    for _ in range(4):
        masks.optimizer.zero_grad()
        model(torch.randn(8, 12, generator=draw, dtype=torch.float64)).square().mean().backward()
        masks.step()
        assert all(not w.parameter.grad[~w.mask].any() for w in masked_weights(model))
        masks.optimizer.step()
    assert all(not values.any() for values in off(masks))


@pytest.mark.parametrize("assign", [True, False])
def test_masks_that_are_loaded_are_the_masks_that_hold(assign: bool) -> None:
    model, other = network(), network(seed=1)
    optimizer = optim.SGD(model.parameters(), 0.1)
    masks = Masking(model, optimizer)
    train(masks, 1)
    saved = {k: v for k, v in other.state_dict().items() if k.endswith("_mask") or not assign}
    model.load_state_dict(saved, strict=False, assign=assign)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    masks.step()
    for mine, theirs in zip(masked_weights(model), masked_weights(other), strict=True):
        assert torch.equal(mine.parameter.grad > 0, theirs.mask)
    assert masks.nnz == {w.name: int(w.mask.sum()) for w in masked_weights(other)}


def test_a_deep_copy_has_masks_of_its_own() -> None:
    model = network()
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), RigL(Updates(30, 1)))
    other = copy.deepcopy(model)
    first = [w.mask.clone() for w in masked_weights(other)]
    train(masks, 5)
    assert all(torch.equal(a, w.mask) for a, w in zip(first, masked_weights(other), strict=True))


def test_a_state_of_another_model_is_stale() -> None:
    model, other = network(), network(family="wide")
    state = Masking(model, optim.SGD(model.parameters(), 0.1)).state_dict()
    with pytest.raises(StaleError, match="another model"):
        Masking(other, optim.SGD(other.parameters(), 0.1)).load_state_dict(state)


def test_a_structure_that_the_masks_have_not_is_refused() -> None:
    model = network()
    with pytest.raises(InputError, match=r"structure=plan\.mask"):
        Masking(model, optim.SGD(model.parameters(), 0.1), RigL(ALWAYS), structure="fan-in")


@pytest.mark.parametrize(
    ("algorithm", "structure", "says"),
    [
        (Saliency("global"), "fan-in", "fan-in masks do not allow; choose by layer"),
        (RigL(ALWAYS), "2:4T", "cannot be chosen row by row"),
    ],
)
def test_what_a_structure_cannot_do_is_refused(algorithm: Algorithm, structure: str, says: str) -> None:
    model = network(mask="fan-in") if structure == "fan-in" else network()
    with pytest.raises(InputError, match=says):
        Masking(model, optim.SGD(model.parameters(), 0.1), algorithm, structure=structure)


@pytest.mark.parametrize("structure", ["fan-in", "block4x4"])
def test_depthwise_layers_of_a_structured_plan_change_without_structure(structure: str) -> None:
    class Separable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 1)
            self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.point = nn.Conv2d(8, 8, 1)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.point(self.depth(self.stem(x)).relu()).relu().mean((2, 3)))

    plan = ift.plan(ift.read_model(Separable(), "2x3x6x6"), "wide", "1/2", scope="matrices", mask=structure)
    model = apply(plan, Separable())
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), RigL(ALWAYS), structure=plan.mask)
    before = dict(masks.nnz)
    assert set(before) == {"depth.weight", "point.weight"}
    for _ in range(5):
        masks.optimizer.zero_grad()
        model(torch.randn(4, 3, 6, 6)).square().mean().backward()
        masks.step()
        masks.optimizer.step()
    assert masks.nnz == before
    assert holds(structure, model.get_buffer("point.weight_mask"))


@pytest.mark.parametrize("how", ["dense weights", "an average", "in place"])
def test_weights_that_others_write_are_back_on_the_masks_after_the_next_step(how: str) -> None:
    model = network()
    masks = Masking(model, optim.SGD(model.parameters(), lr=0.1), RigL(Updates(end=20, interval=5)))
    train(masks, 3)
    average = copy.deepcopy(model)
    train(masks, 4)  # masks have moved since
    match how:
        case "dense weights":
            loaded = {name: torch.ones_like(p) for name, p in model.named_parameters()}
            model.load_state_dict(loaded, strict=False)
        case "an average":
            with torch.no_grad():
                for parameter, other in zip(model.parameters(), average.parameters(), strict=True):
                    parameter.lerp_(other, 0.5)
        case "in place":
            with torch.no_grad():
                for weight in masked_weights(model):
                    weight.parameter.add_(1)
    assert any(weight.parameter[~weight.mask].any() for weight in masked_weights(model))
    kept = {weight.name: int(weight.mask.sum()) for weight in masked_weights(model)}
    train(masks, 1)
    for weight in masked_weights(model):
        assert int(weight.mask.sum()) == kept[weight.name]
        assert not weight.parameter[~weight.mask].any()


@pytest.mark.parametrize("name", ["frozen weight", "frozen mask"])
def test_a_look_at_dense_gradients_pays_for_those_that_somebody_looks_at(name: str) -> None:
    model = network()
    model[2].weight.requires_grad_(name != "frozen weight")
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], 0.01)
    frozen = ["2"] if name == "frozen mask" else []
    masks = Masking(model, optimizer, RigL(Updates(100, 3), Constant(0.3)), frozen=frozen)
    cost, groups = TrainingCost.of(planned()), weights_by_layer(planned(), model)
    train(masks, 4)
    assert masks.taken.dense_gradient, "an update at step 3"
    nnz = layer_counts(groups, masks.taken.nnz)
    trained = {**cost.capacity, "2": 0 if name == "frozen weight" else nnz["2"]}
    assert step_macs(cost, groups, masks.taken, 1) == 2 * cost.forward(nnz) + cost.forward(trained)
    train(masks, 1)
    kept = {**nnz, "2": trained["2"]}
    assert step_macs(cost, groups, masks.taken, 1) == 2 * cost.forward(nnz) + cost.forward(kept)
