"""Documents that iftplan writes and never reads back, as types; tests hold real documents against them."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from iftplan.runs.sweeps.grid import GridPoint

_STRICT = ConfigDict(extra="forbid")
Convention = Literal["mac", "flop"]


@with_config(_STRICT)
class CardinalityObject(TypedDict):
    """The size of a search space.

    Attributes:
        maskable_weights: weights that a sparse trainer can explore; null while channels are symbolic.
        log2_masks: bits that name one mask; null while channels are symbolic.
    """

    maskable_weights: int | None
    log2_masks: float | None


@with_config(_STRICT)
class StepObject(TypedDict):
    """One line of a derivation.

    Attributes:
        what: what is done.
        equation: what comes out, as text.
        latex: the same in LaTeX.
    """

    what: str
    equation: str
    latex: str


@with_config(_STRICT)
class SolutionObject(TypedDict):
    """One layer in one family.

    Attributes:
        transform: the family.
        sparsity: the sparsity asked for.
        closed_form: the structure's formula as text.
        closed_form_latex: the same in LaTeX.
        search_space: the maskable weights' formula.
        structure: `branches`, `rank`, or `in_channels`, `out_channels` and `multiplier`; null where channels are symbolic.
        nnz: weights kept under the mask; this and the other counts are null while channels are symbolic.
        capacity: maskable weights.
        dense_weights: weights of the structure that are never masked.
        density: `nnz/capacity`.
        macs: MACs of one forward pass.
        dense_macs: MACs of the dense layer.
        residual_macs: what stays unspent.
        outcome: how it came out.
        reason: the same as a sentence.
        cardinality: the size of the search space.
        steps: the derivation, with `--steps`.
    """

    transform: str
    sparsity: float
    sparsity_exact: str
    closed_form: str
    closed_form_latex: str
    search_space: str
    structure: dict[str, int | float | None]
    nnz: int | None
    capacity: int | None
    dense_weights: int | None
    density: float | None
    density_exact: str | None
    macs: int | None
    dense_macs: int | None
    residual_macs: int | None
    outcome: Literal["exact", "residual", "left_alone", "free", "symbolic", "infeasible"]
    reason: str
    cardinality: CardinalityObject
    steps: NotRequired[list[StepObject]]


@with_config(_STRICT)
class SolvedLayerObject(TypedDict):
    """One layer in every family that was asked for.

    Attributes:
        layer: in layer notation.
        solutions: one for each family and sparsity.
    """

    layer: str
    solutions: list[SolutionObject]


@with_config(_STRICT)
class SolveObject(TypedDict):
    """What `iftplan solve` found.

    Attributes:
        schema: kind and version.
        convention: what counts are in.
        layers: a row for each layer.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    convention: Convention
    layers: list[SolvedLayerObject]
    digest: str


@with_config(_STRICT)
class LimitObject(TypedDict):
    """One line of a budget, held against what was measured.

    Attributes:
        quantity: what is limited.
        reference: what a ratio is to; null elsewhere.
        allowed: the largest value.
        measured: the value found.
        tolerance: the largest relative excess that passes.
        deviation: `measured/allowed - 1`.
        equal: whether a shortfall fails too.
        kept: whether what was measured is within the limit and its tolerance.
    """

    quantity: Literal["MACs", "FLOPs", "parameters", "MACs ratio"]
    reference: str | None
    allowed: float
    allowed_exact: str
    measured: float
    measured_exact: str
    tolerance: float
    tolerance_exact: str
    deviation: float
    deviation_exact: str
    equal: bool
    kept: bool


@with_config(_STRICT)
class DriftLayerObject(TypedDict):
    """One layer that is not what it was.

    Attributes:
        name: the module's path.
        change: what became of it.
        base: before.
        head: now.
        difference: now less before.
    """

    name: str
    change: Literal["added", "removed", "changed"]
    base: int
    head: int
    difference: int


