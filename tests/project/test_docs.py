"""Every code block of the documentation runs, and prints what the page shows."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from iftplan.base.documents import Document
from iftplan.cli.commands import SUMMARIES
from iftplan.cli.group import command_named
from tests.support.pages.documents import documents
from tests.support.pages.markdown_blocks import Block, BlockError, blocks, matches, run
from tests.support.places import MOST, PAGES, ROOT, page_named

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES])
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
    assert {"README.md", "exit-status.md", "counting.md", "families.md", "own-family.md", "plans.md"} <= set(
        found
    )
    assert sum(language in RUN for languages in found.values() for language in languages) >= 20


def test_pages_are_found_by_their_names_and_folders_can_be_taken_in_at_once() -> None:
    names = [page.name for page in PAGES]
    assert sorted(set(names)) == sorted(names)
    folders = {page.parent for page in PAGES}
    assert len(folders) > 5
    assert {f.name: n for f in folders if (n := len([*f.glob("*")])) > MOST} == {}


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
    text = page_named(page).read_text(encoding="utf-8")
    named = {name for run in re.findall(r"`([^`\n]+)`", text) for name in re.findall(r"\w+", run)}
    top = document if document["schema"] == "iftplan.spec/1" else dict.fromkeys(_keys(document))
    return {key.removesuffix("_exact") for key in top} - named - NESTED


@pytest.mark.parametrize(
    ("page", "document"), list(documents()), ids=["plan", "audit", "check", "spec", "solve", "profile"]
)
def test_every_key_of_a_document_is_explained(page: str, document: Document) -> None:
    assert _undocumented(page, document) == set()
    assert _undocumented(page, {**document, "unheard_of": 1}) == {"unheard_of"}


def test_every_command_and_option_is_in_the_pages() -> None:
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    for name in SUMMARIES:
        assert f"iftplan {name}" in text
        options = {o for p in command_named(name).params for o in p.opts if o.startswith("--")} - {
            "--help",
            "--output",
        }
        missing = {option for option in options if option not in text}
        assert missing == set(), f"iftplan {name}"


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
