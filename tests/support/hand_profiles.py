"""Profiles of machines that there are not: times are what a test says."""

from collections.abc import Callable, Sequence
from fractions import Fraction

from iftplan.base.documents import digest
from iftplan.masks import parse_mask
from iftplan.plans.speed.document import profile_document
from iftplan.plans.speed.profiles import PASSES, Profile, ProfiledLayer, grid
from iftplan.plans.speed.timings import LayerPair

Times = Callable[[LayerPair], float]


def ideal(pair: LayerPair) -> float:
    """A nanosecond for each MAC that is left."""
    return 1e-9 * pair.nnz * pair.dense.positions


def profile(
    sparse: Times = ideal,
    dense: Times = lambda pair: 1e-9 * pair.dense.dense_macs,
    operators: Times = lambda pair: 1e-9 * pair.wide.dense_macs,
    *,
    widths: Sequence[int] = (8, 32, 128),
    columns: Sequence[int] = (1, 16, 256),
    sparsities: Sequence[str] = ("1/2", "3/4", "9/10", "19/20"),
    structures: Sequence[str] = ("unstructured",),
    machine: str = "a machine",
) -> Profile:
    """Of both passes; a step takes three times as long."""
    pairs = grid(tuple(map(Fraction, sparsities)), tuple(map(parse_mask, structures)), widths, columns)
    entries = tuple(
        ProfiledLayer(pair, name, times * dense(pair), times * sparse(pair), times * operators(pair))
        for pair in pairs
        for name, times in zip(PASSES, (1, 3), strict=True)
    )
    found = Profile(machine, "avx2", 1, 3, entries)
    return Profile(machine, "avx2", 1, 3, entries, digest(profile_document(found)))
