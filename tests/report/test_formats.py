"""Reports outside the terminal: one page written in five formats, names from strangers, ten thousand layers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from iftplan.checks.findings import CheckReport, Drift, Limit, ModelCheck, Quantity, Status
from iftplan.checks.page import check_page
from iftplan.cli.source_lines import configured_place, source_place
from iftplan.models.cost import ModelCost
from iftplan.plans.audit.audit import AuditedLayer, AuditReport, Verdict
from iftplan.plans.audit.diff import LayerCosts, diff
from iftplan.plans.audit.tables import audit_page, diff_page
from iftplan.plans.plan import Scope
from iftplan.report.github import page_annotations
from iftplan.report.html.file import page_html
from iftplan.report.html.treemap import HEIGHT, WIDTH, tiles
from iftplan.report.junit import page_junit
from iftplan.report.markdown import COMMENT_LIMIT, MARKER, page_markdown
from iftplan.report.page import Finding, Page, Place, Rule, Section, SectionStatus, TreemapLayer
from iftplan.report.sarif import page_sarif
from iftplan.report.table import Table
from tests.support.cli_runs import iftplan
from tests.support.pages.browser import BROWSER, dom
from tests.support.pages.hostile import HOSTILE


def audited(name: Callable[[int], str], layers: int, *, compares: bool = True) -> AuditReport:
    """A failed audit: layer i was to cost 1000 and costs 1000 + i."""
    rows = tuple(AuditedLayer(name(i), 1000 if compares else None, 1000 + i) for i in range(layers))
    total = sum(row.measured_macs or 0 for row in rows)
    return AuditReport(
        subject=name(0),
        reference="base",
        scope=Scope.MODEL,
        tolerance=Fraction(0),
        dense_macs=None,
        expected_macs=1000 * layers,
        measured_macs=total,
        counters={"meta": total},
        layers=rows,
        assumptions=(f"assumed about {name(0)}",),
        problems=(f"too much in {name(layers - 1)}",),
    )


def hostile_page(layers: int = 3) -> Page:
    return audit_page(audited(lambda i: f"{HOSTILE}.{i}", layers), place=Place(HOSTILE))


# --- what each format is -----------------------------------------------------------------------------


class Reader(HTMLParser):
    """Tags with their attributes, the text of every cell, and the content of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            del self._open[len(self._open) - 1 - self._open[::-1].index(tag) :]

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data


TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "p", "span", "h1", "h2", "a", "section", "div", "details", "summary"),
    *("table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "svg", "g", "rect", "text", "label", "input", "button"),
    "script",
}  # fmt: skip


