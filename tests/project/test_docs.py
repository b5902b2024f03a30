"""Every code block of the documentation runs, and prints what the page shows."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from typer.main import get_command

import iftplan as ift
from iftplan.base.documents import Document
from iftplan.checks.findings import CheckReport, Drift, Limit, ModelCheck, Quantity, Status, check_document
from iftplan.cli.main import app
from iftplan.families.builtin import family_named
from iftplan.families.document import solve_document
from iftplan.models.cost import ModelCost
from iftplan.models.counting import Contraction, CountTable
from iftplan.models.document import spec_document
from iftplan.models.spec import Kind, LayerSpec, ModelSpec, WeightLayer
from iftplan.plans.audit.audit import audit_model
from iftplan.plans.audit.diff import Ledger, diff
from iftplan.plans.audit.document import audit_document
from iftplan.plans.document.plan import plan_document
from iftplan.plans.policy import Policy
from iftplan.plans.scaling import parametrized
from iftplan.plans.speed.document import profile_document
from iftplan.plans.speed.planner import plan_for_time
from tests.project.test_layers import ORDER
from tests.support.hand_profiles import profile
from tests.support.pages.markdown_blocks import Block, BlockError, blocks, matches, run
from tests.support.places import ROOT

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
RUN = ("bash", "console", "python")
NOT_RUN = ("text", "json", "sh")  # drawings, excerpts of files, and commands that make the environment itself


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_code_blocks_run_and_print_what_is_shown(document: Path, tmp_path: Path) -> None:
    for block in blocks(document):
        if block.language.startswith("{"):  # made by the site's build, which test_site.py runs
            continue
        assert block.language in RUN + NOT_RUN, f"{block.place}: nothing runs a block of {block.language!r}"
        run(block, tmp_path)


def test_the_documents_are_found_and_have_blocks_that_run() -> None:
    found = {document.name: [b.language for b in blocks(document)] for document in DOCUMENTS}
    assert {"README.md", "cli.md", "counting.md", "families.md", "own-family.md", "plans.md"} <= set(found)
    assert sum(language in RUN for languages in found.values() for language in languages) >= 20


def test_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_commands_that_make_the_environment_exist() -> None:
    """`sh` blocks cannot run inside the environment they make; what they name has to be there."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    shell = "\n".join(b.body for document in DOCUMENTS for b in blocks(document) if b.language == "sh")
    targets = re.findall(r"^make (\S+)", shell, re.M)
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
    assert {extra for group in re.findall(r"\[([\w,]+)\]", shell) for extra in group.split(",")} <= set(
        extras
    )


# --- what the pages list is complete ---------------------------------------------------------------------


def _documents() -> Iterator[tuple[str, Document]]:
    layer = WeightLayer(LayerSpec("l", Kind.LINEAR, 8, 8), "l.weight", "Linear")
    spec = ModelSpec("net.py:own", (), (layer,))
    halves = Policy(family_named("parallel"), Fraction(1, 2), keep_dense=frozenset())
    plan = parametrized(plan_for_time(spec, halves, profile()), "auto")
    table = CountTable("meta", (Contraction("l", "linear", 64, "l.weight"),))
    yield "plans.md", plan_document(plan)
    yield "cli.md", audit_document(audit_model("net.py:own", [table]))
    ledger = Ledger("before.json", {"l": 32})
    drift = Drift(diff(ledger, Ledger("net", {"l": 64})), diff(ledger, Ledger("net", {"l": 64})))
    limit = Limit(Quantity.RATIO, Fraction(1), Fraction(2), reference="baseline")
    measured = ModelCost({"l": 64}, {"l": 64})
    model = ModelCheck("net", "net.py:own", (), Status.FAILED, measured, (limit,), drift, ("why",))
    yield "cli.md", check_document(CheckReport("iftplan.toml", "before.json", (model,)))
    yield "cli.md", spec_document(spec)
    yield "cli.md", solve_document({"linear:8-8": [ift.solve("linear:8-8", "parallel", "1/2")]})
    yield "wallclock.md", profile_document(profile(widths=(8,), columns=(1,)))


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


NESTED = {"meta"}  # an engine's name, where counters have it for a key


def _undocumented(page: str, document: Document) -> set[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = {name for run in re.findall(r"`([^`\n]+)`", text) for name in re.findall(r"\w+", run)}
    top = document if document["schema"] == "iftplan.spec/1" else dict.fromkeys(_keys(document))
    return {key.removesuffix("_exact") for key in top} - named - NESTED


@pytest.mark.parametrize(
    ("page", "document"), list(_documents()), ids=["plan", "audit", "check", "spec", "solve", "profile"]
)
def test_every_key_of_a_document_is_explained(page: str, document: Document) -> None:
    assert _undocumented(page, document) == set()
    assert _undocumented(page, {**document, "unheard_of": 1}) == {"unheard_of"}


def test_every_command_and_option_is_in_the_pages() -> None:
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        assert f"iftplan {name}" in text
        options = {o for p in command.params for o in p.opts if o.startswith("--")} - {"--help", "--output"}
        missing = {option for option in options if option not in text}
        assert missing == set(), f"iftplan {name}"


def test_the_architecture_page_names_the_rooms_in_their_order() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)/?`", row)]
    assert [*named, "__main__"] == ORDER


# --- the check itself can fail ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "body", "complaint"),
    [
        ("console", "$ echo real\nshown\n", "printed:\n    real"),
        ("console", "$ echo real\n", "printed:\n    real"),
        ("console", "$ iftplan solve --layer conv3x3 --sparsity 1\n…\n", "exit status 2"),
        ("console", "output without a command\n", "begins with"),
        ("bash", "false\ntrue\n", "exit status 1"),
        ("python", "assert 1 == 2\n", "AssertionError"),
    ],
)
def test_a_block_that_does_something_else_fails(
    language: str, body: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(BlockError, match=re.escape(complaint)):
        run(Block("page.md:1", language, "", body), tmp_path)


@pytest.mark.parametrize(
    ("shown", "printed", "agree"),
    [
        (["a", "…", "d"], ["a", "b", "c", "d"], True),
        (["a", "…", "d"], ["a", "d"], True),
        (["…"], [], True),
        (["a", "", "b"], ["a", "b  "], True),
        (["a", "…", "d"], ["a", "b", "c"], False),
        (["a", "…"], ["b", "a"], False),
        (["a…"], ["ab"], False),
        (["a.c"], ["abc"], False),
        ([], ["a"], False),
    ],
)
def test_elision_stands_for_whole_lines_only(shown: list[str], printed: list[str], agree: bool) -> None:
    assert matches(shown, printed) is agree


def test_blocks_are_found_with_their_language_file_and_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python file=net.py\nx = 1\n```\n\n```\nplain\n```\n", encoding="utf-8")
    assert list(blocks(page)) == [
        Block("page.md:3", "python", "net.py", "x = 1\n"),
        Block("page.md:7", "", "", "plain\n"),
    ]
