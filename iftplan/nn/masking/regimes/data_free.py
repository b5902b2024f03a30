"""Weights that are pruned without data, in rounds of passes over one sample of ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from iftplan.nn.masking.algorithms.base import InRounds
from iftplan.nn.masking.masked_model import Subject
from iftplan.nn.masking.measures.synaptic_flow import Ones, synaptic_flow
from iftplan.nn.masking.regimes.sparse_weights import Held


class _Looking:
    """Hook that remembers the shapes of what a model was last given; it knows nothing else, so that models can be copied."""

    def __init__(self) -> None:
        self.inputs: Ones | None = None

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.inputs = Ones.like(args, kwargs)


class DataFree(Held):
    """Regime that prunes in rounds at its update, by scores that follow from the weights alone.

    Args:
        subject: the weights.
        algorithm: how they are pruned, in rounds.
    """

    def __init__(self, subject: Subject, algorithm: InRounds) -> None:
        super().__init__(subject, algorithm)
        self._rounds = algorithm.rounds
        self._looking = _Looking()
        self._probed: tuple[Mapping[str, int], ...] = ()
        self._hook = subject.model.register_forward_pre_hook(self._looking, with_kwargs=True)

    def probed(self) -> tuple[Mapping[str, int], ...]:
        """Weights that were kept in each of the passes over one sample."""
        return self._probed

    def ended(self) -> Held:
        """Regime that holds what is left."""
        self._hook.remove()
        return Held(self._subject, self._algorithm)

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Forget what an update has prepared, and the passes of another step."""
        super().load_state_dict(state)
        self._probed = ()

    def _scored(self) -> dict[str, Tensor | None]:
        return dict.fromkeys(super()._scored())

    @torch.no_grad()
    def _updated(self, step: int) -> bool:
        scores, self.scores, self._probed = self.scores, None, ()
        if scores is None or self._skipped():
            return False
        subject, probed = self._subject, []
        for done in range(self._rounds):
            probed.append(dict(subject.factors.nnz))
            flow = synaptic_flow(subject.model, [view.weight for view in subject.views], self._looking.inputs)
            rows = {view.weight.name: view.rows(flow[view.weight.name]) for view in subject.views}
            changes = subject.changes(self._algorithm, done, subject.views, rows)
            if changes is None:
                return False
            for view, change in changes:
                self._change_(view, change)
            subject.factors.leave()
        self._probed = tuple(probed)
        self._hook.remove()
        return True
