"""The masked weights of one model and their optimizer, as algorithms read and change them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from iftplan.nn.masking.algorithms.base import Algorithm, RunMethod
from iftplan.nn.masking.factors import MaskFactors
from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masking.optimizer.slots import clear_slots_, keeps_zeros
from iftplan.nn.masking.processes import Ranks
from iftplan.nn.masks.masked_weights import enforce_, stream
from iftplan.nn.masks.top_k import excluding, first
from iftplan.nn.masks.view import View


class Subject:
    """Masked weights of a model in training, with the optimizer and the processes that move them.

    Args:
        model: without wrappers.
        optimizer: torch's own.
        views: the masked weights in the layouts of their structure.
        ranks: the processes that train them together.
        seed: random seed of growth.
        frozen: names of weights whose masks stay as they are.

    Attributes:
        model: bare.
        optimizer: torch's own.
        views: the masked weights in the layouts of their structure.
        ranks: the processes that train them together.
        seed: random seed of growth.
        frozen: names of weights whose masks stay as they are.
        targets: units that every row keeps in the end, by weight.
        factors: the masks as factors.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        views: tuple[View, ...],
        ranks: Ranks,
        seed: int,
        frozen: frozenset[str] = frozenset(),
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.views = views
        self.ranks = ranks
        self.seed = seed
        self.frozen = frozen
        self.targets = {view.weight.name: view.target() for view in views}
        self.factors = MaskFactors([view.weight for view in views])

    @property
    def device(self) -> torch.device:
        """Device that the masks are on."""
        return self.views[0].weight.mask.device

    @property
    def density(self) -> float:
        """Kept weights over all masked weights, a fraction of 1."""
        return sum(self.factors.nnz.values()) / sum(view.weight.mask.numel() for view in self.views)

    def gradients_wanted(self) -> dict[str, int] | None:
        """Number of gradients that a look at dense gradients takes, by weight; None where it takes all.

        Weights that are not trained have none, and nobody looks off masks that stay as they are.
        """
        weights = [view.weight for view in self.views]
        if not self.frozen and all(weight.requires_grad for weight in weights):
            return None
        nnz = self.factors.nnz
        whole = {w.name: nnz[w.name] if w.name in self.frozen else w.mask.numel() for w in weights}
        return {w.name: whole[w.name] if w.requires_grad else 0 for w in weights}

    def masks(self) -> dict[str, Tensor]:
        """The masks by weight, as they are now."""
        return {view.weight.name: view.weight.mask for view in self.views}

    def open_(self, algorithm: Algorithm) -> None:
        """Set every mask to keep the weights that training begins with, in place: all, or some more drawn at random."""
        rows = [view.mask_rows() for view in self.views]
        units = opened = [mask.shape[1] for mask in rows]
        if isinstance(algorithm, RunMethod):
            opened = algorithm.opened(units, list(self.targets.values()), [len(mask) for mask in rows])
        for view, mask, kept in zip(self.views, rows, opened, strict=True):
            if kept == mask.shape[1]:
                view.weight.mask.fill_(True)
            else:
                view.weight.mask.copy_(view.whole(self._more(view.weight.name, mask, kept)))

    def _more(self, name: str, mask: Tensor, kept: int) -> Tensor:
        """A mask with weights drawn at random until each row keeps so many."""
        numbers = torch.rand(mask.shape, generator=stream(self.seed, f"{name} at the start"))
        return mask | first(excluding(numbers.to(mask.device), mask), kept - mask.sum(1))

    def enforce_(self) -> None:
        """Set weights to zero off their masks, in place."""
        enforce_(self.model)

    def clear_slots_(self) -> None:
        """Set the optimizer's state to zero off the masks, in place."""
        for view in self.views:
            clear_slots_(self.optimizer, view.weight.parameter, ~view.weight.mask)

    def keep_zeros_(self) -> None:
        """Set weights to zero off the masks after a step of an optimizer that mixes entries."""
        if not keeps_zeros(self.optimizer):
            self.factors.hold_()

    def finite(self, values: Iterable[Tensor]) -> bool:
        """Whether all numbers are finite, on every process."""
        return self.ranks.all(all(map(_finite, values)), self.device)

    def changes(
        self,
        algorithm: Algorithm,
        step: int,
        views: Sequence[View],
        scores: Mapping[str, Tensor | None] | None = None,
    ) -> list[tuple[View, Change]] | None:
        """New masks that the algorithm makes at a step; None where weights are not finite.

        Args:
            algorithm: at whose update the step is.
            step: counted from 0.
            views: the weights whose masks change.
            scores: parameter name → dense gradients or saliencies, for algorithms that look at them.
        """
        found = scores or {}
        layers = [self._layer(algorithm, view, found.get(view.weight.name), step) for view in views]
        if algorithm.crosses_layers:
            layers = self._priced(layers)
        if not self.finite(layer.magnitude for layer in layers):
            return None
        return list(zip(views, algorithm.update(layers, step), strict=True))

    def _priced(self, layers: Sequence[Layer]) -> list[Layer]:
        """Layers that know what their weights cost, and what all masks together leave unspent of the plan's budget."""
        known = {view.weight.name: view.weight.cost for view in self.views}
        costs = (
            {name: cost or 1 for name, cost in known.items()}
            if all(known.values())
            else dict.fromkeys(known, 1)
        )
        kept = {view.weight.name: view.weights(self.targets[view.weight.name]) for view in self.views}
        unspent = sum(costs[name] * (kept[name] - nnz) for name, nnz in self.factors.nnz.items())
        return [replace(layer, cost=costs[layer.name], unspent=unspent) for layer in layers]

    def _layer(self, algorithm: Algorithm, view: View, scores: Tensor | None, step: int) -> Layer:
        name, magnitude = view.weight.name, view.rows(view.seen(view.weight.parameter).abs())
        gradient, saliency = (scores, None) if algorithm.scores.of_gradients else (None, scores)
        generator = stream(self.seed, f"{name} at {step}")
        mask, target = view.mask_rows(), self.targets[name]
        return Layer(
            name,
            magnitude,
            gradient,
            saliency,
            mask,
            target,
            generator,
            view.structure,
            view.short,
            view.weight.experts,
            spread=view.spread(),
        )


def _finite(x: Tensor) -> bool:
    """Whether all numbers are; the extremes say so, and are found many times faster than each number is looked at."""
    return not x.numel() or all(bool(extreme.isfinite()) for extreme in x.aminmax())
