"""`iftplan train`: execute a plan, and write a run directory."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from iftplan.base.errors import InputError, StaleError
from iftplan.base.units import parse_size
from iftplan.cli import completion
from iftplan.cli.commands.training.train.plans import plan_of, resumed_plan
from iftplan.cli.commands.training.train.run import train
from iftplan.cli.kept_answers import made_here
from iftplan.cli.options import NoCacheOption, PlanModelOption, Reference, TrustOption
from iftplan.cli.output import say_next
from iftplan.cli.process import same_command
from iftplan.runs.methods import METHODS

if TYPE_CHECKING:
    from iftplan.plans.plan import Plan
    from iftplan.runs.settings import RunConfig

EXAMPLE = """
Example:

  $ iftplan train --method rigl --dry-run

                           run
  ───────────────────────────────────────────────────────────────
  model                    zoo:digits-cnn
  plan                     wide at sparsity 3/4, closed in layers
  method                   rigl
  data                     digits
  optimizer                sgd, lr 0.1 cosine
  length                   15 epochs, batches of 128
  seed                     0
  forward MACs a sample    451 904
  training MACs a sample   1 355 712
  dense model's            1 355 712
  weights and optimizer    674 688 bytes
  masks                    55 296 bytes; 55 296 bits as indices
  run directory            runs/digits-cnn-rigl-seed0
  a step that looks at the dense gradient: 2 692 352 MACs a sample
