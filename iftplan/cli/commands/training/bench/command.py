"""`iftplan bench`: what planned layers take on this machine."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from iftplan.base.documents import loads, read_text
from iftplan.base.errors import InputError
from iftplan.cli import completion
from iftplan.cli.figures import FIGURE_PANEL, ThemeName, ThemeOption, TitleOption, figure_form, write_picture
from iftplan.cli.options import FormatOption, OutputOption, TrustOption, split
from iftplan.cli.output import Format, emit, say
from iftplan.cli.progress import counted
from iftplan.plans.plan import Pass

if TYPE_CHECKING:
    from iftplan.plans.speed.timings import LayerPair

EXAMPLE = """
Example:

  $ iftplan bench --layer linear:768-3072@512 --sparsity 0.75,0.9 --structures fan-in,block4x4 --dry-run

  to be timed
  layer                 sparsity   wide                   mask             nnz   density     MACs   times
  ───────────────────────────────────────────────────────────────────────────────────────────────────────
  linear:768-3072@512       0.75   linear:1536-6144@512   fan-in     2 359 296    0.2500   1.0000       1
  linear:768-3072@512       0.75   linear:1536-6144@512   block4x4   2 359 296    0.2500   1.0000       1
  linear:768-3072@512        0.9   linear:2429-9715@512   fan-in     2 351 030    0.0996   0.9965       1
  linear:768-3072@512        0.9   linear:2432-9716@512   block4x4   2 359 296    0.0998   1.0000       1
  MACs: over those of the dense layer

What a profile for plan --objective wallclock measures; usually 36 layers:

  $ iftplan bench --profile --widths 128 --columns 64 --sparsity 0.9 --dry-run

  to be timed
  layer                sparsity   wide                 mask               nnz   density     MACs   times
  ──────────────────────────────────────────────────────────────────────────────────────────────────────
  linear:128-128@64         0.9   linear:405-405@64    unstructured    16 384    0.0999   1.0000       1
  conv1x1:128-128@64        0.9   conv1x1:405-405@64   unstructured    16 384    0.0999   1.0000       1
  conv3x3:128-128@64        0.9   conv3x3:405-405@64   unstructured   147 456    0.0999   1.0000       1
  MACs: over those of the dense layer