@with_config(_STRICT)
class ChangesObject(TypedDict):
    """What changed since the baseline, of MACs or of parameters.

    Attributes:
        base: the total before.
        head: the total now.
        difference: now less before.
        layers: those that changed, biggest first.
    """

    base: int
    head: int
    difference: int
    layers: list[DriftLayerObject]


@with_config(_STRICT)
class DriftObject(TypedDict):
    """What changed since the baseline.

    Attributes:
        macs: of one forward pass.
        parameters: of the model.
    """

    macs: ChangesObject
    parameters: ChangesObject


@with_config(_STRICT)
class CheckedLayerObject(TypedDict):
    """One layer's cost.

    Attributes:
        name: the module's path, with the operator where it is a product of activations.
        measured_macs: of one forward pass.
        parameters: its own.
    """

    name: str
    measured_macs: int
    parameters: int


@with_config(_STRICT)
class CheckedModelObject(TypedDict):
    """One configured model.

    Attributes:
        name: its name in the configuration.
        source: what it is built from.
        inputs: what it was measured with.
        status: how its check ended.
        passed: whether it passed.
        problems: why it did not, one sentence each; the first is the headline.
        notes: what was assumed or allowed, and why.
        limits: its budget, line by line.
        drift: what changed since the baseline; null without one.
        measured_macs: MACs of one forward pass; null where it could not be measured.
        parameters: of the model; null where it could not be measured.
        unknown_ops: operator → calls, for operators without a formula.
        uncalled_modules: modules with weights that the pass never used.
        layers: a row for each layer.
    """

    name: str
    source: str
    inputs: list[str]
    status: Literal["passed", "failed", "bad input", "could not measure", "stale plan"]
    passed: bool
    problems: list[str]
    notes: list[str]
    limits: list[LimitObject]
    drift: DriftObject | None
    measured_macs: int | None
    parameters: int | None
    unknown_ops: dict[str, int]
    uncalled_modules: list[str]
    layers: list[CheckedLayerObject]


@with_config(_STRICT)
class CheckObject(TypedDict):
    """What `iftplan check` found.

    Attributes:
        schema: kind and version.
        convention: what counts are in.
        config: the configuration's path as it was found.
        baseline: what drift is measured from, a file's name or a git revision; null without one.
        status: the weightiest of the models' outcomes.
        passed: whether every model passed.
        notes: sentences about the whole.
        models: in the configuration's order.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    convention: Convention
    config: str
    baseline: str | None
    status: Literal["passed", "failed", "bad input", "could not measure", "stale plan"]
    passed: bool
    notes: list[str]
    models: list[CheckedModelObject]
    digest: str


@with_config(_STRICT)
class SideObject(TypedDict):
    """One side of a comparison.

    Attributes:
        name: what was given.
        macs: its total.
    """

    name: str
    macs: int


@with_config(_STRICT)
class DiffLayerObject(TypedDict):
    """One layer that differs.

    Attributes:
        name: the module's path.
        change: what became of it.
        base_macs: before.
        head_macs: after.
        difference: after less before.
    """

    name: str
    change: Literal["added", "removed", "changed"]
    base_macs: int
    head_macs: int
    difference: int


@with_config(_STRICT)
class DiffObject(TypedDict):
    """What differs between two models, plans or reports.

    Attributes:
        schema: kind and version.
        convention: what counts are in.
        scope: what is counted: the whole forward pass.
        base: the first.
        head: the second.
        difference: the second's MACs less the first's.
        ratio: the second's to the first's; null where the first costs nothing.
        layers: those that differ, biggest first.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    convention: Convention
    scope: Literal["model"]
    base: SideObject
    head: SideObject
    difference: int
    ratio: float | None
    layers: list[DiffLayerObject]
    digest: str


@with_config(_STRICT)
class UpdateObject(TypedDict):
    """How many entries of a weight moved by more than a threshold.

    Attributes:
        name: of the parameter.
        threshold: size of |Δθ| above which an entry has moved.
        weights: entries that can move: under a mask, those that either checkpoint keeps.
        moved: entries that did.
        update_sparsity: the part of the entries that did not; null where there are none.
        update_sparsity_exact: the same as `p/q`.
        relative_change: ‖Δθ‖₂ over ‖θ‖₂ before; null where the weight was zero.
    """

    name: str
    threshold: float
    weights: int
    moved: int
    update_sparsity: float | None
    update_sparsity_exact: str | None
    relative_change: float | None