"""


RUN_PANEL = "Run"
Method = StrEnum("Method", [(name, name) for name in METHODS])  # type: ignore[misc]  # known where it runs


def command(
    plan: Annotated[
        str,
        typer.Argument(metavar="[PLAN]", help="A plan file (default: the recipe makes its own plan)."),
    ] = "",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Training data: digits (bundled), a folder of images, tar shards or CIFAR batches, a .txt file, or tokens as .bin or .npy.",
            show_default="that of the recipe",
        ),
    ] = "",
    method: Annotated[
        Method | None,
        typer.Option(
            "--method",
            help="How masks change: static (never); set, rigl, srigl, mest or snfs (weights move); gradual, iterative, granet, mask-decay, structure-decay or cast (weights are removed step by step); snip, grasp, force or synflow (weights are removed before training); ste, srste, transposable or top-kast (dense weights behind masks); sara (the smallest weights of a dense network are trained); dense (the baseline); densified (the plan without its masks).",
            show_default="that of the recipe",
        ),
    ] = None,
    config: Annotated[
        str, typer.Option("--config", metavar="FILE", help="Settings of the run, as TOML.")
    ] = "",
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            autocompletion=completion.recipes,
            help="Bundled settings, which --config and options change.",
            show_default="digits, without --config",
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One setting, such as optimizer.lr=0.05; repeat it for more."
        ),
    ] = None,
    reference: Annotated[
        Reference | None,
        typer.Option(
            "--as",
            help="Plan and train as the Sparse-IFT paper's code does (reference), but for what --set says.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Random seed for weights, masks and data order.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Length of training in passes over the data.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Length of training in optimizer steps, instead of epochs."),
    ] = None,
    execution: Annotated[
        Literal["dense", "sparse", "compact"] | None,
        typer.Option(
            "--execution",
            help="How masked layers are computed: dense (all weights, zeros included), sparse (kernels for the CPU that skip zeros) or compact (these, with optimizer state for the kept weights alone between mask updates).",
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Start from the weights and masks of another run (its directory or a checkpoint), or from a state dict (a file, or a folder with model.safetensors).",
            rich_help_panel=RUN_PANEL,
        ),
    ] = "",
    out: Annotated[
        str,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Directory that the run is written to.",
            show_default="runs/PLAN-METHOD-seedN",
            rich_help_panel=RUN_PANEL,
        ),
    ] = "",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run in --out from its last checkpoint.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = False,
    auto_resume: Annotated[
        bool,
        typer.Option(
            "--auto-resume",
            help="Continue the run in --out where there is one, else begin it: for torchrun and queues, which start the same command again.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = False,
    save: Annotated[
        str,
        typer.Option(
            "--save",
            metavar="FILE",
            help="Also write the trained network as a small .safetensors file: only the weights in the masks, at the best checkpoint or the last.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = "",
    logger: Annotated[
        list[str] | None,
        typer.Option(
            "--logger",
            metavar="NAME",
            autocompletion=completion.loggers,
            help="Also log to tensorboard or mlflow; repeat it for both.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    peak: Annotated[
        str,
        typer.Option(
            "--peak",
            metavar="FLOPS",
            help="FLOPs per second of the machine, such as 312T, or measured: report how many of them the run uses (MFU).",
            rich_help_panel=RUN_PANEL,
        ),
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what would run and what it costs, and stop.", rich_help_panel=RUN_PANEL
        ),
    ] = False,
    model: PlanModelOption = None,
    trust: TrustOption = False,
    no_cache: NoCacheOption = False,
) -> None:
    """Train a plan with a sparse-training method.

    Without arguments, it trains a small sparse network on digits in under a minute. --resume continues a stopped run
    to the same last bit.
    """
    best = _peak(peak)
    from iftplan.cli.arguments import refuse_unsavable, require_torch, source_of
    from iftplan.cli.run_settings import RunOptions, resumed_run, run_of

    name = method.value if method else ""
    kernels = [f"training.execution={execution}"] if execution else []
    given = RunOptions(
        plan,
        data,
        name,
        config,
        recipe,
        [*(settings or ()), *kernels],
        seed,
        epochs,
        steps,
        start,
        as_reference=reference is not None,
    )
    if (resume or auto_resume) and not out:
        raise InputError(
            f"{'--resume' if resume else '--auto-resume'} needs the directory of the run: --out DIR."
        )
    begun = resume or (auto_resume and Path(out, "run.json").is_file())
    run = resumed_run(given, Path(out)) if begun else run_of(given)
    directory = Path(out or f"runs/{_title(run)}")
    if not dry_run:
        _refuse_missing(run.data.path)  # before seconds are spent on importing PyTorch
    if save:
        refuse_unsavable(save)
        if not METHODS[run.method.name].masked:
            raise InputError(
                f"--save writes the weights in the masks, and the method {run.method.name} has none. Leave it out."
            )
    require_torch("training")
    if not (resume or auto_resume or dry_run):
        from iftplan.nn.training.records.claims import refuse_taken

        refuse_taken(directory)  # before a plan is made
    made, document = resumed_plan(directory) if begun else plan_of(run, no_cache)
    try:
        source = source_of(made, model or "", trust=trust or (not model and made_here(document, no_cache)))
    except StaleError as error:
        if not model or run.plan.file or begun:
            raise
        raise InputError(
            f"--model names the source of a given plan's model, and no plan was given: the settings plan {run.plan.model}. To plan and train {model}, write --set plan.model={shlex.quote(model)}, or give its plan."
        ) from error
    if dry_run:
        _describe(run, made, directory)
        say_next(same_command(without="--dry-run"))
        return
    train(
        run,
        made,
        document,
        directory,
        source,
        logger or (),
        resume=None if auto_resume else resume,
        peak=best,
        save=save,
    )


def _refuse_missing(data: str) -> None:
    """Refuse a path of data that nothing lies at.

    Raises:
        InputError: there is no such file or folder.
    """
    if data and data != "digits" and not Path(data).exists():
        raise InputError(
            f"there is nothing at {data!r}, where the training data should be. Give the path of a file or folder with --data, or --data digits for the bundled images."
        )


def _peak(text: str) -> float | Literal["measured"] | None:
    """FLOPs a second that the machine is said to be capable of."""
    if not text:
        return None
    return "measured" if text == "measured" else parse_size(text, "--peak")


def _title(run: RunConfig) -> str:
    name = Path(run.plan.file).stem if run.plan.file else Path(run.plan.model.rpartition(":")[2]).stem
    return f"{name}-{run.method.name}-seed{run.seed}"


def _describe(run: RunConfig, plan: Plan, directory: Path) -> None:
    from iftplan.cli.output import Format, emit
    from iftplan.runs.tables import run_table

    emit([run_table(run, plan, str(directory))], dict, Format.TABLE, None)
