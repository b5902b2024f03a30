"""What people read, character by character, in tables that also add up, so that a wrong golden cannot agree with itself.

`IFTPLAN_GOLDEN=write pytest tests/report/test_golden.py` writes the files in tests/golden again; read the difference before committing it.
"""

import os
from fractions import Fraction
from pathlib import Path

import pytest

from iftplan import api
from iftplan.cli.main import main
from iftplan.models.notation import parse_layer
from tests.support.hand_specs import chain
from tests.support.places import GOLDEN

WIDE_LAYERS = (
    "--layer",
    "conv3x3:64-128@16x16",
    "--layer",
    "linear:768-3072@128",
    "--layer",
    "dwconv3x3:192@14x14",
)

COMMANDS = {
    "solve-symbolic": ("solve", "--layer", "conv3x3", "--sparsity", "0.75"),
    "solve-numbers": ("solve", *WIDE_LAYERS, "--sparsity", "0.5,0.9"),
    "solve-pattern": ("solve", "--layer", "conv3x3:64-128@16x16", "--sparsity", "75%", "--transform", "nm,wide", "--mask", "2:8"),
    "solve-steps": ("solve", "--layer", "conv3x3", "--sparsity", "3/4", "--transform", "factorized,lowrank", "--steps"),
    "plan-wide": ("plan", "spec.json", "--transform", "wide", "--sparsity", "0.75"),
    "plan-parallel": ("plan", "spec.json", "--transform", "parallel", "--sparsity", "0.5", "--scope", "model"),
    "plan-doped": ("plan", "spec.json", "--transform", "doped", "--sparsity", "0.5", "--keep-dense", "none"),
    "plan-none": ("plan", "spec.json", "--transform", "none", "--sparsity", "0.8", "--distribution", "erk"),
}  # fmt: skip


def printed(
    arguments: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    api.save(chain(), "spec.json")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_output_is_what_it_was(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = printed(COMMANDS[name], capsys, tmp_path, monkeypatch)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("IFTPLAN_GOLDEN") == "write":
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


def test_every_golden_file_has_its_command() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(COMMANDS)


# --- reading the tables again --------------------------------------------------------------------------


Printed = tuple[str, list[dict[str, str]], list[str]]
"""Title, rows, notes."""


def tables(name: str) -> list[Printed]:
    """The tables of a golden file: (title, rows as dictionaries, notes)."""
    text = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    return [table(part.splitlines()) for part in text.strip("\n").split("\n\n")]


def table(lines: list[str]) -> Printed:
    rule = next(i for i, line in enumerate(lines) if line and set(line) <= {"─", " "})
    title, heading = lines[: rule - 1], lines[rule - 1]
    rows: list[str] = []
    edges: list[tuple[int, int]] = []
    for end in range(len(lines), rule, -1):  # notes follow the rows without a line between
        edges = columns([heading, *lines[rule + 1 : end]])
        if len(edges) >= len(columns([heading])):
            rows = lines[rule + 1 : end]
            break
    names = cells(heading, edges)
    return (
        " ".join(title),
        [dict(zip(names, cells(row, edges), strict=True)) for row in rows],
        lines[rule + 1 + len(rows) :],
    )


def columns(lines: list[str]) -> list[tuple[int, int]]:
    """Where columns begin and end: between runs of two blanks or more that all lines share."""
    width = max(map(len, lines))
    blank = [all(line[i : i + 1] in ("", " ") for line in lines) for i in range(width)] + [True, True]
    edges, start = [], None
    for i in range(width + 1):
        if not blank[i]:
            start = i if start is None else start
        elif start is not None and blank[i + 1]:
            edges.append((start, i))
            start = None
    return edges


def cells(line: str, edges: list[tuple[int, int]]) -> list[str]:
    return [line[start:end].strip() for start, end in edges]


def number(text: str) -> int:
    return int(text.replace(" ", ""))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.startswith("plan")])
def test_plans_add_up_as_printed(name: str) -> None:
    (title, layers, _), (_, scopes, notes) = tables(name)
    assert title.startswith("hand:chain: ")
    assert len(layers) == 6
    assert [row["scope"].split()[0] for row in scopes] == ["matrices", "layers", "model"]
    inside = {
        "matrices": [row for row in layers if row["role"] == "transformed"],
        "layers": [row for row in layers if not row["role"].startswith("activation")],
        "model": layers,
    }
    for row in scopes:
        members = inside[row["scope"].split()[0]]
        dense, planned = number(row["dense MACs"]), number(row["planned MACs"])
        assert dense == sum(number(x["dense MACs"]) for x in members)
        assert planned == sum(number(x["planned MACs"]) for x in members)
        assert row["ratio"] == f"{planned / dense:.6f}"
        assert "(closed)" not in row["scope"] or planned == dense
    assert any("(closed)" in row["scope"] for row in scopes) == (name != "plan-none")
    for x in inside["layers"]:
        before = parse_layer(x["before"])
        assert number(x["dense MACs"]) == before.dense_macs
        assert 0 < number(x["nnz"]) * before.positions <= number(x["planned MACs"])
        if name in ("plan-wide", "plan-none"):
            after = parse_layer(x["after"])
            assert number(x["planned MACs"]) == number(x["nnz"]) * after.positions
            assert x["density"] == f"{number(x['nnz']) / after.weights:.4f}"
    assert any(note.startswith("search space: ") for note in notes)


@pytest.mark.parametrize("name", ["solve-numbers", "solve-pattern"])
def test_solutions_add_up_as_printed(name: str) -> None:
    found = tables(name)
    assert len(found) == {"solve-numbers": 6, "solve-pattern": 1}[name]
    for title, rows, _ in found:
        layer = parse_layer(title.split()[0])
        sparsity = Fraction(title.split("sparsity ")[1].split()[0])
        assert number(title.rpartition("dense: ")[2].removesuffix(" MACs")) == layer.dense_macs
        assert [row["transform"] for row in rows] == (
            ["nm", "wide"]
            if name == "solve-pattern"
            else ["wide", "parallel", "factorized", "doped", "lowrank"]
        )
        for row in rows:
            nnz, capacity, macs = (number(row[key]) for key in ("nnz", "capacity", "MACs"))
            assert number(row["residual MACs"]) == layer.dense_macs - macs
            assert row["density"] == f"{nnz / capacity if capacity else 1:.4f}"
            if row["transform"] in ("wide", "parallel", "factorized", "nm"):
                assert macs == nnz * layer.positions
            if row["transform"] == "wide" and not layer.depthwise:
                low, high = row["structure"].split()[-1].split("-")
                assert int(low) * int(high) * layer.fan_in // layer.in_channels == capacity
                assert int(low) ** 2 * (1 - sparsity) <= layer.in_channels**2 * Fraction(11, 10)
            assert (
                float(row["log2 masks"].removesuffix(" bits")) <= capacity * 1.0005
            )  # printed to four figures