@with_config(_STRICT)
class UpdatesObject(TypedDict):
    """Which weights moved between two checkpoints.

    Attributes:
        schema: kind and version.
        base: the first.
        head: the second.
        total: of all weights, one for each threshold.
        updates: one for each weight and threshold.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    base: str
    head: str
    total: list[UpdateObject]
    updates: list[UpdateObject]
    digest: str


@with_config(_STRICT)
class SweepObject(TypedDict):
    """What `iftplan sweep` made.

    Attributes:
        schema: kind and version.
        convention: what counts are in.
        rows: one for each plan or run.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    convention: Literal["mac"]
    rows: list[GridPoint]
    digest: str


@with_config(_STRICT)
class AxisObject(TypedDict):
    """What one axis shows.

    Attributes:
        name: of the quantity, with what it is counted over.
        unit: empty for a number without one.
        better: which way.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]


@with_config(_STRICT)
class PointObject(TypedDict):
    """One configuration, its seeds taken together.

    Attributes:
        name: what tells it from the others.
        source: the file that it was read from, or the publication.
        model: the dense model.
        transform: the family.
        sparsity: asked for; null where that is not known.
        distribution: how density is spread.
        structure: what masks may look like.
        scope: whose MACs are held equal.
        method: how masks changed.
        task: the data.
        published: whether somebody published it.
        x: mean over seeds of what is paid.
        x_error: its standard error; null for one seed.
        y: mean over seeds of what is got.
        y_error: its standard error; null for one seed.
        seeds: how many.
        on_frontier: whether no other configuration is better at its cost.
    """

    name: str
    source: str
    model: str
    transform: str
    sparsity: float | None
    distribution: str
    structure: str
    scope: str
    method: str
    task: str
    published: bool
    x: float
    x_error: float | None
    y: float
    y_error: float | None
    seeds: int
    on_frontier: bool


@with_config(_STRICT)
class ReadingObject(TypedDict):
    """What the frontier costs at the height of a reference.

    Attributes:
        reference: a configuration's name.
        outcome: whether it could be read, as a sentence.
        x: where the frontier is as good; null where that was refused.
        ratio: the reference's cost to that.
    """

    reference: str
    outcome: str
    x: float | None
    ratio: float | None


@with_config(_STRICT)
class PaperEntryObject(TypedDict):
    """Table or figure of the paper.

    Attributes:
        name: such as "table2".
        title: what it shows.
        values: how many published values it has here.
        arithmetic: what answers it: results, cardinality, widths, training, speed or none.
    """

    name: str
    title: str
    values: int
    arithmetic: str


class PaperRowObject(TypedDict, total=False):
    """Row of a table of the paper; each kind of table has some of the keys.

    Attributes:
        table: where the value is printed.
        task: the data.
        model: the dense model, as the paper calls it; in table 14, MACs of the whole model over the dense one's.
        transform: the family; "dense" for the model itself.
        method: how masks changed in training.
        nonlinear: whether a non-linearity stands inside; null where there is no inside.
        sparsity: fraction of zeros.
        structure: of masks or of the layer; empty for unstructured.
        metric: what was measured.
        published: the printed value.
        published_error: its ±.
        published_against_dense: its difference to the dense row.
        published_total: FLOPs of all sequences, as printed.
        zoo_model: the same network of ours.
        recipe: bundled settings with the paper's epochs.
        scope: what the paper holds equal.
        size: width multiplier, branches or ranks.
        macs: MACs of the forward pass.
        dense_macs: of the dense model.
        scope_macs: in the scope.
        dense_scope_macs: of the dense model in the scope.
        maskable_weights: the search space.
        log2_masks: bits that name a mask.
        train_macs: MACs of the whole training.
        dense_train_macs: of the dense model on the same samples.
        formula: published search space.
        closed_form: of the family.
        layer: of the whole numbers.
        rounding: how widths become whole.
        hidden: channels between layers.
        feed_forward: channels inside the feed-forward part.
        matrices: MACs of the masked matrices over the dense ones'.
        counted: FLOPs of a sequence that iftplan counts.
        closed: the same of iftplan's own plan.
        perplexity: as printed.
        sequences: of the whole training.
        what: network and task, or the setting.
        where: hardware or runtime.
        speed_up: as published.
        masked_dense: MACs without sparse kernels over the dense model's.
        here_metric: metric of the runs.
        here: mean of the runs; in tables of settings, the bundled one.
        here_error: its standard error.
        here_seeds: how many runs.
        here_against_dense: mean difference to the dense runs.
        here_against_dense_error: its standard error.
        here_against_dense_seeds: how many pairs.
        train_ratio: training MACs over the dense model's.
        outcome: why runs are missing; empty where none is.
        sparsity_exact: as "p/q", like every key that ends so.
        model_exact: of table 14's.
        published_exact: of table 15's.
        published_total_exact: the same.
        matrices_exact: the same.
        counted_exact: the same.
        closed_exact: the same.
        sequences_exact: the same.
        masked_dense_exact: the same.
    """

    table: str
    task: str
    model: str | float
    model_exact: str
    transform: str
    method: str
    nonlinear: bool | None
    sparsity: float
    sparsity_exact: str
    structure: str
    metric: str
    published: float
    published_exact: str
    published_error: float | None
    published_against_dense: float | None
    published_total: float
    published_total_exact: str
    zoo_model: str
    recipe: str
    scope: str
    size: str
    macs: int | None
    dense_macs: int | None
    scope_macs: int
    dense_scope_macs: int
    maskable_weights: int | None
    log2_masks: float
    train_macs: int | None
    dense_train_macs: int | None
    formula: str
    closed_form: str
    layer: str
    rounding: str
    hidden: int
    feed_forward: int
    matrices: float
    matrices_exact: str
    counted: float
    counted_exact: str
    closed: float | None
    closed_exact: str
    perplexity: str
    sequences: float
    sequences_exact: str
    what: str
    where: str
    speed_up: float
    masked_dense: float
    masked_dense_exact: str
    here_metric: str
    here: float | None
    here_error: float | None
    here_seeds: int
    here_against_dense: float | None
    here_against_dense_error: float | None
    here_against_dense_seeds: int
    train_ratio: float | None
    outcome: str


class PaperObject(TypedDict, total=False):
    """The paper's list of tables (`entries`), or one of them (`name`, `title`, `rows`, `notes`).

    Attributes:
        source: the paper on arXiv.
        entries: all tables and figures.
        name: of the table.
        title: what it shows.
        rows: published values beside ours.
        notes: sentences below them.
    """

    source: str
    entries: list[PaperEntryObject]
    name: str
    title: str
    rows: list[PaperRowObject]
    notes: list[str]


class ParetoObject(TypedDict):
    """What `iftplan pareto` found.

    Attributes:
        schema: kind and version.
        convention: what counts are in.
        x: what is paid.
        y: what is got.
        points: every configuration.
        frontier: names of those that no other is better than at their cost.
        readings: what the frontier costs at the height of each reference.
        iso_flop: groups of names whose cost is equal within 5 %.
        notes: what was left out, and why.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    convention: Convention
    x: AxisObject
    y: AxisObject
    points: list[PointObject]
    frontier: list[str]
    readings: list[ReadingObject]
    iso_flop: list[list[str]]
    notes: list[str]
    digest: str


