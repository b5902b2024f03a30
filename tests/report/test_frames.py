"""Values as data frames, with JSON's keys and raw numbers, and what they are called at the prompt."""

from __future__ import annotations

import pandas as pd
import pytest

import iftplan as ift
from iftplan.models.counting import Contraction, CountTable
from iftplan.models.dynamic.activations import ActivationSparsity, LayerActivity
from iftplan.models.dynamic.dormant import DormantNeurons, LayerNeurons
from iftplan.plans.audit.audit import audit_model
from iftplan.plans.audit.diff import LayerCosts, diff
from iftplan.plans.audit.updates import UpdateReport, WeightUpdate
from iftplan.plans.document.plan import plan_document
from iftplan.plans.plan import Plan
from iftplan.report.display import Displayed, Framed, data_frame
from iftplan.runs import LawQuestion, ask, published
from iftplan.runs.results.observations import Observation
from iftplan.runs.results.tradeoff import tradeoff
from tests.support.hand_specs import chain


def planned(family: str = "wide") -> Plan:
    return ift.plan(chain(), family, "3/4")


def examples() -> dict[str, Framed]:
    table = CountTable(
        "meta", (Contraction("a", "linear", 64, "a.weight"), Contraction("b", "matmul", 2**70))
    )
    found = (
        chain(),
        planned(),
        table,
        audit_model("m", [table]),
        diff(LayerCosts("a", {"x": 1}), LayerCosts("b", {"x": 3})),
        ActivationSparsity("zeros", 1, (LayerActivity("a", "a.weight", 8, 6, 64, 48),)),
        DormantNeurons(0.1, 8, (LayerNeurons("a", ("b",), (0.0, 2.0), 0.1),), (), 8),
        UpdateReport("a", "b", (0.0,), (WeightUpdate("a.weight", 8, (3,), 1.0, 4.0),)),
        ask(published("joint-moe"), LawQuestion()),
        tradeoff([Observation("s", "m", "wide", macs=64, metric="top1", value=1.0)]),
    )
    return {type(value).__name__: value for value in found}


def test_every_kind_has_an_example_here() -> None:
    assert set(examples()) == {kind.__name__ for kind in Framed.__subclasses__()}


@pytest.mark.parametrize("name", sorted(examples()))
def test_a_frame_has_a_row_for_each_thing_and_numbers_as_they_are(name: str) -> None:
    value = examples()[name]
    frame = value.to_dataframe()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == len(value.records()) > 0
    for column in frame:
        if str(column).endswith(("macs", "nnz", "capacity")):
            assert all(isinstance(number, int) or pd.isna(number) for number in frame[column].tolist())


@pytest.mark.parametrize("family", ["wide", "doped", "none"])
def test_the_frame_of_a_plan_has_the_keys_and_numbers_of_its_document(family: str) -> None:
    plan = planned(family)
    frame, rows = plan.to_dataframe(), plan_document(plan)["layers"]
    for i, row in enumerate(rows):
        for key, expected in ({**row, **row["structure"]}).items():
            if key != "structure":
                assert frame[key].iloc[i] == expected
    assert frame["macs"].sum() == plan.macs("model")
    assert frame["macs"].dtype == "int64"
    assert frame["density"].dtype == "float64"


def test_the_frame_of_a_spec_has_its_macs() -> None:
    assert chain().to_dataframe()["macs"].sum() == chain().macs


def test_counts_stay_whole_where_some_are_missing_or_large() -> None:
    frame = data_frame([{"a": 1, "b": 2**70, "c": True}, {"a": None, "b": 1, "c": None, "d": 0.5}])
    assert str(frame["a"].dtype) == "Int64"
    assert frame["b"].tolist() == [2**70, 1]
    assert str(frame["c"].dtype) == "boolean"
    assert frame["a"].iloc[1] is pd.NA
    assert data_frame([]).empty


@pytest.mark.parametrize(
    "value",
    [
        chain(),
        planned(),
        planned("none"),
        planned().layers[0],
        ift.read_model("zoo:bert-small"),
        ift.plan("zoo:bert-small", "doped", 0.75).layers[-1],
        ift.solve("conv3x3:64-128@16x16", "wide", 0.75),
        ift.solve("linear", "doped", 0.75),
        *(value for value in examples().values() if type(value).__name__ == "AuditReport"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_at_the_prompt_a_value_is_one_line(value: Displayed) -> None:
    shown = repr(value)
    assert len(shown) < 200
    assert "\n" not in shown
    assert shown.startswith(f"<{type(value).__name__} ") and shown.endswith(">")


def test_what_the_line_says() -> None:
    assert repr(ift.plan("zoo:digits-cnn", "wide", 0.75)) == (
        "<Plan zoo:digits-cnn: wide, sparsity 0.7500, layers closed at 451 904 MACs, 4 layers>"
    )
    assert repr(ift.read_model("zoo:digits-cnn")).startswith(
        "<ModelSpec zoo:digits-cnn: 451 904 MACs, 4 layers"
    )
