"""Sweeps: many plans, one row each. A point that cannot be planned is a row that says why, never a gap and never a zero."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from itertools import product
from pathlib import PurePath

from iftplan.base.documents import Document, digest
from iftplan.base.errors import IftplanError, InfeasibleError
from iftplan.base.units import decimal_text
from iftplan.families.builtin import FAMILIES
from iftplan.families.family import Family
from iftplan.masks.distributions import Distribution
from iftplan.models.spec import Heads, ModelSpec
from iftplan.plans.plan import Plan, Scope, parse_scope
from iftplan.plans.planner import Prepared, close_prepared, plan, prepare
from iftplan.plans.policy import Policy
from iftplan.runs.document import run_digest, telling_settings
from iftplan.runs.settings import PlanConfig, RunConfig

PLANNED = "planned"
TRAINED = "trained"
UNFINISHED = "not finished"


@dataclass(frozen=True, slots=True)
class Grid:
    """Every combination of some choices, over settings that all have in common.

    Attributes:
        models: sources of dense models.
        transforms: names of families, or "none".
        sparsities: fractions of zeros.
        distributions: of density.
        masks: what masks may look like; "" for the family's own.
        base: all else that is asked of a plan.

    Example:
        >>> grid = Grid(("zoo:resnet50",), ("wide", "none"), (Fraction(1, 2), Fraction(3, 4)))
        >>> [(p.transform, p.sparsity) for p in grid.plans()]
        [('wide', '0.5'), ('wide', '0.75'), ('none', '0.5'), ('none', '0.75')]
    """

    models: tuple[str, ...]
    transforms: tuple[str, ...]
    sparsities: tuple[Fraction, ...]
    distributions: tuple[str, ...] = ("uniform",)
    masks: tuple[str, ...] = ("",)
    base: PlanConfig = field(default_factory=PlanConfig)

    def __len__(self) -> int:
        parts = (self.models, self.transforms, self.sparsities, self.masks, self.distributions)
        count = 1
        for part in parts:
            count *= len(part)
        return count

    def plans(self) -> Iterator[PlanConfig]:
        """Settings of every point's plan; distributions change fastest, since they share most work."""
        choices = product(self.models, self.transforms, self.sparsities, self.masks, self.distributions)
        for model, transform, sparsity, mask, distribution in choices:
            yield replace(
                self.base,
                file="",
                model=model,
                transform=transform,
                sparsity=decimal_text(sparsity),
                mask=mask,
                distribution=Distribution(distribution),
            )


@dataclass(frozen=True, slots=True)
class GridPoint:
    """One plan or run of a table; what it does not have is None.

    MACs are of one sample's forward pass of the whole model, `train_macs` of a whole training run.

    Attributes:
        model: source of the dense model.
        transform: the family; "none" for plain sparsity and for the dense control.
        sparsity: asked for, as a decimal; of plain sparsity at a budget, the one that the budget makes.
        distribution: how density is spread.
        structure: what masks may look like.
        scope: whose MACs are held equal.
        method: how masks change in training.
        seed: of training.
        outcome: "planned", "trained" or "not finished"; else why it cannot be.
        dense_macs: of the dense model.
        macs: of the planned one.
        ratio: planned over dense MACs in the scope.
        nnz: weights kept under masks.
        capacity: weights under masks, kept or not.
        maskable_weights: the search space of the paper's definition.
        log2_masks: bits needed to name all masks.
        train_macs: spent by the run.
        dense_train_macs: what the dense model would have spent on the same samples.
        metric: what was measured.
        value: how much.
        task: the data.
        run: the run's directory.
        varied: settings that differ between runs of one plan, such as "optimizer.lr=0.05".
        budget: of the scope, as it was asked for; None for the dense model's cost.
    """

    model: str
    transform: str
    sparsity: float
    distribution: str
    structure: str
    scope: str
    method: str | None = None
    seed: int | None = None
    outcome: str = PLANNED
    dense_macs: int | None = None
    macs: int | None = None
    ratio: float | None = None
    nnz: int | None = None
    capacity: int | None = None
    maskable_weights: int | None = None
    log2_masks: float | None = None
    train_macs: int | None = None
    dense_train_macs: int | None = None
    metric: str | None = None
    value: float | None = None
    task: str | None = None
    run: str | None = None
    varied: str | None = None
    budget: str | None = None


COLUMNS = tuple(f.name for f in fields(GridPoint))


def planned_rows(
    specs: Mapping[str, ModelSpec],
    plans: Iterable[PlanConfig],
    families: Mapping[str, Family] = FAMILIES,
    *,
    heads: Heads = "number",
) -> Iterator[GridPoint]:
    """Rows of plans, one for each, in order.

    What plans in a row have in common, that is all but how density is spread, is computed once.

    Args:
        specs: each model as it was read.
        plans: what is asked for.
        families: by name.
        heads: what attention was asked to keep when the models were read.

    Raises:
        InputError: a layer to keep dense that a model does not have.
    """
    last: PlanConfig | None = None
    ready: Prepared | IftplanError | None = None
    for asked in plans:
        spec = specs[asked.model]
        try:
            policy = replace(asked.request, family=families.get(asked.transform, asked.transform)).policy()
        except IftplanError as error:
            yield _refused(asked, spec, error)
            continue
        if policy.mixture is not None:
            yield _of_experts(asked, spec, policy, heads)
            continue
        if (common := replace(asked, distribution=Distribution.UNIFORM)) != last:
            last, ready = common, _prepared(spec, policy)
        if isinstance(ready, Prepared):
            yield _closed(asked, spec, policy, ready, heads)
        else:
            assert ready is not None
            yield _refused(asked, spec, ready)