@with_config(_STRICT)
class PrunedPointObject(TypedDict):
    """A network pruned by one method at one sparsity.

    Attributes:
        method: magnitude, wanda or sparsegpt.
        sparsity: share of the weights under masks that is gone.
        nnz: weights that the masks keep.
        maskable_weights: weights under masks.
        macs: MACs of one forward pass of the whole model.
        metric: quality; null where there were no data.
        loss: mean cross entropy in nats; null where there were no data.
        within: whether it loses no more of the dense quality than the tolerance; null where there were no data.
    """

    method: str
    sparsity: float
    sparsity_exact: str
    nnz: int
    maskable_weights: int
    macs: int
    metric: float | None
    loss: float | None
    within: bool | None


@with_config(_STRICT)
class DropPointObject(TypedDict):
    """Where the quality of a method drops.

    Attributes:
        method: its name.
        kept: largest sparsity up to which every point is within the tolerance; null where the first one is not.
        dropped: the next sparsity, which is not; null where all are.
    """

    method: str
    kept: float | None
    kept_exact: str | None
    dropped: float | None
    dropped_exact: str | None


@with_config(_STRICT)
class PruningObject(TypedDict):
    """What `iftplan prune` found.

    Attributes:
        schema: kind and version.
        convention: what counts are in.
        model: source of the network.
        weights: where its weights come from.
        data: name of the data; empty where there were none.
        metric_name: accuracy or perplexity; empty where there were no data.
        metric: of the dense network; null where there were no data.
        loss: of the dense network; null where there were no data.
        dense_macs: MACs of one forward pass of the dense network.
        structure: of the masks.
        distribution: how density is spread over layers.
        samples: of the calibration data.
        tolerance: largest relative loss of quality that is no drop.
        points: a row for each method and sparsity.
        drop_points: one for each method; none where there were no data.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    convention: Convention
    model: str
    weights: str
    data: str
    metric_name: str
    metric: float | None
    loss: float | None
    dense_macs: int
    structure: str
    distribution: str
    samples: int
    tolerance: float
    tolerance_exact: str
    points: list[PrunedPointObject]
    drop_points: list[DropPointObject]
    digest: str


@with_config(_STRICT)
class AdvisedSparsityObject(TypedDict):
    """One sparsity, as the scaling law sees it.

    Attributes:
        sparsity: of the network at the end.
        data_seen: tokens or images that the compute is enough for.
        loss: that the law expects.
        optimal_compute: FLOPs of training for which this sparsity would be the best.
    """

    sparsity: float
    data_seen: float
    loss: float
    optimal_compute: float


@with_config(_STRICT)
class FittedLawObject(TypedDict):
    """A law fitted to runs of one's own.

    Attributes:
        runs: number of runs.
        equation: with the units of its variables.
        constants: by name, for these units.
        intervals: 95 % interval of each constant; empty without resamples.
        units: of each variable in the equation.
        error: root mean square of the residuals.
        relative: whether residuals are differences of logarithms.
        delta: residual from which on the Huber loss grows linearly.
        resamples: fits to resampled runs, of which the intervals are made.
    """

    runs: int
    equation: str
    constants: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    units: dict[str, float]
    error: float
    relative: bool
    delta: float
    resamples: int


@with_config(_STRICT)
class AdviseObject(TypedDict):
    """What `iftplan advise` answers.

    Attributes:
        schema: kind and version.
        convention: what compute is in: two FLOPs for each MAC.
        data: which fit of the law.
        params: non-zero parameters without embeddings.
        compute: FLOPs of training.
        kappa: how often cheaper a step is than a dense one of the network with all its weights.
        optimal_sparsity: the best.
        sparsities: the best, and those of the law's own runs.
        notes: sentences that a reader has to know.
        fitted: the fit to runs of one's own, with `--fit`.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    convention: Literal["flop"]
    data: str
    params: float
    compute: float
    kappa: float
    optimal_sparsity: float
    sparsities: list[AdvisedSparsityObject]
    notes: list[str]
    fitted: NotRequired[FittedLawObject]
    digest: str


