"""A training run as a value: what is trained, on what, how; every switch explicit, nothing of it torch.

TOML files, recipes and command-line options all end here (`iftplan.runs.document`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import cos, pi
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from iftplan.base.errors import InputError
from iftplan.families.transforms.experts import is_mixture
from iftplan.masks.distributions import Distribution
from iftplan.models.notation import parse_input
from iftplan.models.spec import InputSpec
from iftplan.plans.budget import parse_budget
from iftplan.plans.plan import Pointwise, Rounding, parse_scope
from iftplan.plans.request import PlanRequest
from iftplan.runs.methods import METHODS
from iftplan.runs.schedules import step_at

# checked where settings are read (`iftplan.runs.document`)
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Size = Annotated[float, Field(ge=0)]
Part = Annotated[float, Field(ge=0, le=1)]
Below1 = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Hue = Annotated[float, Field(ge=0, le=0.5)]
Above0 = Annotated[float, Field(gt=0)]
InputGradient = Literal["structure", "sparse", "dense"]
Sparsity = Annotated[str, BeforeValidator(lambda x: str(x) if isinstance(x, int | float) else x)]


def _scope(text: str) -> str:
    """The scope that was asked for, if there is one."""
    try:
        parse_scope(text)
    except InputError as error:
        raise ValueError(str(error).rstrip(".")) from error
    return text


def _budget(text: str) -> str:
    """The budget that was asked for, if there is one."""
    try:
        parse_budget(text or "1x")
    except InputError as error:
        raise ValueError(str(error).rstrip(".")) from error
    return text


BudgetText = Annotated[str, AfterValidator(_budget)]
ScopeText = Annotated[str, AfterValidator(_scope)]
if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]


@dataclass(frozen=True, slots=True)
class PlanConfig:
    """The plan: a file, or what to plan.

    Attributes:
        file: a plan document; all else here is then not looked at.
        model: the dense model's source.
        transform: the family, or "none".
        sparsity: such as "3/4".
        scope: whose MACs are held equal; "module:NAME" for one module, which alone is transformed.
        budget: MACs of the scope, such as "0.5x" of the dense model's or "400M"; empty for the dense model's. With it,
            the sparsity of plain sparsity follows from it.
        distribution: "uniform", "er" or "erk".
        keep_dense: "first", "last" or names of layers.
        round_to: widths become multiples of this.
        rounding: widths "cover" the budget and masks close it, or are rounded down, "floor".
        pointwise: whether 1×1 convolutions are "transformed" too, or only "masked".
        input: what the model is counted with, such as "1x512:int64"; empty for the model's own.
        mask: what masks may look like.
        init: of new and resized weights: "kaiming", "density", or "model" for what the model's own modules do.
        nonlinear: whether members have a norm and an activation inside, as in arXiv 2303.11525; "norm" for the norm
            alone, or "reference" for what the paper's code has in each family.
    """

    file: str = ""
    model: str = "zoo:digits-cnn"
    transform: str = "wide"
    sparsity: Sparsity = "3/4"
    scope: ScopeText = "layers"
    distribution: Distribution = Distribution.UNIFORM
    keep_dense: tuple[str, ...] = ("first", "last")
    round_to: int = 1
    rounding: Rounding = "cover"
    pointwise: Pointwise = "transformed"
    input: str = ""
    mask: str = ""
    init: Literal["kaiming", "density", "model"] = "kaiming"
    nonlinear: bool | Literal["norm", "reference"] = True
    budget: BudgetText = ""

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Inputs that the model is counted with; none for its own."""
        return (parse_input(self.input),) if self.input else ()

    @property
    def _keeps_all(self) -> bool:
        """Whether the sparsity is not the settings' to choose: a budget decides it, or nothing is masked."""
        return is_mixture(self.transform) or bool(self.budget and self.transform == "none")

    @property
    def request(self) -> PlanRequest:
        """The request for a plan that the settings make."""
        scope, within = parse_scope(self.scope)
        return PlanRequest(
            family=self.transform,
            sparsity=None if self._keeps_all else self.sparsity,
            budget=self.budget or None,
            scope=scope,
            within=within,
            distribution=Distribution(self.distribution),
            keep_dense=self.keep_dense,
            round_to=self.round_to,
            rounding=self.rounding,
            pointwise=self.pointwise,
            mask=self.mask,
        )


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Data that a run learns from.

    Attributes:
        kind: "auto" tells it from the path; by default the digits that scikit-learn brings. "images" holds a folder
            of images in memory; "image-folder" and "tar" read and decode them in worker processes during training.
        path: a directory or a file; digits need none.
        size: side in pixels of the square images that the model is given; 0 leaves images as they are.
        workers: processes that read, decode and augment images; 0 for none besides the run's own, None for one per
            processor core, at most 8. Results do not depend on it.
        shorter_side: scale jitter: training images are scaled so that their shorter side, in pixels, is drawn
            uniformly from this range, and a square of `size` is cropped from them at random.
        random_resized_crop: training images are cropped to a part of their area drawn from this range, of an aspect
            ratio between 3/4 and 4/3, and resized to `size` (arXiv 1409.4842, section 6).
        eval_shorter_side: evaluated images are scaled to this shorter side in pixels, and their centre of `size` is
            taken; 0 scales the whole image to `size`.
        crop: pixels of padding from which a random crop is taken in training; 0 for none.
        flip: whether training images are mirrored at random.
        color_jitter: largest relative change of brightness, contrast and saturation, and largest rotation of the hue
            as a part of the circle, in training.
        cutout: side in pixels of a square of a training image, at a random place, that is replaced by the mean
            colour (arXiv 1708.04552); 0 for none.
        mixup: α of the Beta distribution from which the weight of each batch is drawn, by which images and labels
            are mixed in pairs (arXiv 1710.09412); 0 for none.
        mean: of each channel, in [0, 1], that is subtracted; None for that of training images held in memory, and
            ImageNet's for images that are streamed.
        std: of each channel, by which images are divided; None likewise.
        unit: what a token of text is: one of its "bytes", or one of the "characters" that occur in it.
        separator: put between the documents of a folder of text, which are its files, or of a saved data set, which
            are its rows; None for nothing between files, and a line break between rows.
        context: tokens in a sample.
        objective: of token data: "next" token, or "masked" tokens as BERT has them.
        mask_token: what stands for a hidden token, of the objective "masked".
        vocabulary: how many tokens there are; 0 for as many as are found.
        test_fraction: the part at the end that is kept for evaluation, where data bring no test set.
        validation_fraction: the part of the training data that is kept aside, the same for every seed; the best
            evaluation on it is the run's result. 0 for none.
    """

    kind: Literal[
        "auto", "digits", "cifar", "images", "image-folder", "tar", "text", "tokens", "datasets"
    ] = "digits"
    path: str = ""
    size: Natural = 0
    workers: Natural | None = None
    shorter_side: tuple[Positive, Positive] | None = None
    random_resized_crop: tuple[Share, Share] | None = None
    eval_shorter_side: Natural = 0
    crop: Natural = 0
    flip: bool = False
    color_jitter: tuple[Size, Size, Size, Hue] | None = None
    cutout: Natural = 0
    mixup: Size = 0.0
    mean: tuple[Part, ...] | None = None
    std: tuple[Above0, ...] | None = None
    unit: Literal["bytes", "characters"] = "bytes"
    separator: str | None = None
    context: Positive = 128
    objective: Literal["next", "masked"] = "next"
    mask_token: Natural = 103
    vocabulary: Natural = 0
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    validation_fraction: Below1 = 0.0


@dataclass(frozen=True, slots=True)
class MethodConfig:
    """Method by which masks change; see `iftplan.nn.masking` for what each switch means.

    Attributes:
        name: the algorithm; "dense" trains the plan's dense model, the control; "densified" trains every weight of
            the network that the plan makes, without masks.
        interval: ΔT, in steps.
        begin: fraction of training at which updates begin.
        end: fraction of training at which they end.
        fraction: α, the part of the active weights that the first update drops; .3 in RigL's paper, .5 in GraNet's.
        annealing: of the fraction.
        exponent: k of the power and exponential annealing.
        order: whether an update takes the place of the optimizer's step, or follows it.
        regrow: whether what was just dropped may grow back at once, or in a later round of "force"; None for the
            algorithm's own.
        keep_values: whether what does keeps its value.
        at_begin: whether the first step of the schedule may be an update.
        at_end: whether the last may.
        count_from: number of the first step, 0 or 1; at 1 every update comes one step earlier.
        anneal_from: what the drop fraction is annealed from: the "start" of training, or the "begin" of updates.
        ranking: of pruning ("snip", "grasp", "force", "synflow", "granet"): in each "layer", or "global".
        refresh: steps that one choice of masks lasts in methods with dense weights behind the masked ones; None for
            the method's own: 40 for "transposable", 100 for "top-kast", 10 for "cast", all of them for "sara", else 1.
        pull: λ of λ·(1-m)⊙θ in the gradients of these, of the penalty of "top-kast", or of the L1 decay of "cast"; None
            for the method's own: 2e-4 for "srste", 1e-4 for "top-kast", 4e-7 for "cast", else 0.
        straight: whether the gradients of masked weights pass straight through, in mask and structure decay.
        decay: how mask decay's D falls; "geometric" lets structure decay begin with patterns sixteen times as long.
        beta: its β for each step; None for one that brings D to 0 (by "linear") or to 1/1000 at `end`.
        rounds: of pruning; None for the method's own: with "iterative" one weight of every group at a time, or 10,
            with "force" 10, with "synflow" 100.
        ablation: γ, the part of its fan-in that a neuron needs salient to stay under "srigl"; 0 ablates none.
        initial: sparsity that "granet" begins with.
        importance: λ of |θ| + λ·|g|, by which "mest" drops.
        soft: whether "mest" grows new weights beside the old ones, and drops at the next update.
        redistribution: by what methods that move weights give the MACs that a layer's dropped weights set free to layers:
            "none", "magnitude", "nonzeros", or "momentum" with "snfs"; None for the method's own: "momentum" for
            "snfs", else "none".
        smoothing: α of the average of gradients by which "snfs" grows.
        margin: part of all weights that "top-kast" trains beyond those it computes with.
        nuclear: λ of the nuclear norm of the weights that "sara" trains; 0 for none.
        input_gradient: what the ledger charges for input gradients: "sparse" as the forward pass, "dense", or by
            "structure": sparse where the transposed mask has the structure too.
    """

    name: MethodName = "rigl"
    interval: Positive = 100
    begin: Size = 0.0
    end: Size = 0.75
    fraction: Part = 0.3
    annealing: Literal["cosine", "constant", "linear", "power", "exponential"] = "cosine"
    exponent: Size = 3.0
    order: Literal["replace", "after"] = "after"
    regrow: bool | None = None
    keep_values: bool = True
    at_begin: bool = False
    at_end: bool = False
    count_from: Literal[0, 1] = 0
    anneal_from: Literal["start", "begin"] = "start"
    ranking: Literal["layer", "global"] = "layer"
    refresh: Positive | None = None
    pull: Size | None = None
    straight: bool = True
    decay: Literal["linear", "exponential", "geometric"] = "linear"
    beta: Size | None = None
    rounds: Positive | None = None
    ablation: Part = 0.3
    initial: Below1 = 0.0
    importance: Size = 0.01
    soft: bool = False
    margin: Part = 0.3
    nuclear: Size = 0.0
    redistribution: Literal["none", "momentum", "magnitude", "nonzeros"] | None = None
    smoothing: Below1 = 0.9
    input_gradient: InputGradient = "structure"


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """Optimizer of the weights; biases and norms never decay.

    Attributes:
        name: "sgd", "adam", "adamw", "lamb", or "adams" for the method "cast".
        lr: peak learning rate.
        momentum: SGD's.
        nesterov: SGD's.
        betas: Adam's, and LAMB's.
        eps: likewise.
        weight_decay: of weights with two dimensions or more.
        decay: whether factors U and V without a non-linearity between them decay as "weights", or by their "product".
        clip: largest norm of the gradient; 0 for none.
    """

    name: Literal["sgd", "adam", "adamw", "lamb", "adams"] = "sgd"
    lr: Above0 = 0.1
    momentum: Below1 = 0.9
    nesterov: bool = True
    betas: tuple[Below1, Below1] = (0.9, 0.999)
    eps: Size = 1e-8
    weight_decay: Size = 5e-4
    decay: Literal["weights", "product"] = "weights"
    clip: Size = 0.0


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """The learning rate over training, as a factor of its peak.

    Attributes:
        name: "cosine", "multistep" or "constant".
        warmup: in which it rises linearly from 0: a number of steps, or as a float a fraction of training.
        milestones: fractions of training at which "multistep" multiplies by `gamma`.
        gamma: see there.
        final: what "cosine" ends at.
    """

    name: Literal["cosine", "multistep", "constant"] = "cosine"
    warmup: Natural | Part = 0.0
    milestones: tuple[Part, ...] = (0.3, 0.6, 0.8)
    gamma: Size = 0.2
    final: Size = 0.0

    def factor(self, step: int, steps: int) -> float:
        """The factor at one of `steps` steps, counted from 0.

        Example:
            >>> ScheduleConfig("multistep").factor(30, 100)
            0.2
        """
        warm = step_at(self.warmup, steps)
        if step < warm:
            return (step + 1) / warm
        if self.name == "multistep":
            return float(self.gamma ** sum(step >= round(m * steps) for m in self.milestones))
        if self.name == "constant":
            return 1.0
        progress = (step - warm) / max(1, steps - warm)
        return self.final + (1 - self.final) * (1 + cos(pi * progress)) / 2


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Length, batches and execution of the training loop.

    Attributes:
        epochs: passes over the data; not looked at where `steps` is given.
        steps: optimizer steps; 0 for as many as the epochs make.
        batch_size: samples of one optimizer step, over all processes and accumulated parts.
        accumulate: parts that a batch is computed in.
        precision: "auto" is "bf16-mixed" where the machine computes bf16 fast and `execution` is "dense", else "32-true".
        channels_last: memory order of images; None for convolutional networks.
        label_smoothing: of the training loss.
        zero_init_residual: start with γ = 0 in the last norm of every residual block.
        eval_interval: steps between evaluations; 0 for once an epoch.
        checkpoint_interval: steps between checkpoints; 0 for once an epoch.
        patience: evaluations without a better loss on the validation data after which training stops; 0 for none.
        ema: decay of the averaged weights that are evaluated; 0 for none.
        threads: of the processor, for each process; 0 leaves torch's choice.
        timeout: seconds that a process waits for the others before it gives up.
        strategy: of several processes: "ddp" for a copy of the model on each, "fsdp" for a part; "auto" is "ddp".
        tensor_parallel: processes that split each linear layer among them and see the same samples, under "fsdp".
        replicas: groups of processes that hold a whole model each, in parts, under "fsdp".
        recompute: compute the activations of blocks again in the backward pass, instead of keeping them.
        execution: of masked layers: "dense" operators on weights with zeros, "sparse" kernels on what is kept (CPU, float32),
            or "compact": these kernels, and dense weights only where masks change; the results are the same within rounding.
        spectra: when the spectra of masks are measured: at every "evaluation", or after every "update" of theirs.
        checkpoints: "single" for one file, gathered in the first process; "sharded" for a folder to which each process
            writes its part beside the training; "auto" is "sharded" for several processes under "fsdp".
    """

    epochs: Positive = 1
    steps: Natural = 0
    batch_size: Positive = 128
    accumulate: Positive = 1
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    channels_last: bool | None = None
    label_smoothing: Part = 0.0
    zero_init_residual: bool = False
    eval_interval: Natural = 0
    checkpoint_interval: Natural = 0
    patience: Natural = 0
    ema: Below1 = 0.0
    threads: Natural = 0
    timeout: Positive = 1800
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    tensor_parallel: Positive = 1
    replicas: Positive = 1
    recompute: bool = False
    execution: Literal["dense", "sparse", "compact"] = "dense"
    spectra: Literal["none", "evaluation", "update"] = "none"
    checkpoints: Literal["auto", "single", "sharded"] = "auto"


