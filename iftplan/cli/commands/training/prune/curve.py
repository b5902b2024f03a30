"""The quality of a network against its sparsity, as `iftplan prune` measures it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iftplan.base.units import parse_tolerance
from iftplan.cli.commands.training.prune.choices import Choices
from iftplan.cli.output import working

if TYPE_CHECKING:
    from torch.nn import Module

    from iftplan.models.spec import ModelSpec
    from iftplan.nn.training.measures.pruning.one_shot import Judge
    from iftplan.nn.training.measures.pruning.trained import Trained
    from iftplan.plans.plan import Plan
    from iftplan.runs.results.pruning import PruningCurve


def pruning_curve(
    chosen: Choices, spec: ModelSpec, trained: Trained, judge: Judge | None, plans: Sequence[Plan]
) -> tuple[PruningCurve, Module]:
    """Quality of the dense network and of every pruned one, and the last network.

    Args:
        chosen: how to prune.
        spec: layers of the network.
        trained: the network.
        judge: what calibrates and scores; None where nothing is scored.
        plans: one for each sparsity, from the lowest on.
    """
    from iftplan.nn.training.measures.pruning.one_shot import pruned_networks
    from iftplan.plans.plan import Scope
    from iftplan.runs.results.pruning import PrunedPoint, PruningCurve

    with working("pruning and scoring" if judge else "pruning"):
        score = judge.score(trained.network) if judge else None
        last, points = trained.network, list[PrunedPoint]()
        for network, point in pruned_networks(plans, chosen.methods, trained, judge):
            last, points = network, [*points, point]
    found = PruningCurve(
        model=spec.source,
        weights=trained.weights,
        data=judge.task.name if judge else "",
        metric_name=judge.task.metric if judge else "",
        metric=score.metric(judge.task.metric) if score and judge else None,
        loss=score.loss if score else None,
        dense_macs=plans[0].dense_macs(Scope.MODEL),
        structure=plans[0].mask,
        distribution=plans[0].distribution,
        samples=judge.samples if judge else 0,
        tolerance=parse_tolerance(chosen.tolerance),
        points=tuple(points),
    )
    return found, last
