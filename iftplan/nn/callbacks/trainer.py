"""Sparse training under transformers' Trainer.

    trainer = Trainer(model=sparse, args=args, train_dataset=data)
    masks = nn.TrainerMasking(trainer, nn.RigL())
    trainer.train()

Trainer clips gradients before its callbacks see them, and clipping has to see masked ones. What Trainer documents
for such needs is to override `training_step`, which runs the backward pass, and `log`: both are wrapped on this one
trainer. The state of the masks is in `trainer_state.json` of every checkpoint.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from iftplan.base.errors import InputError, StaleError
from iftplan.base.user_warnings import warn_user
from iftplan.masks import MaskStructure, Unstructured
from iftplan.nn.callbacks.json_state import pack, unpack
from iftplan.nn.callbacks.spent import Spent
from iftplan.nn.masking.algorithms import SCHEDULE_WARNINGS, algorithm_named
from iftplan.nn.masking.algorithms.base import Algorithm, LatentAlgorithm
from iftplan.nn.masking.algorithms.static import Static
from iftplan.nn.masking.cautions import cautions, weights_left
from iftplan.nn.masking.masking import Masking
from iftplan.plans.plan import Plan


class TrainerMasking(TrainerCallback, ExportableState):  # type: ignore[misc]
    """A callback of transformers' Trainer that updates masks during training and keeps weights zero off them.

    It adds itself to the trainer, works from the beginning to the end of training, and logs the masks' metrics with those
    of the training.

    Args:
        trainer: of a model with masks beside its weights (`iftplan.nn.apply`).
        algorithm: how masks change, as a value or by name, such as "rigl"; steps are optimizer steps.
        structure: what masks may look like; None for the structure that they were made in.
        seed: random seed of growth.
        plan: that was applied; with it, Trainer's `total_flos` are those of the masks, and logs have `masked_flos` beside
            the `dense_flos` of the plan's dense model. None leaves Trainer's own, six for each parameter and token.

    Raises:
        InputError: the trainer has such a callback already, or restores callbacks from checkpoints, which cannot hold what
            this algorithm remembers.

    Attributes:
        masks: the `Masking` of the present or the last training; None before the first.
    """

    def __init__(
        self,
        trainer: Trainer,
        algorithm: Algorithm | str = Static(),  # noqa: B008  (a frozen value)
        *,
        structure: MaskStructure | str | None = None,
        seed: int = 0,
        plan: Plan | None = None,
    ) -> None:
        if trainer.args.restore_callback_states_from_checkpoint:
            raise InputError(
                "restore_callback_states_from_checkpoint=True creates callbacks from JSON, which cannot hold an "
                "algorithm. Leave it False; masks are restored anyway."
            )
        named = algorithm_named(algorithm, Unstructured()) if isinstance(algorithm, str) else algorithm
        if isinstance(named, LatentAlgorithm):
            raise InputError(
                f"{type(named).__name__} keeps a dense weight behind each masked one, and Trainer's checkpoints "
                "cannot store these in trainer_state.json. Use nn.LightningMasking, your own loop, or iftplan train."
            )
        if any(isinstance(callback, TrainerMasking) for callback in trainer.callback_handler.callbacks):
            raise InputError("this trainer already has a TrainerMasking; add only one.")
        self.masks: Masking | None = None
        self._make = partial(Masking, algorithm=algorithm, structure=structure, seed=seed)
        self._trainer = trainer
        self._plan, self._spent = plan, None if plan is None else Spent(plan, trainer.model)
        if plan is not None:
            trainer.floating_point_ops = self._flops
        self._training_step, self._log = trainer.training_step, trainer.log
        trainer.training_step, trainer.log = self._masked_step, self._log_masks
        trainer.add_callback(self)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Begin to update masks, from the checkpoint that training resumes from.

        Args:
            args: the trainer's settings.
            state: its progress, with what callbacks stored in a checkpoint.
            control: its flags, left alone.
            **given: `model`, `optimizer` and `lr_scheduler` among others.
        """
        stored = state.stateful_callbacks.get(type(self).__name__)
        if self.masks is not None:
            self.masks.release()  # a training that was interrupted has not
        went = _masks_in(stored, state.global_step) if state.global_step else None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", SCHEDULE_WARNINGS)  # said below, with all that is doubtful
            self.masks = self._make(given["model"], given["optimizer"], steps=state.max_steps, state=went)
        if self._plan is not None:
            self._spent = Spent(self._plan, given["model"])
            if went is not None and stored is not None:
                self._spent.load_state_dict(stored["attributes"].get("flos", {}))
        for sentence in cautions(self.masks, state.max_steps, given.get("lr_scheduler")):
            warn_user(sentence)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Stop following the optimizer, and warn of weights off their masks.

        Args:
            args: the trainer's settings.
            state: its progress.
            control: its flags, left alone.
            **given: unused.
        """
        assert self.masks is not None
        self.masks.release()
        for sentence in weights_left(self.masks):
            warn_user(sentence)

    def state(self) -> dict[str, Any]:
        """State of the masks for a checkpoint, as a JSON object."""
        found: dict[str, Any] = {} if self.masks is None else {"masks": pack(self.masks.state_dict())}
        if self._spent is not None:
            found["flos"] = self._spent.state_dict()
        return {"args": {}, "attributes": found}

    def _masked_step(self, *given: Any, **named: Any) -> Any:
        loss = self._training_step(*given, **named)
        if self._trainer.accelerator.sync_gradients and self.masks is not None:
            with self._unscaled():
                self.masks.step()  # after the last of the accumulated backward passes, and before clipping
        return loss

    @contextmanager
    def _unscaled(self) -> Iterator[None]:
        """Gradients in their own scale, where half precision scales them by a power of two."""
        scaler = getattr(self._trainer.accelerator, "scaler", None)
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        gradients = [p.grad for p in self._trainer.model.parameters() if p.grad is not None]
        if scale == 1 or not gradients:
            yield
            return
        torch._foreach_mul_(gradients, 1 / scale)
        yield
        # the trainer unscales once a step, and would not do so twice
        torch._foreach_mul_([p.grad for p in self._trainer.model.parameters() if p.grad is not None], scale)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Add the FLOPs of the step to Trainer's, now that the masks have seen the optimizer's part of it.

        Args:
            args: the trainer's settings.
            state: its progress.
            control: its flags, left alone.
            **given: unused.
        """
        if self._spent is not None and self.masks is not None:
            self._trainer.current_flos += self._spent.step(self.masks)

    def _flops(self, inputs: Any) -> int:
        """None yet: what a batch costs is known when the step has been taken."""
        assert self._spent is not None
        self._spent.batch(inputs)
        return 0

    def _log_masks(self, logs: dict[str, float], *given: Any, **named: Any) -> None:
        if self.masks is not None and "loss" in logs:
            logs.update(self.masks.metrics())
            if self._spent is not None:
                logs.update(self._spent.totals(self._trainer.args.world_size))
        self._log(logs, *given, **named)


def _masks_in(stored: Any, step: int) -> dict[str, Any]:
    """The masks' state in a checkpoint.

    Raises:
        StaleError: there is none, or it has been changed.
    """
    try:
        return unpack(stored["attributes"]["masks"])
    except (ValueError, KeyError, TypeError) as error:
        raise StaleError(
            f"the checkpoint of step {step} has no state of masks in its trainer_state.json: it was written "
            "without TrainerMasking, or was changed later. Resume from another checkpoint, or load its weights "
            "and start at step 0."
        ) from error
