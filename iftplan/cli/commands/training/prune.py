"""`iftplan prune`: a trained network made sparse in one shot, or the curve of its quality against sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from iftplan.base.errors import InputError
from iftplan.base.units import parse_tolerance
from iftplan.cli import completion
from iftplan.cli.figures import ThemeName, ThemeOption, figure_form, write_picture
from iftplan.cli.help import MODEL_PANEL
from iftplan.cli.kept_answers import made_here
from iftplan.cli.options import (
    DISTRIBUTION_HELP,
    KEEP_DENSE_HELP,
    SPARSITY_HELP,
    BudgetOption,
    FormatOption,
    InputOption,
    NoCacheOption,
    OutputOption,
    StructureOption,
    TrustOption,
    inputs_of,
    split,
)
from iftplan.cli.output import emit, say, say_next, text_lines, working
from iftplan.cli.process import same_command
from iftplan.masks import parse_mask
from iftplan.masks.distributions import Distribution

if TYPE_CHECKING:
    from torch.nn import Module

    from iftplan.base.documents import Document
    from iftplan.models.spec import InputSpec, ModelSpec
    from iftplan.nn.application.pruning.prune import PruningMethod
    from iftplan.nn.training.measures.pruning.one_shot import Judge
    from iftplan.nn.training.measures.pruning.trained import Trained
    from iftplan.plans.plan import Plan
    from iftplan.plans.request import PlanRequest
    from iftplan.runs.results.pruning import PruningCurve

EXAMPLE = """
Example:

  $ iftplan prune zoo:digits-cnn --structure 2:4 --format csv

  method,sparsity,nnz,maskable_weights,macs,metric,loss,within
  magnitude,0.5,6912,13824,230720,,,
"""

METHODS = ("magnitude", "wanda", "sparsegpt")
_CURVE = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.95"
_DATA_PANEL = "Data"
_CURVE_PANEL = "Curve"


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            autocompletion=completion.models,
            help="A trained network: the directory or a checkpoint of iftplan train --method dense, or a model such as file.py:factory with its own weights or those of --weights.",
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="METHOD",
            help="Which weights stay: magnitude (the largest), wanda (the largest times the norm of their input, in each output), or sparsegpt (those that stay make up for the others). The last two need --data. With --curve several, with commas.",
        ),
    ] = "magnitude",
    sparsity: Annotated[
        str,
        typer.Option(
            "--sparsity",
            metavar="SPARSITY",
            help=f"{SPARSITY_HELP}. With --curve several, with commas.",
            show_default=f"0.75, that of an N:M structure, or what --budget needs; with --curve {_CURVE}",
        ),
    ] = "",
    structure: StructureOption = "",
    distribution: Annotated[
        Distribution, typer.Option("--distribution", help=DISTRIBUTION_HELP)
    ] = Distribution.UNIFORM,
    keep_dense: Annotated[
        str,
        typer.Option(
            "--keep-dense", metavar="LAYERS", autocompletion=completion.layers, help=KEEP_DENSE_HELP
        ),
    ] = "first,last",
    budget: BudgetOption = None,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Data to calibrate on (training part) and to score on (validation part, or else test part).",
            show_default="that of the run",
            rich_help_panel=_DATA_PANEL,
        ),
    ] = "",
    samples: Annotated[
        int,
        typer.Option(
            "--samples", min=1, help="Training samples to calibrate on.", rich_help_panel=_DATA_PANEL
        ),
    ] = 128,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", help="Random seed for the choice of these samples.", rich_help_panel=_DATA_PANEL
        ),
    ] = 0,
    curve: Annotated[
        bool,
        typer.Option(
            "--curve",
            help="Prune at many sparsities and report the quality of each, and where it drops.",
            rich_help_panel=_CURVE_PANEL,
        ),
    ] = False,
    tolerance: Annotated[
        str,
        typer.Option(
            "--tolerance",
            metavar="RATIO",
            help="Relative loss of quality that is no drop.",
            rich_help_panel=_CURVE_PANEL,
        ),
    ] = "0.01",
    plot: Annotated[
        str,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Also draw the curve, as .png, .svg or .pdf.",
            rich_help_panel=_CURVE_PANEL,
        ),
    ] = "",
    theme: ThemeOption = ThemeName.LIGHT,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Directory for the pruned network, from which iftplan train --from starts.",
            show_default="nothing is written",
        ),
    ] = "",
    save: Annotated[
        str,
        typer.Option(
            "--save",
            metavar="FILE",
            help="Also write the pruned network as a small .safetensors file: only the weights that stay.",
        ),
    ] = "",
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            metavar="PATH",
            help="Weights of MODEL: a state dict as .safetensors, .pt or .pth, a file of --save, or a folder with model.safetensors or its shards.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = "",
    source: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            autocompletion=completion.models,
            help="Source of a run's model, such as net.py:build; needed where its plan names Python and was made elsewhere.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    input: InputOption = None,
    trust: TrustOption = False,
    no_cache: NoCacheOption = False,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Make a trained network sparse in one shot.

    Weights are chosen by magnitude, Wanda or SparseGPT. With --out the pruned network is written for iftplan train
    --from. With --curve its quality is measured at many sparsities: where it drops, the essential sparsity ends.
    """
    asked = _Asked(
        methods=_methods(method, curve),
        sparsities=tuple(split(sparsity or (_CURVE if curve and _is_free(structure, budget) else ""))),
        curve=curve,
        data=data,
        samples=samples,
        seed=seed,
        tolerance=tolerance,
        structure=structure,
        distribution=distribution,
        keep_dense=tuple(split(keep_dense)),
        budget=budget,
    )
    asked.check(plot, out or save)
    if plot:
        figure_form(plot)
    from iftplan.cli.arguments import refuse_unsavable, require_torch
    from iftplan.plans.tables import plan_table
    from iftplan.runs.results.pruning import pruning_document, pruning_table

    if save:
        refuse_unsavable(save)
    require_torch("pruning")
    if out:
        from iftplan.nn.training.measures.pruning.pruned_run import refuse_used

        refuse_used(Path(out))
    trained, spec = _trained(model, source, weights, inputs_of(input), trust, no_cache)
    judge = _judge(trained, asked)
    plans = asked.plans(spec)
    found, network = _curve(asked, spec, trained, judge, plans)
    tables = [pruning_table(found)] if curve else [plan_table(plans[0]), pruning_table(found)]
    document = pruning_document(found)
    emit(tables, lambda: document, form, output, summary=tables[-1:])
    if plot:
        from iftplan.plots.pruning import pruning_picture

        write_picture(lambda: pruning_picture(found, theme=theme), plot)
        say(f"written: {plot}")
    if save:
        from iftplan.nn.export.sparse_files.save import save_sparse

        say(f"written: {save_sparse(network, save)}")
    if out:
        _write(Path(out), plans[0], network, document)
        say_next(["train", "--from", out, *(["--data", asked.data] if asked.data else [])], form, output)
    elif not curve:
        say_next(same_command("--out", "pruned"), form, output)


