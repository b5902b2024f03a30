"""Masks that a training step computed with: numbers of weights by planned layer, for counting its MACs.

cost, groups = TrainingCost.of(plan), weights_by_layer(plan, model)
...
masks.step(); optimizer.step()
macs += step_macs(cost, groups, masks.taken, samples)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from iftplan.base.arguments import check_arguments
from iftplan.nn.masks.masked_weights import masked_names, masked_weights
from iftplan.plans.plan import Plan
from iftplan.runs.costs.training_cost import TrainingCost


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """The masks of a step that has been taken; an update in the same step counts from the next one on.

    Attributes:
        nnz: parameter name → weights that were there in the forward and the backward pass.
        dense_gradient: whether the gradients of absent weights were needed too, because masks were updated by
            them; False for an update that was postponed.
        reached: parameter name → weights whose gradients were needed, where these are more than `nnz` but not all
            (`TopKAST`); else None.
        curvature: whether gradients were differentiated too (`GraSP`).
        probes: the same weights in each pass over a single sample that the update made beside the batch, forward and
            backward (`SynFlow`).
        wanted: parameter name → weights whose gradients a dense gradient has, where these are not all: none of weights that are
            not trained, and of masks that stay those that they keep.
    """

    nnz: Mapping[str, int]
    dense_gradient: bool = False
    reached: Mapping[str, int] | None = None
    curvature: bool = False
    probes: tuple[Mapping[str, int], ...] = ()
    wanted: Mapping[str, int] | None = None

    def beside(self, whole: Mapping[str, int]) -> Taken:
        """The same step of a model that has unmasked weights beside the masked ones.

        Args:
            whole: number of weights of each, by name, all of which are computed and trained.
        """
        if not whole:
            return self
        return replace(
            self,
            nnz={**whole, **self.nnz},
            reached=None if self.reached is None else {**whole, **self.reached},
            probes=tuple({**whole, **nnz} for nnz in self.probes),
            wanted=None if self.wanted is None else {**whole, **self.wanted},
        )

    @property
    def trained(self) -> Mapping[str, int] | None:
        """Parameter name → weights whose gradients were needed; None for those of `nnz`, or for all under a dense gradient."""
        return self.wanted if self.dense_gradient and self.wanted is not None else self.reached


@check_arguments
def weights_by_layer(plan: Plan, model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Planned layer → names of its masked parameters, those of its branches or factors included.

    Args:
        plan: what was applied.
        model: the model that `iftplan.nn.apply` returned.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    return {x.name: masked_names(modules.get(x.name), x) for x in plan.layers if x.maskable}


def whole_weights(model: nn.Module, groups: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Number of weights of each parameter that a plan masks and the model does not, because its mask was dropped.

    Args:
        model: in which some masks may have been dropped.
        groups: parameters by planned layer (`weights_by_layer`).
    """
    masked = {weight.name for weight in masked_weights(model)}
    return {
        name: model.get_parameter(name).numel()
        for names in groups.values()
        for name in names
        if name not in masked
    }


@check_arguments
def layer_counts(groups: Mapping[str, tuple[str, ...]], nnz: Mapping[str, int]) -> dict[str, int]:
    """Number of kept weights by planned layer, as `TrainingCost` takes them, from the numbers by parameter."""
    return {layer: sum(nnz[name] for name in names) for layer, names in groups.items()}


@check_arguments
def step_macs(cost: TrainingCost, groups: Mapping[str, tuple[str, ...]], taken: Taken, samples: int) -> int:
    """MACs of a step of so many samples, forward and backward.

    Args:
        cost: of the plan.
        groups: masked parameters by planned layer (`weights_by_layer`).
        taken: what the step computed with, `Masking.taken`.
        samples: of the step's batch.
    """
    a_sample = cost.step(
        layer_counts(groups, taken.nnz),
        dense_gradient=taken.dense_gradient and taken.wanted is None,
        reached=None if taken.trained is None else layer_counts(groups, taken.trained),
        curvature=taken.curvature,
    )
    return samples * a_sample + sum(cost.step(layer_counts(groups, nnz)) for nnz in taken.probes)
