"""Networks that grow while they train, by a schedule whose training MACs close a budget to the step."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Self

from torch import Tensor, nn
from torch.optim import Optimizer

from iftplan.base.documents import Document
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.base.units import count
from iftplan.models.spec import Couplings, InputSpec, Width
from iftplan.nn.counting.activations.dormant import Average
from iftplan.nn.layers.widen import widen_
from iftplan.nn.reading.read import read_model
from iftplan.nn.sources import build
from iftplan.nn.training.measures.evaluation import logits_of, loss_of
from iftplan.nn.warmstart.growth.gradmax import Loss
from iftplan.nn.warmstart.growth.grow import How, grow_
from iftplan.nn.warmstart.growth.growable import growable_widths
from iftplan.nn.warmstart.growth.slopes import unit_slopes_
from iftplan.plans.plan import Plan, Scope
from iftplan.runs.costs.growth import GrowthSchedule, Stage, forward_macs, growth_costs, within_steps
from iftplan.runs.settings import GrowthConfig, RunConfig


@dataclass(frozen=True, slots=True)
class GrowingWidths:
    """Widths of a run's network, step by step.

    Attributes:
        how: what new neurons are.
        couplings: of the plan's dense model.
        inputs: what one forward pass takes.
        layers: layer whose outputs grow → symbol of the width.
        stages: symbol → size, of each stage.
        schedule: when a stage begins, and what it costs.
        seed: random seed of new neurons.
    """

    how: How
    couplings: Couplings
    inputs: tuple[InputSpec, ...]
    layers: Mapping[str, str]
    stages: tuple[Mapping[str, int], ...]
    schedule: GrowthSchedule
    seed: int

    @classmethod
    def of(cls, run: RunConfig, plan: Plan, source: str, steps: int) -> Self | None:
        """Widths of a run that grows; None for one that does not.

        Args:
            run: the settings.
            plan: whose dense model grows.
            source: of that model.
            steps: of the run.

        Raises:
            InputError: the run's other settings do not go with growth, or a named layer does not grow.
            InfeasibleError: no schedule closes the budget.
        """
        how = run.growth.how
        if how == "none":
            return None
        _check_settings(run)
        dense = build(source, device="cpu")
        spec = read_model(dense, plan.inputs, widths=True)
        if spec.couplings is None:
            raise InfeasibleError(f"the widths of {plan.model} cannot grow: {spec.refusal}")
        layers = _growing_layers(run.growth, dense, spec.couplings, spec.inputs)
        stages = _stages(run.growth, layers, spec.couplings)
        schedule = _schedule(run, plan, spec.couplings, stages, steps, how)
        return cls(how, spec.couplings, spec.inputs, layers, stages, schedule, run.seed)

    def narrow_(self, network: nn.Module) -> None:
        """Give the dense model the widths of the first stage, in place; new neurons will learn behind its ReLUs."""
        widen_(network, self.couplings, self.stages[0])
        unit_slopes_(network)

    def rehearse(self, network: nn.Module, inputs: Tensor, targets: Tensor) -> None:
        """Grow a copy of the network through all stages, so that a run is refused before it begins.

        Args:
            network: at the widths of the first stage.
            inputs: a batch.
            targets: its labels.

        Raises:
            InputError: new neurons would never learn.
            InfeasibleError: a width cannot grow so.
        """
        double = copy.deepcopy(network)
        for sizes in self.stages[1:]:
            try:
                grow_(
                    double,
                    self.couplings,
                    sizes,
                    self.inputs,
                    how=self.how,
                    loss=lambda: loss_of(logits_of(double(inputs)), targets),
                )
            except InputError as error:
                raise InputError(f"growth.how is {self.how}: {error}") from error

    def is_due(self, step: int) -> bool:
        """Whether the network grows before a step."""
        return step in self.schedule.begins[1:]

    def grow_(
        self, network: nn.Module, optimizer: Optimizer, step: int, loss: Loss, average: Average
    ) -> Stage:
        """Grow the network in place before a step; returns the stage that begins, with its cost.

        Args:
            network: at the widths of the stage before.
            optimizer: of its weights.
            step: that is due.
            loss: runs the network on this step's batch and returns its loss.
            average: of a tensor over the processes that share the batch.
        """
        stage = self.schedule.stage_at(step)
        grow_(
            network,
            self.couplings,
            self.stages[stage],
            self.inputs,
            how=self.how,
            loss=loss if self.how == "gradmax" else None,
            optimizer=optimizer,
            seed=self.seed,
            average=average,
        )
        return self.schedule.stages[stage]

    def catch_up_(self, network: nn.Module, optimizer: Optimizer, steps: int) -> bool:
        """Give a fresh network the widths that it has after so many steps, in place; whether they are others.

        Args:
            network: at the widths of the first stage.
            optimizer: of its weights, which has no state yet.
            steps: that were taken.
        """
        stage = self.schedule.stage_at(max(0, steps - 1))
        if stage:
            grow_(
                network, self.couplings, self.stages[stage], self.inputs, how="replicas", optimizer=optimizer
            )
        return stage > 0

    def forward_macs(self, steps: int) -> int:
        """MACs of one sample's forward pass after so many steps."""
        return forward_macs(self.couplings, self.stages[self.schedule.stage_at(max(0, steps - 1))])

    def document(self, steps: int) -> Document:
        """Account of the growth steps among so many steps, for the run's result."""
        begins = [begin for begin in self.schedule.begins if begin < steps]
        return {
            "how": self.how,
            "budget_macs": self.schedule.budget,
            "left_macs": self.schedule.left,
            "stages": [
                {"begin": begin, "widths": {x: sizes[w] for x, w in self.layers.items()}}
                for begin, sizes in zip(begins, self.stages, strict=False)
            ],
        }


