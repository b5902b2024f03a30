"""Sparse training under Lightning's Trainer.

    masks = nn.LightningMasking(nn.RigL())
    trainer = Trainer(max_epochs=10, callbacks=[masks])
    trainer.fit(module, data)

Lightning asks its callbacks after gradients were accumulated, reduced and unscaled, and before it clips them. The
state of the masks is in every checkpoint, beside the module's.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch.optim import Optimizer

from iftplan.base.errors import InputError, StaleError
from iftplan.base.user_warnings import warn_user
from iftplan.masks import MaskStructure
from iftplan.nn.callbacks.spent import Spent
from iftplan.nn.masking.algorithms import SCHEDULE_WARNINGS
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.nn.masking.algorithms.static import Static
from iftplan.nn.masking.cautions import cautions, weights_left
from iftplan.nn.masking.masking import Masking
from iftplan.nn.masks.masked_weights import enforce_, masked_weights
from iftplan.plans.plan import Plan


class LightningMasking(Callback):
    """A Lightning callback that updates masks during training and keeps weights zero off them.

    It works from the beginning to the end of training, and logs the masks' metrics with those of the module.

    Args:
        algorithm: how masks change, as a value or by name, such as "rigl"; steps are optimizer steps.
        structure: what masks may look like; None for the structure that they were made in.
        seed: random seed of growth.
        plan: that was applied; with it, `masked_flos` and the `dense_flos` of the plan's dense model are logged.

    Attributes:
        masks: the `Masking` of the present or the last training; None before the first.
    """

    def __init__(
        self,
        algorithm: Algorithm | str = Static(),  # noqa: B008  (a frozen value)
        *,
        structure: MaskStructure | str | None = None,
        seed: int = 0,
        plan: Plan | None = None,
    ) -> None:
        self.masks: Masking | None = None
        self._algorithm = algorithm
        self._make = partial(Masking, algorithm=algorithm, structure=structure, seed=seed)
        self._loaded: dict[str, Any] | None = None
        self._plan = plan
        self._spent: Spent | None = None
        self._stepped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to update masks, from where a checkpoint or an earlier fit ended.

        Raises:
            StaleError: the checkpoint has no state of masks.
        """
        if not isinstance(self._algorithm, Static) and self._algorithm != "static":
            _refuse_averages(trainer)
        if self.masks is not None:
            self.masks.release()  # a training that was interrupted has not
        went = self.state_dict() if self.masks is not None and trainer.global_step else None
        state, self._loaded = self._loaded or went, None
        if trainer.global_step and state is None:
            raise StaleError(
                f"the checkpoint of step {trainer.global_step} has no state of masks, because it was written without "
                "LightningMasking. Use another checkpoint, or load its weights and start at step 0."
            )
        known = trainer.estimated_stepping_batches
        steps = None if known == float("inf") else int(known)  # where training goes on until someone stops it
        optimizer = _optimizer_of(trainer, pl_module)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", SCHEDULE_WARNINGS)  # said below, with all that is doubtful
            self.masks = self._make(pl_module, optimizer, steps=steps, state=state)
        if self._plan is not None:
            self._spent = Spent(self._plan, pl_module)
            if state is not None:
                self._spent.load_state_dict(state.get("flos", {}))
        if steps is not None:
            for sentence in cautions(self.masks, steps, _scheduler_of(trainer)):
                warn_user(sentence)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin an epoch on the masks, whatever other callbacks have put into the weights (averages).

        Args:
            trainer: Lightning's.
            pl_module: the module that is trained.
            batch: of the data, unused.
            batch_idx: number of the batch in its epoch.
        """
        if batch_idx == 0:
            enforce_(pl_module)
        if self._spent is not None:
            self._spent.batch(batch)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Step the masks, once for each step of the optimizer that holds the masked weights.

        Args:
            trainer: Lightning's.
            pl_module: the module that is trained.
            optimizer: the one that is about to step.
        """
        if self.masks is not None and optimizer is self.masks.optimizer:
            self.masks.step()
            self._stepped = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what the masks have seen, as often as the trainer logs.

        Args:
            trainer: Lightning's, whose `log_every_n_steps` counts.
            pl_module: the module that is trained, which logs.
            outputs: of the training step, unused.
            batch: of the data, unused.
            batch_idx: number of the batch in its epoch, unused.
        """
        if self._stepped and self._spent is not None and self.masks is not None:
            self._spent.step(self.masks)
        self._stepped = False
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # its logger connector sets it
        if self.masks is not None and every and trainer.global_step % every == 0:
            spent = {} if self._spent is None else self._spent.totals(trainer.world_size)
            pl_module.log_dict(self.masks.metrics() | spent, on_step=True, on_epoch=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop following the optimizer, whose steps no longer move masks."""
        if self.masks is None:
            return
        self.masks.release()
        for sentence in weights_left(self.masks):
            warn_user(sentence)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End on the masks, whatever other callbacks have put into the weights when training ended."""
        enforce_(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """State of the masks for a checkpoint; empty before training."""
        if self.masks is None:
            return {}
        return self.masks.state_dict() | ({} if self._spent is None else {"flos": self._spent.state_dict()})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a checkpoint's state until the optimizer is there."""
        self._loaded = state_dict or None


def _refuse_averages(trainer: Trainer) -> None:
    """Refuse callbacks that average masks as they average weights, or keep those of the day they began."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # its callback connector sets it
        if isinstance(callback, WeightAveraging):
            raise InputError(
                f"{type(callback).__name__} keeps a second model, and its masks do not follow those of "
                "LightningMasking. Use StochasticWeightAveraging, masks that never change (Static), or average in "
                "your own loop (iftplan.nn.masking.averages.follow_)."
            )


def _optimizer_of(trainer: Trainer, module: LightningModule) -> Optimizer:
    weights = {id(weight.parameter) for weight in masked_weights(module)}
    found = [
        o for o in trainer.optimizers if any(id(p) in weights for g in o.param_groups for p in g["params"])
    ]
    if weights and len(found) != 1:
        raise InputError(
            f"{len(found)} of {type(module).__name__}'s {len(trainer.optimizers)} optimizers hold masked weights; "
            "give all masked weights to one optimizer."
        )
    return found[0] if found else trainer.optimizers[0]


def _scheduler_of(trainer: Trainer) -> Any:
    """The scheduler, if it counts in optimizer steps as masks do."""
    configs = [c for c in trainer.lr_scheduler_configs if (c.interval, c.frequency) == ("step", 1)]
    return configs[0].scheduler if len(configs) == len(trainer.lr_scheduler_configs) == 1 else None
