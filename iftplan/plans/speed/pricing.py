"""What a layer takes on a profiled machine: seconds per MAC, interpolated between the layers that were measured.

In logarithms, over the width (the root of inputs times outputs), the columns (samples times positions) and, for sparse
kernels, the density. Outside of the grid the nearest seconds per MAC hold, so that time grows with the MACs there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, isclose, log, prod, sqrt
from statistics import median
from typing import Final

from iftplan.models.notation import layer_notation
from iftplan.models.spec import LayerSpec
from iftplan.plans.plan import Pass
from iftplan.plans.speed.profiles import Profile, ProfiledLayer

DENSE_ABOVE: Final = 0.7
"""Densities above which sparse execution (`iftplan.nn.execute_sparse_`) computes with dense operators, as they are faster."""


_AT: Final = log(1.1)
"""How far outside of the last point still counts as at it: whole widths make densities a little other than asked for."""


class NotMeasuredError(Exception):
    """The profile has no measurement of this kind of layer or mask; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Price:
    """Estimated seconds of a layer.

    Attributes:
        seconds: of all its positions.
        extrapolated: whether it lies outside of what was measured.
    """

    seconds: float
    extrapolated: bool = False

    def __add__(self, other: Price) -> Price:
        return Price(self.seconds + other.seconds, self.extrapolated or other.extrapolated)


Points = tuple[tuple[float, "Points | float"], ...]
"""Values over the first coordinate, each a value over the next; the last holds logarithms of seconds per MAC."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Estimated seconds of layers, from a profile's measurements of one pass.

    Attributes:
        dense: kind → over width and columns, of layers as they were.
        operators: the same of wide layers in dense operators.
        sparse: (kind, structure) → over width, columns and density.
        batch: how often each layer's positions are computed together.
    """

    dense: Mapping[str, Points]
    operators: Mapping[str, Points]
    sparse: Mapping[tuple[str, str], Points]
    batch: int = 1

    @staticmethod
    def of(profile: Profile, passes: Pass, batch: int = 1) -> Prices:
        """The prices of "forward" passes, or of a "step".

        Args:
            profile: measurements of one machine.
            passes: "forward" or "step".
            batch: how many of the model's input are computed together.

        Raises:
            NotMeasuredError: the profile has nothing of that pass.
        """
        entries = [entry for entry in profile.entries if entry.passes == passes]
        if not entries:
            raise NotMeasuredError(f"the profile has no times of the pass {passes!r}")
        kinds = dict.fromkeys(_kind(entry.pair.dense) for entry in entries)
        pairs = dict.fromkeys((_kind(entry.pair.dense), entry.pair.structure) for entry in entries)
        return Prices(
            {kind: _points(map(_dense_point, _of_kind(entries, kind))) for kind in kinds},
            {kind: _points(filter(None, map(_operators_point, _of_kind(entries, kind)))) for kind in kinds},
            {
                (kind, structure): _points(
                    _sparse_point(e) for e in _of_kind(entries, kind) if e.pair.structure == structure
                )
                for kind, structure in pairs
            },
            batch,
        )

    def of_dense(self, layer: LayerSpec) -> Price:
        """Price of an original layer, in the fastest of its dense backends.

        Raises:
            NotMeasuredError: no layer of its kind was measured.
        """
        return self._whole(_known(self.dense, layer), layer)

    def of_operators(self, layer: LayerSpec) -> Price:
        """Price of a layer of another shape, every weight multiplied, in PyTorch's operators.

        Raises:
            NotMeasuredError: no layer of its kind was measured.
        """
        return self._whole(_known(self.operators, layer), layer)

    def of_sparse(self, layer: LayerSpec, nnz: float, structure: str) -> Price:
        """Price of a masked layer in sparse kernels.

        Args:
            layer: its shape.
            nnz: weights that are kept.
            structure: of the mask.

        Raises:
            NotMeasuredError: no layer of its kind was measured under such masks.
        """
        _ = _known(self.dense, layer)
        key = _kind(layer), structure
        if key not in self.sparse:
            raise NotMeasuredError(f"{structure} masks were not measured")
        width, columns = sqrt(nnz / prod(layer.kernel)), self.batch * layer.positions
        return _price(self.sparse[key], (width, columns, nnz / layer.weights), columns * nnz)

    def _whole(self, points: Points, layer: LayerSpec) -> Price:
        columns = self.batch * layer.positions
        return _price(points, (_width(layer), columns), columns * layer.weights)


def _kind(layer: LayerSpec) -> str:
    """`linear`, `conv3x3` …; what a profile tells apart."""
    return layer_notation(layer).partition(":")[0]


def _known(by_kind: Mapping[str, Points], layer: LayerSpec) -> Points:
    if not layer.positions:
        raise NotMeasuredError("its rows are looked up, not multiplied")
    if layer.groups != 1 or layer.experts > 1 or layer.weights == 1:
        raise NotMeasuredError("grouped and stacked weights were not measured")
    kind = _kind(layer)
    if not by_kind.get(kind):
        raise NotMeasuredError(f"{kind} was not measured")
    return by_kind[kind]


def _width(layer: LayerSpec) -> float:
    return sqrt(layer.weights / prod(layer.kernel))


def _of_kind(entries: Iterable[ProfiledLayer], kind: str) -> list[ProfiledLayer]:
    return [entry for entry in entries if _kind(entry.pair.dense) == kind]


Point = tuple[tuple[float, ...], float]
"""Coordinates, and seconds per MAC."""


def _dense_point(entry: ProfiledLayer) -> Point:
    layer = entry.pair.dense
    return (_width(layer), layer.positions), entry.dense / layer.dense_macs


def _operators_point(entry: ProfiledLayer) -> Point | None:
    wide = entry.pair.wide
    if entry.operators is None:
        return None
    return (_width(wide), wide.positions), entry.operators / wide.dense_macs


def _sparse_point(entry: ProfiledLayer) -> Point:
    pair = entry.pair
    at = (_width(pair.dense), pair.dense.positions, pair.density)
    return at, entry.sparse / (pair.dense.positions * pair.nnz)


def _points(points: Iterable[Point]) -> Points:
    """Nested by coordinate; what was measured more than once counts by its median."""
    branches: dict[float, list[Point]] = {}
    for (first, *rest), value in points:
        branches.setdefault(log(first), []).append((tuple(rest), value))
    return tuple(
        (at, _points(inner) if inner[0][0] else log(median(value for _, value in inner)))
        for at, inner in sorted(branches.items())
    )


def _price(points: Points, at: Sequence[float], macs: float) -> Price:
    rate, outside = _read(points, [log(x) for x in at])
    return Price(exp(rate) * macs, outside)


def _read(points: Points | float, at: Sequence[float]) -> tuple[float, bool]:
    """The value at a place, and whether that is outside of the points."""
    if isinstance(points, float):
        return points, False
    first, rest = at[0], at[1:]
    places = [place for place, _ in points]
    i = bisect_left(places, first)
    for near in (i, i - 1):
        if 0 <= near < len(places) and isclose(places[near], first, abs_tol=1e-12):
            return _read(points[near][1], rest)
    if i in (0, len(places)):
        place, inner = points[min(i, len(places) - 1)]
        value, outside = _read(inner, rest)
        return value, outside or abs(place - first) > _AT
    (low, before), (high, after) = points[i - 1], points[i]
    (a, a_outside), (b, b_outside) = _read(before, rest), _read(after, rest)
    return a + (b - a) * (first - low) / (high - low), a_outside or b_outside