def test_html_has_no_tag_that_a_name_brought() -> None:
    text = page_html(hostile_page())
    page = Reader(text)
    assert {tag for tag, _ in page.tags} <= TAGS
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not [tag for tag, attributes in page.tags if {"src", "srcset"} & attributes.keys()]
    assert {attributes["href"] for tag, attributes in page.tags if tag == "a"} <= {"#s1"}
    assert page.texts["td"].count("1\u00a0002") == 1, "a number that no line break divides"
    assert any("<script>alert(1)</script>" in cell for cell in page.texts["td"]), "the name is shown as it is"
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_html_allows_no_script_but_its_own() -> None:
    from base64 import b64encode
    from hashlib import sha256

    page = Reader(page_html(hostile_page()))
    (policy,) = [a["content"] or "" for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    digest = b64encode(sha256(page.texts["script"][0].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_the_check_of_tags_can_fail() -> None:
    assert {tag for tag, _ in Reader("<td><img src=x></td>").tags} - TAGS == {"img"}


def test_markdown_renders_names_as_text() -> None:
    text = page_markdown(hostile_page())
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text)
    tags = {tag for tag, _ in Reader(html).tags}
    assert tags <= {
        "h3",
        "ul",
        "li",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "code",
        "em",
        "p",
        "details",
        "summary",
    }
    assert text.startswith(MARKER + "\n\n### ❌ ")
    plain = re.sub(r"<!--.*?-->", "", text)
    assert "<script" not in plain
    mentions = re.sub(r"<code>.*?</code>", "", text)
    assert "octocat" in mentions
    assert not re.search(r"@octocat|#1\b(?!\d*;)", mentions), "nobody is notified"
    cells = [Reader(line).texts for line in html.splitlines() if "<code>" in line]
    assert all("alert(1)" in cell["code"][0] for cell in cells)
    assert "\x1b" not in text


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_name_survives_markdown_as_the_text_that_it_is(name: str) -> None:
    from iftplan.report.markdown import code
    from iftplan.report.table import printable

    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(f"a {code(name)} b")
    found = Reader(html)
    assert [tag for tag, _ in found.tags] == ["p", "code"]
    assert found.texts["code"] == [" ".join(printable(name.replace("\n", " ")).split())]


def test_junit_is_xml_with_one_case_a_subject() -> None:
    suites = ElementTree.fromstring(page_junit(hostile_page()))
    (case,) = suites.iter("testcase")
    (failure,) = case
    assert suites.get("failures") == "1"
    assert failure.get("type") == "cost"
    assert "too much in" in (failure.text or "")
    assert "1 002" in (failure.text or ""), "the failure carries the layer table"
    assert "<script>alert(1)</script>" in (case.get("name") or "")


@pytest.mark.parametrize(
    ("outcome", "elements"),
    [
        (SectionStatus.PASSED, ["system-out"]),
        (SectionStatus.REPORTED, ["system-out"]),
        (SectionStatus.FAILED, ["failure"]),
        (SectionStatus.UNMEASURED, ["error"]),
        (SectionStatus.INVALID, ["error"]),
        (SectionStatus.STALE, ["error"]),
    ],
)
def test_what_could_not_be_told_is_an_error_not_a_pass(outcome: SectionStatus, elements: list[str]) -> None:
    section = Section("net", outcome, "how it went")
    (case,) = ElementTree.fromstring(page_junit(Page("p", (section,)))).iter("testcase")
    assert [element.tag for element in case] == elements
    assert outcome.refuses == (elements != ["system-out"])


def test_annotations_are_one_line_each_that_no_name_can_break() -> None:
    lines = page_annotations(hostile_page()).splitlines()
    assert len(lines) == 1
    match = re.fullmatch(r"::error file=([^,:]*),line=1,title=([^,:]*)::(.*)", lines[0])
    assert match
    assert match[2] == "iftplan%3A cost"
    assert "\\n::error::x" in match[3]


def test_annotations_beyond_ten_are_told_of() -> None:
    findings = tuple(Finding(Rule.COST, f"finding {i}") for i in range(25))
    lines = page_annotations(
        Page("p", (Section("net", SectionStatus.FAILED, "", findings=findings),))
    ).splitlines()
    assert len(lines) == 10
    assert "and 16 more" in lines[-1]


def test_sarif_has_a_result_for_each_finding() -> None:
    log = json.loads(page_sarif(hostile_page()))
    assert (log["version"], log["runs"][0]["tool"]["driver"]["version"]) == ("2.1.0", version("iftplan"))
    (result,) = log["runs"][0]["results"]
    rules = {rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]}
    assert result["ruleId"] in rules == {rule.value for rule in Rule}
    assert result["level"] == "error"
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 1}
    assert (
        json.loads(page_sarif(Page("p", (Section("n", SectionStatus.PASSED, ""),))))["runs"][0]["results"]
        == []
    )


# --- what they say -----------------------------------------------------------------------------------


def test_an_audit_says_by_how_much_and_where_first() -> None:
    page = audit_page(audited(lambda i: f"layer{i}", 3))
    assert page.headline == "layer0: +0.1 % MACs against base"
    assert [row[0] for row in page.sections[0].layers.rows] == ["layer2", "layer1", "layer0"]
    assert page.sections[0].layers.rows[0] == ("layer2", "1 000", "1 002", "33.37%", "+2")
    assert page.sections[0].shares[2] == TreemapLayer("layer2", 1002, 1000)


def test_every_verdict_has_its_outcome() -> None:
    for verdict in Verdict:
        report = audited(str, 1)
        report = {
            Verdict.PASSED: AuditReport("m", "r", Scope.MODEL, Fraction(0), None, 1000, 1000, {}),
            Verdict.REPORTED: AuditReport("m", "", Scope.MODEL, Fraction(0), None, None, 1000, {}),
            Verdict.FAILED: report,
            Verdict.UNMEASURED: AuditReport(
                "m", "", Scope.MODEL, Fraction(0), None, None, 0, {}, unknown_ops={"lib::op": 2}
            ),
        }[verdict]
        assert report.verdict is verdict
        assert audit_page(report).outcome.value == verdict.value


