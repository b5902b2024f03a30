"""What each family makes of one budget: capacity, search space, memory, training cost and the time of a step, at equal MACs.

    python benchmarks/planning/equal_cost.py [--models zoo:gpt3-small,zoo:vit-b16] [--families wide,parallel,…] [--rounds 2] [--tokens 128]
    python benchmarks/planning/equal_cost.py --rounds 0
    python benchmarks/planning/equal_cost.py --out rows.jsonl [--picture FILE]

Each family closes the whole forward pass at the dense model's MACs; `wide/blockdiag4` is a family with a structure of its
masks. *Capacity* is the number of weights and biases that take part, which masks may choose from *places*; *search space* is the
number of bits that name a choice of masks; *memory* what the kept values and the masks take in bfloat16, an index bit a place where masks are free. A
step is forward and backward with operators on masked weights, one thread, in processor time, interleaved with the dense model's; it
says what this machine does today, not what the MACs allow. It takes one input as the model was read with, or one of fewer
`--tokens`. `--rounds 0` times nothing, but has three engines audit every network. Rows are written to `--out` as they are found,
and those that are there already aren't measured again.
"""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import thread_time

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import LogLocator, NullLocator  # noqa: E402
from matplotlib.transforms import Bbox  # noqa: E402

import iftplan as ift  # noqa: E402
import iftplan.nn as ift_nn  # noqa: E402
from iftplan.base.units import abbreviate  # noqa: E402
from iftplan.models.spec import ModelSpec  # noqa: E402
from iftplan.plans.plan import Plan  # noqa: E402
from iftplan.report.table import Table  # noqa: E402
from iftplan.report.terminal import print_table  # noqa: E402
from iftplan.runs.costs.training_cost import TrainingCost  # noqa: E402
from iftplan.runs.results.pareto import Point, frontier  # noqa: E402

FAMILIES = (
    "wide", "nm", "wide/blockdiag4", "wide/butterfly16x4", "parallel", "factorized", "doped", "doped/blockdiag4",
    "lowrank", "monarch", "btt", "kronecker", "butterfly", "experts:8x2",
)  # fmt: skip
SPARSITY = "3/4"
SHIFTS = (0, 6, -6, 11, -11, 17, -17, 22, -22)
"""Points that a name in the picture moves up."""


@dataclass(frozen=True, slots=True)
class Row:
    """One family's use of the budget.

    Attributes:
        model: that was planned.
        family: its name.
        macs: of the forward pass.
        dense_macs: of the dense model's.
        kept: weights and biases that take part.
        places: weights and biases of the network, masked or not.
        bits: that name a choice of masks.
        bytes: of kept values in bfloat16 and of the masks.
        training_macs: of a step a sample, with masks that stay.
        time: of a step over the dense model's, 0 where it was not measured.
        seconds: of a step of the dense model beside it.
    """

    model: str
    family: str
    macs: int
    dense_macs: int
    kept: int
    places: int
    bits: float
    bytes: int
    training_macs: int
    time: float = 0.0
    seconds: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="zoo:gpt3-small,zoo:vit-b16")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--tokens", type=int, default=0, help="of the input that is timed; the model's own for 0"
    )
    parser.add_argument("--out", type=Path, help="rows as JSON lines, kept between calls")
    parser.add_argument("--picture", type=Path, help="an SVG or PNG of capacity against the time of a step")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for model in given.models.split(","):
        found = list(rows_of(model, given.families.split(","), given.rounds, given.tokens, given.out))
        print_table(table(model, found))
        rows += found
    if given.picture:
        picture(rows, given.picture)


def rows_of(model: str, families: list[str], rounds: int, tokens: int, out: Path | None) -> Iterator[Row]:
    """The dense model's row and one for each family, those of a file first."""
    old = [Row(**json.loads(line)) for line in out.read_text().splitlines()] if out and out.exists() else []
    known = {(row.model, row.family): row for row in old}
    spec = ift.read_model(model)
    dense = ift_nn.build(model, device="cpu").train()
    yield plain(model, dense, spec)
    for family in families:
        row = known.get((model, family))
        if row is None:
            row = planned(model, family, plan_of(spec, family), dense, inputs(spec, tokens), rounds)
            print(f"{model} {family}: {row.time:.2f} of {row.seconds:.2f} s", flush=True)
            if out:
                with out.open("a") as lines:
                    print(json.dumps(asdict(row)), file=lines)
        yield row


def plan_of(spec: ModelSpec, family: str) -> Plan:
    """The plan of the family, in scope model; experts have no sparsity, and structures of masks may set it."""
    name, _, mask = family.partition("/")
    sparsity = None if mask or family.startswith("experts") else SPARSITY
    return ift.plan(spec, name, sparsity, mask=mask or None, scope="model")


def inputs(spec: ModelSpec, tokens: int) -> torch.Tensor:
    """A batch of one, as the model was read with: pixels, or so many token numbers of zero."""
    (given,) = spec.inputs
    if given.dtype != "int64":
        return torch.randn(given.shape)
    return torch.zeros((given.shape[0], tokens or given.shape[1]), dtype=torch.int64)


def plain(model: str, dense: torch.nn.Module, spec: ModelSpec) -> Row:
    macs = spec.macs
    count = sum(p.numel() for p in dense.parameters())
    return Row(model, "dense", macs, macs, count, count, 0.0, 2 * count, 3 * macs, 1.0)