def _prepared(spec: ModelSpec, policy: Policy) -> Prepared | IftplanError:
    try:
        return prepare(spec, policy)
    except InfeasibleError as error:
        return error


def _of_experts(asked: PlanConfig, spec: ModelSpec, policy: Policy, heads: Heads) -> GridPoint:
    try:
        return plan_row(asked, plan(spec, policy, heads=heads))
    except InfeasibleError as error:
        return _refused(asked, spec, error)


def _closed(asked: PlanConfig, spec: ModelSpec, policy: Policy, ready: Prepared, heads: Heads) -> GridPoint:
    try:
        return plan_row(asked, close_prepared(spec, policy, ready, heads=heads))
    except InfeasibleError as error:
        return _refused(asked, spec, error)


def plan_row(asked: PlanConfig, plan: Plan) -> GridPoint:
    """Row of a plan."""
    masked = [layer for layer in plan.layers if layer.maskable]
    capacity = sum(layer.capacity for layer in masked)
    return replace(
        _bare(asked),
        sparsity=float(plan.sparsity),
        structure=plan.mask,
        dense_macs=plan.dense_macs(Scope.MODEL),
        macs=plan.macs(Scope.MODEL),
        ratio=float(plan.ratio(parse_scope(asked.scope)[0])),
        nnz=sum(layer.nnz for layer in masked),
        capacity=capacity,
        maskable_weights=capacity,
        log2_masks=sum((layer.log2_masks for layer in masked), 0.0),
    )


def _refused(asked: PlanConfig, spec: ModelSpec, error: IftplanError) -> GridPoint:
    """The row of a point that cannot be: what is known without a plan, and why there is none."""
    return replace(_bare(asked), outcome=str(error), dense_macs=spec.macs)


def _bare(asked: PlanConfig) -> GridPoint:
    return GridPoint(
        asked.model,
        asked.transform,
        float(Fraction(asked.sparsity)),
        asked.distribution,
        asked.mask or "unstructured",
        asked.scope,
        budget=asked.budget or None,
    )


def grid_runs(
    grid: Grid, base: RunConfig, methods: Iterable[str], seeds: Iterable[int]
) -> Mapping[str, RunConfig]:
    """Runs of a grid by name.

    The dense control is the same run whatever is planned, so there is one for each model and seed.

    Args:
        grid: the plans.
        base: all settings but the plan's, the method and the seed.
        methods: how masks change.
        seeds: of everything that is drawn.
    """
    chosen = list(product(methods, seeds))
    runs = (run_of(asked, base, method, seed) for asked in grid.plans() for method, seed in chosen)
    return {run_name(run): run for run in runs}


def run_of(asked: PlanConfig, base: RunConfig, method: str, seed: int) -> RunConfig:
    """Run of one point of a grid.

    Args:
        asked: its plan; "dense" takes of it the model alone.
        base: all other settings.
        method: a method's name.
        seed: of the run.
    """
    if method == "dense":
        asked = replace(
            asked, transform="none", sparsity="0", distribution=Distribution.UNIFORM, mask="", budget=""
        )
    named = replace(base.method, name=method)
    return replace(base, plan=asked, method=named, seed=seed)


def run_name(run: RunConfig) -> str:
    """The name of a run and of its directory: what people look for, and a digest of all that its numbers follow from.

    Example:
        >>> run_name(RunConfig())[:-8]
        'digits-cnn-wide-3-4-uniform-rigl-seed0-'
    """
    told = telling_settings(run)
    found: Document = {
        "run": run_digest(run),
        **{key: told[key] for key in ("plan", "data", "start", "distillation") if key in told},
    }
    asked = run.plan
    parts = (
        PurePath(asked.model.rpartition(":")[2]).stem,
        "mixed" if "=" in asked.transform else asked.transform,
        asked.sparsity.replace("/", "-"),
        asked.distribution,
        asked.mask.replace(":", "-"),
        run.method.name,
        f"seed{run.seed}",
        digest(found)[:8],
    )
    return "-".join(part for part in parts if part)


def trained_row(row: GridPoint, run: RunConfig, result: Document, directory: str) -> GridPoint:
    """Row of a plan with the result of its run; where both have a number, the result's is used.

    Args:
        row: of the plan.
        run: its settings.
        result: from `result.json`.
        directory: of the run.
    """
    dense = run.method.name == "dense"
    opened = dense or run.method.name == "densified"
    return replace(
        row_of_run(row, run),
        outcome=TRAINED,
        transform=result["transform"],
        sparsity=result["sparsity"],
        dense_macs=result["dense_forward_macs"],
        macs=result["forward_macs"],
        ratio=result["forward_macs"] / result["dense_forward_macs"] if opened else row.ratio,
        nnz=None if opened else result["nnz"],
        capacity=None if opened else row.capacity,
        maskable_weights=result["maskable_weights"],
        log2_masks=0.0 if opened else row.log2_masks,
        train_macs=result["train_macs"],
        dense_train_macs=result["dense_train_macs"],
        metric=result["metric_name"],
        value=result["metric"],
        task=result["data"],
        run=directory,
    )


def row_of_run(row: GridPoint, run: RunConfig, outcome: str | None = None) -> GridPoint:
    """The row of a plan whose run has no result: it could not be planned, failed, or has not ended.

    Args:
        row: of the plan.
        run: its settings.
        outcome: why there is no result; None keeps the plan's own.
    """
    return replace(row, method=run.method.name, seed=run.seed, outcome=outcome or row.outcome)