def test_what_could_not_be_measured_is_named() -> None:
    report = AuditReport(
        "m",
        "",
        Scope.MODEL,
        Fraction(0),
        None,
        None,
        7,
        {},
        unknown_ops={"lib::op": 2},
        uncalled_modules=("head",),
    )
    (section,) = audit_page(report).sections
    assert section.headline == "could not be measured"
    assert [(f.rule.value, f.layer) for f in section.findings] == [
        ("unknown-operator", "lib::op"),
        ("uncalled-module", "head"),
    ]


def test_a_diff_leads_with_the_change() -> None:
    page = diff_page(diff(LayerCosts("a", {"x": 100, "y": 10}), LayerCosts("b", {"x": 150, "z": 1})))
    assert page.headline == "a → b: +41 MACs (+37.3 %)"
    assert page.outcome is SectionStatus.REPORTED
    assert page.sections[0].shares == (TreemapLayer("x", 150, 100), TreemapLayer("z", 1, 0))
    same = diff_page(diff(LayerCosts("a", {"x": 5}), LayerCosts("b", {"x": 5})))
    assert same.headline == "a → b: no change, 5 MACs"
    moved = diff_page(diff(LayerCosts("a", {"x": 5, "y": 4}), LayerCosts("b", {"x": 4, "y": 5})))
    assert moved.headline == "a → b: 2 layers changed, and the total is the same"


def checked() -> CheckReport:
    head = ModelCost({"body": 150, "head": 10}, {"body": 30, "head": 2})
    macs = diff(LayerCosts("main", {"body": 100, "head": 10}), LayerCosts("now", dict(head.macs)))
    parameters = diff(LayerCosts("main", {"body": 20, "head": 2}), LayerCosts("now", dict(head.parameters)))
    limit = Limit(Quantity.MACS, Fraction(120), Fraction(160))
    wide = ModelCheck(
        "wide", "net.py:wide", ("1x8",), Status.FAILED, head, (limit,), Drift(macs, parameters), ("body grew by 50.",)
    )  # fmt: skip
    fine = ModelCheck("fine", "zoo:x", (), Status.PASSED, head)
    broken = ModelCheck("broken", "net.py:gone", (), Status.INVALID, problems=("there is no gone.",))
    return CheckReport("pyproject.toml", "main", (fine, wide, broken))


def test_a_check_has_a_section_a_model_and_leads_with_what_is_refused() -> None:
    page = check_page(
        checked(), place=lambda model: Place("net.py", 3) if model.source.startswith("net.py") else None
    )
    fine, wide, broken = page.sections
    assert page.outcome is SectionStatus.FAILED
    assert page.headline == "2 of 3 models fail: wide, broken"
    assert fine.place == Place("pyproject.toml")
    assert (wide.place, wide.outcome) == (Place("net.py", 3), SectionStatus.FAILED)
    assert wide.layers.columns == ("layer", ">MACs", ">change", ">share", ">parameters", ">change")
    assert wide.layers.rows[0] == ("body", "150", "+50", "93.8 %", "30", "+10")
    assert wide.reason == "Over budget by 40 MACs."
    assert wide.summary == (("source", "net.py:wide"), ("inputs", "1x8"), ("parameters", "32, +10 (+45.5 %)"))
    assert (broken.outcome, broken.findings) == (
        SectionStatus.INVALID,
        (Finding(Rule.CONFIGURATION, "there is no gone."),),
    )
    text = page_markdown(page)
    assert "body grew by 50" not in text, "the totals and the layers say it"
    assert text.index("there is no gone.") > text.index("Over budget by 40\u00a0MACs.")
    for name in ("fine", "wide", "broken"):
        assert f"<code>{name}</code>" in text


@pytest.mark.parametrize("status", Status)
def test_every_status_has_an_outcome_of_its_name(status: Status) -> None:
    problems = () if status is Status.PASSED else ("why",)
    (section,) = check_page(
        CheckReport("iftplan.toml", "", (ModelCheck("m", "s", (), status, problems=problems),))
    ).sections
    assert section.outcome.value == status.value
    assert len(section.findings) == len(problems)


