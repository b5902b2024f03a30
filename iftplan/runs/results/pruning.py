"""Quality of a network after one-shot pruning, at one sparsity or along a curve, and where it drops.

Jaiswal et al. (arXiv 2306.03805) call the sparsity before the drop *essential*: so many of the smallest weights of a trained
network can be removed in one shot, without training, before its quality falls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from iftplan.base.documents import Document, with_digest
from iftplan.base.units import count, decimal, fraction, share
from iftplan.report.table import Table


@dataclass(frozen=True, slots=True)
class PrunedPoint:
    """A network pruned by one method at one sparsity.

    Attributes:
        method: "magnitude", "wanda" or "sparsegpt".
        nnz: weights that the masks keep.
        maskable_weights: weights under masks.
        macs: MACs of the whole model's forward pass.
        metric: quality; None where there were no data.
        loss: mean cross entropy in nats; None where there were no data.
    """

    method: str
    nnz: int
    maskable_weights: int
    macs: int
    metric: float | None = None
    loss: float | None = None

    @property
    def sparsity(self) -> Fraction:
        """Share of the maskable weights that is gone."""
        return 1 - Fraction(self.nnz, self.maskable_weights)


@dataclass(frozen=True, slots=True)
class DropPoint:
    """Point at which a method's quality drops.

    Attributes:
        method: its name.
        kept: largest sparsity up to which all points are within the tolerance; None where the first one is not.
        dropped: the next one, which is not; None where all are within.
    """

    method: str
    kept: Fraction | None
    dropped: Fraction | None


@dataclass(frozen=True, slots=True)
class PruningCurve:
    """Quality against one-shot sparsity.

    Attributes:
        model: source of the network.
        weights: where its weights come from.
        data: name of the data; empty where there were none.
        metric_name: "accuracy" or "perplexity"; empty where there were no data.
        metric: of the dense network; None where there were no data.
        loss: of the dense network, mean cross entropy in nats; None where there were no data.
        dense_macs: MACs of the dense network's forward pass.
        structure: of the masks.
        distribution: how density is spread over layers.
        samples: of the calibration data.
        tolerance: largest relative loss of quality that is no drop.
        points: sparsities of one method after the other.
    """

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
    tolerance: Fraction
    points: tuple[PrunedPoint, ...]

    def lost(self, point: PrunedPoint) -> float | None:
        """Relative loss of quality of a point, negative where it gained; None where there were no data."""
        if point.metric is None or self.metric is None:
            return None
        lost = point.metric - self.metric if self.metric_name == "perplexity" else self.metric - point.metric
        return lost / self.metric if self.metric else 0.0

    def within(self, point: PrunedPoint) -> bool | None:
        """Whether a point loses no more than the tolerance; None where there were no data."""
        lost = self.lost(point)
        return None if lost is None else lost <= self.tolerance

    def drop_points(self) -> tuple[DropPoint, ...]:
        """Points at which the quality of each method drops; empty where there were no data.

        Example:
            >>> points = [PrunedPoint("magnitude", n, 4, 0, m) for n, m in ((3, 0.9), (2, 0.895), (1, 0.8))]
            >>> curve = PruningCurve("", "", "", "accuracy", 0.9, 0.0, 0, "", "", 0, Fraction(1, 100), tuple(points))
            >>> curve.drop_points()
            (DropPoint(method='magnitude', kept=Fraction(1, 2), dropped=Fraction(3, 4)),)
        """
        return tuple(
            _drop(method, [(p.sparsity, self.within(p)) for p in self.of(method)])
            for method in self.methods
            if self.metric is not None
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order of the points."""
        return tuple(dict.fromkeys(point.method for point in self.points))

    def of(self, method: str) -> tuple[PrunedPoint, ...]:
        """Points of a method, from the lowest sparsity on."""
        found = [point for point in self.points if point.method == method]
        return tuple(sorted(found, key=lambda point: point.sparsity))


def _drop(method: str, points: Sequence[tuple[Fraction, bool | None]]) -> DropPoint:
    kept = None
    for sparsity, within in points:
        if not within:
            return DropPoint(method, kept, sparsity)
        kept = sparsity
    return DropPoint(method, kept, None)


def pruning_document(curve: PruningCurve) -> Document:
    """The curve as a document, sealed with its digest."""
    return with_digest(
        {
            "schema": "iftplan.pruning/1",
            "convention": "mac",
            "model": curve.model,
            "weights": curve.weights,
            "data": curve.data,
            "metric_name": curve.metric_name,
            "metric": curve.metric,
            "loss": curve.loss,
            "dense_macs": curve.dense_macs,
            "structure": curve.structure,
            "distribution": curve.distribution,
            "samples": curve.samples,
            **_exact("tolerance", curve.tolerance),
            "points": [_point(curve, point) for method in curve.methods for point in curve.of(method)],
            "drop_points": [
                {"method": drop.method, **_exact("kept", drop.kept), **_exact("dropped", drop.dropped)}
                for drop in curve.drop_points()
            ],
        }
    )


def _point(curve: PruningCurve, point: PrunedPoint) -> Mapping[str, Any]:
    return {
        "method": point.method,
        **_exact("sparsity", point.sparsity),
        "nnz": point.nnz,
        "maskable_weights": point.maskable_weights,
        "macs": point.macs,
        "metric": point.metric,
        "loss": point.loss,
        "within": curve.within(point),
    }


def _exact(name: str, value: Fraction | None) -> Mapping[str, Any]:
    if value is None:
        return {name: None, f"{name}_exact": None}
    return {name: float(value), f"{name}_exact": fraction(value)}


def pruning_table(curve: PruningCurve) -> Table:
    """The dense network and every pruned one: weights, MACs and quality."""
    measured = curve.metric is not None
    quality = (f">{curve.metric_name}", ">loss", ">change") if measured else ()
    dense = ("dense", "", "", count(curve.dense_macs), "1.000000")
    first = (*dense, *((f"{curve.metric:.4f}", f"{curve.loss:.4f}", "") if measured else ()))
    rows = [_row(curve, point, measured) for method in curve.methods for point in curve.of(method)]
    return Table(
        ("", ">sparsity", ">weights kept", ">MACs", ">of dense", *quality),
        (first, *rows),
        notes=tuple(_told(drop, curve) for drop in curve.drop_points()),
    )


def _row(curve: PruningCurve, point: PrunedPoint, measured: bool) -> tuple[str, ...]:
    cells = (
        point.method,
        decimal(point.sparsity, 4),
        f"{count(point.nnz)} of {count(point.maskable_weights)}",
        count(point.macs),
        f"{point.macs / curve.dense_macs:.6f}",
    )
    if not measured:
        return cells
    lost = curve.lost(point)
    assert lost is not None
    return (*cells, f"{point.metric:.4f}", f"{point.loss:.4f}", f"{0.0 - 100 * lost:+.2f} %")


def _told(drop: DropPoint, curve: PruningCurve) -> str:
    """Sentence on where a method drops."""
    most = f"loses more than {share(curve.tolerance)} of the dense {curve.metric_name}"
    match drop:
        case DropPoint(method, Fraction() as kept, Fraction() as dropped):
            return f"{method} {most} between sparsity {decimal(kept, 4)} and {decimal(dropped, 4)}"
        case DropPoint(method, None, Fraction() as dropped):
            return f"{method} {most} at sparsity {decimal(dropped, 4)} already"
        case DropPoint(method, kept, _):
            return f"{method} never {most}: not up to sparsity {decimal(kept or Fraction(0), 4)}, the largest that was tried"
