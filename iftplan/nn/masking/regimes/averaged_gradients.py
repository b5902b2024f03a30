"""Weights that are zero off their masks, beside an average of the gradients of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from iftplan.nn.masking.algorithms.base import Smoothing
from iftplan.nn.masking.masked_model import Subject
from iftplan.nn.masking.regimes.sparse_weights import Held
from iftplan.nn.masks.shards import local, shard_like, state_of
from iftplan.nn.masks.view import View


class Averaged(Held):
    """Regime that averages dense gradients over steps, and lets updates look at the average.

    Args:
        subject: the weights.
        algorithm: how long gradients are averaged, and over how many steps.
    """

    def __init__(self, subject: Subject, algorithm: Smoothing) -> None:
        super().__init__(subject, algorithm)
        self._averaging = algorithm
        self._averages: dict[str, Tensor] = {}

    def wants_dense_gradient(self, step: int, *, due: bool) -> bool:
        """Whether the step's gradients enter the average.

        Args:
            step: counted from 0.
            due: whether masks change in it.
        """
        return self._averaging.averages(step)

    def took_dense_gradient(self, step: int, *, updated: bool) -> bool:
        """Whether the step's gradients entered the average.

        Args:
            step: counted from 0.
            updated: whether masks changed in it.
        """
        return self._averaging.averages(step)

    @torch.no_grad()
    def correct_(self, step: int, *, due: bool) -> None:
        """Let dense gradients enter the average, unless some are not finite; then set them to zero off the masks.

        Args:
            step: counted from 0.
            due: whether masks change in it.
        """
        if not self._averaging.averages(step):
            self._averages = self._averages if due else {}
        elif self._finite():
            for view in self._subject.views:
                if view.weight.parameter.grad is not None:
                    self._enter_(view.weight.name, view.weight.parameter.grad)
        super().correct_(step, due=due)

    def ended(self) -> Held:
        """Regime that holds the weights without an average."""
        return Held(self._subject, self._algorithm)

    def state_dict(self, *, parts: bool = False) -> dict[str, Any] | None:
        """State with the averages, tensors by name, as long as they are needed."""
        if not self._averages:
            return None
        return {"averages": {name: state_of(value, parts=parts) for name, value in self._averages.items()}}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a state; without one there is no average yet, or no more."""
        super().load_state_dict(None)
        found = {} if state is None else state["averages"]
        parameters = {view.weight.name: view.weight.parameter.detach() for view in self._subject.views}
        self._averages = {
            name: shard_like(value.to(self._subject.device), parameters[name]).clone()
            for name, value in found.items()
        }

    def _enter_(self, name: str, gradient: Tensor) -> None:
        if name not in self._averages:
            self._averages[name] = torch.zeros_like(gradient)
        local(self._averages[name]).lerp_(local(gradient), 1 - self._averaging.smoothing)

    def _scored(self) -> dict[str, Tensor | None]:
        return {name: rows for name, rows in super()._scored().items() if name in self._averages}

    def _score(self, view: View, parameter: Tensor, gradient: Tensor) -> Tensor | None:
        average = self._averages.get(view.weight.name)
        return None if average is None else view.rows(view.seen(average).abs())
