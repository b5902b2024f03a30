"""What scripts rely on: keys, types, exact integers, digests, formats, colours, and examples that are true."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Any

import pytest

from iftplan.base.documents import digest, dumps
from iftplan.cli.commands import MODULES
from iftplan.models.document import spec_document
from tests.support.cli_runs import Run, iftplan, many
from tests.support.hand_specs import chain

NETS = """
from torch import nn

def dense():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))

def larger():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))
"""

COMMANDS = {
    "solve": "solve --layer conv3x3:64-128@16x16 --layer linear:768-3072@128 --sparsity 0.5,3/4",
    "symbolic": "solve --layer conv3x3 --sparsity 75%",
    "models": "models",
    "spec": "spec nets.py:dense --input 5x8",
    "plan": "plan nets.py:dense --transform wide --sparsity 0.75 --input 5x8",
    "none": "plan nets.py:dense --transform none --sparsity 0.75 --input 5x8",
    "saved": "plan nets.py:dense --transform wide --sparsity 0.75 --input 5x8 -o wide.json",
    "audit": "audit wide.json --model nets.py:dense --cross-check",
    "report": "audit nets.py:dense --input 5x8",
    "against": "audit nets.py:larger --against nets.py:dense --input 5x8",
    "diff": "diff nets.py:dense nets.py:larger --input 5x8",
    "diff_plans": "diff nets.py:dense wide.json --input 5x8",
    "flop_audit": "audit nets.py:dense --input 5x8 --convention flop",
    "flop_diff": "diff nets.py:dense nets.py:larger --input 5x8 --convention flop",
    "audit_saved": "audit nets.py:dense --input 5x8 --convention flop -o flop.json",
    "diff_reports": "diff flop.json nets.py:dense --input 5x8",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("contract")
    (home / "nets.py").write_text(NETS)
    (home / "spec.json").write_text(dumps(spec_document(chain())))
    return home


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Run]:
    commands = [text.split() + ([] if " -o " in text else ["--format", "json"]) for text in COMMANDS.values()]
    return dict(zip(COMMANDS, many(commands, folder), strict=True))


def document(runs: dict[str, Run], name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(runs[name].out)
    return found


# --- keys and types ---------------------------------------------------------------------------------

NUMBER = (int, float)
INT = (int, NoneType)
SHAPES: dict[str, dict[str, Any]] = {
    "solve": {
        "schema": str, "convention": str, "digest": str,
        "layers": [{
            "layer": str,
            "solutions": [{
                "transform": str, "sparsity": float, "sparsity_exact": str, "closed_form": str, "closed_form_latex": str,
                "structure": dict, "nnz": INT, "capacity": INT, "density": (float, NoneType), "macs": INT, "dense_macs": INT,
                "residual_macs": INT, "outcome": str, "cardinality": {"maskable_weights": INT, "log2_masks": (*NUMBER, NoneType)},
            }],
        }],
    },
    "plan": {
        "schema": str, "convention": str, "model": str, "input": [str], "fingerprint": str, "transform": str,
        "sparsity": float, "sparsity_exact": str, "scope": (str, NoneType),
        "dense": dict.fromkeys(("matrices", "layers", "model"), int), "planned": dict.fromkeys(("matrices", "layers", "model"), int),
        "ratio": dict.fromkeys(("matrices", "layers", "model"), float), "ratio_exact": dict.fromkeys(("matrices", "layers", "model"), str),
        "cardinality": {"maskable_weights": int, "log2_masks": float},
        "layers": [{
            "name": str, "kind": str, "before": str, "after": str, "maskable": bool, "nnz": int, "capacity": int, "density": float,
            "density_exact": str, "dense_macs": int, "macs": int, "role": str, "reason": str,
        }],
        "digest": str,
    },
    "audit": {
        "schema": str, "convention": str, "subject": str, "reference": (str, NoneType), "tolerance": float, "passed": bool,
        "dense_macs": INT, "expected_macs": INT, "measured_macs": int, "ratio": (float, NoneType), "deviation": (float, NoneType),
        "counters": dict, "unknown_ops": dict, "uncalled_modules": list, "layers": [{"name": str, "measured_macs": INT}], "digest": str,
    },
    "diff": {
        "schema": str, "convention": str, "base": {"name": str, "macs": int}, "head": {"name": str, "macs": int}, "difference": int,
        "layers": [{"name": str, "change": str, "base_macs": int, "head_macs": int, "difference": int}], "digest": str,
    },
    "models": {"schema": str, "models": [{"name": str, "description": str, "input": [str], "source": str}], "digest": str},
    "spec": {"schema": str, "convention": str, "source": str, "inputs": list, "layers": list, "fingerprint": str, "digest": str},
}  # fmt: skip


def has_shape(value: Any, shape: Any, path: str = "") -> None:
    """Every key of the shape is there with its type; a list has at least one item, and all are alike."""
    if isinstance(shape, dict):
        for key, inner in shape.items():
            assert key in value, f"{path}.{key} is missing"
            has_shape(value[key], inner, f"{path}.{key}")
    elif isinstance(shape, list):
        assert value, f"{path} is empty"
        for i, item in enumerate(value):
            has_shape(item, shape[0], f"{path}.{i}")
    else:
        allowed = shape if isinstance(shape, tuple) else (shape,)
        assert type(value) in allowed, f"{path} is {value!r}"


@pytest.mark.parametrize(
    "name, kind",
    [
        ("solve", "solve"), ("symbolic", "solve"), ("plan", "plan"), ("none", "plan"), ("audit", "audit"), ("report", "audit"),
        ("against", "audit"), ("diff", "diff"), ("models", "models"), ("spec", "spec"),
    ],
)  # fmt: skip
def test_every_document_has_its_keys_and_types(runs: dict[str, Run], name: str, kind: str) -> None:
    found = document(runs, name)
    has_shape(found, SHAPES[kind])
    assert re.fullmatch(rf"iftplan\.{kind}/\d+", found["schema"])


@pytest.mark.parametrize("name", [name for name in COMMANDS if "saved" not in name])
def test_documents_are_sealed_and_sorted(runs: dict[str, Run], name: str) -> None:
    def sorted_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        assert keys == sorted(keys)
        return dict(pairs)

    found = json.loads(runs[name].out, object_pairs_hook=sorted_pairs)
    assert found["digest"] == digest(found)
    assert runs[name].out.endswith("}\n")


def test_fractions_stand_beside_their_floats(runs: dict[str, Run]) -> None:
    plan = document(runs, "plan")
    pairs = [(plan["sparsity"], plan["sparsity_exact"])]
    pairs += [(plan["ratio"][scope], plan["ratio_exact"][scope]) for scope in plan["ratio"]]
    pairs += [(row["density"], row["density_exact"]) for row in plan["layers"]]
    solutions = [s for layer in document(runs, "solve")["layers"] for s in layer["solutions"]]
    pairs += [(s["sparsity"], s["sparsity_exact"]) for s in solutions]
    for number, text in pairs:
        assert re.fullmatch(r"-?\d+/\d+", text)
        assert float(Fraction(text)) == number


def test_a_plan_closes_its_scope_exactly(runs: dict[str, Run]) -> None:
    plan = document(runs, "plan")
    assert plan["ratio_exact"]["layers"] == "1/1"
    assert plan["planned"]["layers"] == sum(
        row["macs"] for row in plan["layers"] if row["role"] != "activation"
    )
    assert plan["dense"]["layers"] == 5 * (8 * 16 + 16 * 16 + 16 * 4)


def test_symbolic_channels_leave_numbers_empty(runs: dict[str, Run]) -> None:
    solutions = {s["transform"]: s for s in document(runs, "symbolic")["layers"][0]["solutions"]}
    assert set(solutions["wide"]["structure"]) == {"in_channels", "out_channels", "multiplier"}
    assert solutions["parallel"]["structure"] == {"branches": 4}
    assert solutions["factorized"]["structure"] == {"rank": None}
    for solution in solutions.values():
        assert solution["nnz"] is solution["macs"] is solution["capacity"] is None
        assert solution["closed_form"]
        assert solution["closed_form_latex"]


def test_solutions_spend_their_budget(runs: dict[str, Run]) -> None:
    for layer in document(runs, "solve")["layers"]:
        for s in layer["solutions"]:
            assert s["macs"] + s["residual_macs"] == s["dense_macs"]
            if s["transform"] in ("wide", "parallel", "factorized", "doped"):
                assert s["residual_macs"] == 0


# --- conventions and sources ------------------------------------------------------------------------


def test_flops_are_twice_the_macs_and_say_so(runs: dict[str, Run]) -> None:
    macs, flops = document(runs, "report"), document(runs, "flop_audit")
    assert (macs["convention"], flops["convention"]) == ("mac", "flop")
    assert flops["measured_macs"] == 2 * macs["measured_macs"] == 2 * 5 * 448
    assert [row["measured_macs"] for row in flops["layers"]] == [
        2 * row["measured_macs"] for row in macs["layers"]
    ]
    macs, flops = document(runs, "diff"), document(runs, "flop_diff")
    assert flops["difference"] == 2 * macs["difference"] == 2 * 5 * (16 * 8 + 8 * 4)
    assert flops["convention"] == "flop"


def test_a_report_in_flops_is_compared_in_macs(runs: dict[str, Run]) -> None:
    found = document(runs, "diff_reports")
    assert found["difference"] == 0
    assert found["base"]["macs"] == 5 * 448


def test_the_table_names_its_convention(folder: Path) -> None:
    layer = ("solve", "--layer", "linear:64-64", "--transform", "wide")
    macs, flops = iftplan(*layer, cwd=folder).out, iftplan(*layer, "--convention", "flop", cwd=folder).out
    assert "dense: 4 096 MACs" in macs.replace("\u2009", " ").replace("\u202f", " ")
    assert "dense: 8 192 FLOPs" in flops.replace("\u2009", " ").replace("\u202f", " ")


def test_a_factory_of_ones_own_goes_round(folder: Path, runs: dict[str, Run]) -> None:
    assert runs["saved"].code == 0
    assert runs["saved"].out == ""
    report = document(runs, "audit")
    assert runs["audit"].code == 0
    assert report["passed"] is True
    assert len(report["counters"]) == 4, "the closed form and three engines"
    assert len(set(report["counters"].values())) == 1
    assert document(runs, "diff_plans")["difference"] == 0
    assert json.loads((folder / "wide.json").read_text()) == document(runs, "plan")


def test_plans_are_reproducible_to_the_byte(folder: Path) -> None:
    asked = ("plan", "nets.py:dense", "--sparsity", "0.7", "--input", "5x8", "--format", "json")
    first, second = (iftplan(*asked, cwd=folder, env={"PYTHONHASHSEED": seed}) for seed in ("1", "2"))
    assert first.code == 0, first.err
    assert first.out == second.out


# --- formats ----------------------------------------------------------------------------------------


def test_formats_can_be_read(folder: Path) -> None:
    asked = ("plan", "spec.json", "--transform", "wide", "--sparsity", "0.5", "--format")
    rows = list(csv.DictReader(io.StringIO(iftplan(*asked, "csv", cwd=folder).out)))
    assert [row["name"] for row in rows][:2] == ["stem", "body"]
    assert all(None not in row and None not in row.values() for row in rows), "as many cells as headings"
    markdown = iftplan(*asked, "markdown", cwd=folder).out
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table if "scope" not in line}) >= 1
    latex = iftplan(*asked, "latex", cwd=folder).out
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 2
    table_text = iftplan(*asked, "table", cwd=folder).out
    assert "layers (closed)" in table_text
    assert "1.000000" in table_text


HOSTILE = "<script>alert(1)</script>|`x`|\x1b[31mred\u202e"


@pytest.fixture(scope="module")
def hostile(folder: Path) -> str:
    """A spec whose first layer has a name that wants to be markup and to steer the terminal."""
    spec = chain()
    first = replace(spec.layers[0], layer=replace(spec.layers[0].layer, name=HOSTILE))
    text = dumps(spec_document(replace(spec, layers=(first, *spec.layers[1:]))))
    (folder / "hostile.json").write_text(text)
    return "hostile.json"


def test_markdown_lets_no_name_become_markup(folder: Path, hostile: str) -> None:
    out = iftplan("spec", hostile, "--format", "markdown", cwd=folder).out
    assert "alert(1)" in out
    assert "<script>" not in out
    (row,) = [line for line in out.splitlines() if "alert(1)" in line]
    (other,) = [line for line in out.splitlines() if line.startswith("| body")]
    bare = re.compile(r"(?<!\\)\|")
    assert len(bare.findall(row)) == len(bare.findall(other))
    assert not re.search(r"(?<!\\)`", row)


@pytest.mark.parametrize("format", ["table", "markdown"])
def test_names_cannot_steer_a_terminal(folder: Path, hostile: str, format: str) -> None:
    out = iftplan("spec", hostile, "--format", format, cwd=folder).out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\x1b[31mred" in out.replace("\\\\", "\\")


@pytest.mark.parametrize("suffix, begins", [("json", "{"), ("csv", "name,"), ("md", "###"), ("tex", "%")])
def test_a_files_name_says_its_format(folder: Path, suffix: str, begins: str) -> None:
    run = iftplan("spec", "spec.json", "-o", f"out.{suffix}", cwd=folder)
    assert run.code == 0
    assert run.out == ""
    assert f"written: out.{suffix}" in run.err
    assert (folder / f"out.{suffix}").read_text().startswith(begins)


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    target.write_text("x" * 100_000)
    assert iftplan("models", "-o", "out.json", cwd=tmp_path).code == 0
    json.loads(target.read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.parametrize(
    "command", [("plan", "-", "--transform", "parallel"), ("spec", "-"), ("diff", "-", "spec.json")]
)
def test_a_dash_reads_stdin(folder: Path, command: tuple[str, ...]) -> None:
    run = iftplan(*command, "--format", "json", cwd=folder, stdin=(folder / "spec.json").read_text())
    assert run.code == 0, run.err
    json.loads(run.out)


def test_a_dash_writes_stdout(folder: Path) -> None:
    assert iftplan("models", "-o", "-", cwd=folder).out == iftplan("models", cwd=folder).out


# --- terminals --------------------------------------------------------------------------------------


def on_a_terminal(folder: Path, **env: str) -> str:
    """What `solve` prints where stdout is a terminal."""
    master, slave = pty.openpty()
    clean = {
        key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM", "FORCE_COLOR")
    }
    done = subprocess.Popen(
        [sys.executable, "-m", "iftplan", "solve", "--layer", "conv3x3"],
        stdout=slave,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={**clean, "TERM": "xterm-256color", "COLUMNS": "200", **env},
    )
    os.close(slave)
    read = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        read += piece
    os.close(master)
    assert done.wait(timeout=60) == 0
    return read.decode()


def test_a_terminal_is_coloured_unless_it_asks_not_to_be(folder: Path) -> None:
    coloured, plain = on_a_terminal(folder), on_a_terminal(folder, NO_COLOR="1")
    assert "\x1b[" in coloured
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}, {"TERM": "xterm-256color"}])
def test_a_pipe_is_never_coloured(folder: Path, env: dict[str, str]) -> None:
    assert "\x1b" not in iftplan("solve", "--layer", "conv3x3", cwd=folder, env=env).out


# --- examples ---------------------------------------------------------------------------------------

NAMES = (
    "solve", "plan", "audit", "check", "diff", "train", "prune", "soup", "explore", "sweep", "pareto", "plot", "paper", "advise", "bench", "spec", "models",
)  # fmt: skip


def examples(name: str) -> list[tuple[str, list[str]]]:
    """The `$ iftplan …` lines of a command's help, each with the output shown below it."""
    found: list[tuple[str, list[str]]] = []
    for line in import_module(f"iftplan.cli.commands.{MODULES[name]}").EXAMPLE.splitlines():
        if line.startswith("  $ iftplan "):
            found.append((line.removeprefix("  $ iftplan "), []))
        elif found and line.startswith("  ") and line.strip() != "…":
            found[-1][1].append(line.strip())
    return found


