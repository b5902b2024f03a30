"""`iftplan prune`: a trained network made sparse in one shot, or the curve of its quality against sparsity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.cli import completion
from iftplan.cli.commands.training.prune.choices import Choices, is_free, methods_named
from iftplan.cli.commands.training.prune.curve import pruning_curve
from iftplan.cli.commands.training.prune.trained import judge_of, trained_network
from iftplan.cli.figures import ThemeName, ThemeOption, figure_form, write_picture
from iftplan.cli.help import MODEL_PANEL
from iftplan.cli.options import (
    DISTRIBUTION_HELP,
    KEEP_DENSE_HELP,
    SPARSITY_HELP,
    FormatOption,
    InputOption,
    NoCacheOption,
    OutputOption,
    PruningBudgetOption,
    StructureOption,
    TrustOption,
    inputs_of,
    split,
)
from iftplan.cli.output import emit, say, say_next, text_lines
from iftplan.cli.process import same_command
from iftplan.masks.distributions import Distribution

if TYPE_CHECKING:
    from torch.nn import Module

    from iftplan.base.documents import Document
    from iftplan.plans.plan import Plan

EXAMPLE = """
Example:

  $ iftplan prune zoo:digits-cnn --structure 2:4 --format csv

  method,sparsity,nnz,maskable_weights,macs,metric,loss,within
  magnitude,0.5,6912,13824,230720,,,
"""

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
    budget: PruningBudgetOption = None,
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
    chosen = Choices(
        methods=methods_named(method, curve),
        sparsities=tuple(split(sparsity or (_CURVE if curve and is_free(structure, budget) else ""))),
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
    chosen.check(plot, out or save)
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
    trained, spec = trained_network(model, source, weights, inputs_of(input), trust, no_cache)
    judge = judge_of(trained, chosen)
    plans = chosen.plans(spec)
    found, network = pruning_curve(chosen, spec, trained, judge, plans)
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
        say_next(["train", "--from", out, *(["--data", chosen.data] if chosen.data else [])], form, output)
    elif not curve:
        say_next(same_command("--out", "pruned"), form, output)


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
