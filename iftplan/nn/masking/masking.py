"""Sparse training in anyone's loop: one object from the model and the optimizer, one call per step.

    masks = nn.Masking(model, optimizer, nn.RigL(Updates(end=7500)))
    ...
    loss.backward()
    masks.step()        # once per optimizer step; after unscaling and all-reduce, before clipping
    optimizer.step()

`step` sets gradients to zero off the mask. On an update step it remembers the dense gradient's scores, and the
optimizer's own hooks change the mask when its step is taken: an optimizer step that is skipped, as gradient
scalers do on overflow, postpones the update.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from iftplan.errors import InputError, StaleError
from iftplan.masks import MaskStructure, Unstructured, parse_mask
from iftplan.nn.masking.admission import admitted
from iftplan.nn.masking.algorithm import Algorithm, LatentAlgorithm, Order, Scores
from iftplan.nn.masking.exploration import Exploration
from iftplan.nn.masking.gradients import MaskFactors
from iftplan.nn.masking.hooks import attach
from iftplan.nn.masking.latent import Latents
from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masking.ranks import Ranks
from iftplan.nn.masking.slots import clear_slots_, keeps_zeros
from iftplan.nn.masking.static import Static
from iftplan.nn.masking.taken import Taken
from iftplan.nn.masking.view import View
from iftplan.nn.masking.wrappers import bare, innermost
from iftplan.nn.masks import enforce_, stream
from iftplan.nn.shards import local, part_of, reshard_, whole


class Masking:
    """Keeps a model's weights on their masks and lets an algorithm change the masks.

    Weights that the optimizer does not train keep their masks under algorithms that drop and grow; so do, for one
    update, weights that have no gradient in it.

    Args:
        model: has masks beside its weights (`iftplan.nn.apply`).
        optimizer: of that model; engines' wrappers of both are seen through.
        algorithm: how masks change; `Static()` if not given.
        structure: what masks may look like, as a value or in the notation of plans.
        seed: of random growth.

    Raises:
        InputError: the model has no masks, the algorithm cannot keep the structure, or something else changes
            the weights or the masks too.

    Attributes:
        steps: calls of `step` so far.
        taken: the masks that the last step computed with, for a ledger (`iftplan.nn.masking.taken`).
        exploration: what the masks have seen so far.
        release: stops all that is done around the optimizer's steps; the optimizer is free for another `Masking`.
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
        self._ranks = Ranks.of(model)
        self.model = bare(model)
        reshard_(self.model)
        self.optimizer: Optimizer = innermost(optimizer)
        self.algorithm = algorithm
        self.structure = parse_mask(structure) if isinstance(structure, str) else structure
        self.seed = seed
        self.steps = 0
        self._views = admitted(self.model, self.optimizer, algorithm, self.structure)
        self._targets = {view.weight.name: view.target() for view in self._views}
        self._due = self._within = self._asked = self._entered = False
        self._latents: Latents | None = None
        self._scores: dict[str, Tensor | None] | None = None
        self._factors = MaskFactors([view.weight for view in self._views])
        self.release = attach(self, self.optimizer, self._before_optimizer, self._after_optimizer)
        if algorithm.starts_dense:
            self._open_()
        if isinstance(algorithm, LatentAlgorithm):
            self._latents = Latents([view.weight for view in self._views])
            self._choose_(self._latents, algorithm, 0)
            self._latents.leave_(algorithm.leak(0))
        self._hold_()
        self.taken = self._taken()
        self.exploration = Exploration.of(self.masks())

    def masks(self) -> dict[str, Tensor]:
        """The masks by weight, as they are now."""
        return {view.weight.name: view.weight.mask for view in self._views}

    @torch.no_grad()
    def step(self) -> None:
        """Set gradients to zero off the mask; on an update step, prepare what the optimizer's step will do to masks.

        Called once for each step of the optimizer, also where gradients of several batches are accumulated.
        """
        self._asked = True
        self.taken = self._taken()
        if isinstance(self.algorithm, LatentAlgorithm) and self._latents is not None:
            self._latent_step_(self.algorithm, self._latents)
            return
        if self.steps == 0 and self.algorithm.starts_dense:
            self._warn_of_sparse_start()
        self._scores = None
        self._due = self._due or self.algorithm.due(self.steps)
        if self._due and self._finite():
            self._scores = self._scored()
        self._factors.apply_()
        self.steps += 1
        if self._within:  # called by a closure, inside the optimizer's step
            self._replace_()

    @torch.no_grad()
    def _latent_step_(self, algorithm: LatentAlgorithm, latents: Latents) -> None:
        """The gradients of θ; masks are chosen when the optimizer has moved it."""
        latents.correct_(straight=algorithm.straight, pull=algorithm.pull)
        self.steps += 1
        self._due = self._due or algorithm.due(self.steps)
        if self._within:
            self._enter_()

    @torch.no_grad()
    def finish(self) -> None:
        """End training under the algorithm: weights and optimizer state are zero off the masks from now on.

        Where dense weights were behind the masked ones they are forgotten. The optimizer is free for another
        `Masking`; without one, nothing keeps its next steps on the masks.
        """
        self.release()
        if self._latents is not None:
            self._latents.leave_(0.0)
            self._latents = None
        self._hold_()

    @property
    def nnz(self) -> Mapping[str, int]:
        """Parameter name → weights that its mask keeps now."""
        return self._factors.nnz

    @property
    def density(self) -> float:
        """Kept over all masked weights."""
        return sum(self.nnz.values()) / sum(view.weight.mask.numel() for view in self._views)

    @property
    def wants_dense_gradient(self) -> bool:
        """Whether the step that begins now will look at gradients off the masks, or masks are no limit to them."""
        if isinstance(self.algorithm, LatentAlgorithm):
            return True
        looks = self.algorithm.scores is not Scores.NONE
        return looks and (self._due or self.algorithm.due(self.steps))

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
        """Everything that a resumed run needs beside the model's and the optimizer's own state.

        The masks are in it too: they are the model's, but a new `Masking` may have opened them since.
        """
        seen = self.exploration
        return {
            "steps": self.steps,
            "due": self._due,
            "seed": self.seed,
            "targets": dict(self._targets),
            "masks": self.masks(),
            "ever": dict(seen.ever),
            "always": dict(seen.always),
            "churn": seen.churn,
            "updates": seen.updates,
            "latent": self._latents.state_dict() if self._latents is not None else None,
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; load the model's and the optimizer's own state first.

        Raises:
            StaleError: the state is of another model, or of something else.
        """
        shapes = {name: mask.shape for name, mask in self.masks().items()}
        if {name: mask.shape for name, mask in state.get("masks", {}).items()} != shapes:
            raise StaleError("the masks' state is of another model: its masked weights differ.")
        for name, mask in self.masks().items():
            mask.copy_(state["masks"][name])
        if self._latents is not None:
            self._load_latents_(self._latents, state.get("latent"))
        self.steps, self._due, self.seed = int(state["steps"]), bool(state["due"]), int(state["seed"])
        self._targets = dict(state["targets"])
        ever, always = (
            {name: mask.to(self._device) for name, mask in state[kind].items()} for kind in ("ever", "always")
        )
        self.exploration = Exploration(ever, always, state["churn"], int(state["updates"]))
        self._scores = None
        self._hold_()
        self.taken = self._taken()

    def _load_latents_(self, latents: Latents, state: Mapping[str, Any] | None) -> None:
        """Of a state without them, such as that of a run that has ended, θ is what the parameters are."""
        if state is None:
            latents.keep_()
        else:
            latents.load_state_dict(state)

    def _taken(self) -> Taken:
        """Of a step that computes with the masks there are; an update by the dense gradient is entered when it is done."""
        straight = isinstance(self.algorithm, LatentAlgorithm) and self.algorithm.straight
        return Taken(self._factors.nnz, dense_gradient=straight)

    def _open_(self) -> None:
        for view in self._views:
            view.weight.mask.fill_(True)

    @torch.no_grad()
    def _hold_(self) -> None:
        """Weights and optimizer state at zero off the masks."""
        enforce_(self.model)
        for view in self._views if self._latents is None else ():
            clear_slots_(self.optimizer, view.weight.parameter, ~view.weight.mask)
        self._ranks.check(self.masks(), self.steps)

    def _warn_of_sparse_start(self) -> None:
        zeros = (
            int((whole(view.weight.parameter) == 0).sum())
            >= view.weight.mask.numel() - view.weights(self._targets[view.weight.name])
            for view in self._views
        )
        if self.density == 1 and all(zeros):
            warnings.warn(
                f"{type(self.algorithm).__name__} starts dense, and the weights off the plan's masks are zero already; apply the plan with dense_start=True.",
                stacklevel=3,
            )

    def _finite(self) -> bool:
        """Whether every gradient of the step is, on every process, those of weights without masks too."""
        gradients = (p.grad for group in self.optimizer.param_groups for p in group["params"])
        values = (g.coalesce().values() if g.is_sparse else local(g) for g in gradients if g is not None)
        return self._ranks.all(all(bool(g.isfinite().all()) for g in values), self._device)

    def _scored(self) -> dict[str, Tensor | None]:
        """What an update will look at, of every weight that is trained: rows of |g| or of |θ·g|, or nothing."""
        trained = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        scores: dict[str, Tensor | None] = {}
        for view in self._views:
            parameter, gradient = view.weight.parameter, view.weight.parameter.grad
            if gradient is not None and id(parameter) in trained:
                scores[view.weight.name] = self._score(view, parameter, gradient)
            elif self.algorithm.scores is Scores.SALIENCY:
                raise InputError(
                    f"{view.weight.name} has no gradient in the step that chooses by saliency; train it in this step, or mask it by magnitude (Gradual)."
                )
        return scores

    def _score(self, view: View, parameter: Tensor, gradient: Tensor) -> Tensor | None:
        match self.algorithm.scores:
            case Scores.NONE:
                return None
            case Scores.GRADIENT:
                return view.rows(whole(gradient).abs())
            case Scores.SALIENCY:
                return view.rows((whole(gradient) * whole(parameter)).abs())

    def _before_optimizer(self) -> None:
        self._within = True
        if self._asked:
            self._enter_()
        self._replace_()

    def _enter_(self) -> None:
        """θ is what the optimizer moves, if there is any behind the weights."""
        if self._latents is not None and not self._entered:
            self._latents.enter_()
            self._entered = True

    def _replace_(self) -> None:
        """Update in the place of the optimizer's step, if that is the order; it passes over absent gradients."""
        if self.algorithm.order == Order.REPLACE and self._updated():
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def _after_optimizer(self) -> None:
        self._within = False
        if self._entered:
            self._settle_()
        elif not keeps_zeros(self.optimizer):
            self._factors.hold_()
        if self.algorithm.order == Order.AFTER and self._latents is None:
            self._updated()
        if not self._asked and not self._factors.holds():
            warnings.warn(
                "the optimizer took a step without masks.step(), and weights off the masks are no longer zero; call masks.step() before each of its steps.",
                stacklevel=3,
            )
        self._asked = False

    @torch.no_grad()
    def _settle_(self) -> None:
        """Take θ out of the parameters, and leave there what the next step computes with."""
        algorithm, latents = self.algorithm, self._latents
        assert isinstance(algorithm, LatentAlgorithm)
        assert latents is not None
        self._entered = False
        latents.keep_()
        before = {name: mask.clone() for name, mask in self.masks().items()} if self._due else {}
        chosen = self._due and self._choose_(latents, algorithm, self.steps)
        latents.leave_(algorithm.leak(self.steps))
        if chosen:
            self._due = False
            self._ranks.check(self.masks(), self.steps)
            self.exploration = self.exploration.after(before, self.masks())

    @torch.no_grad()
    def _choose_(self, latents: Latents, algorithm: LatentAlgorithm, step: int) -> bool:
        """Have the masks of a step chosen by the parameters, which are θ; whether they are finite."""
        layers = [self._layer(view, None, step) for view in self._views]
        if not self._ranks.all(all(bool(x.magnitude.isfinite().all()) for x in layers), self._device):
            return False
        for view, change in zip(self._views, algorithm.update(layers, step), strict=True):
            latents.choose_(view.weight.name, view.whole(change.mask))
        return True

    @torch.no_grad()
    def _updated(self) -> bool:
        """Let the algorithm choose new masks if it is time; whether it was."""
        scores, self._scores = self._scores, None
        if scores is None or self._skipped():
            return False
        step = self.steps - 1
        views = [v for v in self._views if v.weight.name in scores or self.algorithm.starts_dense]
        layers = [self._layer(view, scores.get(view.weight.name), step) for view in views]
        sound = all(bool(layer.magnitude.isfinite().all()) for layer in layers)
        if not self._ranks.all(sound, self._device):
            return False
        before = {name: mask.clone() for name, mask in self.masks().items()}
        for view, change in zip(views, self.algorithm.update(layers, step), strict=True):
            self._change_(view, change)
        self._ranks.check(self.masks(), self.steps)
        self.exploration = self.exploration.after(before, self.masks())
        self.taken = replace(self.taken, dense_gradient=self.algorithm.scores is Scores.GRADIENT)
        self._due = False
        return True

    def _skipped(self) -> bool:
        """Whether a gradient scaler has told a fused optimizer to change nothing in this step."""
        found = getattr(self.optimizer, "found_inf", None)
        return found is not None and bool(found)

    @property
    def _device(self) -> torch.device:
        return self._views[0].weight.mask.device

    def _layer(self, view: View, scores: Tensor | None, step: int) -> Layer:
        name, magnitude = view.weight.name, view.rows(whole(view.weight.parameter.detach()).abs())
        gradient = scores if self.algorithm.scores is Scores.GRADIENT else None
        saliency = scores if self.algorithm.scores is Scores.SALIENCY else None
        generator = stream(self.seed, f"{name} at {step}")
        mask, target = view.mask_rows(), self._targets[name]
        return Layer(name, magnitude, gradient, saliency, mask, target, generator, view.structure, view.short)

    def _change_(self, view: View, change: Change) -> None:
        weight = view.weight
        kept, grown = view.whole(change.mask), view.whole(change.grown)
        restart = ~kept | (grown & ~weight.mask if self.algorithm.keep_values else grown)
        weight.mask.copy_(kept)
        local(weight.parameter.detach()).masked_fill_(part_of(restart, weight.parameter), 0)
        clear_slots_(self.optimizer, weight.parameter, restart)