def over_budget() -> Page:
    """A model that passes, changed by 8 of 72 MACs, beside one over its budget and one that cannot be built."""
    before, after = LayerCosts("main", {"fc": 64}), LayerCosts("net", {"fc": 72})
    drift = Drift(diff(before, after), diff(before, before))
    kept = Limit(Quantity.MACS, Fraction(80), Fraction(72))
    double = Limit(Quantity.FLOPS, Fraction(160), Fraction(144))
    over = Limit(Quantity.MACS, Fraction(36), Fraction(72))
    held = Limit(Quantity.PARAMETERS, Fraction(144), Fraction(72))
    measured = ModelCost({"fc": 72}, {"fc": 64})
    long = f"72 MACs, 36 allowed (+100 %); {'layer fc, ' * 40}"
    models = (
        ModelCheck("net", "s", (), Status.PASSED, measured, (kept, double), drift),
        ModelCheck("big", "s", (), Status.FAILED, measured, (over, held), drift, (long,)),
        ModelCheck("gone", "s", (), Status.INVALID, problems=("there is no file; make one.",)),
    )
    return check_page(CheckReport("iftplan.toml", "main", models))


def test_an_overview_has_cost_change_and_every_budget_of_every_model() -> None:
    page = over_budget()
    assert page.headline == "2 of 3 models fail: big, gone"
    columns, rows = page.overview
    assert columns == ("quantity", ">cost", ">since main", ">budget", ">used")
    passed, failed, invalid = SectionStatus.PASSED, SectionStatus.FAILED, SectionStatus.INVALID
    assert [(r.section.subject if r.first else "", r.outcome, r.cells) for r in rows] == [
        ("net", passed, ("MACs", "72", "+8 (+12.5 %)", "80", "90.0 %")),
        ("", passed, ("FLOPs", "144", "+16 (+12.5 %)", "160", "90.0 %")),
        ("big", failed, ("MACs", "72", "+8 (+12.5 %)", "36", "200.0 %")),
        ("", passed, ("parameters", "72", "unchanged", "144", "50.0 %")),
        ("gone", invalid, ("", "", "", "", "")),
    ]
    text = page_markdown(page)
    assert "| ❌ | <code>big</code> | MACs | 72 | +8\u00a0(+12.5\u00a0%) | 36 | 200.0\u00a0% |" in text
    assert max(len(line) for line in text.splitlines() if line.startswith("#")) < 80
    assert "layer fc" not in text, "the sentence of the terminal, whose numbers are in the tables"


def test_no_number_of_a_comment_or_a_page_is_broken() -> None:
    """Names and sentences wrap, cells with numbers do not."""
    for line in page_markdown(over_budget()).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        assert not [c for c in cells if re.search(r"\d [\d%(]", c)]
    page = Reader(page_html(over_budget()))
    told = {text.strip() for text in page.texts["td"]}
    assert {"+8 (+12.5\u00a0%)", "200.0\u00a0%"} <= told
    assert "white-space: nowrap" in page.texts["style"][0]


def test_a_change_that_is_not_allowed_says_what_to_do() -> None:
    same, more = LayerCosts("iftplan-baseline.json", {"fc": 64}), LayerCosts("net", {"fc": 72})
    drift = Drift(diff(same, more), diff(same, same))
    failed = ModelCheck(
        "net", "s", (), Status.FAILED, ModelCost({"fc": 72}, {"fc": 64}), (), drift, ("+8 MACs …",)
    )
    page = check_page(CheckReport("iftplan.toml", "iftplan-baseline.json", (failed,)))
    assert page.headline == "net: +12.5 % MACs"
    assert page.sections[0].reason == (
        "iftplan.toml allows no such change since iftplan-baseline.json. If it is meant, "
        "run iftplan check --save-baseline and commit the file."
    )


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ((Limit(Quantity.MACS, Fraction(60), Fraction(72)), Limit(Quantity.PARAMETERS, Fraction(1), Fraction(64))),
         "Over budget by 12 MACs and 63 parameters."),
        ((Limit(Quantity.MACS, Fraction(80), Fraction(72), equal=True),), "Under budget by 8 MACs."),
        ((Limit(Quantity.RATIO, Fraction(1, 4), Fraction(1, 3), reference="teacher"),),
         "Above the MACs ratio to teacher by 33.3 %."),
    ],
)  # fmt: skip
def test_a_budget_that_is_not_kept_says_by_how_much(limits: tuple[Limit, ...], reason: str) -> None:
    failed = ModelCheck(
        "net", "s", (), Status.FAILED, ModelCost({"fc": 72}, {"fc": 64}), limits, None, ("x",) * len(limits)
    )
    assert check_page(CheckReport("iftplan.toml", "", (failed,))).sections[0].reason == reason


