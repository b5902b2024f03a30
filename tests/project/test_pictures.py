"""How pictures of pages are drawn: that of the README from data, that of the rooms, which `test_layers.py` holds against the tree."""

from __future__ import annotations

import os
import re
from decimal import Decimal

import pytest

from tests.support.pages.gain_picture import edges, gain_picture, own_gain, published_gain
from tests.support.pages.rooms_picture import lanes, needed, picture
from tests.support.places import ROOT

GAIN = ROOT / "docs" / "pictures" / "gain.svg"


def test_the_picture_of_the_readme_is_of_the_data() -> None:
    """`IFTPLAN_GOLDEN=write pytest tests/project/test_pictures.py -k readme` draws it again."""
    drawn = gain_picture()
    if os.environ.get("IFTPLAN_GOLDEN") == "write":
        GAIN.write_text(drawn, encoding="utf-8")
    assert GAIN.read_text(encoding="utf-8") == drawn


def test_gains_are_those_that_the_paper_and_our_table_print() -> None:
    published, own = published_gain(), own_gain()
    assert (published.dense, published.sparse, published.points) == (*map(Decimal, ("70.9", "74.4", "3.5")),)
    assert own.points == own.sparse - own.dense and own.error and own.points > 3 * own.error


def test_the_readme_says_what_its_picture_shows() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(docs/pictures/gain.svg)" in readme
    for gain in (published_gain(), own_gain()):
        assert f"{gain.dense} % to {gain.sparse} %" in readme
        assert f"{gain.points}{f' ± {gain.error}' if gain.error else ''} points" in readme


def test_both_networks_of_the_picture_cost_the_same() -> None:
    drawn = GAIN.read_text(encoding="utf-8")
    dense, sparse = edges(4, 4), edges(8, 2)
    assert len(dense) == len(sparse) == 32
    assert drawn.count('stroke="#1d5fa8" stroke-width="1.6"') == len(dense) + len(sparse)
    for units, chosen in ((4, dense), (8, sparse)):
        for end in (1, 2):
            ends = [(edge[0], edge[end]) for edge in chosen]
            assert {ends.count(unit) for unit in ends} == {len(chosen) // (2 * units)}, "no unit is left out"
    assert len(re.findall("<circle", drawn)) == 3 * 4 + 3 * 8


def test_the_picture_tells_what_changes() -> None:
    """Another order, purpose or arrow is another picture."""
    whole = picture(["a", "b"], {"a": "one", "b": "two"}, {("b", "a")})
    assert whole.index(">b<") < whole.index(">a<"), "the lowest is at the bottom"
    assert whole.count('marker-end="url(#end)"') == 1
    others = [
        picture(["b", "a"], {"a": "one", "b": "two"}, {("b", "a")}),
        picture(["a", "b"], {"a": "one", "b": "<three>"}, {("b", "a")}),
        picture(["a", "b"], {"a": "one", "b": "two"}, ()),
    ]
    assert len({whole, *others}) == 4
    assert "&lt;three&gt;" in others[1]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([("b", "a")], [("b", "a")]),
        ([("b", "a"), ("c", "b"), ("c", "a")], [("b", "a"), ("c", "b")]),
        ([("b", "a"), ("c", "b"), ("d", "c"), ("d", "a"), ("d", "b")], [("b", "a"), ("c", "b"), ("d", "c")]),
        ([("c", "a"), ("c", "b")], [("c", "a"), ("c", "b")]),
    ],
)
def test_arrows_that_follow_from_others_are_left_out(
    given: list[tuple[str, str]], expected: list[tuple[str, str]]
) -> None:
    assert needed(given) == expected


def test_no_two_arrows_lie_on_each_other() -> None:
    rows = {"a": 0, "b": 1, "c": 2, "d": 3}
    assert lanes(rows, [("a", "b"), ("b", "c"), ("a", "c"), ("a", "d")]) == {
        ("a", "b"): 0,
        ("b", "c"): 0,
        ("a", "c"): 1,
        ("a", "d"): 2,
    }
