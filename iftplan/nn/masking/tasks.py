"""Several tasks in one network: a mask for each over shared weights, and what a task has trained stays as it is.

    tasks = nn.TaskMasks(model)
    for name in ("even", "odd"):
        tasks.begin_(name)                         # a mask of free weights, as many as the model's masks keep
        optimizer = ...
        masks = nn.Masking(model, optimizer, "rigl", steps=1000)
        for batch in ...:
            masks.step(); optimizer.step()
            tasks.hold_()                          # weights of earlier tasks keep their values
        masks.finish()
        tasks.finish_()                            # what this task has trained is taken
    tasks.use_("even")

Masks may move onto weights of earlier tasks: a task uses them as they are, and they are counted once. So nothing is forgotten,
until the network is full (Packed networks, arXiv 1711.05769; with dynamic masks arXiv 2308.14831).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError, StaleError
from iftplan.masks import Unstructured
from iftplan.nn.layers.initial_weights import fans_of, initialise_, kaiming
from iftplan.nn.masks.masked_weights import SUFFIX, MaskedWeight, masked_weights, noted_structure, stream
from iftplan.nn.masks.shards import is_sharded
from iftplan.nn.meta.wrappers import bare


@dataclass(frozen=True, slots=True)
class Capacity:
    """Weights of a network that tasks share.

    Attributes:
        maskable: weights under masks.
        kept: task → weights that its mask keeps.
        trained: task → those of them that it trained itself; the others are of earlier tasks.
        own: parameters and statistics outside of masks, of which each task has a copy.
    """

    maskable: int
    kept: Mapping[str, int]
    trained: Mapping[str, int]
    own: int

    @property
    def used(self) -> int:
        """Weights under masks that some task uses, each counted once."""
        return sum(self.trained.values())

    @property
    def share(self) -> Fraction:
        """Used weights over all weights under masks."""
        return Fraction(self.used, self.maskable)

    @property
    def stored(self) -> int:
        """Numbers that all tasks together need: used weights, and each task's own."""
        return self.used + len(self.kept) * self.own


