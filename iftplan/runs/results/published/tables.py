"""The paper's tables as tables: published values on the left, what iftplan computes on the right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Literal

from iftplan.base.errors import InputError
from iftplan.base.units import count, decimal, decimal_text
from iftplan.families.tables import structure_text
from iftplan.models.spec import ModelSpec
from iftplan.plans.plan import Rounding, Scope
from iftplan.report.table import Table
from iftplan.runs.results.published.arithmetic import PaperRow, paper_rows
from iftplan.runs.results.published.cardinality import LAYER, cardinality_rows
from iftplan.runs.results.published.entries import PAPER, Arithmetic, PaperEntry
from iftplan.runs.results.published.language import sizings, training_rows
from iftplan.runs.results.published.settings import setting_rows
from iftplan.runs.results.published.speed import speed_rows

Read = Callable[[str], ModelSpec]

WidthRounding = Literal["cover", "floor", "published"]


def plan_rounding(rounding: WidthRounding | None) -> Rounding:
    """Rounding of plans: "floor" where that is asked for, else "cover"."""
    return "floor" if rounding == "floor" else "cover"


def check_rounding(entry: PaperEntry, rounding: WidthRounding | None) -> None:
    """Refuse published widths where the paper prints none.

    Raises:
        InputError: says where it does, or what can be asked for instead.
    """
    if rounding == "published" and entry.name not in ("table14", "table15"):
        raise InputError(
            f"the paper prints widths of GPT-3 Small alone, in table14 and table15; {entry.name} can be counted with cover or floor."
        )
    if rounding and entry.arithmetic not in (Arithmetic.RESULTS, Arithmetic.WIDTHS, Arithmetic.TRAINING):
        raise InputError(f"{entry.name} has no widths that could be rounded; leave the rounding out.")
    if rounding == "cover" and entry.arithmetic is Arithmetic.TRAINING:
        raise InputError(
            f"{entry.name} is counted at the published widths or at floor; iftplan's own plan stands beside either. Take one of these, or leave the rounding out."
        )


_HAVE = {
    Arithmetic.RESULTS: "published values, and sizes, MACs and search spaces of the same networks",
    Arithmetic.CARDINALITY: "the formulas, and whole numbers for a layer",
    Arithmetic.WIDTHS: "published sizes, and iftplan's",
    Arithmetic.SETTINGS: "published settings, and those of the bundled recipe",
    Arithmetic.TRAINING: "published FLOPs, and iftplan's",
    Arithmetic.SPEED: "published speed-ups; iftplan bench measures here",
    Arithmetic.NONE: "nothing",
}


def contents_table() -> Table:
    """Every table and figure of the paper, with what iftplan has of it."""
    rows = tuple(
        (entry.name, entry.title, str(len(entry.results()) or ""), _HAVE[entry.arithmetic])
        for entry in PAPER.values()
    )
    notes = ("arXiv 2303.11525, Sparse Iso-FLOP Transformations for Maximizing Training Efficiency",)
    return Table(("name", "what it shows", ">values", "what iftplan prints of it"), rows, notes=notes)


def entry_table(entry: PaperEntry, read: Read, rounding: WidthRounding | None = None) -> Table:
    """One table or figure of the paper beside iftplan's arithmetic.

    Args:
        entry: the table or figure.
        read: a source to its spec, with widths.
        rounding: of widths; None for "cover", and where the paper prints widths for all that there are.

    Raises:
        InputError: the paper prints no widths for this table.
    """
    check_rounding(entry, rounding)
    match entry.arithmetic:
        case Arithmetic.RESULTS:
            return _results(entry, paper_rows(entry, read, plan_rounding(rounding)))
        case Arithmetic.CARDINALITY:
            return _cardinality(entry)
        case Arithmetic.WIDTHS:
            return _sizes(entry, read, rounding)
        case Arithmetic.SETTINGS:
            return _settings(entry)
        case Arithmetic.TRAINING:
            return _training(entry, read, rounding)
        case Arithmetic.SPEED:
            return _speed(entry, read)
        case Arithmetic.NONE:
            return Table((), (), f"{entry.name}: {entry.title}")


def _results(entry: PaperEntry, rows: Sequence[PaperRow]) -> Table:
    many = len({row.published.model for row in rows}) > 1
    metrics = len({row.published.metric for row in rows}) > 1
    cells = tuple(
        (
            *((row.published.model,) if many else ()),
            family_name(row.published.transform, row.published.nonlinear, row.published.mask),
            row.published.method,
            decimal_text(row.published.sparsity),
            *((row.published.metric,) if metrics else ()),
            _published(row),
            "" if row.against_dense is None else f"{row.against_dense:+.4g}",
            *_counted(row),
        )
        for row in rows
    )
    metric = "published" if metrics else f"published {rows[0].published.metric}"
    columns = (
        *(("model",) if many else ()), "family", "method", ">sparsity", *(("metric",) if metrics else ()),
        f">{metric}", ">against dense", "size", ">forward MACs", ">of dense", ">maskable weights",
        ">training MACs",
    )  # fmt: skip
    return Table(columns, cells, entry_title(entry), (*_scope_notes(rows), *entry.notes))


def family_name(transform: str, nonlinear: bool | None, mask: str) -> str:
    """Family of a published row, with what it differs in from the usual one.

    Args:
        transform: the family.
        nonlinear: whether a non-linearity stands inside; None where there is no inside.
        mask: structure of its masks; empty for unstructured.
    """
    linear = " linear" if nonlinear is False else ""
    return f"{transform}{linear}{' ' + mask if mask else ''}"


def _published(row: PaperRow) -> str:
    found = row.published
    return f"{found.value:.4g}" + ("" if found.std is None else f" ± {found.std:.2g}")


def _counted(row: PaperRow) -> tuple[str, ...]:
    found = row.counted
    if found is None:
        return ("",) * 5
    dense = row.published.transform == "dense"
    maskable = found.plan.cardinality.maskable_weights
    train = found.train_macs and found.dense_train_macs and found.train_macs / found.dense_train_macs
    return (
        found.size,
        count(found.plan.macs(Scope.MODEL)),
        decimal(found.ratio, 6),
        "" if dense or not maskable else count(maskable),
        "" if train is None else f"{train:.4f}×",
    )


def _scope_notes(rows: Sequence[PaperRow]) -> tuple[str, ...]:
    residuals: dict[str, int] = {}
    for row in rows:
        if row.counted:
            scope = row.counted.setting.scope_name
            residuals[scope] = max(residuals.get(scope, 0), row.counted.residual)
    without = dict.fromkeys(row.published.model for row in rows if row.counted is None)
    told = [
        f"in the scope {scope}, which the paper holds equal, each network costs what its dense model does"
        + (f", but for at most {count(left)} MACs that whole weights cannot spend" if left else "")
        for scope, left in residuals.items()
    ]
    if without:
        told.append(f"not counted, for the network is not bundled: {', '.join(without)}")
    return tuple(told)


def _cardinality(entry: PaperEntry) -> Table:
    cells = tuple(
        (
            row.family, row.formula, row.solution.closed_form, decimal_text(row.solution.sparsity),
            structure_text(row.solution), _whole(row.solution.capacity),
            decimal(Fraction(row.solution.macs or 0, row.solution.dense_macs or 1), 6),
        )
        for row in cardinality_rows()
    )  # fmt: skip
    columns = (
        "family", "published search space", "closed form", ">sparsity", "size", ">maskable weights",
        ">MACs of dense",
    )  # fmt: skip
    notes = (f"whole numbers for {LAYER}, a matrix of m = 576 inputs and n = 64 outputs at every pixel",)
    return Table(columns, cells, entry_title(entry), notes)


def _whole(value: int | None) -> str:
    return "" if value is None else count(value)


def _sizes(entry: PaperEntry, read: Read, rounding: WidthRounding | None) -> Table:
    cells = tuple(
        (
            s.rounding if s.sparsity else "dense", decimal_text(s.sparsity), str(s.hidden), str(s.feed_forward),
            decimal(s.matrices, 6), decimal(s.model, 6),
        )
        for s in sizings(read)
        if rounding is None or not s.sparsity or s.rounding == rounding
    )  # fmt: skip
    notes = (
        "published: hidden channels are the next multiple of 12 heads, feed-forward channels are rounded down; at uniform "
        "density the matrices then cost more than the dense ones",
        "floor: both rounded down. cover: iftplan's plan, both rounded up, with the density that closes the matrices to the MAC",
    )
    columns = ("rounding", ">sparsity", ">hidden", ">feed-forward", ">masked matrices", ">whole model")
    return Table(columns, cells, entry_title(entry), notes)


def _settings(entry: PaperEntry) -> Table:
    cells = tuple((row.what, f"{row.published:.4g}", f"{row.here:.10g}") for row in setting_rows(entry.name))
    return Table(("setting", ">published", ">here"), cells, entry_title(entry), entry.notes)


def _training(entry: PaperEntry, read: Read, rounding: WidthRounding | None) -> Table:
    shown = rounding if rounding in ("published", "floor") else "published"
    rows = training_rows(read, shown)
    sizes = {s.rounding: s for s in sizings(read) if s.sparsity == Fraction(1, 2)}
    dense = rows[0]
    cells = tuple(
        (
            row.model, decimal_text(row.sparsity), f"{float(row.published):.5g}", f"{float(row.counted):.5g}",
            f"{float(row.deviation):+.2%}", f"{float(row.published_total):.5g}", f"{float(row.total):.5g}",
            f"{float(row.counted / dense.counted):.4f}×", row.perplexity,
        )
        for row in rows
    )  # fmt: skip
    columns = (
        "model", ">sparsity", ">published FLOPs a sequence", ">counted", ">deviation", ">published total",
        ">counted total", ">of dense", ">published perplexity",
    )  # fmt: skip
    closed = next(row.closed for row in rows if row.closed is not None)
    notes = (
        "FLOPs: two for each MAC, and a training step is three forward passes; attention products are counted in full",
        "iftplan counts contractions alone; what the paper has more is about 24 MACs for each channel, layer and token in both "
        "dense rows: presumably norms, biases and activations",
        f"the {shown} sizes of the wide GPT are not closed: its model costs {float(rows[1].counted / dense.counted):.4f}× the "
        f"dense one, its matrices {float(sizes[shown].matrices):.4f}×; iftplan's plan closes the matrices and costs "
        f"{float(closed / dense.counted):.4f}× ({float(closed):.5g} FLOPs a sequence)",
        f"{count(round(dense.sequences))} sequences, by the two published numbers; the paper prints 2.28e6",
    )
    return Table(columns, cells, entry_title(entry), notes)


def _speed(entry: PaperEntry, read: Read) -> Table:
    cells = tuple(
        (
            row.what, row.where, f"{float(row.masked_dense):.2f}×", f"{row.speed_up:.2g}×",
            f"{float(row.masked_dense) / row.speed_up:.2f}×",
        )
        for row in speed_rows(read)
    )  # fmt: skip
    columns = (
        "what", "where", ">time without sparse kernels", ">published speed-up", ">time, × dense",
    )  # fmt: skip
    notes = (
        "times over the dense model's, if time followed MACs: without sparse kernels the widened layers cost their dense MACs; "
        "1.00× is ideal",
        "iftplan bench measures layers on this machine, benchmarks/speed/wallclock_network.py whole networks",
    )
    return Table(columns, cells, entry_title(entry), notes)


def entry_title(entry: PaperEntry) -> str:
    """Title of a table or figure with its number, as the paper writes it."""
    return f"{entry.name.replace('table', 'Table ').replace('figure', 'Figure ')}: {entry.title}"
