"""Masking in loops that people write: groups, accumulation, scalers, clipping, averages, compilers, engines.

Every test trains a small applied model for real, and holds what must be true of it afterwards: exact counts,
and zeros off the masks in weights and in whatever the optimizer keeps beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import optim
from torch.nn.utils import clip_grad_norm_

from iftplan import nn
from iftplan.base.errors import InputError
from iftplan.nn.masking.algorithms.base import Order
from iftplan.nn.training.optimization.lamb import Lamb
from tests.support.training import (
    batches,
    copies,
    counts,
    hold,
    loss_of,
    perceptron,
    rigl,
    same,
    sparse,
    train,
)

ADAMW: dict[str, dict[str, Any]] = {
    "plain": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


# --- optimizers and their groups -------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["wide", "parallel", "doped"])
def test_several_groups_with_options_of_their_own(family: str) -> None:
    model = sparse(family)
    kept = counts(model)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    half = len(decayed) // 2
    groups: list[dict[str, Any]] = [
        {"params": decayed[:half], "weight_decay": 0.01},
        {"params": decayed[half:], "lr": 0.2, "momentum": 0.0},
        {"params": others},
    ]
    optimizer = optim.SGD(groups, lr=0.3, momentum=0.9, nesterov=False)
    masks = nn.Masking(model, optimizer, rigl())
    losses = train(
        model, masks, optimizer, 100
    )  # the first are those of guessing, from which SGD leaves slowly
    hold(model, masks, kept)
    assert masks.exploration.updates == 33
    assert sum(losses[-5:]) < sum(losses[:5])


def _optimizers() -> Iterator[tuple[str, Callable[[list[torch.nn.Parameter]], optim.Optimizer]]]:
    for name in ("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop"):  # fmt: skip
        yield name, partial(getattr(optim, name), lr=0.01)
    yield "AdamW amsgrad", lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1, amsgrad=True)
    yield (
        "RMSprop centred",
        lambda p: optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True, weight_decay=0.1),
    )
    yield "SGD", lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)
    yield "LAMB", lambda p: Lamb(p, lr=0.01, weight_decay=0.1)
    yield "Muon", lambda p: optim.Muon([x for x in p if x.ndim == 2], lr=0.01)  # mixes entries
    yield "not torch's", lambda p: Smearing(p, {})


class Smearing(optim.Optimizer):
    """Moves every entry by the mean of its tensor's gradient: nothing keeps its zeros."""

    def step(self, closure: object = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data.sub_(0.1 * p.grad.mean())


@pytest.mark.parametrize(
    ("name", "make"), list(_optimizers()), ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.parametrize("order", list(Order))
def test_zeros_stay_zeros_under_any_optimizer(name: str, make: Callable[..., Any], order: Order) -> None:
    model = sparse()
    kept = counts(model)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.ndim == 2)
    optimizer = make(list(model.parameters()))
    masks = nn.Masking(model, optimizer, rigl(order=order))
    train(
        model, masks, optimizer, 12
    )  # two steps after the last update, which would hide what leaves the masks
    hold(model, masks, kept)
    assert masks.exploration.updates == 3


@pytest.mark.parametrize("kind", ADAMW)
def test_the_three_forms_of_adamw_choose_the_same_masks(kind: str) -> None:
    seen = {}
    for options in (ADAMW[kind], ADAMW["plain"]):
        model = sparse()
        kept = counts(model)
        optimizer = optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1, **options)
        masks = nn.Masking(model, optimizer, rigl())
        train(model, masks, optimizer, 20)
        hold(model, masks, kept)
        seen[str(options)] = copies(masks)
    first, *rest = seen.values()
    assert all(same(first, other) for other in rest)


def test_an_optimizer_of_another_model_is_refused() -> None:
    model = sparse()
    optimizer = optim.SGD(perceptron().parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"does not hold .*weight.*after masks were applied"):
        nn.Masking(model, optimizer, rigl())
    model.requires_grad_(False)
    nn.Masking(model, optimizer)  # what is frozen need not be held


def test_masks_of_frozen_weights_stay() -> None:
    model = sparse()
    model[0].weight.requires_grad_(False)
    kept = counts(model)
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    masks = nn.Masking(model, optimizer, rigl())
    first, weights = copies(masks), model[0].weight.clone()
    train(model, masks, optimizer)
    hold(model, masks, kept)
    assert torch.equal(model[0].weight, weights)
    moved = {name for name, mask in masks.masks().items() if not torch.equal(mask, first[name])}
    assert moved == set(first) - {"0.weight"}


