"""Published figures as data: one row of published.csv = source, figure, inputs, expected, tolerance."""

import csv
from fractions import Fraction
from math import floor, sqrt
from pathlib import Path
from typing import Any

import pytest

from iftplan import api
from iftplan.masks import parse_mask
from iftplan.plans.plan import Scope
from tests.support.hand_specs import resnet

ROWS = list(csv.DictReader((Path(__file__).parent / "published.csv").open(encoding="utf-8")))


def multiplier(family: Any, s: Any) -> Any:
    return api.solve("linear:64-64", family, s).structure["multiplier"]


def structure(family: Any, s: Any, layer: Any, key: Any) -> Any:
    return api.solve(layer, family, s).structure[key]


def search_space(family: Any, s: Any, layer: Any) -> Any:
    """Maskable weights, in dense weights."""
    solved = api.solve(layer, family, s)
    return Fraction(solved.cardinality.maskable_weights, solved.layer.weights)


def density(family: Any, s: Any, layer: Any) -> Any:
    return api.solve(layer, family, s).density


def share(family: Any, s: Any, layer: Any) -> Any:
    """MACs spent, in dense MACs."""
    solved = api.solve(layer, family, s)
    return Fraction(solved.macs, solved.dense_macs)


def reference_branches(s: Any) -> Any:
    return round(1 / (1 - float(s)))


def reference_share(s: Any) -> Any:
    """What so many branches at density 1-s spend of the budget."""
    assert api.solve("linear:64-64", "parallel", s).structure["branches"] > reference_branches(s)
    return reference_branches(s) * (1 - Fraction(s))


def reference_width(s: Any) -> Any:
    """The reference rounds down, so that its width never covers more than the budget; ours covers it."""
    width = floor(64 * sqrt(reference_branches(s)))
    assert width <= structure("wide", s, "linear:64-64", "out_channels") <= width + 1
    return width


def masks(mask: Any, rows: Any, columns: Any) -> Any:
    tile = ((int(rows), int(columns)),)
    structure = parse_mask(mask)
    return 2 ** structure.log2_masks(tile, structure.close(tile, int(rows) * int(columns)))


def _resnet(depth: Any, classes: Any, image: Any) -> Any:
    return resnet(int(depth), int(classes), cifar=image == "32")


def macs(depth: Any, classes: Any, image: Any) -> Any:
    return _resnet(depth, classes, image).macs


def weights(depth: Any, classes: Any, image: Any) -> Any:
    return sum(x.layer.weights for x in _resnet(depth, classes, image).layers)


def _sparse(s: Any, distribution: Any, keep: Any) -> Any:
    return api.plan(resnet(50), None, s, distribution=distribution, keep_dense={keep} - {"none"})


def sparse_macs(s: Any, distribution: Any, keep: Any) -> Any:
    return _sparse(s, distribution, keep).ratio(Scope.MODEL)


def dense_layers(s: Any, distribution: Any, keep: Any) -> Any:
    return sum(x.density == 1 for x in _sparse(s, distribution, keep).layers)


FIGURES = {
    figure.__name__: figure
    for figure in (
        multiplier, structure, search_space, density, share, reference_branches, reference_share, reference_width,
        masks, macs, weights, sparse_macs, dense_layers,
    )
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['figure']} {row['inputs']} ~ {row['expected']}")
def test_figures_are_what_was_published(row: dict[str, str]) -> None:
    found = FIGURES[row["figure"]](**dict(item.split("=") for item in row["inputs"].split()))
    assert abs(Fraction(found) - Fraction(row["expected"])) <= Fraction(row["tolerance"])


def test_every_row_has_a_source_and_every_figure_a_row() -> None:
    assert all(row["source"] and row["inputs"] for row in ROWS)
    assert {row["figure"] for row in ROWS} == set(FIGURES)
    assert len({tuple(row.values()) for row in ROWS}) == len(ROWS)