@with_config(_STRICT)
class LawObject(TypedDict):
    """What a law other than the sparse one answers.

    Attributes:
        schema: kind and version.
        convention: what compute is in: two FLOPs for each MAC.
        law: its name.
        data: which fit of it, or the table of runs.
        title: what it is about.
        source: the paper.
        equation: as text.
        constants: of the fit, by name.
        asked: sizes and budgets of the question.
        rows: choices; each says by its keys what it is, what it costs, its loss (or what the law gives), and whether it is
            the best.
        notes: sentences that a reader has to know.
        fitted: the fit to runs of one's own, with `--fit`.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    convention: Literal["flop"]
    law: str
    data: str
    title: str
    source: str
    equation: str
    constants: dict[str, float]
    asked: dict[str, float]
    rows: list[dict[str, float | bool]]
    notes: list[str]
    fitted: NotRequired[FittedLawObject]
    digest: str


@with_config(_STRICT)
class NamedModelObject(TypedDict):
    """One bundled model.

    Attributes:
        name: as MODEL on the command line.
        description: what it is.
        input: its default inputs.
        source: where the architecture comes from.
    """

    name: str
    description: str
    input: list[str]
    source: str


@with_config(_STRICT)
class ModelsObject(TypedDict):
    """What `iftplan models` lists.

    Attributes:
        schema: kind and version.
        models: the bundled ones.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    models: list[NamedModelObject]
    digest: str