def _is_free(structure: str, budget: str | None) -> bool:
    """Whether neither the structure nor a budget says how many weights stay."""
    return budget is None and (not structure or parse_mask(structure).density is None)


def _methods(text: str, curve: bool) -> tuple[PruningMethod, ...]:
    """The methods that were named.

    Raises:
        InputError: one is unknown, or there are several for one network.
    """
    names = tuple(split(text))
    for name in names or ("",):
        if name not in METHODS:
            raise InputError(f"--method {name!r} is unknown. Methods are {', '.join(METHODS)}.")
    if len(names) > 1 and not curve:
        raise InputError(
            f"--method {text!r} names {len(names)} methods, and a network is pruned by one. Name one, or compare them with --curve."
        )
    return cast("tuple[PruningMethod, ...]", names)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked for."""

    methods: tuple[PruningMethod, ...]
    sparsities: tuple[str, ...]
    curve: bool
    data: str
    samples: int
    seed: int
    tolerance: str
    structure: str
    distribution: Distribution
    keep_dense: tuple[str, ...]
    budget: str | None

    def check(self, plot: str, out: str) -> None:
        """Refuse options that do not go together.

        Raises:
            InputError: says which.
        """
        if self.curve and out:
            raise InputError(
                "--out and --save take one pruned network, and --curve makes many. Prune again at the sparsity that you choose, without --curve."
            )
        if plot and not self.curve:
            raise InputError("--plot draws a curve. Add --curve.")
        if len(self.sparsities) > 1 and not self.curve:
            raise InputError(
                f"--sparsity names {len(self.sparsities)} sparsities, and a network is pruned to one. Name one, or measure them all with --curve."
            )

    @property
    def request(self) -> PlanRequest:
        """Plain sparsity without a sparsity."""
        from iftplan.plans.request import PlanRequest

        return PlanRequest(
            family="none",
            distribution=self.distribution,
            keep_dense=self.keep_dense,
            mask=self.structure,
            budget=self.budget,
        )

    def plans(self, spec: ModelSpec) -> list[Plan]:
        """A plan for each sparsity, from the lowest on."""
        from fractions import Fraction

        from iftplan.base.units import parse_sparsity
        from iftplan.plans.request import make_plan

        given: list[Fraction | None] = [*sorted(map(parse_sparsity, self.sparsities))]
        return [make_plan(spec, replace(self.request, sparsity=sparsity)) for sparsity in given or [None]]


def _trained(
    model: str,
    source: str | None,
    weights: str,
    inputs: Sequence[InputSpec],
    trust: bool,
    no_cache: bool,
) -> tuple[Trained, ModelSpec]:
    """The trained network, and its layers."""
    from iftplan.cli.arguments import document_in, plan_in, spec_of
    from iftplan.nn.training.measures.pruning.trained import trained_run, trained_source

    path = Path(model)
    beside = (path if path.is_dir() else path.parent) / "plan.json"
    is_run = path.is_dir() or (path.is_file() and path.name.startswith("checkpoint-"))
    if not is_run:
        if source:
            raise InputError(f"--model belongs to a run, and {model} is a model. Leave it out.")
        spec = spec_of(model, inputs, no_cache=no_cache, watched=False)
        return trained_source(model, inputs, weights), spec
    if weights:
        raise InputError(
            f"--weights belongs to a model, and {model} is a run with weights of its own. Leave it out."
        )
    if not beside.is_file():
        raise InputError(
            f"{path} is no run: there is no {beside}. Name the directory of an iftplan train --method dense, or a model."
        )
    from iftplan.nn.application.dense_model import dense_model

    document = document_in(str(beside))
    assert document is not None
    plan = plan_in(document, str(beside))
    trusted = trust or (not source and made_here(document, no_cache))
    dense_model(plan, source, trust=trusted)
    named = source or plan.model
    spec = spec_of(named, tuple(inputs) or plan.inputs, no_cache=no_cache, watched=False)
    return trained_run(path, named, say), spec


def _judge(trained: Trained, asked: _Asked) -> Judge | None:
    """What calibrates and scores; None without data.

    Raises:
        InputError: data are needed, and there are none.
    """
    from iftplan.nn.training.measures.pruning.one_shot import Judge
    from iftplan.runs.settings import DataConfig

    settings = trained.data
    if asked.data:
        settings = replace(settings or DataConfig(), path=asked.data, kind="auto")
    if settings is None:
        needing = [f"--method {name}" for name in asked.methods if name != "magnitude"]
        for what in (*needing, *(["--curve"] if asked.curve else [])):
            raise InputError(f"{what} needs data. Name them with --data.")
        return None
    return Judge.of(settings, asked.samples, asked.seed, say)


def _curve(
    asked: _Asked, spec: ModelSpec, trained: Trained, judge: Judge | None, plans: Sequence[Plan]
) -> tuple[PruningCurve, Module]:
    """Quality of the dense network and of every pruned one, and the last network."""
    from iftplan.nn.training.measures.pruning.one_shot import pruned_networks
    from iftplan.plans.plan import Scope
    from iftplan.runs.results.pruning import PrunedPoint, PruningCurve

    with working("pruning and scoring" if judge else "pruning"):
        score = judge.score(trained.network) if judge else None
        last, points = trained.network, list[PrunedPoint]()
        for network, point in pruned_networks(plans, asked.methods, trained, judge):
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
        tolerance=parse_tolerance(asked.tolerance),
        points=tuple(points),
    )
    return found, last


def _write(directory: Path, plan: Plan, network: Module, pruning: Document) -> None:
    """Audit the pruned network, and write it.

    Raises:
        Exit: it does not cost what the plan says.
    """
    from iftplan.nn.application.audit import measure_applied
    from iftplan.nn.training.measures.pruning.pruned_run import write_pruned
    from iftplan.plans.audit.tables import summary_table
    from iftplan.plans.document.plan import plan_document

    report = measure_applied(plan, network)
    say(*text_lines(summary_table(report)))
    if not report.passed:
        say(*(f"failed: {problem}" for problem in report.problems))
        raise typer.Exit(1)
    checkpoint = write_pruned(directory, network, plan_document(plan), pruning)
    say(f"written: {checkpoint}, plan.json and pruning.json")
