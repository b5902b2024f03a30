"""Masking in the loops of engines: Accelerate's and Fabric's wrappers, their accumulation and their checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from iftplan import nn
from iftplan.nn.masking.algorithms.base import Order
from tests.support.training import batches, copies, counts, hold, loss_of, rigl, same, sparse, train

STEPS = 10


def plain(order: Order) -> dict[str, torch.Tensor]:
    """What a loop without an engine ends with."""
    model = sparse()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    masks = nn.Masking(model, optimizer, rigl(order=order))
    train(model, masks, optimizer, STEPS)
    return {**copies(masks), **model.state_dict()}


@pytest.fixture
def accelerator(tmp_path: Path) -> Iterator[Any]:
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate: pip install 'iftplan[dev]'")
    made = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2, project_dir=tmp_path)
    yield made
    made.free_memory()
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("order", list(Order))
def test_accelerate_with_accumulation(order: Order, accelerator: Any) -> None:
    model = sparse()
    kept = counts(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    wrapped, prepared = accelerator.prepare(model, optimizer)
    masks = nn.Masking(wrapped, prepared, rigl(order=order))
    for batch in batches(STEPS):
        for _ in range(2):  # the same batch twice: its mean is the batch's own gradient
            with accelerator.accumulate(wrapped):
                accelerator.backward(loss_of(wrapped, batch))
                if accelerator.sync_gradients:
                    masks.step()
                prepared.step()
                prepared.zero_grad()
    hold(model, masks, kept)
    assert (masks.steps, masks.exploration.updates) == (STEPS, 3)
    assert same({**copies(masks), **model.state_dict()}, plain(order))


def test_accelerate_keeps_the_masks_state_in_its_checkpoints(accelerator: Any, tmp_path: Path) -> None:
    def prepared(seed: int) -> Any:
        model = sparse(seed=seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        wrapped = accelerator.prepare(model, optimizer)
        masks = nn.Masking(wrapped[0], wrapped[1], rigl())
        accelerator.register_for_checkpointing(masks)
        return model, wrapped[1], masks

    model, optimizer, masks = prepared(0)
    train(model, masks, optimizer, 5)
    accelerator.save_state(str(tmp_path / "half"))
    train(model, masks, optimizer, 5)
    accelerator.free_memory()
    accelerator._custom_objects.clear()
    other, resumed, found = prepared(99)
    accelerator.load_state(str(tmp_path / "half"))
    train(other, found, resumed, 5)
    assert same(other.state_dict(), model.state_dict())
    assert found.metrics() == masks.metrics()


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fabric(order: Order, precision: str, tmp_path: Path) -> None:
    fabric_of = pytest.importorskip(
        "lightning_fabric", reason="needs lightning-fabric: pip install 'iftplan[dev]'"
    )
    fabric = fabric_of.Fabric(accelerator="cpu", devices=1, precision=precision)

    def prepared(seed: int) -> Any:
        model = sparse(seed=seed)
        wrapped, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=0.01))
        return model, wrapped, optimizer, nn.Masking(wrapped, optimizer, rigl(order=order))

    def go_on(parts: Sequence[Any], steps: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        wrapped, optimizer, masks = parts
        for batch in steps:
            optimizer.zero_grad()
            fabric.backward(loss_of(wrapped, batch))
            masks.step()
            fabric.clip_gradients(wrapped, optimizer, max_norm=10.0)
            optimizer.step()

    model, *rest = prepared(0)
    kept, steps = counts(model), list(batches(STEPS))
    go_on(rest, steps[:5])
    fabric.save(tmp_path / "half.ckpt", {"model": rest[0], "optimizer": rest[1], "masks": rest[2]})
    go_on(rest, steps[5:])
    hold(model, rest[2], kept)
    if precision == "32-true":
        assert same({**copies(rest[2]), **model.state_dict()}, plain(order))

    other, *again = prepared(99)
    fabric.load(tmp_path / "half.ckpt", {"model": again[0], "optimizer": again[1], "masks": again[2]})
    go_on(again, steps[5:])
    assert same(other.state_dict(), model.state_dict())
    assert again[2].metrics() == rest[2].metrics()
