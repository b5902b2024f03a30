"""Sparse training under Lightning's Trainer: clipping, accumulation, scalers, checkpoints, logs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import iftplan as ift
from iftplan import nn
from iftplan.base.errors import InputError, StaleError
from iftplan.nn.callbacks.spent import Spent
from iftplan.nn.masking.algorithms.base import Algorithm, Order
from iftplan.runs.costs.training_cost import TrainingCost
from iftplan.runs.schedules import Updates
from tests.support.training import batches, counts, hold, loss_of, planned, rigl, same, sparse, train

if TYPE_CHECKING:
    import pytorch_lightning as pl
else:
    pl = pytest.importorskip(
        "pytorch_lightning", reason="needs pytorch-lightning: pip install 'iftplan[dev]'"
    )


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """These runs are short and have few loader workers, and are told so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Module(pl.LightningModule):
    def __init__(
        self, model: torch.nn.Module | None = None, optimizer: str = "AdamW", **options: object
    ) -> None:
        super().__init__()
        self.model = sparse() if model is None else model
        self.kind, self.options = optimizer, {"lr": 0.01, **options}
        self.seen: list[tuple[float, float]] = []
        self.calls: int

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        return loss_of(self.model, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return getattr(torch.optim, self.kind)(self.parameters(), **self.options)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        found = [(w.mask, g) for w in nn.masked_weights(self) if (g := w.parameter.grad) is not None]
        off = max((float((g * ~mask).abs().max()) for mask, g in found), default=0.0)
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        gradients = [p.grad.norm() for p in self.parameters() if p.grad is not None]
        self.seen.append((off, float(torch.stack(gradients).norm()) if gradients else 0.0))


def loader() -> torch.utils.data.DataLoader[Any]:
    pairs: Any = list(batches(4))
    return torch.utils.data.DataLoader(pairs, batch_size=None)


def fit(module: Module, callback: pl.Callback, where: Path, steps: int = 12, **options: Any) -> pl.Trainer:
    ckpt, keeper = options.pop("ckpt_path", None), options.pop("keeper", None)
    given: dict[str, Any] = {
        "max_steps": steps, "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "enable_checkpointing": keeper is not None, "default_root_dir": where, "log_every_n_steps": 3,
    }  # fmt: skip
    trainer = pl.Trainer(**{**given, **options}, callbacks=[callback] + [keeper] * (keeper is not None))
    trainer.fit(module, loader(), ckpt_path=ckpt)
    return trainer


@pytest.mark.parametrize("order", list(Order))
def test_a_module_trains_as_a_plain_loop_trains_it(order: Order, tmp_path: Path) -> None:
    module = Module(optimizer="SGD", momentum=0.9)
    kept = counts(module)
    callback = nn.LightningMasking(rigl(order=order))
    trainer = fit(module, callback, tmp_path)
    hold(module, callback.masks, kept)
    assert (callback.masks.steps, callback.masks.exploration.updates) == (12, 3)
    assert nn.measure_applied(planned("wide"), module.model).passed
    assert trainer.logged_metrics["mask_updates"] == 3

    plain = sparse()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9)
    masks = nn.Masking(plain, optimizer, rigl(order=order))
    for _ in range(3):
        train(plain, masks, optimizer, 4)
    ends = [m.state_dict() for m in (module.model, plain)]
    assert same(*ends)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_clipping_sees_masked_gradients(accumulated: int, tmp_path: Path) -> None:
    module = Module()
    fit(
        module,
        nn.LightningMasking(rigl()),
        tmp_path,
        gradient_clip_val=0.01,
        accumulate_grad_batches=accumulated,
    )
    assert [off for off, _ in module.seen] == [0] * 12
    assert [norm for _, norm in module.seen] == pytest.approx([0.01] * 12, rel=1e-3)


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("at", [3, 5], ids=["on an update", "between updates"])
def test_a_scaler_s_overflow_postpones_the_update(order: Order, at: int, tmp_path: Path) -> None:
    class Overflowing(Module):
        def on_after_backward(self) -> None:
            if self.calls == at:
                self.model[6].bias.grad[0] = torch.inf
            self.calls += 1

    module = Overflowing()
    module.calls = 0
    kept, masks_at = counts(module), []
    callback = nn.LightningMasking(rigl(order=order))

    class Watch(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            masks_at.append({n: m.clone() for n, m in callback.masks.masks().items()})

    plugin = pl.plugins.MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**8))
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path, callbacks=[callback, Watch()], plugins=[plugin],
    )  # fmt: skip
    trainer.fit(module, loader())
    moved = [i for i, (a, b) in enumerate(pairwise(masks_at)) if not same(a, b)]
    assert moved == [{3: 4, 5: 3}[at], 6]
    hold(module, callback.masks, kept)


