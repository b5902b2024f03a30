"""Sparse training in anyone's loop: one object from the model and the optimizer, one call per step.

    masks = nn.Masking(model, optimizer, nn.RigL(nn.Updates(end=7500)))
    ...
    loss.backward()
    masks.step()        # after unscaling and all-reduce, before clipping
    optimizer.step()

`step` sets gradients to zero off the mask. On an update step it remembers the dense gradient's scores, and the
optimizer's own hooks change the mask when its step is taken: an optimizer step that is skipped, as gradient
scalers do on overflow, postpones the update.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from iftplan.errors import InputError, StaleError
from iftplan.masks import MaskStructure, Unstructured, parse_mask
from iftplan.nn.masking.algorithm import Algorithm, Order, Scores
from iftplan.nn.masking.exploration import Exploration
from iftplan.nn.masking.gradients import MaskFactors
from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masking.layouts import Flat, Layout, layout_of
from iftplan.nn.masking.slots import clear_slots_, innermost
from iftplan.nn.masking.static import Static
from iftplan.nn.masks import MaskedWeight, enforce_, from_matrix, masked_weights, stream, to_matrix


class Masking:
    """Keeps a model's weights on their masks and lets an algorithm change the masks.

    Args:
        model: has masks beside its weights (`iftplan.nn.apply`).
        optimizer: of that model; engines' wrappers are seen through.
        algorithm: how masks change; `Static()` if not given.
        structure: what masks may look like, as a value or in the notation of plans.
        seed: of random growth.

    Raises:
        InputError: the model has no masks, or the algorithm cannot keep the structure.

    Attributes:
        steps: calls of `step` so far.
        exploration: what the masks have seen so far.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        algorithm: Algorithm = Static(),  # noqa: B008  (a frozen value)
        *,
        structure: MaskStructure | str = Unstructured(),  # noqa: B008
        seed: int = 0,
    ) -> None:
        self.model = model
        self.optimizer = innermost(optimizer)
        self.algorithm = algorithm
        self.structure = parse_mask(structure) if isinstance(structure, str) else structure
        self.seed = seed
        self.steps = 0
        self._weights = tuple(masked_weights(model))
        if not self._weights:
            raise InputError(
                f"{type(model).__name__} has no masked weights; make them with iftplan.nn.apply first."
            )
        self._layout: Layout = Flat() if isinstance(algorithm, Static) else layout_of(self.structure)
        self._targets = {w.name: self._units(w) for w in self._weights}
        self._due = False
        self._scores: dict[str, Tensor] | None = None
        self._factors = MaskFactors(self._weights)
        if algorithm.starts_dense:
            self._open_()
        self._hold_()
        self.exploration = Exploration.of(self.masks())
        self.optimizer.register_step_pre_hook(self._before_optimizer)
        self.optimizer.register_step_post_hook(self._after_optimizer)

    def masks(self) -> dict[str, Tensor]:
        """The masks by weight, as they are now."""
        return {weight.name: weight.mask for weight in self._weights}

    @torch.no_grad()
    def step(self) -> None:
        """Set gradients to zero off the mask; on an update step, prepare the update that the optimizer's step makes."""
        self._scores = None
        self._due = self._due or self.algorithm.due(self.steps)
        if self._due and self._finite():
            self._scores = self._scored()
        self._factors.apply_()
        self.steps += 1

    @property
    def density(self) -> float:
        """Kept over all masked weights."""
        kept = sum(int(w.mask.count_nonzero()) for w in self._weights)
        return kept / sum(w.mask.numel() for w in self._weights)

    def metrics(self) -> dict[str, float]:
        """Density, ITOP rate, degree of constraint, churn of the last update (0 before the first), updates."""
        seen = self.exploration
        return {
            "density": self.density,
            "itop": seen.itop_rate,
            "degree_of_constraint": seen.degree_of_constraint,
            "churn": seen.churn or 0.0,
            "mask_updates": seen.updates,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs beside the model's and the optimizer's own state."""
        seen = self.exploration
        return {
            "steps": self.steps,
            "due": self._due,
            "targets": dict(self._targets),
            "ever": dict(seen.ever),
            "always": dict(seen.always),
            "churn": seen.churn,
            "updates": seen.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; load the model's and the optimizer's own state first.

        Raises:
            StaleError: the state is of another model.
        """
        if {k: tuple(m.shape) for k, m in state["ever"].items()} != {
            k: tuple(m.shape) for k, m in self.masks().items()
        }:
            raise StaleError("the masks' state is of another model: its masked weights differ.")
        self.steps, self._due = int(state["steps"]), bool(state["due"])
        self._targets = dict(state["targets"])
        self.exploration = Exploration(
            dict(state["ever"]), dict(state["always"]), state["churn"], int(state["updates"])
        )
        self._scores = None
        self._hold_()

    def _units(self, weight: MaskedWeight) -> int:
        return self._layout.units(int(weight.mask.count_nonzero()), self._matrix(weight.mask, weight))

    def _open_(self) -> None:
        for weight in self._weights:
            weight.mask.fill_(True)

    def _hold_(self) -> None:
        """Weights and optimizer state at zero off the masks."""
        enforce_(self.model)
        for weight in self._weights:
            clear_slots_(self.optimizer, weight.parameter, ~weight.mask)

    def _matrix(self, tensor: Tensor, weight: MaskedWeight) -> Tensor:
        # the order of weights is nothing to an unstructured mask
        return tensor if isinstance(self._layout, Flat) else to_matrix(tensor, weight)

    def _rows(self, tensor: Tensor, weight: MaskedWeight) -> Tensor:
        return self._layout.rows(self._matrix(tensor, weight))

    def _finite(self) -> bool:
        gradients = [g for w in self._weights if (g := w.parameter.grad) is not None]
        return all(bool(g.isfinite().all()) for g in gradients)

    def _scored(self) -> dict[str, Tensor]:
        """What an update will look at: rows of |g| or |θ·g|; nothing where the algorithm asks for nothing."""
        if self.algorithm.scores is Scores.NONE:
            return {}
        scores = {}
        for weight in self._weights:
            gradient = weight.parameter.grad
            dense = torch.zeros_like(weight.parameter) if gradient is None else gradient
            if self.algorithm.scores is Scores.SALIENCY:
                dense = dense * weight.parameter
            scores[weight.name] = self._rows(dense.abs(), weight)
        return scores

    def _before_optimizer(self, *_: Any) -> None:
        if self._scores is not None and self.algorithm.order == Order.REPLACE:
            self._update_()
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None  # optimizers pass over parameters without gradients

    def _after_optimizer(self, *_: Any) -> None:
        if self._scores is not None and self.algorithm.order == Order.AFTER:
            self._update_()

    @torch.no_grad()
    def _update_(self) -> None:
        """Let the algorithm choose new masks, and move weights and optimizer state onto them."""
        scores, step = self._scores or {}, self.steps - 1
        before = {name: mask.clone() for name, mask in self.masks().items()}
        layers = [self._layer(weight, scores.get(weight.name), step) for weight in self._weights]
        for weight, change in zip(self._weights, self.algorithm.update(layers, step), strict=True):
            self._change_(weight, change)
        self.exploration = self.exploration.after(before, self.masks())
        self._scores, self._due = None, False

    def _layer(self, weight: MaskedWeight, scores: Tensor | None, step: int) -> Layer:
        rows = partial(self._rows, weight=weight)
        mask = rows(weight.mask.to(torch.float32)) > 0
        gradient = scores if self.algorithm.scores is Scores.GRADIENT else None
        saliency = scores if self.algorithm.scores is Scores.SALIENCY else None
        generator = stream(self.seed, f"{weight.name} at {step}")
        magnitude = rows(weight.parameter.detach().abs())
        return Layer(weight.name, magnitude, gradient, saliency, mask, self._targets[weight.name], generator)

    def _change_(self, weight: MaskedWeight, change: Change) -> None:
        kept, grown = self._whole(change.mask, weight), self._whole(change.grown, weight)
        restart = ~kept | (grown if not self.algorithm.keep_values else grown & ~weight.mask)
        weight.mask.copy_(kept)
        weight.parameter.detach().masked_fill_(restart, 0)
        clear_slots_(self.optimizer, weight.parameter, restart)

    def _whole(self, rows: Tensor, weight: MaskedWeight) -> Tensor:
        matrix = self._layout.mask(rows, self._matrix(weight.mask, weight))
        return matrix if isinstance(self._layout, Flat) else from_matrix(matrix, weight)
