"""Where quality drops along a curve of one-shot sparsity."""

from fractions import Fraction

import pytest

from iftplan.runs.results.pruning import DropPoint, PrunedPoint, PruningCurve, pruning_document, pruning_table


def curve(metric: str, dense: float, values: dict[str, list[float | None]]) -> PruningCurve:
    points = [
        PrunedPoint(method, 10 - i - 1, 10, 100 - 10 * i, value, 0.5)
        for method, found in values.items()
        for i, value in enumerate(found)
    ]
    return PruningCurve(
        "m", "w", "d", metric, dense, 0.1, 100, "unstructured", "uniform", 8, Fraction(1, 100), tuple(points)
    )


@pytest.mark.parametrize(
    ("metric", "dense", "values", "kept", "dropped"),
    [
        ("accuracy", 0.9, [0.9, 0.892, 0.890, 0.9], Fraction(1, 5), Fraction(3, 10)),  # 1 % of .9 is .009
        ("accuracy", 0.9, [0.95, 0.95], Fraction(1, 5), None),
        ("accuracy", 0.9, [0.5, 0.9], None, Fraction(1, 10)),
        ("perplexity", 20.0, [19.0, 20.1, 20.3], Fraction(1, 5), Fraction(3, 10)),
    ],
)
def test_a_drop_is_the_first_loss_beyond_the_tolerance(
    metric: str, dense: float, values: list[float | None], kept: Fraction | None, dropped: Fraction | None
) -> None:
    found = curve(metric, dense, {"magnitude": values})
    assert found.drop_points() == (DropPoint("magnitude", kept, dropped),)


def test_the_table_and_the_document_say_it_for_each_method() -> None:
    found = curve("accuracy", 0.9, {"magnitude": [0.9, 0.5], "wanda": [0.9, 0.9]})
    assert pruning_table(found).notes == (
        "magnitude loses more than 1.0 % of the dense accuracy between sparsity 0.1000 and 0.2000",
        "wanda never loses more than 1.0 % of the dense accuracy: not up to sparsity 0.2000, the largest that was tried",
    )
    assert [row[-1] for row in pruning_table(found).rows] == ["", "+0.00 %", "-44.44 %", "+0.00 %", "+0.00 %"]
    document = pruning_document(found)
    assert [point["within"] for point in document["points"]] == [True, False, True, True]
    assert document["drop_points"][0]["dropped_exact"] == "1/5"


def test_without_data_nothing_is_said_of_quality() -> None:
    found = PruningCurve(
        "m",
        "w",
        "",
        "",
        None,
        None,
        100,
        "2:4",
        "uniform",
        0,
        Fraction(1, 100),
        (PrunedPoint("magnitude", 5, 10, 60),),
    )
    assert found.drop_points() == ()
    assert pruning_table(found).rows[1][1] == "0.5000"
    assert pruning_document(found)["points"][0]["within"] is None