@pytest.mark.parametrize("mask", ["unstructured", "1:4"])
@pytest.mark.parametrize(
    "algorithm", [rigl(2), rigl(2, Order.REPLACE), nn.SET(Updates(end=20, interval=2)), nn.Gradual(Updates(end=10, interval=2)), nn.Iterative(end=12, rounds=3), nn.GraNet(Updates(end=12, interval=2)), nn.SaRA(refresh=3), nn.SRSTE(refresh=3), nn.MaskDecay(0.1)],
    ids=["rigl", "rigl replaces", "set", "gradual", "iterative", "granet", "sara", "srste", "mask decay"],
)  # fmt: skip
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(
    algorithm: Algorithm, mask: str, tmp_path: Path
) -> None:
    dense: dict[str, Any] = {"dense_start": algorithm.starts_dense, "mask": mask}
    whole, callback = Module(sparse(**dense)), nn.LightningMasking(algorithm)
    keeper = pl.callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=8, save_top_k=-1)
    fit(whole, callback, tmp_path, 16, keeper=keeper)

    other, resumed = Module(sparse(seed=99, **dense)), nn.LightningMasking(algorithm)
    fit(other, resumed, tmp_path / "resumed", 16, ckpt_path=tmp_path / "step=8.ckpt")
    assert callback.masks.steps == resumed.masks.steps == 16
    assert same(whole.state_dict(), other.state_dict())
    assert resumed.masks.metrics() == callback.masks.metrics()
    slots = [m.masks.optimizer.state_dict()["state"] for m in (callback, resumed)]
    assert all(torch.equal(slots[0][i][k], slots[1][i][k]) for i in slots[0] for k in slots[0][i])


def test_a_checkpoint_without_the_masks_state_is_refused(tmp_path: Path) -> None:
    trainer = fit(Module(), pl.Callback(), tmp_path, 4)
    trainer.save_checkpoint(tmp_path / "bare.ckpt")
    with pytest.raises(StaleError, match="checkpoint of step 4 has no state of masks"):
        fit(Module(), nn.LightningMasking(rigl()), tmp_path, 8, ckpt_path=tmp_path / "bare.ckpt")


def test_masked_weights_in_two_optimizers_are_refused(tmp_path: Path) -> None:
    class Two(Module):
        automatic_optimization = False

        def configure_optimizers(self) -> Any:
            parameters = list(self.parameters())
            return [torch.optim.SGD(parameters[:3], lr=0.1), torch.optim.SGD(parameters[3:], lr=0.1)]

    with pytest.raises(InputError, match="2 of Two's 2 optimizers hold masked weights"):
        fit(Two(), nn.LightningMasking(rigl()), tmp_path)


def test_a_doubtful_run_is_told_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Masks never change"):
        warnings.simplefilter("always")
        fit(Module(), nn.LightningMasking(nn.RigL(Updates(end=500))), tmp_path)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("normed", [True, False])
def test_a_stochastic_average_ends_on_the_masks(normed: bool, before: bool, tmp_path: Path) -> None:
    """Lightning copies the average into the module: at the end, or before one more epoch for batch norms."""
    module = Module()
    module.norm = torch.nn.BatchNorm1d(4) if normed else torch.nn.Identity()
    kept, callback = counts(module), nn.LightningMasking(rigl())
    average = pl.callbacks.StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path, callbacks=[average, callback] if before else [callback, average],
    )  # fmt: skip
    trainer.fit(module, loader())
    assert callback.masks.exploration.updates >= 3  # masks have moved while weights were averaged
    hold_weights(module, kept)


def hold_weights(module: torch.nn.Module, kept: dict[str, int]) -> None:
    assert counts(module) == kept
    for weight in nn.masked_weights(module):
        assert not weight.parameter[~weight.mask].any(), weight.name


@pytest.mark.parametrize("kind", ["WeightAveraging", "EMAWeightAveraging"])
def test_averages_with_masks_of_their_own_are_refused(kind: str, tmp_path: Path) -> None:
    average = getattr(pl.callbacks, kind)()
    with pytest.raises(InputError, match=f"{kind} keeps a second model"):
        fit(Module(), nn.LightningMasking(rigl()), tmp_path, keeper=average)


def test_a_fit_that_was_interrupted_can_be_begun_anew(tmp_path: Path) -> None:
    module, callback = Module(), nn.LightningMasking(rigl())
    kept = counts(module)
    fails = pl.callbacks.LambdaCallback(on_train_batch_end=lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(module, callback, tmp_path, keeper=fails)
    for _ in range(2):
        fit(module, callback, tmp_path)
        assert callback.masks.steps == 12
        hold_weights(module, kept)


def test_flos_are_those_of_the_masks_and_go_on_after_a_checkpoint(tmp_path: Path) -> None:
    """The plan's model is a part of the module, and a batch of four is twice its input of two."""
    dense = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
    plan = ift.plan(dense, "wide", "1/2", inputs="2x8", keep_dense=None)
    cost = TrainingCost.of(plan)

    class Small(Module):
        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return self.model(batch[0]).square().mean()

    data: Any = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(16, 8)), batch_size=4)
    keeper = pl.callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
    for path in (None, tmp_path / "step=4.ckpt"):
        masking = nn.LightningMasking(rigl(2), plan=plan)
        trainer = pl.Trainer(
            max_steps=8, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[masking, keeper], log_every_n_steps=2,
        )  # fmt: skip
        trainer.fit(Small(nn.apply(plan, dense)), data, ckpt_path=path)
        updates = masking.masks.exploration.updates
        assert updates > 1
        spent = 8 * cost.step() + updates * (cost.opened - cost.forward())
        assert trainer.callback_metrics["masked_flos"] == 2 * 2 * spent
        assert trainer.callback_metrics["dense_flos"] == 2 * 8 * 2 * cost.dense_step


def test_plans_of_parameters_without_a_module_are_found() -> None:
    encoder = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
    plan = ift.plan(encoder, None, "1/2", inputs="2x5x16")
    spent = Spent(plan, torch.nn.ModuleDict({"model": nn.apply(plan, encoder)}))
    spent.batch(torch.ones(2, 5, 16))
    with pytest.raises(InputError, match="was not applied to the model"):
        Spent(plan, encoder)
