"""`iftplan plan`: a whole-model plan that closes its budget in the chosen scope."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.errors import InputError
from iftplan.base.units import Convention
from iftplan.cli import completion
from iftplan.cli.options import (
    DISTRIBUTION_HELP,
    HEADS_HELP,
    KEEP_DENSE_HELP,
    MODEL_HELP,
    ROUND_TO_HELP,
    SCOPE_HELP,
    SCOPES,
    SPARSITY_HELP,
    WITHIN_HELP,
    AllowOption,
    BudgetOption,
    ConventionOption,
    FormatOption,
    InputOption,
    NoCacheOption,
    OutputOption,
    Reference,
    StructureOption,
    inputs_of,
    split,
)
from iftplan.cli.output import Format, emit, file_format, say_next
from iftplan.cli.process import same_command
from iftplan.masks.distributions import Distribution
from iftplan.models.spec import Heads
from iftplan.plans.plan import (
    Asked,
    CloseBy,
    MaskUpdates,
    Objective,
    Optimizer,
    Pass,
    Pointwise,
    Rounding,
    parse_scope,
)

if TYPE_CHECKING:
    from iftplan.plans.request import Pricing
    from iftplan.runs.devices.tables import DeviceRequest

EXAMPLE = """
Example:

  $ iftplan plan zoo:resnet18-cifar --transform wide --sparsity 0.75 -o wide75.json

  scope              dense MACs   planned MACs      ratio   closing sparsity, same structure
  ──────────────────────────────────────────────────────────────────────────────────────────
  matrices          553 648 128    551 827 456   0.996711                           0.750000
  layers (closed)   555 468 800    555 468 800   1.000000                           0.750822
  model             555 468 800    555 468 800   1.000000                           0.750822
  search space: 44.63 M maskable weights, 3.615e+07 bits to name a mask
  width multiplier k = 2
  written: wide75.json
