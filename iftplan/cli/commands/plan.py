"""`iftplan plan`: a whole-model plan that closes its budget in the chosen scope."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.errors import InputError
from iftplan.base.units import Convention
from iftplan.cli import completion
from iftplan.cli.options import (
    DISTRIBUTION_HELP,
    SCOPE_HELP,
    AllowOption,
    ConventionOption,
    FormatOption,
    InputOption,
    NoCacheOption,
    OutputOption,
    StructureOption,
    inputs_of,
    split,
)
from iftplan.cli.output import emit
from iftplan.masks.distributions import Distribution
from iftplan.models.spec import Heads
from iftplan.plans.plan import Asked, CloseBy, MaskUpdates, Objective, Optimizer, Pass, Scope

if TYPE_CHECKING:
    from iftplan.plans.request import Pricing

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


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=completion.models,
            help="zoo:NAME, hf:CONFIG.json, file.py:factory, a spec …; see iftplan models.",
        ),
    ],
    transform: Annotated[
        str,
        typer.Option(
            "--transform",
            autocompletion=completion.transforms,
            help="wide, parallel, factorized, doped, lowrank, none, or file.py:name of your own.",
        ),
    ] = "wide",
    sparsity: Annotated[
        str,
        typer.Option(
            "--sparsity", help="0.75, 3/4 or 75%.", show_default="0.75, or what an N:M structure has"
        ),
    ] = "",
    input: InputOption = None,
    keep_dense: Annotated[
        str, typer.Option("--keep-dense", help="first, last, names of layers, or none.")
    ] = "first,last",
    scope: Annotated[Scope, typer.Option("--scope", help=SCOPE_HELP)] = Scope.LAYERS,
    distribution: Annotated[
        Distribution, typer.Option("--distribution", help=DISTRIBUTION_HELP)
    ] = Distribution.UNIFORM,
    power: Annotated[int, typer.Option("--power", min=1, help="Exponent of the ER and ERK densities.")] = 1,
    close: Annotated[
        CloseBy,
        typer.Option(
            "--close",
            help="What closes the budget: density (weights more or fewer in masks), width (channels more or fewer), or pattern (width with whole N:M patterns).",
        ),
    ] = "density",
    round_to: Annotated[int, typer.Option("--round-to", min=1, help="Make widths multiples of this.")] = 1,
    structure: StructureOption = "",
    heads: Annotated[
        Heads, typer.Option("--heads", help="Keep the number or the size of attention heads.")
    ] = "number",
    parametrization: Annotated[
        Asked,
        typer.Option(
            "--parametrization",
            help="Initial scales and learning rates of each tensor: standard (as they are), mup (μP), supar (SμPar), or auto (supar where there is evidence).",
        ),
    ] = "standard",
    optimizer: Annotated[
        Optimizer,
        typer.Option(
            "--optimizer", help="Whose learning rates a parametrization holds: those of adam or of sgd."
        ),
    ] = "adam",
    mask_updates: Annotated[
        MaskUpdates,
        typer.Option(
            "--mask-updates",
            help="What becomes of masks in training, for --parametrization: static (they stay), dynamic (weights move, as in RigL), or gradual (weights go on the way).",
        ),
    ] = "static",
    objective: Annotated[
        Objective,
        typer.Option(
            "--objective",
            help="flops, or wallclock: keep layers dense where sparse kernels cannot pay on this machine.",
        ),
    ] = "flops",
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            metavar="FILE",
            help="Of --objective wallclock: what iftplan bench --profile wrote.",
            show_default="where it writes",
        ),
    ] = None,
    passes: Annotated[
        Pass | None,
        typer.Option(
            "--pass",
            help="Of --objective wallclock: forward, or step with backward.",
            show_default="forward",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            min=1,
            help="Of --objective wallclock: how many of the input are computed together.",
            show_default="1",
        ),
    ] = None,
    allow: AllowOption = None,
    no_cache: NoCacheOption = False,
    form: FormatOption = None,
    output: OutputOption = None,
    convention: ConventionOption = Convention.MAC,
) -> None:
    """Plan a whole model at exactly equal MACs in one scope; all three scopes are always shown."""
    from iftplan.cli.arguments import spec_of
    from iftplan.cli.options import families_of
    from iftplan.plans.document.plan import plan_document
    from iftplan.plans.request import PlanRequest, make_plan
    from iftplan.plans.tables import plan_table, scale_tables, scope_table, time_tables, total_time_tables

    families = [] if transform == "none" else families_of(transform)
    if len(families) > 1:
        raise InputError(
            f"--transform {transform!r} names {len(families)} transforms, and a plan has one; make a plan for each."
        )
    asked = PlanRequest(
        family=families[0] if families else None,
        sparsity=sparsity or None,
        scope=scope,
        distribution=distribution,
        keep_dense=tuple(split(keep_dense)),
        close_by=close,
        round_to=round_to,
        power=power,
        mask=structure,
        heads=heads,
        parametrization=parametrization,
        optimizer=optimizer,
        mask_updates=mask_updates,
    )
    widens = asked.policy().widens
    request = replace(asked, pricing=_pricing(objective, profile, passes, batch))
    spec = spec_of(model, inputs_of(input), widths=widens, heads=asked.heads, allow=allow, no_cache=no_cache)
    made = make_plan(spec, request)
    scopes = scope_table(made, convention)
    emit(
        [plan_table(made, convention), *scale_tables(made), *time_tables(made), scopes],
        lambda: plan_document(made),
        form,
        output,
        summary=[*total_time_tables(made), scopes],
    )


def _pricing(
    objective: Objective, profile: str | None, passes: Pass | None, batch: int | None
) -> Pricing | None:
    """What a plan for time is priced with; read before the model, which takes longer."""
    if objective == "wallclock":
        from iftplan.plans.request import Pricing
        from iftplan.plans.speed.document import read_profile

        return Pricing(read_profile(profile), passes or "forward", batch or 1)
    if profile is not None or passes is not None or batch is not None:
        raise InputError("--profile, --pass and --batch price layers in time; add --objective wallclock.")
    return None