@pytest.fixture(scope="module")
def example_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    texts = [text for name in NAMES for text, _ in examples(name)]
    home = tmp_path_factory.mktemp("examples")
    shown = import_module("iftplan.cli.commands.checking.check").EXAMPLE.partition("$")[0]
    (home / "iftplan.toml").write_text(textwrap.dedent(shown.partition(":\n")[2]))
    runs = [f"train {x} --steps 2" for x in ("--out runs/first", "--from runs/first --out runs/one", "--from runs/first --seed 1 --out runs/two")]  # fmt: skip
    many([text.split() for text in runs], home)  # which `soup` averages
    return dict(zip(texts, many([shlex.split(t) for t in texts], home), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_examples_in_the_help_are_true(example_runs: dict[str, Run], name: str) -> None:
    assert examples(name)
    for text, shown in examples(name):
        run = example_runs[text]
        assert run.code == 0, run.err
        real = [line.strip() for line in (run.out or run.message).splitlines() if line.strip()]
        assert shown, "an example shows its output"
        assert shown == real[: len(shown)]


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_the_example(folder: Path, name: str) -> None:
    run = iftplan(name, "--help", cwd=folder, env={"COLUMNS": "80"})
    assert run.code == 0
    lines = [line.strip() for line in run.out.splitlines()]
    for text, shown in examples(name):
        assert f"$ iftplan {text}" in lines
        assert set(shown) <= set(lines), "shown as it is, not wrapped"
