"""Weights that are zero off their masks at all times: gradients are too, and masks change by dropping and growing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.base.user_warnings import warn_user
from iftplan.nn.masking.algorithms.base import Algorithm, Order, Scores
from iftplan.nn.masking.layer import Change
from iftplan.nn.masking.masked_model import Subject
from iftplan.nn.masking.optimizer.slots import clear_slots_
from iftplan.nn.masks.shards import local, part_of, whole
from iftplan.nn.masks.view import View


class Held:
    """Regime that trains only the weights that masks keep.

    Args:
        subject: the weights.
        algorithm: how their masks change.

    Attributes:
        scores: what the update that is prepared will look at, by weight; None where none is.
    """

    ahead = 0

    def __init__(self, subject: Subject, algorithm: Algorithm) -> None:
        self._subject = subject
        self._algorithm = algorithm
        self.scores: dict[str, Tensor | None] | None = None

    def wants_dense_gradient(self, step: int, *, due: bool) -> bool:
        """Whether the step looks at gradients off the masks: at updates by gradients."""
        return due and self._algorithm.scores not in (Scores.NONE, Scores.KEPT)

    def took_dense_gradient(self, step: int, *, updated: bool) -> bool:
        """Whether an update by gradients was done in the step; one that is postponed costs nothing."""
        return updated and self._algorithm.scores is Scores.GRADIENT

    def reached(self) -> Mapping[str, int] | None:
        """None: the step trains what its masks keep; where weights do not require gradients, none of those."""
        weights = [view.weight for view in self._subject.views]
        if all(weight.requires_grad for weight in weights):
            return None
        nnz = self._subject.factors.nnz
        return {weight.name: nnz[weight.name] if weight.requires_grad else 0 for weight in weights}

    def probed(self) -> tuple[Mapping[str, int], ...]:
        """None: updates look at what the step computes."""
        return ()

    def written_(self) -> None:
        """Set weights to zero that a loaded state or an average has off the masks."""
        self._subject.enforce_()

    def correct_(self, step: int, *, due: bool) -> None:
        """Set gradients to zero off the masks; if masks are due, remember dense scores before."""
        if step == 0 and self._algorithm.starts_dense:
            self._warn_of_sparse_start()
        self.scores = self._scored() if due and self._finite() else None
        self._subject.factors.apply_()

    def before_(self, step: int, *, due: bool) -> bool:
        """Update in the place of the optimizer's step, if that is the order; it passes over absent gradients."""
        if self._algorithm.order != Order.REPLACE or not self._updated(step):
            return False
        for group in self._subject.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        return True

    def after_(self, step: int, *, due: bool) -> bool:
        """Update after the step on the old masks, if that is the order."""
        self._subject.keep_zeros_()
        return self._algorithm.order == Order.AFTER and self._updated(step)

    def hold_(self) -> None:
        """Set weights and optimizer state to zero off the masks."""
        self._subject.enforce_()
        self._subject.clear_slots_()

    def ended(self) -> Held:
        """The same regime: nothing is left to put away."""
        return self

    def state_dict(self, *, parts: bool = False) -> dict[str, Any] | None:
        """None: the model, the optimizer and the masks say everything."""
        return None

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Discard a prepared mask update."""
        self.scores = None

    def _warn_of_sparse_start(self) -> None:
        subject = self._subject
        zeros = (
            int((whole(view.weight.parameter) == 0).sum())
            >= view.weight.mask.numel() - view.weights(subject.targets[view.weight.name])
            for view in subject.views
        )
        if subject.density == 1 and all(zeros):
            warn_user(
                f"{type(self._algorithm).__name__} starts dense, but the weights outside the plan's masks are already "
                "zero; apply the plan with dense_start=True."
            )

    def _finite(self) -> bool:
        """Whether every gradient of the step is, on every process, those of weights without masks too."""
        gradients = (p.grad for group in self._subject.optimizer.param_groups for p in group["params"])
        return self._subject.finite(
            g.coalesce().values() if g.is_sparse else local(g) for g in gradients if g is not None
        )

    def _scored(self) -> dict[str, Tensor | None]:
        """What an update will look at, of every weight that is trained: rows of |g| or of |θ·g|, or nothing."""
        trained = {id(p) for group in self._subject.optimizer.param_groups for p in group["params"]}
        scores: dict[str, Tensor | None] = {}
        for view in self._subject.views:
            parameter, gradient = view.weight.parameter, view.weight.parameter.grad
            if view.weight.name in self._subject.frozen:
                continue
            if gradient is not None and id(parameter) in trained:
                scores[view.weight.name] = self._score(view, parameter, gradient)
            elif not (self._algorithm.scores is Scores.NONE or self._algorithm.scores.of_gradients):
                raise InputError(
                    f"{view.weight.name} has no gradient in the step in which masks are chosen by saliency; train it in "
                    "this step, or choose by magnitude (Gradual)."
                )
        return scores

    def _score(self, view: View, parameter: Tensor, gradient: Tensor) -> Tensor | None:
        match self._algorithm.scores:
            case Scores.GRADIENT:
                return view.rows(view.seen(gradient).abs())
            case Scores.KEPT:
                return view.rows(view.seen(gradient).abs() * view.seen(view.weight.mask))
            case Scores.SALIENCY:
                return view.rows((view.seen(gradient) * view.seen(parameter)).abs())
            case _:
                return None

    def _updated(self, step: int) -> bool:
        """Let the algorithm choose new masks if that was prepared; whether it did."""
        scores, self.scores = self.scores, None
        if scores is None or self._skipped():
            return False
        dense = self._algorithm.starts_dense
        views = [view for view in self._subject.views if view.weight.name in scores or dense]
        changes = self._subject.changes(self._algorithm, step, views, scores)
        for view, change in changes or ():
            self._change_(view, change)
        return changes is not None

    def _skipped(self) -> bool:
        """Whether a gradient scaler has told a fused optimizer to change nothing in this step."""
        found = getattr(self._subject.optimizer, "found_inf", None)
        return found is not None and bool(found)

    def _change_(self, view: View, change: Change) -> None:
        weight = view.weight
        kept, grown = view.whole(change.mask), view.whole(change.grown)
        restart = ~kept | (grown & ~weight.mask if self._algorithm.keep_values else grown)
        weight.mask.copy_(kept)
        local(weight.parameter.detach()).masked_fill_(part_of(restart, weight.parameter), 0)
        clear_slots_(self._subject.optimizer, weight.parameter, restart)