def test_a_weight_without_a_gradient_keeps_its_mask() -> None:
    model = sparse()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    masks = nn.Masking(model, optimizer, rigl(interval=1))
    first = copies(masks)
    for batch in batches(3):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        model[2].weight.grad = None  # as for an expert that no token was sent to
        masks.step()
        optimizer.step()
    assert torch.equal(masks.masks()["2.weight"], first["2.weight"])
    assert not torch.equal(masks.masks()["0.weight"], first["0.weight"])


# --- accumulation, clipping, scalers ---------------------------------------------------------------------


def test_accumulated_gradients_choose_what_one_large_batch_chooses() -> None:
    chosen = []
    for parts in (1, 4):
        model = sparse()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        masks = nn.Masking(model, optimizer, rigl())
        for x, y in batches(10):
            optimizer.zero_grad()
            for part in zip(x.chunk(parts), y.chunk(parts), strict=True):
                (loss_of(model, part) / parts).backward()
            masks.step()
            optimizer.step()
        assert masks.steps == 10
        chosen.append((copies(masks), model[0].weight.detach()))
    assert same(chosen[0][0], chosen[1][0])
    torch.testing.assert_close(chosen[0][1], chosen[1][1])


def test_clipping_sees_masked_gradients() -> None:
    model = sparse()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    masks = nn.Masking(model, optimizer, rigl())
    for batch in batches(8):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        mask_of = masks.masks()
        dense = {name: p.grad.clone() for name, p in model.named_parameters()}
        expected = sum(float((g * mask_of.get(name, 1)).square().sum()) for name, g in dense.items()) ** 0.5
        full = sum(float(g.square().sum()) for g in dense.values()) ** 0.5
        masks.step()
        norm = float(clip_grad_norm_(model.parameters(), expected / 2))
        assert norm == pytest.approx(expected, rel=1e-5)
        assert norm < full * 0.999
        clipped = sum(float(p.grad.square().sum()) for p in model.parameters()) ** 0.5
        assert clipped == pytest.approx(expected / 2, rel=1e-4)
        optimizer.step()
    assert masks.exploration.updates == 2


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("unscale", [True, False], ids=["unscaled and clipped", "left to the scaler"])
@pytest.mark.parametrize("poisoned", ["0.weight", "6.bias"], ids=["masked weight", "bias"])
@pytest.mark.parametrize("kind", [*ADAMW, "sgd"])
def test_an_overflow_postpones_the_update(kind: str, poisoned: str, unscale: bool, order: Order) -> None:
    model = sparse()
    kept = counts(model)
    parameters = list(model.parameters())
    optimizer = (
        optim.SGD(parameters, lr=0.1, momentum=0.9)
        if kind == "sgd"
        else optim.AdamW(parameters, lr=0.01, **ADAMW[kind])
    )
    masks = nn.Masking(model, optimizer, rigl(interval=4, order=order))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step, batch in enumerate(batches(8)):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, batch)).backward()
        if step == 4:
            dict(model.named_parameters())[poisoned].grad.view(-1)[0] = torch.inf
        if unscale:
            scaler.unscale_(optimizer)
        before, weights = copies(masks), model[0].weight.clone()
        masks.step()
        if unscale:
            clip_grad_norm_(parameters, 1.0)
        scaler.step(optimizer)
        scaler.update()
        changed = not same(before, masks.masks())
        assert changed == (step == 5), step
        assert torch.equal(weights, model[0].weight) == (step == 4), step
    assert masks.exploration.updates == 1
    assert scaler.get_scale() == 2.0**9
    hold(model, masks, kept)


@pytest.mark.parametrize("taken", [True, False], ids=["step taken", "step left out"])
def test_non_finite_gradients_postpone_the_update_without_a_scaler_too(taken: bool) -> None:
    model = sparse()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    masks = nn.Masking(model, optimizer, rigl(interval=2))
    first = copies(masks)
    for step, batch in enumerate(batches(4)):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        if step == 2:
            model[6].bias.grad[0] = torch.nan
        masks.step()
        if taken or step != 2:  # some loops look at their gradients themselves
            optimizer.step()
        if step == 2:
            model[6].bias.data.nan_to_num_()
        assert same(first, masks.masks()) == (step < 3), step


