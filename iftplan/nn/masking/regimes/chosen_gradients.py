"""Dense weights of which only some are trained: a mask on their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from iftplan.nn.masking.algorithms.sara import SaRA
from iftplan.nn.masking.masked_model import Subject
from iftplan.nn.masking.optimizer.slots import clear_slots_
from iftplan.nn.masking.regimes.sparse_weights import Held
from iftplan.nn.masks.masked_weights import MaskedWeight, from_matrix, to_matrix
from iftplan.nn.masks.shards import local, part_of, whole


def nuclear_gradient(matrix: Tensor) -> Tensor:
    """Subgradient U·Vᵀ of the nuclear norm Σσ, over the singular vectors whose σ is not zero.

    Args:
        matrix: M = U·Σ·Vᵀ, or several (…, rows, columns).

    Example:
        >>> nuclear_gradient(torch.tensor([[3.0, 0.0], [0.0, -2.0]])).round().tolist()
        [[1.0, 0.0], [0.0, -1.0]]
    """
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    floor = values.amax(-1, keepdim=True) * max(matrix.shape[-2:]) * torch.finfo(matrix.dtype).eps
    product: Tensor = (left * (values > floor).unsqueeze(-2)) @ right
    return product


class Chosen:
    """Regime under which every weight computes and the chosen ones learn; the model's masks stay full.

    Args:
        subject: the weights, whose targets say how many of each are trained.
        algorithm: chooses them.
    """

    ahead = 0

    def __init__(self, subject: Subject, algorithm: SaRA) -> None:
        self._subject = subject
        self._algorithm = algorithm
        self._chosen: dict[str, Tensor] = {}
        self._sizes: dict[str, int] = {}
        self._held: dict[str, Tensor] = {}
        self._choose_(0)

    def wants_dense_gradient(self, step: int, *, due: bool) -> bool:
        """Whether the step looks at gradients of other weights: never."""
        return False

    def took_dense_gradient(self, step: int, *, updated: bool) -> bool:
        """Whether the step has done so: never."""
        return False

    def reached(self) -> Mapping[str, int]:
        """Number of weights that the step trains, by name."""
        return self._sizes

    def probed(self) -> tuple[Mapping[str, int], ...]:
        """None: weights are chosen by their size alone."""
        return ()

    def written_(self) -> None:
        """Nothing: weights that were written are trained from there."""

    def correct_(self, step: int, *, due: bool) -> None:
        """Choose anew if that is due, set the gradients of all other weights to zero and add the nuclear norm's, in place."""
        if due:
            self._choose_(step)
        for view in self._subject.views:
            gradient, chosen = view.weight.parameter.grad, self._chosen[view.weight.name]
            if gradient is not None:
                local(gradient).masked_fill_(part_of(~chosen, gradient), 0)
                if self._algorithm.nuclear:
                    added = _nuclear(view.weight, chosen).to(gradient.dtype)
                    local(gradient).add_(part_of(added, gradient), alpha=self._algorithm.nuclear)

    def before_(self, step: int, *, due: bool) -> bool:
        """Keep the values of the weights, which decay and momentum would move too; whether the choice has changed."""
        if not self._held:
            self._held = {
                v.weight.name: local(v.weight.parameter.detach()).clone() for v in self._subject.views
            }
        return False

    def after_(self, step: int, *, due: bool) -> bool:
        """Put the weights that are not chosen back, and forget what the optimizer has of them; whether the choice was new."""
        for view in self._subject.views:
            name, parameter = view.weight.name, view.weight.parameter
            value, others = local(parameter.detach()), ~self._chosen[name]
            value.copy_(torch.where(part_of(others, parameter), self._held[name], value))
            clear_slots_(self._subject.optimizer, parameter, others)
        self._held = {}
        return due

    def hold_(self) -> None:
        """Nothing: masks are full."""

    def ended(self) -> Held:
        """Regime of full masks."""
        return Held(self._subject, self._algorithm)

    def state_dict(self, *, parts: bool = False) -> dict[str, Any]:
        """State with the weights that are chosen, by name."""
        return {"trained": self._chosen}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on with the choice of a state; without one, as after a run that has ended, choose anew."""
        if state is None:
            self._choose_(0)
            return
        device = self._subject.device
        self._take_({name: mask.to(device).clone() for name, mask in state["trained"].items()})

    def _choose_(self, step: int) -> None:
        """Choose among all weights; the choice stays where some are not finite."""
        changes = self._subject.changes(self._algorithm, step, self._subject.views)
        if changes is not None:
            self._take_({view.weight.name: view.whole(change.mask) for view, change in changes})

    def _take_(self, chosen: dict[str, Tensor]) -> None:
        self._chosen = chosen
        self._sizes = {name: int(mask.count_nonzero()) for name, mask in chosen.items()}


def _nuclear(weight: MaskedWeight, chosen: Tensor) -> Tensor:
    """Gradient of the nuclear norm of the trained weights, each matrix of a stack by itself; zero where some are not finite.

    Args:
        weight: whole on every process for the time of the call.
        chosen: where it is trained.
    """
    trained = to_matrix(whole(weight.parameter.detach()).float() * chosen, weight)
    if not trained.isfinite().all():
        return torch.zeros_like(chosen, dtype=trained.dtype)
    stack = trained.reshape(weight.experts, -1, trained.shape[-1])
    return from_matrix(nuclear_gradient(stack).reshape(trained.shape), weight) * chosen
