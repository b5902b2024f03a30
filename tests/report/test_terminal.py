"""Tables on terminals: narrow, wide, without colours, in other encodings; and readers that stop reading."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import iftplan as ift
from iftplan.report.table import Table, printable
from iftplan.report.terminal import draw, spell, to_text
from tests.support.cli_runs import iftplan
from tests.support.hand_specs import chain

SOLVE = ("solve", "--layer", "conv3x3:64-128@16x16", "--sparsity", "0.75")


def drawn(table: Table, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, no_color=True, highlight=False)
    with console.capture() as captured:
        draw(table, console)
    return captured.get().splitlines()


def squeezed(text: str) -> str:
    return re.sub(r"[\s·]", "", text)


words = st.text(st.characters(codec="ascii", exclude_categories=("C", "Z")), min_size=1, max_size=12)
cells = st.lists(words, min_size=1, max_size=4).map(" ".join).map(printable)
columns = st.tuples(st.sampled_from(["", ">"]), cells).map("".join)
any_table = st.integers(1, 6).flatmap(
    lambda n: st.builds(
        Table,
        st.tuples(*[columns] * n),
        st.lists(st.tuples(*[cells] * n), min_size=1, max_size=5).map(tuple),
    )
)


@given(any_table, st.integers(20, 120))
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(table: Table, width: int) -> None:
    """Whatever the width: every cell is there, and only what is one piece may stick out."""
    lines = drawn(table, width)
    pieces = [f"  {word} ·" for row in (table.headings, *table.rows) for cell in row for word in cell.split()]
    pieces += [row[0] for row in table.rows]
    assert max(map(len, lines)) <= max(width, *map(len, pieces))
    text = to_text(table)
    for row in table.rows:
        for cell in row:
            assert cell in text
            assert all(word in "\n".join(lines) for word in cell.split())


@pytest.mark.parametrize("width", [60, 70, 80, 100, 140])
def test_a_plan_fits_a_terminal_of_this_width(width: int) -> None:
    for table in ift.plan(chain(), "wide", "3/4").tables():
        lines = [line for line in drawn(table, width) if line not in (table.title, *table.notes)]
        assert max(map(len, lines)) <= width
        numbers = {cell for row in table.rows for cell in row if cell[:1].isdigit()}
        assert all(number in "\n".join(lines) for number in numbers), "no number is broken across lines"


signs = st.text(st.sampled_from("ab 12.·×→√─²éμ表格[]#':\t\n"), max_size=14).map(str.strip)
tables = st.integers(1, 5).flatmap(
    lambda n: st.builds(
        Table,
        st.one_of(st.just(("",) * n), st.tuples(*[columns] * n)),
        st.lists(st.tuples(*[signs] * n), max_size=4).map(tuple),
        signs,
        st.lists(signs, max_size=2).map(tuple),
    )
)


def as_drawn(table: Table) -> str:
    return "".join(f"{line.rstrip()}\n" for line in drawn(table, 400))


def test_where_there_is_room_a_terminal_shows_what_a_pipe_gets() -> None:
    for table in ift.plan(chain(), "doped", "1/2").tables():
        assert as_drawn(table) == to_text(table)


@given(tables)
def test_a_pipe_gets_what_rich_draws(table: Table) -> None:
    assert as_drawn(table) == to_text(table)


def on_terminal(*arguments: str, **environment: str) -> str:
    """What a command writes to a terminal of 100 columns."""
    master, slave = pty.openpty()
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "iftplan", *arguments],
        stdout=slave,
        env={**kept, "COLUMNS": "100", "TERM": "xterm", **environment},
    )
    os.close(slave)
    found = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        found += part
    assert process.wait() == 0
    os.close(master)
    return found.decode()


def test_styles_are_for_terminals_that_want_them() -> None:
    assert "\x1b[1m" in on_terminal(*SOLVE)
    assert "\x1b" not in on_terminal(*SOLVE, NO_COLOR="1")
    assert "\x1b" not in on_terminal(*SOLVE, TERM="dumb")


def test_a_pipe_gets_no_styles(tmp_path: Path) -> None:
    assert "\x1b" not in iftplan(*SOLVE, cwd=tmp_path).out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_other_encodings_spell_the_signs_out(tmp_path: Path, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "iftplan", *SOLVE],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0
    lines = done.stdout.decode(encoding).splitlines()
    assert lines[2] == "-" * len(lines[2])
    assert "\\" not in done.stdout.decode(encoding)
    assert any("18 874 368" in line for line in lines)
    plain = iftplan(*SOLVE, cwd=tmp_path).out
    assert [spell(line, encoding).split() for line in plain.splitlines()][3:] == [
        line.split() for line in lines[3:]
    ]


def test_what_no_table_spells_is_an_escape() -> None:
    assert spell("naïve → 數", "ascii") == "na\\xefve -> \\u6578"
    assert spell("naïve → 數", "utf-8") == "naïve → 數"
    assert spell("naïve", "latin-1") == "naïve"
