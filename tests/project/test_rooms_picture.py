"""How the picture of the rooms is drawn; `test_layers.py` holds it against the tree."""

from __future__ import annotations

import pytest

from tests.support.pages.rooms_picture import lanes, needed, picture


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