@with_config(_STRICT)
class SoupRunObject(TypedDict):
    """One run of an average.

    Attributes:
        run: its directory, as it was given.
        used: whether its weights are in the average.
        step: of its checkpoint.
        seed: of the run.
        metric: that it reported.
        train_macs: that it cost.
        run_digest: of its settings.
        weights_digest: of its final weights.
    """

    run: str
    used: bool
    step: int
    seed: int
    metric: float
    train_macs: int
    run_digest: str
    weights_digest: str


@with_config(_STRICT)
class SoupObject(TypedDict):
    """What an average was made of.

    Attributes:
        kind: `uniform`, or `greedy` where validation data chose the runs.
        runs: that were given.
        mean_metric: of all runs.
        norm_samples: samples that the statistics of batch norms were computed from, over all passes.
        norm_macs: that these passes cost; they are part of `train_macs`.
    """

    kind: Literal["uniform", "greedy"]
    runs: list[SoupRunObject]
    mean_metric: float
    norm_samples: int
    norm_macs: int


@with_config(_STRICT)
class RunObject(TypedDict):
    """What was asked of a training run, and on what it ran.

    Attributes:
        schema: kind and version.
        config: every setting, defaults included; the same keys as in TOML, below.
        seed: of everything that is drawn.
        plan_digest: of the plan.
        steps: optimizer steps of the whole run.
        precision: what was computed in.
        device: what it was computed on.
        processes: how many took part.
        versions: package → version, of what the numbers depend on.
        soup: of an average of runs; the other keys are then those of the first of them.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    config: dict[str, Any]
    seed: int
    plan_digest: str
    steps: int
    precision: str
    device: str
    processes: int
    versions: dict[str, str]
    soup: NotRequired[SoupObject]
    digest: str


@with_config(_STRICT)
class GrowthStageObject(TypedDict):
    """Widths of a network from one step to the next growth step.

    Attributes:
        begin: first step at these widths, counted from 0.
        widths: layer → its number of outputs.
    """

    begin: int
    widths: dict[str, int]


@with_config(_STRICT)
class GrowthObject(TypedDict):
    """Growth of a run's network.

    Attributes:
        how: what new neurons were.
        budget_macs: training MACs that the run could cost.
        left_macs: what its schedule leaves of them; no growth step could come one step earlier.
        stages: that the run reached.
    """

    how: Literal["gradmax", "random", "replicas"]
    budget_macs: int
    left_macs: int
    stages: list[GrowthStageObject]


@with_config(_STRICT)
class ResultObject(TypedDict):
    """What came out of a training run: the same, to the byte, for every repetition on the same machine.

    Attributes:
        schema: kind and version.
        convention: what counts are in.
        scope: what the forward MACs count: the whole forward pass.
        model: the dense model's source.
        transform: the family; `none` for the dense control.
        sparsity: the plan's; 0 for the dense control.
        distribution: how the plan spreads density.
        method: how masks changed.
        data: what was learnt from.
        seed: of everything that was drawn.
        plan_digest: of the plan.
        run_digest: of the settings that the numbers follow from.
        steps: optimizer steps taken.
        samples: training samples seen.
        metric_name: what `metric` is.
        metric: at the last evaluation; at the best one where validation data were kept aside.
        loss: of training, mean between that evaluation and the one before; not of an average of runs.
        test_loss: at that evaluation.
        best_step: steps before the best evaluation; only with validation data.
        validation_loss: the smallest; only with validation data.
        validation_metric: at that evaluation; only with validation data.
        train_macs: of the whole run, every step with the masks that it was computed with.
        dense_train_macs: what the dense model's run would have cost.
        train_ratio: the first to the second.
        forward_macs: of one sample, with the masks at the end.
        dense_forward_macs: of one sample, dense.
        nnz: weights kept under masks at the end.
        maskable_weights: weights that could be explored.
        density: at the last evaluation.
        itop: the part of maskable weights that was active at any time; not of an average.
        degree_of_constraint: the part of them that was active at all times; not of an average.
        mask_updates: how often masks changed; not of an average.
        parameter_bytes: of all parameters.
        gradient_bytes: of the gradients of those that are trained.
        optimizer_bytes: of the optimizer's state.
        mask_bytes: of the masks as they are in training.
        activation_bytes: kept by the forward pass of one part of a batch for its backward pass, in one process.
        index_bits: that would name the kept weights, where only these are stored.
        weights_digest: SHA-256 of all weights, buffers and masks.
        soup: of an average of runs: what it was made of.
        growth: of a run whose network grew: when, and to which widths.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    convention: Literal["mac"]
    scope: Literal["model"]
    model: str
    transform: str
    sparsity: float
    distribution: str
    method: str
    data: str
    seed: int
    plan_digest: str
    run_digest: str
    steps: int
    samples: int
    metric_name: str
    metric: float
    loss: NotRequired[float]
    test_loss: float
    best_step: NotRequired[int]
    validation_loss: NotRequired[float]
    validation_metric: NotRequired[float]
    train_macs: int
    dense_train_macs: int
    train_ratio: float
    train_ratio_exact: str
    forward_macs: int
    dense_forward_macs: int
    nnz: int
    maskable_weights: int
    density: float
    itop: NotRequired[float]
    degree_of_constraint: NotRequired[float]
    mask_updates: NotRequired[int]
    parameter_bytes: NotRequired[int]
    gradient_bytes: NotRequired[int]
    optimizer_bytes: NotRequired[int]
    mask_bytes: NotRequired[int]
    activation_bytes: NotRequired[int]
    index_bits: NotRequired[int]
    weights_digest: str
    soup: NotRequired[SoupObject]
    growth: NotRequired[GrowthObject]
    digest: str