@dataclass(frozen=True, slots=True)
class RecyclingConfig:
    """Dormant neurons: whether they are counted, and when they are recycled (ReDo, arXiv 2302.12902).

    Attributes:
        interval: optimizer steps from one time to the next, ΔT; 0 for never.
        threshold: τ; a neuron is dormant if its score is at most τ.
        end: part of training after which nothing is recycled.
        measure: whether every evaluation counts dormant neurons; where neurons are recycled it does in any case.
    """

    interval: Natural = 0
    threshold: Size = 0.025
    end: Part = 1.0
    measure: bool = False

    @property
    def observes(self) -> bool:
        """Whether dormant neurons are counted."""
        return self.measure or self.interval > 0


@dataclass(frozen=True, slots=True)
class GrowthConfig:
    """Widths that grow during training; of the method "dense" (`iftplan.nn.grow_`).

    Attributes:
        how: what new neurons are: "gradmax" (arXiv 2201.05125), "random" outgoing weights in their place, or "replicas"
            (arXiv 1511.05641); "none" for a network that does not grow.
        begin: width that the run begins with, over that of the plan's dense model.
        end: width that it ends with, over the same.
        times: how often the network grows, by equal amounts.
        budget: training MACs of the run, over those of the plan's dense model on as many samples; it decides when the
            network grows.
        layers: names of layers whose outputs grow; all that GradMax can grow, where none is named.
    """

    how: Literal["none", "gradmax", "random", "replicas"] = "none"
    begin: Above0 = 0.5
    end: Above0 = 1.0
    times: Positive = 3
    budget: Above0 = 0.75
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StartConfig:
    """Weights that a run begins with, where they are not drawn from the seed.

    Attributes:
        checkpoint: of a run, or that run's directory: its weights, and its masks; or a file or folder with a state dict.
        fresh: modules that begin with values drawn from the seed, by name or glob, such as the head of another number of
            classes.
        freeze: layers whose masks stay as they come while the method moves others.
        drop: layers whose masks are dropped, so that every weight of theirs trains.
        redraw: layers that have this run's own masks instead of those that come with the weights.
    """

    checkpoint: str = ""
    fresh: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    redraw: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """Low-rank adapters that are trained beside frozen weights; see `iftplan.nn.warmstart.adapters`.

    Attributes:
        rank: of each; 0 for none.
        layers: beside which they stand, by name or glob; all masked ones where none is named.
        scale: of what they add to their layer's output.
    """

    rank: Natural = 0
    layers: tuple[str, ...] = ()
    scale: Above0 = 1.0