def test_what_passes_is_folded_and_what_has_not_changed_left_out() -> None:
    text = page_markdown(over_budget())
    assert "<summary><code>net</code>: what changed, layer by layer</summary>" in text
    assert text.index("#### ❌ <code>gone</code>") < text.index("<summary><code>net</code>"), "work first"
    fine = ModelCheck("fine", "s", (), Status.PASSED, ModelCost({"fc": 72}, {"fc": 64}))
    assert "details" not in page_markdown(check_page(CheckReport("iftplan.toml", "", (fine, fine))))


def test_only_what_is_to_be_done_is_annotated() -> None:
    lines = page_annotations(over_budget()).splitlines()
    assert [line.partition("::")[2].partition(" ")[0] for line in lines] == ["error", "error"]
    same = LayerCosts("a", {"fc": 64})
    assert page_annotations(diff_page(diff(same, same))) == ""
    more = LayerCosts("b", {"fc": 72})
    assert page_annotations(diff_page(diff(same, more))).startswith(
        "::notice title=iftplan%3A cost::a → b: +8"
    )


def test_one_sentence_is_not_said_twice() -> None:
    page = Page(
        "p", (Section("net", SectionStatus.FAILED, "too much", findings=(Finding(Rule.COST, "too much"),)),)
    )
    assert page_markdown(page).count("too much") == 1
    assert Reader(page_html(page)).texts["p"][-1] == "p "
    assert page_markdown(Page("p", page.sections * 2, ("a note",))).count("too much") == 2
    assert "a note" in page_markdown(Page("p", page.sections, ("a note",)))
    assert "a note" in page_html(Page("p", page.sections, ("a note",)))


def test_what_several_models_assume_is_said_once() -> None:
    models = tuple(
        ModelCheck(name, "s", (), Status.PASSED, ModelCost({}, {}), notes=("values were assumed", *own))
        for name, own in (("one", ()), ("two", ("two is lazy",)), ("three", ()))
    )
    page = check_page(CheckReport("iftplan.toml", "", models))
    assert page.notes == ("one, two, three: values were assumed",)
    assert [section.notes for section in page.sections] == [(), ("two is lazy",), ()]
    assert (
        page_markdown(page).count("values were assumed") == page_html(page).count("values were assumed") == 1
    )


def test_a_gate_is_never_outvoted_by_passes() -> None:
    passed, failed = Section("a", SectionStatus.PASSED, ""), Section("b", SectionStatus.FAILED, "")
    unsure = Section("c", SectionStatus.UNMEASURED, "")
    assert Page("p", (passed, failed, unsure, passed)).outcome is SectionStatus.FAILED
    assert Page("p", (passed, unsure)).outcome is SectionStatus.UNMEASURED
    assert Page("p", (passed, passed)).headline == "2 models pass"


def test_a_place_is_the_line_of_the_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "raise SystemExit('never run')\n\n\ndef small():\n    pass\n\n\nclass Big:\n    pass\n"
    )
    assert source_place("net.py:small") == Place("net.py", 4)
    assert source_place("net.py:Big") == Place("net.py", 8)
    assert source_place("net.py:gone") == Place("net.py", 1)
    assert source_place("zoo:resnet18") is None
    assert source_place("nowhere.py:f") is None
    (tmp_path / "src" / "shop").mkdir(parents=True)
    Path("src/shop/net.py").write_text("\n\nclass Net:\n    pass\n")
    assert source_place("shop.net:Net") == Place("src/shop/net.py", 3)
    assert source_place("net:Big") == Place("net.py", 8)
    assert source_place("elsewhere.net:Net") is None


