"""One message, two languages: arguments in Python, options on the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import iftplan
from iftplan.base.options import in_options
from tests.support.cli_runs import iftplan as iftplan_
from tests.support.hand_specs import chain
from tests.support.places import PACKAGE

ift: Any = iftplan

FLAG = re.compile(r"(?<![\w-])--[a-z]")
COMMAND = re.compile(r"`iftplan [^`]*`")

COMMANDS_ONLY = (
    "cli",
    "checks/check.py",
    "checks/page.py",
    "checks/verdicts.py",
    "checks/revisions.py",
    "checks/configuration_file.py",
    "nn/training",
    "nn/timing/libraries.py",
    "runs/sweeps",
)
"""What only commands reach: their messages may name options as they are."""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("with `keep_dense=['first', 'fc']`.", "with --keep-dense first,fc."),
        ("`keep_dense`: 'x' is no layer", "--keep-dense: 'x' is no layer"),
        ("`allow=['my::op=0', 'b=1']`", "--allow my::op=0 --allow b=1"),
        ("`sparsity='0.5'` or `mask='4:8T+pad'`", "--sparsity 0.5 or --structure 4:8T+pad"),
        ("`trust=True`", "--trust"),
        ("`keep_dense='my layer'`", "--keep-dense 'my layer'"),
        ("see `iftplan bench --profile -o FILE`.", "see iftplan bench --profile -o FILE."),
        ("`solve` works, and so does `steps=3`", "`solve` works, and so does `steps=3`"),
        ("nothing", "nothing"),
    ],
)
def test_arguments_become_options(text: str, told: str) -> None:
    assert in_options(text) == told


def texts(path: Path) -> Iterator[str]:
    """Text in a file that is no docstring: what can become a message."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    docs |= {id(part) for node in joined for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(x.value if isinstance(x, ast.Constant) else "…" for x in node.values)  # type: ignore[misc]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            if not re.search(r"\s", node.value) and node.value.startswith("--"):
                continue  # a word for another program
            yield node.value


def flagged(path: Path) -> list[str]:
    return [text for text in texts(path) if FLAG.search(COMMAND.sub("", text))]


def test_no_message_of_the_python_interface_names_an_option() -> None:
    found = {
        name: flags
        for path in sorted(PACKAGE.rglob("*.py"))
        if not (name := path.relative_to(PACKAGE).as_posix()).startswith(COMMANDS_ONLY)
        and (flags := flagged(path))
    }
    assert found == {}


def test_that_check_can_fail(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        '"""--doc"""\nraise E(f"{x}: give --keep-dense {y}")\nrun("--quiet")\nE("`iftplan x --y`")\n'
    )
    assert flagged(file) == ["…: give --keep-dense …"]


@pytest.mark.parametrize(
    "call",
    [
        lambda: ift.plan(chain(), "wide", 0.75, keep_dense="zz"),
        lambda: ift.plan(chain(), "wide", 0.75, mask="1:8"),
        lambda: ift.plan(chain(), "nm", 1 / 3),
        lambda: ift.plan(chain(), "doped", 0.75, mask="block32x48"),
        lambda: ift.plan(chain(), "doped", 0.01),
        lambda: ift.plan(chain(), "wide", 0.75, objective="wallclock", profile="/nowhere.json"),
        lambda: ift.read_model("zoo:nothing"),
        lambda: ift.load("/nowhere.json"),
        lambda: ift.solve("linear:4-4", "nope", 0.5),
    ],
)
def test_python_hears_of_no_option(call: Callable[[], object]) -> None:
    with pytest.raises(ift.IftplanError) as caught:
        call()
    assert not FLAG.search(COMMAND.sub("", str(caught.value)))


def test_the_command_line_hears_of_its_options(tmp_path: Path) -> None:
    done = iftplan_("plan", "zoo:digits-cnn", "--keep-dense", "zz", cwd=tmp_path)
    assert done.code == 2
    assert "--keep-dense: 'zz' is not a layer of zoo:digits-cnn" in done.err
    done = iftplan_("plan", "zoo:digits-cnn", "--structure", "2:4", "--sparsity", "0.75", cwd=tmp_path)
    assert "the nearest is --sparsity 0.5." in done.err