@pytest.mark.parametrize("order", list(Order))
def test_a_closure_is_no_detour(order: Order) -> None:
    """Engines run backward passes inside the optimizer's step."""
    seen = []
    for inside in (False, True):
        model = sparse()
        kept = counts(model)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        masks = nn.Masking(model, optimizer, rigl(order=order))

        def backward(
            batch: tuple[torch.Tensor, torch.Tensor],
            model: torch.nn.Module = model,
            optimizer: optim.Optimizer = optimizer,
            masks: nn.Masking = masks,
        ) -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            masks.step()
            return loss

        for batch in batches(10):
            if inside:
                optimizer.step(lambda batch=batch: backward(batch))
            else:
                backward(batch)
                optimizer.step()
        hold(model, masks, kept)
        assert masks.exploration.updates == 3
        seen.append({**copies(masks), "": model[0].weight.detach()})
    assert same(*seen)


def test_a_replaced_step_moves_nothing_that_keeps_its_mask() -> None:
    model = sparse()
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    masks = nn.Masking(model, optimizer, rigl(interval=2, order=Order.REPLACE))
    for step, batch in enumerate(batches(3)):
        before, weights = copies(masks), {n: p.clone() for n, p in model.named_parameters()}
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        masks.step()
        optimizer.step()
        if step == 2:
            after = masks.masks()
            for name, parameter in model.named_parameters():
                stays = before[name] & after[name] if name in after else torch.ones_like(parameter) > 0
                assert torch.equal(parameter[stays], weights[name][stays]), name


def test_autocast_to_bfloat16() -> None:
    model = sparse()
    kept = counts(model)
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    masks = nn.Masking(model, optimizer, rigl())
    losses = []
    for batch in batches(40):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, batch)
        loss.backward()
        masks.step()
        optimizer.step()
        losses.append(loss.item())
    hold(model, masks, kept)
    assert sum(losses[-5:]) < sum(losses[:5])


def test_weights_in_bfloat16() -> None:
    model = sparse().bfloat16()
    kept = counts(model)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    masks = nn.Masking(model, optimizer, rigl())
    for x, y in batches(10):
        optimizer.zero_grad()
        loss_of(model, (x.bfloat16(), y)).backward()
        masks.step()
        assert model[0].weight.grad.dtype is torch.bfloat16
        optimizer.step()
    hold(model, masks, kept)
    assert masks.exploration.updates == 3


# --- schedulers, compilers, a second run -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["OneCycleLR", "CosineAnnealingLR", "LambdaLR"])
def test_schedulers_that_wrap_the_optimizer_s_step(kind: str) -> None:
    options: dict[str, dict[str, Any]] = {"OneCycleLR": {"max_lr": 0.1, "total_steps": 20}, "CosineAnnealingLR": {"T_max": 20}, "LambdaLR": {"lr_lambda": lambda t: 1 / (1 + t)}}  # fmt: skip
    model = sparse()
    kept = counts(model)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = getattr(optim.lr_scheduler, kind)(optimizer, **options[kind])
    masks = nn.Masking(model, optimizer, rigl())
    for batch in batches(20):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        masks.step()
        optimizer.step()
        scheduler.step()
    hold(model, masks, kept)
    assert masks.exploration.updates == 6


def test_a_compiled_model_trains_to_the_same_masks() -> None:
    seen = []
    for compiled in (False, True):
        model = sparse()
        called: Any = torch.compile(model, backend="eager") if compiled else model
        optimizer = optim.SGD(called.parameters(), lr=0.1)
        masks = nn.Masking(called, optimizer, rigl())
        for batch in batches(10):
            optimizer.zero_grad()
            loss_of(called, batch).backward()
            masks.step()
            optimizer.step()
        seen.append({**copies(masks), "": model[0].weight.detach()})
        other = nn.Masking(model, optim.SGD(model.parameters(), lr=0.1), rigl())
        other.load_state_dict(masks.state_dict())  # names are the model's own in both
    assert same(*seen)


def test_a_masking_that_was_released_changes_nothing_more() -> None:
    model = sparse()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    first = nn.Masking(model, optimizer, rigl())
    train(model, first, optimizer, 5)
    first.release()
    second = nn.Masking(model, optimizer, rigl())
    train(model, second, optimizer, 5)
    assert (first.exploration.updates, second.exploration.updates) == (1, 1)