"""


class Device(StrEnum):
    """Device that layers are timed on."""

    CPU = "cpu"
    CUDA = "cuda"


Passes = Literal[Pass, "both"]


PROFILE_PANEL = "Profile of this machine"


_STRUCTURES = "unstructured"
"""Of masks, unless others are named."""


def command(
    plan: Annotated[
        str, typer.Argument(metavar="[PLAN]", help="A wide plan file; or name layers with --layer.")
    ] = "",
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="LAYER",
            autocompletion=completion.layer_kinds,
            help="Layer to time, such as linear:768-3072@512 or conv3x3:128-128@16x16; repeat it for more.",
        ),
    ] = None,
    sparsity: Annotated[
        str,
        typer.Option(
            "--sparsity",
            metavar="LIST",
            help="Sparsities for --layer and --profile, with commas.",
            show_default="0.9, and for a profile 0.5,0.75,0.9,0.95",
        ),
    ] = "",
    structures: Annotated[
        str,
        typer.Option(
            "--structures",
            metavar="LIST",
            autocompletion=completion.structures,
            help="Patterns of the masks for --layer and --profile, with commas: unstructured, fan-in, block1x4, block4x4 …",
        ),
    ] = _STRUCTURES,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="Batch size: samples that are computed together.")
    ] = 1,
    passes: Annotated[
        Passes, typer.Option("--pass", help="Pass to time: forward, step (forward and backward), or both.")
    ] = "both",
    threads: Annotated[
        str,
        typer.Option(
            "--threads", metavar="LIST", help="Numbers of CPU threads, with commas; all for every core."
        ),
    ] = "1",
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds",
            min=1,
            help="Number of measurements of each layer in each backend.",
            show_default="9, and for a profile 3",
        ),
    ] = None,
    backends: Annotated[
        str,
        typer.Option(
            "--backends",
            metavar="LIST",
            autocompletion=completion.backends,
            help="Backends to time, with commas; at least one must be dense.",
            show_default="all that run here",
        ),
    ] = "",
    device: Annotated[
        Device, typer.Option("--device", help="cpu, or cuda (the first NVIDIA GPU, in float16).")
    ] = Device.CPU,
    python: Annotated[
        list[str] | None,
        typer.Option(
            "--python",
            metavar="PATH",
            help="Also time sparselab or DeepSparse as installed in this interpreter or virtual environment; repeat it for more.",
        ),
    ] = None,
    cold: Annotated[
        bool,
        typer.Option(
            "--cold",
            help="Time copies of a layer in turn where it has up to 64 columns, as in a network too large for the cache.",
        ),
    ] = False,
    network: Annotated[
        bool,
        typer.Option("--network", help="Time the plan's whole network on the CPU, instead of its layers."),
    ] = False,
    trust: TrustOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be timed, and stop.")] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Measure this machine once, for iftplan plan --objective wallclock; -o FILE chooses the file.",
            rich_help_panel=PROFILE_PANEL,
        ),
    ] = False,
    widths: Annotated[
        str,
        typer.Option(
            "--widths",
            metavar="LIST",
            help="Channels of the layers of a profile, with commas.",
            show_default="32,128,512; 256 for 3×3",
            rich_help_panel=PROFILE_PANEL,
        ),
    ] = "",
    columns: Annotated[
        str,
        typer.Option(
            "--columns",
            metavar="LIST",
            help="Columns of the layers of a profile (samples times positions), with commas.",
            show_default="1,8,64,1024",
            rich_help_panel=PROFILE_PANEL,
        ),
    ] = "",
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Also draw the speed-ups against sparsity (.png, .svg or .pdf).",
            rich_help_panel=FIGURE_PANEL,
        ),
    ] = None,
    title: TitleOption = "",
    theme: ThemeOption = ThemeName.LIGHT,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Time planned layers against the dense ones on this machine.

    Every backend that runs here is timed.
    """
    from iftplan.plans.speed.profiles import PASSES
    from iftplan.plans.speed.tables import bench_document, bench_table, pairs_document, pairs_table

    if cold and (network or profile or python or device is Device.CUDA):
        raise InputError(
            "--cold times copies of single layers on the CPU, and --profile always does. Leave --cold out, or --network, --profile, --python and --device."
        )
    if device is Device.CUDA and (python or threads != "1"):
        raise InputError("--threads and --python are for CPUs. Leave them out with --device cuda.")
    counts = [_threads(text) for text in split(threads)] or [1]
    kinds: tuple[Pass, ...] = tuple(kind for kind in PASSES if passes in (kind, "both"))
    if network:
        if not plan or any(
            (
                *(layer, sparsity, backends, plot, profile, dry_run, python, device is not Device.CPU),
                *(structures != _STRUCTURES, widths, columns),
            )
        ):
            raise InputError(
                "--network times the network of a PLAN on the CPU. Give it a plan file, and leave --layer, --sparsity, --structures, --widths, --columns, --backends, --device, --python, --plot, --profile and --dry-run out."
            )
        _network(plan, batch, kinds, counts, rounds or 9, trust, form, output)
        return
    if trust:
        raise InputError("--trust is for --network, which builds the plan's model. Leave it out.")
    if profile:
        elsewhere = device is not Device.CPU or python
        if any((plan, layer, backends, plot, elsewhere, batch > 1, len(counts) > 1)):
            raise InputError(
                "--profile measures layers of its own on the CPU with one number of threads. Leave PLAN, --layer, --batch, --backends, --device, --python and --plot out."
            )
        from iftplan.cli.commands.training.bench.profile import grid_of, write_profile

        pairs = grid_of(sparsity, structures, widths, columns)
        if not dry_run:
            write_profile(pairs, kinds, counts[0], rounds, form, output)
            return
    elif widths or columns:
        raise InputError(
            "--widths and --columns belong to --profile. A --layer has its own sizes, as in linear:32-32@8."
        )
    elif plan and (sparsity or structures != _STRUCTURES):
        raise InputError(
            "--sparsity and --structures are for --layer, and a plan has its own. Leave them out, or leave the plan out."
        )
    else:
        pairs = _pairs(plan, layer or [], sparsity or "0.9", structures, device)
    named = _backends(backends)
    if plot is not None:
        figure_form(plot)
    if dry_run:
        emit([pairs_table(pairs)], lambda: pairs_document(pairs), form, output)
        return
    from iftplan.cli.arguments import require_torch

    require_torch("timing layers")
    from iftplan.nn.timing.bench import bench
    from iftplan.nn.timing.libraries import installed_libraries

    with counted(len(pairs) * len(kinds) * len(set(counts))) as tell:
        found = bench(
            pairs,
            batch=batch,
            passes=kinds,
            threads=counts,
            rounds=rounds or 9,
            backends=named,
            libraries=installed_libraries(python or ()) if device is Device.CPU else None,
            device=device.value,
            cold=cold,
            say=tell,
        )
    table = bench_table(found)
    emit([table], lambda: bench_document(found), form, output, summary=[table])
    if plot is not None:
        from iftplan.plots.timings import bench_picture

        write_picture(lambda: bench_picture(found, title=title, theme=theme.value), plot)
        say(f"written: {plot}")