@with_config(_STRICT)
class TimingObject(TypedDict):
    """How long the last start of a run took: the one file that differs from repetition to repetition.

    Attributes:
        schema: kind and version.
        wall_seconds: from start to end.
        step_seconds: of the steps, without evaluations and checkpoints; like all below absent where none was taken.
        train_macs: of these steps, with the masks that each was computed with.
        executed_macs: of the same in the operators that computed them, zeros under masks included where they are dense.
        peak_flops: FLOPs a second that the machine is capable of; like those below only where it was given or measured.
        mfu: FLOPs a second by the masks, as a fraction of the peak.
        hfu: FLOPs a second that were computed, as a fraction of the peak.
    """

    schema: str
    wall_seconds: float
    step_seconds: NotRequired[float]
    train_macs: NotRequired[int]
    executed_macs: NotRequired[int]
    peak_flops: NotRequired[float]
    mfu: NotRequired[float]
    hfu: NotRequired[float]


@with_config(_STRICT)
class CachedObject(TypedDict):
    """An answer that is kept from one command to the next.

    Attributes:
        schema: kind and version.
        signature: of the entry, with a secret that the user's own folder holds.
        entry: the answer and everything that it was made of, as JSON in a text.
    """

    schema: str
    signature: str
    entry: str


@with_config(_STRICT)
class BackendTimeObject(TypedDict):
    """One backend's time for one layer.

    Attributes:
        backend: which.
        seconds: the median over rounds.
        ratio: the median over rounds of its time over the fastest dense backend's in the same round.
        low: the first quartile of those ratios.
        high: the third.
        gflops: of the work that it does, two for each MAC, in 10^9 a second.
        prepared_seconds: what is done once: packing a mask, ordering a weight.
    """

    backend: str
    seconds: float
    ratio: float
    low: float
    high: float
    gflops: float
    prepared_seconds: float


