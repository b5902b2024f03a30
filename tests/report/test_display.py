"""Values show themselves: printed, in IPython, and as HTML that is safe, small and quick.

`IFTPLAN_GOLDEN=write pytest tests/report/test_display.py` writes the golden fragment again; read the difference before committing it.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser

import pytest

import iftplan as ift
from iftplan.checks.findings import CheckReport, ModelCheck, Status
from iftplan.families.builtin import family_named
from iftplan.families.solution import Step
from iftplan.models.cost import ModelCost
from iftplan.models.counting import Contraction, CountTable
from iftplan.models.dynamic.activations import ActivationSparsity, LayerActivity
from iftplan.models.dynamic.dormant import DormantNeurons, LayerNeurons
from iftplan.models.spec import Kind, LayerSpec, ModelSpec, WeightLayer
from iftplan.plans.audit.audit import audit_model
from iftplan.plans.audit.diff import LayerCosts, diff
from iftplan.plans.audit.updates import UpdateReport, WeightUpdate
from iftplan.plans.plan import Plan
from iftplan.plans.tables import plan_table
from iftplan.report.display import Displayed
from iftplan.report.html_table import table_fragment
from iftplan.report.table import Table, printable, to_csv, without_breaks
from iftplan.runs.costs.memory import TrainingMemory
from iftplan.runs.costs.training_cost import TrainingCost
from iftplan.runs.laws.advice.question import LawQuestion, ask
from iftplan.runs.laws.advice.sparse import Advice
from iftplan.runs.laws.named import published
from iftplan.runs.laws.sparse import LAWS
from iftplan.runs.results.observations import Observation
from iftplan.runs.results.tradeoff import tradeoff
from tests.support.hand_specs import chain
from tests.support.pages.hostile import HOSTILE
from tests.support.places import GOLDEN


def planned() -> Plan:
    return ift.plan(chain(), "wide", "3/4")


def hostile_spec(layers: int = 2) -> ModelSpec:
    """A model whose every name was made by somebody who means harm."""
    return ModelSpec(
        HOSTILE,
        (),
        tuple(
            WeightLayer(LayerSpec(f"{HOSTILE}.{i}", Kind.LINEAR, 64, 64), f"{HOSTILE}.{i}.weight")
            for i in range(layers)
        ),
        assumptions=(HOSTILE,),
    )


def examples() -> dict[str, Displayed]:
    """One value of each kind, with names from a stranger wherever a value takes names."""
    spec = hostile_spec()
    plan = ift.plan(spec, "parallel", "1/2", keep_dense=())
    table = CountTable("meta", (Contraction(HOSTILE, HOSTILE, 64, HOSTILE),), {}, {HOSTILE: 1}, (HOSTILE,))
    measured = ModelCost({HOSTILE: 64}, {HOSTILE: 64})
    model = ModelCheck(HOSTILE, HOSTILE, (), Status.FAILED, measured, problems=(HOSTILE,), notes=(HOSTILE,))
    solution = replace(ift.solve(LayerSpec(HOSTILE, Kind.LINEAR, 64, 64), "doped", "1/2"), reason=HOSTILE)
    found = (
        spec,
        plan,
        replace(solution, steps=(Step(HOSTILE, HOSTILE, ""),)),
        family_named("doped"),
        table,
        audit_model(HOSTILE, [table]),
        diff(LayerCosts(HOSTILE, {}), LayerCosts(HOSTILE, {HOSTILE: 64})),
        CheckReport(HOSTILE, "", (model,), (HOSTILE,)),
        DormantNeurons(0.1, 8, (LayerNeurons(HOSTILE, (HOSTILE,), (0.0, 2.0), 0.1),), (HOSTILE,), 8),
        UpdateReport(HOSTILE, HOSTILE, (0.0,), (WeightUpdate(HOSTILE, 8, (3,), 1.0, 4.0),)),
        ActivationSparsity(
            HOSTILE, 1, (LayerActivity(HOSTILE, HOSTILE, 8, 6, 64, 48),), unknown={HOSTILE: 1}
        ),
        TrainingCost.of(plan),
        TrainingMemory.of(plan),
        Advice(LAWS["t5-c4"], 1e8, 1e20),
        replace(ask(published("routed"), LawQuestion()), notes=(HOSTILE,)),
        tradeoff([Observation(HOSTILE, HOSTILE, HOSTILE, macs=64, metric="top1", value=1.0)]),
    )
    return {type(value).__name__: value for value in found}


def kinds() -> set[str]:
    return {kind.__name__ for kind in Displayed.__subclasses__() if kind.__module__.startswith("iftplan.")}


class Reader(HTMLParser):
    """Tags with what stands in them, and the text of every cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(attrs)))
        if tag == "tr":
            self.rows.append([])
        self._cell = tag in ("th", "td")
        if self._cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self.rows[-1][-1] += data