def _network(
    plan: str,
    batch: int,
    kinds: tuple[Pass, ...],
    threads: list[int],
    rounds: int,
    trust: bool,
    form: Format | None,
    output: str | None,
) -> None:
    """Time a planned network from end to end."""
    from iftplan.cli.arguments import plan_in, require_torch
    from iftplan.plans.speed.tables import network_document, network_table

    given = plan_in(loads(read_text(plan), plan), plan)
    require_torch("timing networks")
    from iftplan.nn.timing.networks import bench_network

    with counted(len(kinds) * len(set(threads))) as tell:
        found = bench_network(
            given, batch=batch, passes=kinds, threads=threads, rounds=rounds, trust=trust, say=tell
        )
    table = network_table(found)
    emit([table], lambda: network_document(found), form, output, summary=[table])


def _pairs(
    plan: str, layers: list[str], sparsity: str, structures: str, device: Device
) -> tuple[LayerPair, ...]:
    from iftplan.base.units import parse_sparsity
    from iftplan.cli.arguments import plan_in
    from iftplan.masks import parse_mask
    from iftplan.plans.speed.timings import pair_of_layer, pairs_of_plan

    if bool(plan) == bool(layers):
        raise InputError(
            "bench needs a PLAN or layers. Name one of them, such as --layer linear:768-3072@512."
        )
    if plan:
        return pairs_of_plan(plan_in(loads(read_text(plan), plan), plan))
    multiple = 64 if device is Device.CUDA else 1  # what tensor cores and torch's packing of 2:4 want
    return tuple(
        pair_of_layer(text, parse_sparsity(s), parse_mask(name), multiple=multiple)
        for text in layers
        for s in split(sparsity)
        for name in split(structures)
    )


def _backends(text: str) -> tuple[str, ...]:
    """Those that are named, in the order of tables; all if none is."""
    from iftplan.plans.speed.timings import BACKENDS

    named = split(text) or BACKENDS
    for name in named:
        if name not in BACKENDS:
            raise InputError(f"--backends {name!r} is not a backend. Backends are {', '.join(BACKENDS)}.")
    if not any(name.startswith("dense") for name in named):
        raise InputError(f"--backends {text} has no dense backend to compare with. Add dense or dense-best.")
    return tuple(name for name in BACKENDS if name in named)


def _threads(text: str) -> int:
    """A number of threads; 0 for all."""
    if text == "all":
        return 0
    if not text.isdecimal() or not int(text):
        raise InputError(f"--threads {text!r} is not a number of threads. Write 1, or 1,4, or all.")
    return int(text)
