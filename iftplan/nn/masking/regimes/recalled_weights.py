"""Weights that are pruned in rounds before they are trained, and come back as they were if a later round keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from iftplan.nn.masking.algorithms.base import Recalling
from iftplan.nn.masking.layer import Change
from iftplan.nn.masking.masked_model import Subject
from iftplan.nn.masking.regimes.sparse_weights import Held
from iftplan.nn.masks.shards import local, part_of, shard_like, state_of, whole
from iftplan.nn.masks.view import View


class Recalled(Held):
    """Regime that remembers all weights while there are rounds of pruning, and trains what is left after them.

    Args:
        subject: the weights.
        algorithm: how they are pruned, in rounds.
    """

    def __init__(self, subject: Subject, algorithm: Recalling) -> None:
        super().__init__(subject, algorithm)
        self._rounds = algorithm
        self._initial = {v.weight.name: v.weight.parameter.detach().clone() for v in subject.views}

    def took_dense_gradient(self, step: int, *, updated: bool) -> bool:
        """Whether the step was a round in which pruned weights were looked at.

        Args:
            step: counted from 0.
            updated: whether it was a round.
        """
        return updated and self._rounds.regrow

    def ended(self) -> Held:
        """Regime that holds what is left."""
        return Held(self._subject, self._algorithm)

    def state_dict(self, *, parts: bool = False) -> dict[str, Any] | None:
        """State with the weights that training began with, as long as there are rounds."""
        if not self._initial:
            return None
        return {"initial": {name: state_of(value, parts=parts) for name, value in self._initial.items()}}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a state; without one the rounds are over."""
        super().load_state_dict(None)
        if state is None:
            self._initial = {}
            return
        for view in self._subject.views:
            parameter = view.weight.parameter.detach()
            value = state["initial"][view.weight.name].to(self._subject.device)
            self._initial[view.weight.name] = shard_like(value, parameter).clone()

    def _score(self, view: View, parameter: Tensor, gradient: Tensor) -> Tensor | None:
        return view.rows((whole(gradient) * whole(self._initial[view.weight.name])).abs())

    @torch.no_grad()
    def _change_(self, view: View, change: Change) -> None:
        super()._change_(view, change)
        parameter = view.weight.parameter
        value = local(self._initial[view.weight.name])
        local(parameter.detach()).copy_(value * part_of(view.weight.mask, parameter))

    def _updated(self, step: int) -> bool:
        done = super()._updated(step)
        if done and step + 1 >= self._rounds.rounds:
            self._initial = {}
        return done