def test_a_model_that_is_no_file_here_is_at_its_table(tmp_path: Path) -> None:
    config = tmp_path / "pyproject.toml"
    config.write_text(
        '[tool.x]\n\n[tool.iftplan.models.small]\nsource = "zoo:x"\n[tool.iftplan.models."a.b"]\n'
    )
    assert configured_place(str(config), "small").line == 3
    assert configured_place(str(config), "a.b").line == 5
    assert configured_place(str(config), "gone").line == 1
    assert configured_place("nowhere.toml", "small") == Place("nowhere.toml", 1)


# --- size --------------------------------------------------------------------------------------------

NAMES: dict[str, Callable[[int], str]] = {
    "flat": lambda i: f"layer{i}",
    "nested": lambda i: f"stage{i // 1000}.block{i // 50}.layer{i}",
    "hostile": lambda i: f"{HOSTILE}.{i}",
    "deep": lambda i: ".".join(["a"] * (i // 20)) + f".{i}",
}


@pytest.mark.parametrize("kind", NAMES)
def test_ten_thousand_layers_are_written_quickly(kind: str) -> None:
    page = audit_page(audited(NAMES[kind], 10_000))
    start = time.process_time()
    text = page_html(page)
    comment = page_markdown(page)
    page_junit(page)
    if sys.gettrace() is None:  # a tracer, such as coverage's, takes longer than the page
        assert time.process_time() - start < 6, "a second or so on an idle machine"
    assert text.count("<tr>") >= 10_000, "all layers are in the file"
    assert len(comment) <= COMMENT_LIMIT
    assert "more layers; the full report has them" in comment
    assert 1 <= text.count("<rect") <= 5000


def test_a_short_page_is_not_cut() -> None:
    page = audit_page(audited(lambda i: f"layer{i}", 20))
    assert "the full report has" not in page_markdown(page)
    assert "<details><summary>15 more layers</summary>" in page_markdown(page)
    assert all(page_markdown(page).count(f"<code>layer{i}</code> |") == 1 for i in range(20)), (
        "none is said twice"
    )


@pytest.mark.parametrize("limit", [200, 2_000, 20_000])
def test_markdown_keeps_within_any_limit(limit: int) -> None:
    assert len(page_markdown(hostile_page(400), limit)) <= limit


# --- the treemap -------------------------------------------------------------------------------------


@given(st.dictionaries(st.text("ab.", min_size=1, max_size=6), st.integers(0, 10**9), max_size=30))
def test_a_treemap_covers_the_canvas_in_proportion(macs: dict[str, int]) -> None:
    drawn = tiles([TreemapLayer(name, cost) for name, cost in macs.items()])
    total = sum(macs.values())
    assert sum(tile.macs for tile in drawn) == total
    for tile in drawn:
        assert tile.width * tile.height == pytest.approx(WIDTH * HEIGHT * tile.macs / total, rel=0.02, abs=80)
        assert -0.1 <= tile.x <= tile.x + tile.width <= WIDTH + 0.2
        assert -0.1 <= tile.y <= tile.y + tile.height <= HEIGHT + 0.2


def test_a_treemap_knows_what_grew() -> None:
    drawn = {
        tile.name: tile
        for tile in tiles([TreemapLayer("a", 10, 4), TreemapLayer("b", 6, 9), TreemapLayer("c", 3, 3)])
    }
    assert {name: tile.gained for name, tile in drawn.items()} == {"a": 6, "b": -3, "c": 0}
    assert all(tile.gained is None for tile in tiles([TreemapLayer("a", 1), TreemapLayer("b", 2)]))


# --- the command line --------------------------------------------------------------------------------

NETS = """
from torch import nn

def small():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

def large():
    return nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 4))
"""


def spec_ledgers(home: Path) -> None:
    from iftplan import api
    from tests.support.hand_specs import chain

    api.save(chain(), str(home / "a.json"))


@pytest.mark.parametrize(
    ("form", "name", "begins"),
    [
        ("html", "out.html", "<!doctype html>"),
        ("junit", "out.xml", "<testsuites"),
        ("sarif", "out.sarif", "{"),
        ("markdown", "out.md", MARKER),
        ("github", None, ""),
    ],
)
def test_a_diff_in_every_format(tmp_path: Path, form: str, name: str | None, begins: str) -> None:
    spec_ledgers(tmp_path)
    asked = iftplan("diff", "a.json", "a.json", "--format", form, cwd=tmp_path)
    assert (asked.code, asked.err) == (0, "")
    assert asked.out.startswith(begins)
    if name:
        assert iftplan("diff", "a.json", "a.json", "-o", name, cwd=tmp_path).code == 0
        assert (tmp_path / name).read_text(encoding="utf-8") == asked.out


def test_an_audit_annotates_the_line_of_the_factory(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    asked = ("audit", "nets.py:large", "--against", "nets.py:small", "--input", "5x8", "--format", "github")
    run = iftplan(*asked, cwd=tmp_path)
    assert run.code == 1
    assert run.out.startswith(
        "::error file=nets.py,line=7,title=iftplan%3A cost::nets.py:large: 1 440 MACs were"
    )


def test_other_commands_say_that_they_are_no_reports(tmp_path: Path) -> None:
    run = iftplan("solve", "--layer", "linear:8-8", "--format", "html", cwd=tmp_path)
    assert run.code == 2
    assert "--format html is for reports of audit, check and diff" in run.err


def test_a_report_that_cannot_be_written_leaves_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A summary alone would say that all is well, of a command that ended with bad input."""
    from iftplan.base.errors import InputError
    from iftplan.cli.output import Format, emit

    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match="HTML needs jinja2"):
        emit(
            [], dict, Format.JSON, None, page=hostile_page, also=[str(tmp_path / n) for n in ("a.md", "a.html")]
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("form", "library"), [("html", "jinja2"), ("html", "squarify"), ("junit", "junitparser"), ("sarif", "sarif_pydantic")]
)  # fmt: skip
def test_a_missing_library_names_the_extra(tmp_path: Path, form: str, library: str) -> None:
    spec_ledgers(tmp_path)
    code = f"import sys; sys.modules[{library!r}] = None\nfrom iftplan.cli.main import main\nmain(['diff', 'a.json', 'a.json', '--format', {form!r}])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert (
        f"needs {library.replace('_', '-')}, which is not installed; install it with: pip install 'iftplan[report]'"
        in done.stderr
    )


# --- in a browser ------------------------------------------------------------------------------------

CLICKS = """
<script>
const heading = (n) => document.querySelectorAll("table.layers th button")[n];
const first = () => document.querySelector("table.layers tbody tr td").textContent;
const seen = [first()];
heading(2).click(); seen.push(first());
heading(2).click(); seen.push(first());
heading(0).click(); seen.push(first());
const search = document.querySelector("input");
search.value = "layer9999"; search.dispatchEvent(new Event("input"));
seen.push([...document.querySelectorAll("table.layers tbody tr")].filter((row) => !row.hidden).length);
document.title = JSON.stringify(seen);
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine to open the report in")
def test_the_report_sorts_and_filters_in_a_browser(tmp_path: Path) -> None:
    text = page_html(audit_page(audited(lambda i: f"layer{i}", 10_000)))
    path = tmp_path / "report.html"
    path.write_text(
        re.sub(r"<meta http-equiv.*?>", "", text).replace("</body>", f"{CLICKS}</body>"), encoding="utf-8"
    )
    start = time.monotonic()
    title = Reader(dom(path)).texts["title"][0]
    assert json.loads(title) == ["layer9999", "layer9999", "layer0", "layer9999", 1]
    assert time.monotonic() - start < 20, "two or three seconds on an idle machine"


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine to open the report in")
def test_a_browser_runs_nothing_that_a_name_says(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page_html(hostile_page()), encoding="utf-8")
    found = Reader(dom(path))
    assert {tag for tag, _ in found.tags} <= TAGS
    path.write_text(path.read_text("utf-8").replace("</body>", f"{CLICKS}</body>"), encoding="utf-8")
    assert not Reader(dom(path)).texts["title"][0].startswith("["), "the policy lets no other script run"


def test_a_table_without_rows_is_left_out() -> None:
    page = Page("p", (Section("n", SectionStatus.PASSED, "fine", layers=Table(("layer",), ())),))
    assert '<table class="layers">' not in page_html(page)
    assert "<svg" not in page_html(page)