BenchedLayerObject = with_config(_STRICT)(
    TypedDict(
        "BenchedLayerObject",
        {
            "layer": str,
            "wide": str,
            "sparsity": float,
            "structure": str,
            "nnz": int,
            "density": float,
            "count": int,
            "pass": NotRequired[Literal["forward", "step"]],  # no name that a class could have
            "threads": NotRequired[int],
            "timings": NotRequired[list[BackendTimeObject]],
            "left_out": NotRequired[dict[str, str]],
        },
    )
)
BenchedLayerObject.__doc__ = """A dense layer and the masked wide one in its place, and what they took.

    Attributes:
        layer: the dense layer in layer notation.
        wide: the layer as it is planned, every weight counted.
        sparsity: asked for.
        structure: what its mask looks like.
        nnz: weights that are kept.
        density: of the wide layer.
        count: how often the network has it.
        pass: what was timed; with what follows only where something was.
        threads: of the processor.
        timings: by backend.
        left_out: backend → why it was not measured.
    """


@with_config(_STRICT)
class BenchedNetworkObject(TypedDict):
    """A whole network that was timed.

    Attributes:
        model: where it comes from.
        sparsity: of its masks.
        structure: what they look like.
    """

    model: str
    sparsity: float
    structure: str


@with_config(_STRICT)
class NetworkTimeObject(TypedDict):
    """One backend's time for a whole network.

    Attributes:
        backend: which.
        seconds: the median over rounds.
        ratio: the median over rounds of its time over the dense network's in the same round.
        low: the first quartile of those ratios.
        high: the third.
        prepared_seconds: what is done once: packing masks, ordering weights.
    """

    backend: str
    seconds: float
    ratio: float
    low: float
    high: float
    prepared_seconds: float


BenchedPassObject = with_config(_STRICT)(
    TypedDict(
        "BenchedPassObject",
        {
            "pass": Literal["forward", "step"],  # no name that a class could have
            "threads": int,
            "timings": list[NetworkTimeObject],
        },
    )
)
BenchedPassObject.__doc__ = """What one pass of a whole network took.

    Attributes:
        pass: what was timed.
        threads: of the processor.
        timings: by backend.
    """


@with_config(_STRICT)
class PeakObject(TypedDict):
    """The dense peak that was measured.

    Attributes:
        threads: of the processor.
        gflops: 10^9 floating-point operations a second.
    """

    threads: int
    gflops: float


@with_config(_STRICT)
class BenchObject(TypedDict):
    """What `iftplan bench` measured, or with `--dry-run` would measure.

    Attributes:
        schema: kind and version.
        convention: what work is in: two FLOPs for each MAC.
        machine: the processor and what its kernels are made of.
        batch: samples.
        rounds: in each of which every backend ran once.
        cold: whether copies of layers with few columns were timed in turn (`--cold`).
        peaks: by threads.
        layers: a row for each layer, pass and number of threads.
        network: with `--network`, which was timed; then there are no layers.
        passes: with `--network`, a row for each pass and number of threads.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    convention: Literal["flop"]
    machine: NotRequired[str]
    batch: NotRequired[int]
    rounds: NotRequired[int]
    cold: NotRequired[bool]
    peaks: NotRequired[list[PeakObject]]
    layers: list[BenchedLayerObject]
    network: NotRequired[BenchedNetworkObject]
    passes: NotRequired[list[BenchedPassObject]]
    digest: str