@dataclass(frozen=True, slots=True)
class DistillationConfig:
    """Teacher that a run learns from, beside its labels; see `iftplan.nn.training.optimization.distillation`.

    Attributes:
        teacher: directory of a finished run, or a checkpoint in it; empty for none.
        temperature: T, by which the logits of both are divided (arXiv 1503.02531).
        weight: part of the loss that compares logits; the labels have the rest.
        features: weight of SquareHead, which compares the outputs of layers (arXiv 2310.06927); 0 for none.
        layers: modules whose outputs are compared; the plan's layers with equal shapes in both networks, where none is named.
    """

    teacher: str = ""
    temperature: Above0 = 2.0
    weight: Part = 0.5
    features: Size = 0.0
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One training run.

    Attributes:
        seed: of everything that is drawn: initial weights, masks, data order, augmentation; a number of 64 bits.
        plan: the plan, or what to plan.
        data: what is learnt from.
        method: how masks change.
        optimizer: how weights are updated.
        schedule: the learning rate over training.
        training: the loop.
        start: what the run begins with.
        distillation: the teacher that it learns from.
        recycling: of dormant neurons.
        adapters: that are trained beside frozen weights.
        growth: of the network's widths.
    """

    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    plan: PlanConfig = field(default_factory=PlanConfig)
    data: DataConfig = field(default_factory=DataConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    start: StartConfig = field(default_factory=StartConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    recycling: RecyclingConfig = field(default_factory=RecyclingConfig)
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    growth: GrowthConfig = field(default_factory=GrowthConfig)