"""


SCALES_PANEL = "Initial scales and learning rates"
TIME_PANEL = "Plans for time"
DEVICES_PANEL = "Several devices"


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=completion.models,
            help=MODEL_HELP,
        ),
    ],
    transform: Annotated[
        list[str] | None,
        typer.Option(
            "--transform",
            autocompletion=completion.transforms,
            metavar="FAMILY",
            help="What the saved compute is spent on: wide (width), parallel (branches), factorized, doped or lowrank (rank), monarch, btt, kronecker or butterfly (width, in structured matrices); experts:8x2 (8 experts of which each token meets 2, in place of feed-forward blocks); none for plain sparsity, file.py:name for a family of your own. Several with their layers, such as 'encoder.*=parallel,wide', or alternatives for --objective, such as 'wide|parallel'.",
            show_default="wide",
        ),
    ] = None,
    sparsity: Annotated[
        str,
        typer.Option(
            "--sparsity",
            metavar="SPARSITY",
            help=f"{SPARSITY_HELP}.",
            show_default="0.75, or that of an N:M structure; of plain sparsity, what --budget needs",
        ),
    ] = "",
    input: InputOption = None,
    keep_dense: Annotated[
        str,
        typer.Option(
            "--keep-dense", metavar="LAYERS", autocompletion=completion.layers, help=KEEP_DENSE_HELP
        ),
    ] = "first,last",
    scope: Annotated[
        str,
        typer.Option(
            "--scope",
            metavar=SCOPES,
            autocompletion=completion.scopes,
            help=SCOPE_HELP,
        ),
    ] = "layers",
    within: Annotated[
        str,
        typer.Option(
            "--within",
            metavar="MODULE",
            help=WITHIN_HELP,
            show_default="the whole model, or the module of --scope",
        ),
    ] = "",
    budget: BudgetOption = None,
    attention: Annotated[
        str,
        typer.Option(
            "--attention",
            metavar="PATTERN",
            help="Pairs of a query and a key that attention keeps, by which it is counted before and after: causal, window:256, block:64, strided:8, top-k:64, joined by +.",
            show_default="every query with every key",
        ),
    ] = "",
    attention_before: Annotated[
        str,
        typer.Option(
            "--attention-before",
            metavar="PATTERN",
            help="For --attention: what the model's own attention keeps, where it is given a mask tensor.",
            show_default="read from the model",
        ),
    ] = "",
    distribution: Annotated[
        Distribution, typer.Option("--distribution", help=DISTRIBUTION_HELP)
    ] = Distribution.UNIFORM,
    power: Annotated[int, typer.Option("--power", min=1, help="Exponent of the er and erk densities.")] = 1,
    close: Annotated[
        CloseBy,
        typer.Option(
            "--close",
            help="What is adjusted to meet the budget exactly: density (weights in the masks), width (channels), or pattern (channels, with whole N:M patterns).",
        ),
    ] = "density",
    round_to: Annotated[int, typer.Option("--round-to", min=1, help=ROUND_TO_HELP)] = 1,
    rounding: Annotated[
        Rounding,
        typer.Option(
            "--rounding", help="Widths are rounded up, to cover the budget (cover), or down (floor)."
        ),
    ] = "cover",
    pointwise: Annotated[
        Pointwise,
        typer.Option(
            "--pointwise",
            help="Whether 1×1 convolutions get branches or ranks too (transformed), or are only masked.",
        ),
    ] = "transformed",
    reference: Annotated[
        Reference | None,
        typer.Option(
            "--as",
            help="Plan as the Sparse-IFT paper's code does (reference): --rounding floor --pointwise masked.",
            show_default=False,
        ),
    ] = None,
    structure: StructureOption = "",
    heads: Annotated[Heads, typer.Option("--heads", help=HEADS_HELP)] = "number",
    parametrization: Annotated[
        Asked,
        typer.Option(
            "--parametrization",
            help="Initial scale and learning rate of each tensor: standard (unchanged), mup (μP), supar (SμPar), or auto (supar where there is evidence for it).",
            rich_help_panel=SCALES_PANEL,
        ),
    ] = "standard",
    optimizer: Annotated[
        Optimizer,
        typer.Option(
            "--optimizer",
            help="Optimizer that the learning rates of --parametrization are for: adam or sgd.",
            rich_help_panel=SCALES_PANEL,
        ),
    ] = "adam",
    mask_updates: Annotated[
        MaskUpdates,
        typer.Option(
            "--mask-updates",
            help="How masks change in training, for --parametrization: static (never), dynamic (weights move, as in RigL), or gradual (weights are removed step by step).",
            rich_help_panel=SCALES_PANEL,
        ),
    ] = "static",
    objective: Annotated[
        Objective,
        typer.Option(
            "--objective",
            help="What the plan saves: flops, or wallclock (time; layers stay dense where sparse kernels are no faster on this machine). Families are chosen by wallclock, search-space (the most masks) or parameters (the fewest weights).",
            rich_help_panel=TIME_PANEL,
        ),
    ] = "flops",
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            metavar="FILE",
            help="Timings of this machine from iftplan bench --profile, for --objective wallclock.",
            show_default="where bench writes them",
            rich_help_panel=TIME_PANEL,
        ),
    ] = None,
    passes: Annotated[
        Pass | None,
        typer.Option(
            "--pass",
            help="Pass whose time counts, for --objective wallclock: forward, or step (forward and backward).",
            show_default="forward",
            rich_help_panel=TIME_PANEL,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            min=1,
            help="Batch size whose time counts, for --objective wallclock; with --devices, the samples of a step on all of them.",
            show_default="1, or one for each group of devices",
            rich_help_panel=TIME_PANEL,
        ),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            "--devices",
            min=1,
            help="Show what each of so many devices holds and sends when they train the plan in parts (FSDP).",
            show_default=False,
            rich_help_panel=DEVICES_PANEL,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Memory of each device, such as 80G (GiB): whether the plan fits.",
            show_default=False,
            rich_help_panel=DEVICES_PANEL,
        ),
    ] = None,
    tensor_parallel: Annotated[
        int,
        typer.Option(
            "--tensor-parallel",
            min=1,
            help="Devices that split each linear layer among them.",
            rich_help_panel=DEVICES_PANEL,
        ),
    ] = 1,
    replicas: Annotated[
        int,
        typer.Option(
            "--replicas",
            min=1,
            help="Groups of devices that hold a whole model each, in parts.",
            rich_help_panel=DEVICES_PANEL,
        ),
    ] = 1,
    allow: AllowOption = None,
    no_cache: NoCacheOption = False,
    form: FormatOption = None,
    output: OutputOption = None,
    convention: ConventionOption = Convention.MAC,
) -> None:
    """Make a network sparse and spend the saved compute, at equal MACs.

    The layers become wider, gain branches or rank, and the budget closes exactly in one scope, at the dense model's cost or at --budget;
    the table shows all three scopes.
    """
    from iftplan.cli.arguments import model_option, spec_of
    from iftplan.cli.kept_answers import note_made
    from iftplan.cli.options import assigned_families
    from iftplan.plans.document.plan import plan_document
    from iftplan.plans.request import PlanRequest, make_plan
    from iftplan.plans.tables import plan_table, scale_tables, scope_table, time_tables, total_time_tables

    shown = _devices(devices, memory, tensor_parallel, replicas, batch)
    closed, modules = parse_scope(scope, within)
    asked = PlanRequest(
        family=assigned_families(transform or ["wide"]),
        sparsity=sparsity or None,
        scope=closed,
        within=modules,
        budget=budget,
        attention=attention,
        attention_before=attention_before,
        distribution=distribution,
        keep_dense=tuple(split(keep_dense)),
        close_by=close,
        round_to=round_to,
        rounding=rounding,
        pointwise=pointwise,
        power=power,
        mask=structure,
        heads=heads,
        parametrization=parametrization,
        optimizer=optimizer,
        mask_updates=mask_updates,
    )
    asked = asked.as_reference() if reference else asked
    request = replace(
        asked,
        pricing=_pricing(objective, profile, passes, None if shown else batch),
        aim=objective if objective in ("search-space", "parameters") else None,
    )
    widens = request.reads_widths
    spec = spec_of(model, inputs_of(input), widths=widens, heads=asked.heads, allow=allow, no_cache=no_cache)
    made = make_plan(spec, request)
    document = plan_document(made)
    scopes = scope_table(made, convention)
    emit(
        [
            *(plan_table(made, convention), *scale_tables(made), *time_tables(made), scopes),
            *(shown.tables(made) if shown else ()),
        ],
        lambda: document,
        form,
        output,
        summary=[*total_time_tables(made), scopes, *(shown.tables(made) if shown else ())],
    )
    needed = model_option(made.model)
    if needed and model == made.model and output not in (None, "-") and note_made(document, no_cache):
        needed = []
    say_next(_next(needed, form, output), form, output)


def _devices(
    count: int | None, memory: str | None, tensor: int, replicas: int, batch: int | None
) -> DeviceRequest | None:
    """What was asked about devices; None where nothing was."""
    if count is None:
        if memory is not None or max(tensor, replicas) > 1:
            raise InputError(
                "--memory, --tensor-parallel and --replicas say how a plan is trained on several devices. Add --devices with their number, or leave them out."
            )
        return None
    from iftplan.runs.devices.layout import Devices
    from iftplan.runs.devices.tables import DeviceRequest, parse_memory

    devices = Devices(count, tensor, replicas)
    return DeviceRequest.of(devices, None if memory is None else parse_memory(memory), batch)


def _next(needed: Sequence[str], form: Format | None, output: str | None) -> list[str]:
    """Words of the command that audits a plan that was written, or that writes it.

    Args:
        needed: the option that names the plan's source, where it has to be named again.
        form: the form asked for.
        output: the file; None or "-" for stdout.
    """
    if output in (None, "-"):
        return same_command("-o", "plan.json")
    return ["audit", output, *needed] if file_format(output, form) is Format.JSON else []


def _pricing(
    objective: Objective, profile: str | None, passes: Pass | None, batch: int | None
) -> Pricing | None:
    """What a plan for time is priced with; read before the model, which takes longer."""
    if objective == "wallclock":
        from iftplan.plans.request import Pricing
        from iftplan.plans.speed.document import read_profile

        return Pricing(read_profile(profile), passes or "forward", batch or 1)
    if profile is not None or passes is not None or batch is not None:
        raise InputError(
            "--profile, --pass and --batch need --objective wallclock. Add it, or leave them out."
        )
    return None