TAGS = {"div", "p", "b", "br", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"}
STYLES = {(), (("style", "text-align:left"),), (("style", "text-align:right"),)}


def test_every_kind_of_value_that_shows_itself_has_an_example_here() -> None:
    assert set(examples()) == kinds()


@pytest.mark.parametrize("name", sorted(examples()))
def test_no_name_becomes_markup_or_steers_a_terminal(name: str) -> None:
    value = examples()[name]
    read = Reader(value._repr_html_())
    assert {tag for tag, _ in read.tags} <= TAGS
    assert {attributes for _, attributes in read.tags} <= STYLES
    for character in ("\x1b", "\u202e"):
        assert character not in read.text
        assert character not in str(value)
    if name not in (
        "Advice",
        "Family",
        "TrainingCost",
        "TrainingMemory",
        "Solution",
    ):  # these show no name of a stranger's
        assert "<script>alert(1)</script>" in read.text


def test_a_fragment_without_escaping_would_be_seen() -> None:
    assert "script" in {tag for tag, _ in Reader(f"<p>{HOSTILE}</p>").tags}


@pytest.mark.parametrize("name", sorted(examples()))
def test_text_and_html_say_the_same(name: str) -> None:
    value = examples()[name]
    read = Reader(value._repr_html_().replace("<br>", "\n"))
    rows = [
        row
        for t in value.tables()
        if t.rows
        for row in ((t.headings, *t.rows) if any(t.headings) else t.rows)
    ]
    assert read.rows == [[without_breaks(printable(cell)) for cell in row] for row in rows]
    lines = [line for t in value.tables() for line in (t.title, *t.notes)]
    assert all(printable(line) in read.text for line in lines)
    texts = (*lines, *(cell for row in rows for cell in row))
    words = (word for text in texts for word in printable(text).split())
    assert all(word in str(value) for word in words)


def test_a_plan_in_a_notebook_is_what_it_was() -> None:
    path = GOLDEN / "plan-wide.html"
    found = planned()._repr_html_().replace("<tr>", "\n<tr>") + "\n"
    if os.environ.get("IFTPLAN_GOLDEN") == "write":
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


def test_its_cells_are_those_of_the_table() -> None:
    """So that a wrong golden cannot agree with itself: the table in CSV is written by other code."""
    table = plan_table(planned())
    rows = Reader((GOLDEN / "plan-wide.html").read_text(encoding="utf-8")).rows
    assert [
        tuple(cell.replace("\u00a0", " ") for cell in row) for row in rows[1 : 1 + len(table.rows)]
    ] == list(table.rows)
    assert to_csv(table).splitlines()[0].split(",") == rows[0]


def test_printing_is_what_the_command_line_prints() -> None:
    golden = (GOLDEN / "plan-wide.txt").read_text(encoding="utf-8")
    assert str(ift.plan(chain(), "wide", "0.75")) + "\n\n" == golden


def test_a_thousand_layers_are_shown_in_a_moment_and_folded() -> None:
    plan = ift.plan(hostile_spec(1000), "parallel", "1/2", keep_dense=())
    began = time.process_time()
    fragment = plan._repr_html_()
    assert str(plan).count("\n") > 1000
    assert time.process_time() - began < 5
    assert len(fragment) < 1_500_000
    assert "<details><summary>1000 layers</summary>" in fragment
    assert "<details>" not in planned()._repr_html_()


def test_beyond_a_thousand_rows_the_rest_is_counted() -> None:
    table = Table(("layer", ">MACs"), tuple((f"layer{i}", str(i)) for i in range(10_000)))
    fragment = table_fragment(table)
    assert len(Reader(fragment).rows) == 1001
    assert "and 9000 more" in fragment


def test_ipython_gets_text_and_html() -> None:
    from IPython.core.formatters import DisplayFormatter

    value = ift.solve("linear:64-64", "parallel", "1/2")
    shown, _ = DisplayFormatter().format(value)
    assert shown == {"text/plain": str(value), "text/html": value._repr_html_()}


def test_printing_in_a_notebook_or_with_forced_colours_is_plain_too(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = str(planned())
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert str(planned()) == plain


def test_showing_changes_nothing_about_a_value() -> None:
    """It stays a frozen value with slots, equal by what is in it."""
    value = ift.solve("linear:64-64", "parallel", "1/2")
    assert value == ift.solve("linear:64-64", "parallel", "1/2")
    assert not hasattr(value, "__dict__")
    assert value.sparsity == Fraction(1, 2)
