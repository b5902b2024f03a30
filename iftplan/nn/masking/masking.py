"""Sparse training in any loop: one object made from the model and the optimizer, one call per step.

    masks = nn.Masking(model, optimizer, nn.RigL(), steps=10_000)
    ...
    loss.backward()
    masks.step()        # once per optimizer step; after unscaling and all-reduce, before clipping
    optimizer.step()

`step` sets gradients to zero off the mask. On an update step it remembers the dense gradient's scores, and the
optimizer's own hooks change the mask when its step is taken: an optimizer step that is skipped, as gradient
scalers do on overflow, postpones the update.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from iftplan.base.arguments import check_arguments, names_in
from iftplan.base.errors import StaleError
from iftplan.base.user_warnings import warn_user
from iftplan.masks import MaskStructure, parse_mask
from iftplan.nn.masking.algorithms import for_training
from iftplan.nn.masking.algorithms.base import (
    Algorithm,
    InRounds,
    LatentAlgorithm,
    Recalling,
    Scores,
    Smoothing,
)
from iftplan.nn.masking.algorithms.exchange.srigl import SRigL
from iftplan.nn.masking.algorithms.sara import SaRA
from iftplan.nn.masking.algorithms.static import Static
from iftplan.nn.masking.masked_model import Subject
from iftplan.nn.masking.measures.exploration import Exploration
from iftplan.nn.masking.optimizer.hooks import attach
from iftplan.nn.masking.optimizer.wrappers import innermost_optimizer
from iftplan.nn.masking.preconditions import frozen_names, trainable_views
from iftplan.nn.masking.processes import Ranks
from iftplan.nn.masking.regimes.averaged_gradients import Averaged
from iftplan.nn.masking.regimes.base import Regime
from iftplan.nn.masking.regimes.chosen_gradients import Chosen
from iftplan.nn.masking.regimes.curvature import Curved
from iftplan.nn.masking.regimes.data_free import DataFree
from iftplan.nn.masking.regimes.latent_weights import Behind
from iftplan.nn.masking.regimes.recalled_weights import Recalled
from iftplan.nn.masking.regimes.sparse_weights import Held
from iftplan.nn.masking.step_masks import Taken
from iftplan.nn.masks.masked_weights import masked_weights, noted_structure
from iftplan.nn.masks.shards import is_sharded, local, reshard_, shard_like, whole
from iftplan.nn.meta.wrappers import bare


class Masking:
    """Masks of a model in training: weights stay zero off their masks, and an algorithm updates the masks.

    If an algorithm drops and grows, it leaves the masks of weights alone that the optimizer does not train, and skips
    weights that have no gradient at an update.

    Args:
        model: has masks beside its weights (`iftplan.nn.apply`).
        optimizer: of that model; model and optimizer may be wrapped by an engine such as Accelerate.
        algorithm: how masks change, as a value or by name, such as "rigl"; `Static()` if not given.
        structure: structure of the masks, as a value or in the notation of plans such as "2:4"; None for the one that
            `apply` or `sparsify` made them with.
        seed: random seed of growth.
        steps: optimizer steps of the whole training; algorithms whose schedule is a fraction of training need them.
        frozen: layers whose masks stay as they are while others move, by name or glob; their weights are trained.
        state: of a run that goes on, as `state_dict` gives it; loaded as by `load_state_dict`, and the model's masks
            may already be those of its checkpoint.

    Raises:
        InputError: the model has no masks, the algorithm cannot keep the structure, or something else changes
            the weights or the masks too; or masks are frozen that do not exist, or under a method that starts dense.
        StaleError: the state is of another model, or of something else.

    Attributes:
        steps: number of calls of `step` so far.
        taken: the masks that the last step computed with, for counting its MACs (`iftplan.nn.masking.step_masks`).
        exploration: share of the weights that the masks have covered so far.
        release: function that removes the hooks on the optimizer, so that another `Masking` can use it.
    """

    @check_arguments
    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        algorithm: Algorithm | str = Static(),  # noqa: B008  (a frozen value)
        *,
        structure: MaskStructure | str | None = None,
        seed: int = 0,
        steps: int | None = None,
        frozen: Collection[str] = (),
        state: Mapping[str, Any] | None = None,
    ) -> None:
        ranks = Ranks.of(model)
        self.model = bare(model)
        reshard_(self.model)
        self.optimizer: Optimizer = innermost_optimizer(optimizer)
        if structure is None:
            structure = noted_structure(self.model)
        self.structure = parse_mask(structure) if isinstance(structure, str) else structure
        algorithm = for_training(algorithm, self.structure, steps)
        if isinstance(algorithm, SRigL) and algorithm.exempt is None:
            # named now, for a classifier that takes no part in an update is still the last
            algorithm = replace(algorithm, exempt=[weight.name for weight in masked_weights(self.model)][-1:])
        self._algorithm = algorithm
        self.steps = 0
        short = None if state is None else state.get("short")
        views = trainable_views(self.model, self.optimizer, algorithm, self.structure, short)
        still = frozen_names(views, names_in("frozen", frozen), algorithm)
        self._subject = Subject(self.model, self.optimizer, views, ranks, seed, still)
        self._due = self._within = self._asked = False
        self.release = attach(self, self.optimizer, self._before_optimizer, self._after_optimizer)
        if state is not None:
            self._check_state(state)
            self._subject.targets = dict(state["targets"])
        elif algorithm.starts_dense:
            self._subject.open_(algorithm)
        self._regime = _regime_of(self._subject, algorithm)
        self._hold_()
        self.taken = self._taken()
        self.exploration = Exploration.of(self.masks())
        if state is not None:
            self.load_state_dict(state)

    def __repr__(self) -> str:
        """One line: the algorithm, how many weights are masked, how densely, and the steps so far."""
        return f"<Masking {type(self._algorithm).__name__}: {len(self.nnz)} masked weights at density {self.density:.4g}, {self.structure} masks, {self.steps} steps>"

    def masks(self) -> dict[str, Tensor]:
        """The masks by weight, as they are now."""
        return self._subject.masks()

    @torch.no_grad()
    def step(self) -> None:
        """Set gradients to zero off the mask; on an update step, prepare what the optimizer's step will do to masks.

        Where dense weights are behind the masked ones, gradients become theirs instead. Called once for each step
        of the optimizer, also where gradients of several batches are accumulated.
        """
        self._asked = True
        if not (self._within or self._subject.factors.untouched):
            self._regime.written_()
        self.taken = self._taken()
        self._due = self._now_due
        self._regime.correct_(self.steps, due=self._due)
        self.steps += 1
        if self._within:  # called by a closure, inside the optimizer's step
            self._turn_(self._regime.before_)

    @torch.no_grad()
    def finish(self) -> None:
        """End training under the algorithm: weights and optimizer state are zero off the masks from now on.

        Where dense weights were behind the masked ones they are forgotten. The optimizer is free for another
        `Masking`; without one, nothing keeps its next steps on the masks.
        """
        self.release()
        self._regime = self._regime.ended()
        self._hold_()

    @property
    def algorithm(self) -> Algorithm:
        """Algorithm that changes the masks; for another one, release this `Masking` and make the next."""
        return self._algorithm

    @property
    def seed(self) -> int:
        """Seed of random growth."""
        return self._subject.seed

    @property
    def nnz(self) -> Mapping[str, int]:
        """Parameter name → weights that its mask keeps now."""
        return self._subject.factors.nnz

    @property
    def density(self) -> float:
        """Kept weights over all masked weights, a fraction of 1."""
        return self._subject.density

    @property
    def wants_dense_gradient(self) -> bool:
        """Whether the step that begins now looks at gradients off the masks, or masks do not limit them."""
        return self._regime.wants_dense_gradient(self.steps, due=self._now_due)

    @property
    def changes_masks(self) -> bool:
        """Whether the step that begins now changes masks, if its gradients are finite."""
        return self._now_due

    @property
    def wants_graph(self) -> bool:
        """Whether the step that begins now needs second derivatives: `loss.backward(create_graph=masks.wants_graph)`."""
        return self._now_due and self._algorithm.scores is Scores.CURVATURE

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

    def state_dict(self, *, parts: bool = False) -> dict[str, Any]:
        """State that a resumed run needs beside the model's and the optimizer's own.

        The masks are in it too: they are the model's, but a new `Masking` may have opened them since.

        Args:
            parts: whether sharded tensors stay so, for sharded checkpoints; whole ones without it, for which every
                process has to call this.
        """
        seen = self.exploration
        return {
            "steps": self.steps,
            "due": self._due,
            "seed": self.seed,
            "targets": dict(self._subject.targets),
            "short": {
                view.weight.name: view.short if view.structure == self.structure else None
                for view in self._subject.views
            },
            "masks": _as_stored(self.masks(), parts=parts),
            "ever": _as_stored(seen.ever, parts=parts),
            "always": _as_stored(seen.always, parts=parts),
            "churn": seen.churn,
            "updates": seen.updates,
            "latent": self._regime.state_dict(parts=parts),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; load the model's and the optimizer's own state first.

        Raises:
            StaleError: the state is of another model, or of something else.
        """
        self._check_state(state)
        for name, mask in self.masks().items():
            mask.copy_(_as_held(state["masks"][name], mask))
        self._regime.load_state_dict(state.get("latent"))
        self.steps, self._due = int(state["steps"]), bool(state["due"])
        self._subject.seed, self._subject.targets = int(state["seed"]), dict(state["targets"])
        ever, always = (
            {name: _as_held(mask, self.masks()[name]) for name, mask in state[kind].items()}
            for kind in ("ever", "always")
        )
        self.exploration = Exploration(ever, always, state["churn"], int(state["updates"]))
        self._hold_()
        self.taken = self._taken()

    def _check_state(self, state: Mapping[str, Any]) -> None:
        shapes = {name: mask.shape for name, mask in self.masks().items()}
        if {
            name: mask.shape for name, mask in state.get("masks", {}).items()
        } != shapes or "targets" not in state:
            raise StaleError("the masks' state is of another model: its masked weights differ.")

    @property
    def _now_due(self) -> bool:
        """Whether the step that begins now changes masks, be it that an earlier one has postponed it."""
        return self._due or self._algorithm.due(self.steps + self._regime.ahead)

    def _taken(self) -> Taken:
        """Of a step that computes with the masks there are; an update is entered when it is done."""
        dense_gradient = self._regime.took_dense_gradient(self.steps, updated=False)
        return Taken(
            self.nnz,
            dense_gradient=dense_gradient,
            reached=self._regime.reached(),
            wanted=self._subject.gradients_wanted(),
        )

    @torch.no_grad()
    def _hold_(self) -> None:
        self._regime.hold_()
        self._subject.factors.leave()
        self._subject.ranks.check(self.masks(), self.steps)

    def _before_optimizer(self) -> None:
        self._within = True
        if self._asked:
            self._turn_(self._regime.before_)

    def _after_optimizer(self) -> None:
        self._within = False
        if self._asked:
            self._turn_(self._regime.after_)
        else:
            self._keep_()
        self._asked = False
        self._subject.factors.leave()

    @torch.no_grad()
    def _turn_(self, part: Callable[..., bool]) -> None:
        """Let the regime do its part around the optimizer's step, and enter what became of the masks."""
        before = {name: mask.clone() for name, mask in self.masks().items()} if self._due else {}
        if part(self.steps - 1 + self._regime.ahead, due=self._due):
            self._due = False
            self._subject.ranks.check(self.masks(), self.steps)
            self.exploration = self.exploration.after(before, self.masks())
            self.taken = replace(
                self.taken,
                dense_gradient=self._regime.took_dense_gradient(self.steps - 1, updated=True),
                curvature=self._algorithm.scores is Scores.CURVATURE,
                probes=self._regime.probed(),
            )

    def _keep_(self) -> None:
        """After a step of the optimizer without one of the masks."""
        self._subject.keep_zeros_()
        if not self._subject.factors.holds():
            warn_user(
                "the optimizer took a step without masks.step(), so weights outside the masks are no longer zero; "
                "call masks.step() before each optimizer step."
            )


def _as_stored(masks: Mapping[str, Tensor], *, parts: bool) -> dict[str, Tensor]:
    """Masks as a state has them: whole, unless it takes parts."""
    return {name: mask if parts else whole(mask) for name, mask in masks.items()}


def _as_held(stored: Tensor, mask: Tensor) -> Tensor:
    """A mask out of a state, sharded or whole as the model's own is."""
    if is_sharded(mask):
        return shard_like(stored.to(local(mask).device), mask)
    return whole(stored).to(mask.device)


def _regime_of(subject: Subject, algorithm: Algorithm) -> Regime:
    if isinstance(algorithm, LatentAlgorithm):
        return Behind(subject, algorithm)
    if isinstance(algorithm, SaRA):
        return Chosen(subject, algorithm)
    match algorithm.scores:
        case Scores.AVERAGE:
            return Averaged(subject, cast("Smoothing", algorithm))
        case Scores.RECALLED:
            return Recalled(subject, cast("Recalling", algorithm))
        case Scores.CURVATURE:
            return Curved(subject, algorithm)
        case Scores.SYNAPTIC_FLOW:
            return DataFree(subject, cast("InRounds", algorithm))
        case _:
            return Held(subject, algorithm)