def planned(
    model: str, family: str, plan: Plan, dense: torch.nn.Module, batch: torch.Tensor, rounds: int
) -> Row:
    network = ift_nn.apply(plan, dense if rounds else ift_nn.build(model)).train()
    if not rounds:
        audited(plan, network)
    places = sum(p.numel() for p in network.parameters())
    masked = [layer for layer in plan.layers if layer.maskable]
    maskable = sum(layer.capacity for layer in masked)
    kept = places - maskable + sum(layer.nnz for layer in masked)
    time, seconds = step_time(dense, network, batch, rounds) if rounds else (0.0, 0.0)
    bits, cost = plan.cardinality.log2_masks or 0.0, TrainingCost.of(plan)
    return Row(
        model=model,
        family=family,
        macs=plan.macs("model"),
        dense_macs=plan.dense_macs("model"),
        kept=kept,
        places=places,
        bits=bits,
        bytes=2 * kept + (-(-maskable // 8) if bits else 0),
        training_macs=cost.step(),
        time=time,
        seconds=seconds,
    )


def audited(plan: Plan, network: torch.nn.Module) -> None:
    """Stop unless three engines count what was planned."""
    report = ift_nn.measure_applied(plan, network, engines=("meta", "flop_counter", "fvcore"))
    if not report.passed:
        raise SystemExit(f"{plan.model}, {plan.transform}: {report.problems}")


def step_time(
    dense: torch.nn.Module, network: torch.nn.Module, batch: torch.Tensor, rounds: int
) -> tuple[float, float]:
    """Median time of a step of the network over the dense one's in the same round, and of the dense one in seconds."""
    _, *pairs = [(seconds(dense, batch), seconds(network, batch)) for _ in range(rounds + 1)]
    return median(own / other for other, own in pairs), median(other for other, _ in pairs)


def seconds(network: torch.nn.Module, batch: torch.Tensor) -> float:
    """Processor time of a step."""
    begin = thread_time()
    step(network, batch)
    return thread_time() - begin


def step(network: torch.nn.Module, batch: torch.Tensor) -> None:
    output = network(batch)
    getattr(output, "logits", output).square().mean().backward()
    network.zero_grad()


def table(model: str, rows: list[Row]) -> Table:
    columns = (
        "family", ">forward MACs", ">of dense", ">kept values", ">maskable weights", ">bits to name a mask", ">memory", ">training MACs", ">step time",
    )  # fmt: skip
    return Table(columns, tuple(cells(row) for row in rows), f"{model}, sparsity {SPARSITY}, scope model")


def cells(row: Row) -> tuple[str, ...]:
    return (
        row.family, f"{row.macs:,}".replace(",", " "), f"{row.macs / row.dense_macs:.6f}", abbreviate(row.kept), abbreviate(row.places),
        f"{abbreviate(round(row.bits))} bits", f"{abbreviate(row.bytes)}B", f"{row.training_macs / (3 * row.dense_macs):.4f}×",
        f"{row.time:.2f}×" if row.time else "",
    )  # fmt: skip


def picture(rows: list[Row], file: Path) -> None:
    """Places that masks may choose from against the time of a step, a panel a model; the line joins the points that none beats."""
    models = list(dict.fromkeys(row.model for row in rows))
    figure = Figure(figsize=(5.5 * len(models), 4.2), layout="constrained")
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        points = [row for row in rows if row.model == model and row.time]
        best = frontier([Point(row.time, row.places) for row in points])
        axes.plot(
            [points[i].time for i in best],
            [points[i].places for i in best],
            color="0.7",
            drawstyle="steps-post",
            zorder=1,
        )
        for row in points:
            color = "tab:blue" if row.places > row.kept else "0.3"
            axes.scatter(row.time, row.places, s=24, color=color, zorder=2)
        axes.set(
            title=f"{model}: equal forward MACs",
            xlabel="time of a training step / dense",
            ylabel="weights and biases, masked or not",
        )
        axes.set(xscale="log", yscale="log")
        low, high = axes.get_xlim()
        axes.set_xlim(low, high * (high / low) ** 0.35)  # names stand to the right of their points
        for axis, text in (
            (axes.xaxis, lambda x, _: f"{x:g}"),
            (axes.yaxis, lambda y, _: abbreviate(round(y))),
        ):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(text)
            axis.set_minor_locator(NullLocator())
    for axes, model in zip(figure.axes, models, strict=True):
        annotate(axes, [row for row in rows if row.model == model and row.time])
    figure.savefig(file)


def annotate(axes: Axes, points: list[Row]) -> None:
    """Names to the right of the points, shifted up or down where they would lie on another one."""
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    at = axes.transData.transform([(row.time, row.places) for row in points]) * 72 / axes.figure.dpi
    placed = [Bbox.from_bounds(x - 3, y - 3, 6, 6) for x, y in at]
    for row, (x, y) in sorted(zip(points, at, strict=True), key=lambda pair: -pair[0].places):
        boxes = {up: Bbox.from_bounds(x + 5, y + up - 5, 5.5 * len(row.family), 10) for up in SHIFTS}
        up = next((up for up, box in boxes.items() if not box.count_overlaps(placed)), 0)
        placed.append(boxes[up])
        axes.annotate(
            row.family, (row.time, row.places), xytext=(5, up - 3), textcoords="offset points", fontsize=9
        )


if __name__ == "__main__":
    main()