class TaskMasks:
    """Masks of several tasks over the weights of one model.

    What is outside of masks (biases, norms with their statistics, dense layers) belongs to a task: each has its own copy, which
    begins as the task before left it.

    Args:
        model: has unstructured masks beside its weights (`iftplan.nn.apply`, `iftplan.nn.sparsify_`).
        seed: random seed of masks and of initial weights.

    Raises:
        InputError: the model has no masks, or masks with a structure, or weights spread over processes.
    """

    @check_arguments
    def __init__(self, model: nn.Module, *, seed: int = 0) -> None:
        self.model, self.seed = bare(model), seed
        self._weights = {weight.name: weight for weight in masked_weights(self.model)}
        structure = noted_structure(self.model)
        stacked = any(weight.stack for weight in self._weights.values())
        if not self._weights or structure != Unstructured() or stacked:
            what = f"has {structure} masks or those of experts" if self._weights else "has no masks"
            raise InputError(
                f"{type(self.model).__name__} {what}; tasks share the weights under unstructured masks of single matrices. Make "
                "them with iftplan.nn.sparsify_(model, 0.75)."
            )
        if any(is_sharded(weight.parameter) for weight in self._weights.values()):
            raise InputError("weights that are spread over processes cannot be shared among tasks; use DDP.")
        self._keeps = {name: int(weight.mask.sum()) for name, weight in self._weights.items()}
        self._values = {name: torch.zeros_like(w.parameter) for name, w in self._weights.items()}
        self._taken = {name: torch.zeros_like(w.mask) for name, w in self._weights.items()}
        self._masks: dict[str, dict[str, Tensor]] = {}
        self._own: dict[str, dict[str, Tensor]] = {}
        self._trained: dict[str, int] = {}
        self._present: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Finished tasks, in the order of their training."""
        return tuple(self._masks)

    @check_arguments
    @torch.no_grad()
    def begin_(self, name: str) -> None:
        """Give the model a new task's mask, in place: free weights by lot with fresh values, then those of earlier tasks.

        Args:
            name: of the task.

        Raises:
            InputError: there is a task of that name, or another has begun and not ended.
        """
        if name in self._masks or self._present is not None:
            which = (
                f"a task {name!r}"
                if name in self._masks
                else f"the task {self._present!r}, which has not ended"
            )
            raise InputError(f"there is {which}; give another name, or call finish_() first.")
        self._present = name
        for weight in self._weights.values():
            self._begin_(weight, name)

    def _begin_(self, weight: MaskedWeight, task: str) -> None:
        taken, kept = self._taken[weight.name].flatten(), self._keeps[weight.name]
        order = torch.randperm(len(taken), generator=stream(self.seed, f"{weight.name} {task}")).to(
            taken.device
        )
        chosen = torch.cat([order[~taken[order]], order[taken[order]]])[:kept]
        weight.mask.view(-1).fill_(False)[chosen] = True
        deviation = kaiming(fans_of(weight.module, weight.parameter), 1.0)
        initialise_(
            weight.parameter, weight.mask, deviation, stream(self.seed, f"{weight.name} {task} values")
        )
        self._hold_(weight)

    @torch.no_grad()
    def hold_(self) -> None:
        """Give weights of earlier tasks their values back, in place; call it after each step of the optimizer."""
        for weight in self._weights.values():
            self._hold_(weight)

    def _hold_(self, weight: MaskedWeight) -> None:
        shared = self._taken[weight.name] & weight.mask
        weight.parameter.copy_(torch.where(shared, self._values[weight.name], weight.parameter))

    def trained(self) -> dict[str, int]:
        """Parameter name → weights of the present masks that are no earlier task's, whose gradients are needed."""
        return {name: int((w.mask & ~self._taken[name]).sum()) for name, w in self._weights.items()}

    @torch.no_grad()
    def finish_(self) -> None:
        """End the present task: what it has trained is taken from now on.

        Raises:
            InputError: no task has begun.
        """
        if self._present is None:
            raise InputError("no task has begun; call begin_(name) first.")
        self.hold_()
        self._trained[self._present] = sum(self.trained().values())
        for name, weight in self._weights.items():
            fresh = weight.mask & ~self._taken[name]
            self._values[name] = torch.where(fresh, weight.parameter.detach(), self._values[name])
            self._taken[name] |= fresh
        self._masks[self._present] = {name: w.mask.clone() for name, w in self._weights.items()}
        self._own[self._present] = {name: value.clone() for name, value in self._outside().items()}
        self._present = None

    @check_arguments
    @torch.no_grad()
    def use_(self, name: str) -> nn.Module:
        """Make the model that of a finished task, in place, and return it.

        Args:
            name: of the task.

        Raises:
            InputError: there is no such task, or one has begun and not ended.
        """
        if name not in self._masks:
            raise InputError(
                f"there is no finished task {name!r}; there are {', '.join(self._masks) or 'none'}."
            )
        if self._present is not None:
            raise InputError(f"the task {self._present!r} has not ended; call finish_() first.")
        for weight in self._weights.values():
            weight.mask.copy_(self._masks[name][weight.name])
            weight.parameter.copy_(self._values[weight.name].masked_fill(~weight.mask, 0))
        own = self._outside()
        for key, value in self._own[name].items():
            own[key].copy_(value)
        return self.model

    def state_dict(self) -> dict[str, Any]:
        """State that a resumed run needs beside the model's: masks, values and own tensors of every task so far."""
        return {
            "seed": self.seed,
            "present": self._present,
            "values": dict(self._values),
            "taken": dict(self._taken),
            "masks": {task: dict(masks) for task, masks in self._masks.items()},
            "own": {task: dict(own) for task, own in self._own.items()},
            "trained": dict(self._trained),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; load the model's own state first.

        Args:
            state: of `state_dict`, of the same model.

        Raises:
            StaleError: the state is of another model, or of something else.
        """
        shapes = {name: value.shape for name, value in self._values.items()}
        if {name: value.shape for name, value in state.get("values", {}).items()} != shapes:
            raise StaleError("the tasks' state is of another model: its masked weights differ.")
        like = {**self._values, **self._outside()}
        self.seed, self._present = int(state["seed"]), state["present"]
        self._values, self._taken = _beside(state["values"], like), _beside(state["taken"], like)
        self._masks = {task: _beside(masks, like) for task, masks in state["masks"].items()}
        self._own = {task: _beside(own, like) for task, own in state["own"].items()}
        self._trained = dict(state["trained"])

    @property
    def capacity(self) -> Capacity:
        """Weights that the finished tasks use, those that several share counted once."""
        kept = {task: sum(int(mask.sum()) for mask in masks.values()) for task, masks in self._masks.items()}
        return Capacity(
            sum(weight.mask.numel() for weight in self._weights.values()),
            kept,
            dict(self._trained),
            sum(value.numel() for value in self._outside().values()),
        )

    def _outside(self) -> dict[str, Tensor]:
        """Parameters and buffers that no mask covers, by name; they are the model's own tensors."""
        names = {*self._weights, *(name + SUFFIX for name in self._weights)}
        return {name: value for name, value in self.model.state_dict().items() if name not in names}


def _beside(stored: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of stored tensors, each where the model has its own of that name."""
    return {name: value.detach().to(like[name].device, copy=True) for name, value in stored.items()}
