"""Weights with a dense θ behind them, which is what the optimizer moves; masks are chosen from θ for the step that comes."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor
from typing import Any

from torch import Tensor

from iftplan.base.user_warnings import warn_user
from iftplan.nn.masking.algorithms.base import LatentAlgorithm
from iftplan.nn.masking.masked_model import Subject
from iftplan.nn.masking.optimizer.adams import AdamS
from iftplan.nn.masking.optimizer.slots import clear_slots_
from iftplan.nn.masking.regimes.latents import Latents
from iftplan.nn.masking.regimes.sparse_weights import Held
from iftplan.nn.masks.shards import whole
from iftplan.nn.masks.top_k import EXCLUDED, excluding, top_k_mask
from iftplan.nn.masks.view import View


class Behind:
    """Regime that trains all weights, of which forward passes see those that masks keep.

    Args:
        subject: the weights, which are θ now; they are left as step 0 computes with them.
        algorithm: how masks are chosen, and what is θ's gradient.
    """

    ahead = 1

    def __init__(self, subject: Subject, algorithm: LatentAlgorithm) -> None:
        self._subject = subject
        self._algorithm = algorithm
        self._latents = Latents([view.weight for view in subject.views])
        self._entered = False
        self._sizes: dict[str, int] = {}
        self._choose_(0)
        self._latents.leave_(algorithm.leak(0))

    def wants_dense_gradient(self, step: int, *, due: bool) -> bool:
        """Whether the step looks at gradients off the masks: always, they are no limit to θ's gradients."""
        return True

    def took_dense_gradient(self, step: int, *, updated: bool) -> bool:
        """Whether the step looked at all gradients off the masks: where they go straight through the mask."""
        return self._algorithm.straight and self._algorithm.margin is None

    def reached(self) -> Mapping[str, int] | None:
        """Number of weights that the step trains, where these are not those that its masks keep, nor all."""
        return None if self._algorithm.margin is None else self._sizes

    def probed(self) -> tuple[Mapping[str, int], ...]:
        """None: masks are chosen from θ alone."""
        return ()

    def written_(self) -> None:
        """Keep θ, which the optimizer moves, and warn that what was written to the weights is lost."""
        warn_user(
            "the weights were changed since the optimizer's last step (a loaded state, an average), but training "
            "continues from the dense weights behind them, which were not changed. Create a new Masking from the "
            "changed model."
        )

    def correct_(self, step: int, *, due: bool) -> None:
        """Make the gradients of the forward weights those of θ, in place."""
        self._latents.correct_(straight=self._algorithm.straight, pull=self._algorithm.pull)
        part = self._algorithm.shrinking(step)
        if isinstance(self._subject.optimizer, AdamS):  # which averages the decay with its momentum
            self._subject.optimizer.shrinking = self._latents.shrinking(part, self._algorithm.decay)
        elif part:
            self._latents.shrink_(part, self._algorithm.decay)

    def before_(self, step: int, *, due: bool) -> bool:
        """Put θ where the optimizer moves it, once for each of its steps."""
        if not self._entered:
            self._latents.enter_()
            self._entered = True
        return False

    def after_(self, step: int, *, due: bool) -> bool:
        """Take θ out of the parameters, and leave there what the next step computes with."""
        self._entered = False
        self._latents.spare_()
        self._latents.keep_()
        chosen = due and self._choose_(step)
        self._clear_slots_()
        self._latents.leave_(self._algorithm.leak(step))
        return chosen

    def hold_(self) -> None:
        """Set weights to zero off the masks; the optimizer's state is θ's."""
        self._subject.enforce_()

    def ended(self) -> Held:
        """Regime that holds what masks keep of θ, which is forgotten."""
        if isinstance(self._subject.optimizer, AdamS):
            self._subject.optimizer.shrinking = {}
        self._latents.leave_(0.0)
        return Held(self._subject, self._algorithm)

    def state_dict(self, *, parts: bool = False) -> dict[str, Any]:
        """State with θ and the masks chosen of it."""
        return self._latents.state_dict(parts=parts)

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Continue from a state; without one, as after a run that has ended, θ is what the parameters are."""
        if state is None:
            self._latents.keep_()
        else:
            self._latents.load_state_dict(state)
            self._count_()

    def _choose_(self, step: int) -> bool:
        """Have the masks of a step chosen by the parameters, which are θ; whether they are finite."""
        changes = self._subject.changes(self._algorithm, step, self._subject.views)
        for view, change in changes or ():
            mask = view.whole(change.mask)
            self._latents.choose_(view.weight.name, mask, self._reached(view, mask))
        self._count_()
        return changes is not None

    def _count_(self) -> None:
        self._sizes = {name: int(mask.count_nonzero()) for name, mask in self._latents.reached().items()}

    def _reached(self, view: View, mask: Tensor) -> Tensor | None:
        """The mask, and the largest of the other weights that are trained too; None for all of them."""
        margin = self._algorithm.margin
        if margin is None:
            return None
        others = excluding(whole(view.weight.parameter.detach()).abs(), mask).reshape(view.weight.experts, -1)
        free = int((others != EXCLUDED).sum(1).min())
        more = min(free, floor(round(margin * others.shape[1], 6)))
        return mask | top_k_mask(others, more).view(mask.shape)

    def _clear_slots_(self) -> None:
        """Set the optimizer's state to zero where θ is not trained, in place."""
        reached, optimizer = self._latents.reached(), self._subject.optimizer
        for view in self._subject.views:
            if view.weight.name in reached:
                clear_slots_(optimizer, view.weight.parameter, ~reached[view.weight.name])
