"""Published figures as data: one row of published.csv = source, figure, inputs, expected, tolerance."""

import csv
from collections.abc import Callable
from fractions import Fraction
from math import floor, sqrt
from pathlib import Path
from typing import Any

import pytest

from iftplan import api
from iftplan.masks import parse_mask
from iftplan.models.spec import ModelSpec
from iftplan.plans.plan import Plan, Scope
from tests.support.hand_specs import resnet

ROWS = list(
    csv.DictReader((Path(__file__).parent / "published.csv").read_text(encoding="utf-8").splitlines())
)


def multiplier(family: str, s: str) -> float | None:
    return api.solve("linear:64-64", family, s).structure["multiplier"]


def structure(family: str, s: str, layer: str, key: str) -> float | None:
    return api.solve(layer, family, s).structure[key]


def search_space(family: str, s: str, layer: str) -> Fraction:
    """Maskable weights, in dense weights."""
    solved = api.solve(layer, family, s)
    return Fraction(solved.cardinality.maskable_weights, solved.layer.weights)


def density(family: str, s: str, layer: str) -> Fraction | None:
    return api.solve(layer, family, s).density


def share(family: str, s: str, layer: str) -> Fraction:
    """MACs spent, in dense MACs."""
    solved = api.solve(layer, family, s)
    return Fraction(solved.macs, solved.dense_macs)


def reference_branches(s: str) -> int:
    return round(1 / (1 - float(s)))


def reference_share(s: str) -> Fraction:
    """What so many branches at density 1-s spend of the budget."""
    assert api.solve("linear:64-64", "parallel", s).structure["branches"] > reference_branches(s)
    return reference_branches(s) * (1 - Fraction(s))


def reference_width(s: str) -> int:
    """The reference rounds down, so that its width never covers more than the budget; ours covers it."""
    width = floor(64 * sqrt(reference_branches(s)))
    assert width <= structure("wide", s, "linear:64-64", "out_channels") <= width + 1
    return width


def masks(mask: str, rows: str, columns: str) -> float:
    tile = ((int(rows), int(columns)),)
    structure = parse_mask(mask)
    return 2 ** structure.log2_masks(tile, structure.close(tile, int(rows) * int(columns)))


def _resnet(depth: str, classes: str, image: str) -> ModelSpec:
    return resnet(int(depth), int(classes), cifar=image == "32")


def macs(depth: str, classes: str, image: str) -> int:
    return _resnet(depth, classes, image).macs


def weights(depth: str, classes: str, image: str) -> int:
    return sum(x.layer.weights for x in _resnet(depth, classes, image).layers)


def _sparse(s: str, distribution: str, keep: str) -> Plan:
    return api.plan(resnet(50), None, s, distribution=distribution, keep_dense={keep} - {"none"})


def sparse_macs(s: str, distribution: str, keep: str) -> Fraction:
    return _sparse(s, distribution, keep).ratio(Scope.MODEL)


def dense_layers(s: str, distribution: str, keep: str) -> int:
    return sum(x.density == 1 for x in _sparse(s, distribution, keep).layers)


FIGURES: dict[str, Callable[..., Any]] = {
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