def _check_settings(run: RunConfig) -> None:
    """Refuse what does not go with growth.

    Raises:
        InputError: names the setting and what to set.
    """
    growth, training, method = run.growth, run.training, run.method.name
    spread = training.strategy == "fsdp" or max(training.tensor_parallel, training.replicas) > 1
    for refused, why in (
        (
            method != "dense",
            f"method.name is {method}, and only dense networks grow in a run; use method.name=dense",
        ),
        (
            growth.begin >= growth.end,
            f"it begins at {growth.begin:g} and ends at {growth.end:g} times the widths; use a larger growth.end",
        ),
        (bool(run.start.checkpoint), "start.checkpoint holds weights of other widths; begin without it"),
        (
            training.ema > 0,
            "training.ema averages weights, and the average does not grow; use training.ema=0",
        ),
        (spread, "weights that are spread over processes do not grow; use training.strategy=ddp"),
        (training.checkpoints == "sharded", "sharded checkpoints do not; use training.checkpoints=single"),
        (run.adapters.rank > 0, "adapters read widths that would change; use adapters.rank=0"),
        (training.recompute, "training.recompute wraps blocks that grow; use training.recompute=false"),
        (
            bool(run.distillation.teacher),
            "a teacher's passes are not in its budget; leave distillation.teacher out",
        ),
        (run.recycling.interval > 0, "passes of recycling are not in its budget; use recycling.interval=0"),
    ):
        if refused:
            raise InputError(f"growth.how is {growth.how}, but {why}.")


def _growing_layers(
    asked: GrowthConfig, dense: nn.Module, couplings: Couplings, inputs: tuple[InputSpec, ...]
) -> dict[str, str]:
    """Layer whose outputs grow → symbol of their number."""
    between = growable_widths(dense, couplings, inputs)
    if not asked.layers:
        if not between:
            raise InfeasibleError(
                "no width of the model lies between one layer that writes it and one that reads it; name layers whose "
                "outputs grow with growth.layers, and use growth.how=replicas."
            )
        return between
    free = {
        name.removesuffix(".weight"): str(shape[0])
        for name, shape in couplings.shapes.items()
        if name.endswith(".weight") and len(shape) > 1 and not _fixed(couplings, str(shape[0]))
    }
    allowed = free if asked.how == "replicas" else between
    for name in asked.layers:
        if name not in allowed:
            why = (
                "its outputs are read by several layers, or not place by place; use growth.how=replicas"
                if name in free
                else "it is no layer whose outputs can grow"
            )
            raise InputError(
                f"growth.layers names {name!r}, but {why}. Layers that grow by {asked.how} are {', '.join(allowed)}."
            )
    return {name: allowed[name] for name in asked.layers}


def _fixed(couplings: Couplings, symbol: str) -> bool:
    width = couplings.widths.get(symbol)
    return width is None or bool(width.fixed)


def _stages(
    asked: GrowthConfig, layers: Mapping[str, str], couplings: Couplings
) -> tuple[Mapping[str, int], ...]:
    begin, end = Fraction(str(asked.begin)), Fraction(str(asked.end))
    parts = [begin + (end - begin) * i / asked.times for i in range(asked.times + 1)]
    stages = tuple({w: _size(couplings.widths[w], part) for w in layers.values()} for part in parts)
    if any(a == b for a, b in pairwise(stages)):
        raise InfeasibleError(
            f"growth.times is {asked.times}, but the widths {', '.join(str(couplings.widths[w].size) for w in layers.values())} "
            f"have fewer steps between {asked.begin:g} and {asked.end:g} times themselves; grow less often."
        )
    return stages


def _size(width: Width, part: Fraction) -> int:
    """The size of a width at a part of what it is, rounded to what it can be."""
    return max(1, round(part * width.size / width.multiple_of)) * width.multiple_of


def _schedule(
    run: RunConfig,
    plan: Plan,
    couplings: Couplings,
    stages: tuple[Mapping[str, int], ...],
    steps: int,
    how: How,
) -> GrowthSchedule:
    samples, dense = run.training.batch_size, plan.dense_full_macs(Scope.MODEL)
    if forward_macs(couplings, {}) != dense:
        raise InfeasibleError(
            f"{plan.model} takes {count(dense)} MACs a sample, of which {count(forward_macs(couplings, {}))} are known at "
            "other widths; its growth has no exact cost."
        )
    costs, growths = growth_costs(couplings, stages, samples, how)
    budget = int(Fraction(str(run.growth.budget)) * 3 * dense * samples * steps)
    try:
        return within_steps(costs, budget, steps, growths=growths)
    except InfeasibleError as error:
        raise InfeasibleError(
            f"growth.budget is {run.growth.budget:g} of the dense model's training, but {error} One stage alone costs "
            f"{', '.join(f'{cost / (3 * dense * samples):.3g}' for cost in costs)} of it, from the narrowest to the widest."
        ) from error
