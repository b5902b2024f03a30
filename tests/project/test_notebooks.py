"""Every notebook runs in under a minute and says again what is committed with it.

`make notebooks` runs them and writes what they say; read the difference before committing it.
"""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import nbformat
import pytest

from tests.support.pages.notebook_runs import NOTEBOOKS, VARIES, executed, read, text_of, tidied, told
from tests.support.places import ROOT

SECONDS = 60
PICTURE = 60_000  # bytes
WHOLE = 250_000
READ_ON_GITHUB = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def processor_seconds(at: os.times_result) -> float:
    """Of finished child processes: a notebook's time where nothing else runs, for it has one thread."""
    return at.children_user + at.children_system


@pytest.mark.slow
@READ_ON_GITHUB
def test_it_says_again_what_is_committed_in_under_a_minute(path: Path, tmp_path: Path) -> None:
    before = os.times()
    found = executed(path, tmp_path)
    took = processor_seconds(os.times()) - processor_seconds(before)
    if os.environ.get("IFTPLAN_GOLDEN") == "write":
        path.write_text(text_of(found), encoding="utf-8")
    for old, new in zip(read(path).cells, found.cells, strict=True):
        if old.cell_type == "code":
            assert told(new) == told(old), f"{path.name}:\n{old.source}"
    assert took < SECONDS


def test_they_are_numbered_from_one() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{i + 1:02}" for i in range(len(NOTEBOOKS))]
    assert len(NOTEBOOKS) >= 6


@READ_ON_GITHUB
def test_what_is_committed_holds_nothing_that_varies(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == text_of(tidied(read(path))), "run: make notebooks"
    assert not re.search(r"/(tmp|home|root|usr|Users|work)/|wall_seconds|\\u001b", text)
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert cell.outputs or not cell.source.endswith(("plan", "report")), "committed without outputs"
            assert [o.output_type for o in cell.outputs].count("error") == (
                "raises-exception" in cell.metadata.get("tags", [])
            )


@READ_ON_GITHUB
def test_it_is_small_enough_to_be_read(path: Path) -> None:
    assert path.stat().st_size < WHOLE
    outputs = [o for cell in read(path).cells if cell.cell_type == "code" for o in cell.outputs]
    pictures = [o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert all(len(base64.b64decode(picture)) < PICTURE for picture in pictures)


@READ_ON_GITHUB
def test_its_links_lead_somewhere(path: Path) -> None:
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", prose):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


# --- the check itself can fail ---------------------------------------------------------------------------


def notebook(*sources: str, tags: list[str] | None = None) -> nbformat.NotebookNode:
    cells = [
        nbformat.v4.new_code_cell(source, id=f"c{i}", metadata={"tags": tags or []})
        for i, source in enumerate(sources)
    ]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.mark.slow
def test_what_a_cell_prints_is_compared_and_what_varies_is_not(tmp_path: Path) -> None:
    path = tmp_path / "01-x.ipynb"
    source = "import os, sys; print(os.getpid()); print('to stderr', file=sys.stderr)"
    path.write_text(text_of(notebook(source, "1 + 1", "print('\\x1b[1mbold\\x1b[0m')")), encoding="utf-8")
    first, second = executed(path, tmp_path), executed(path, tmp_path)
    assert told(first.cells[0]) != told(second.cells[0])
    assert told(first.cells[1]) == told(second.cells[1]) == [{"text/plain": "2"}]
    assert told(first.cells[2]) == [("stdout", "bold\n")]
    for run in (first, second):
        run.cells[0].metadata["tags"] = [VARIES]
    assert told(first.cells[0]) == told(second.cells[0])
    assert text_of(first) == text_of(tidied(first))
    assert {cell.execution_count for cell in first.cells} == {None}


def test_the_command_that_writes_them_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^notebooks: .*\n\t.*IFTPLAN_GOLDEN=write.*test_notebooks", makefile, re.M)
