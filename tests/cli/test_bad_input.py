"""Bad input: a one-paragraph message that names what was given, the right exit status, and nothing half done."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from iftplan.base.documents import Document, dumps, with_digest
from iftplan.base.units import parse_sparsity
from iftplan.families.builtin import family_named
from iftplan.models.document import spec_document
from iftplan.plans.document.plan import plan_document
from iftplan.plans.planner import plan
from iftplan.plans.policy import Policy
from tests.support.cli_runs import Run, iftplan, many
from tests.support.hand_specs import chain

NETS = """
import torch
from torch import nn

def raises():
    raise RuntimeError("no such\\n\\nweights")

def exits():
    raise SystemExit(7)

def interrupted():
    raise KeyboardInterrupt

def nothing():
    return None

def number():
    return 3

def needs(size):
    return nn.Linear(size, size)

def noisy():
    print("a line that is no data")
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

def small():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))

def narrow():
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))

class Spare(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.used(x)

class Netz(nn.Module):
    def __init__(self):
        super().__init__()
        self.größe = nn.Linear(8, 8)

    def forward(self, x):
        return self.größe(x)
"""

CUSTOM = """
import torch
from torch import nn

@torch.library.custom_op("cli_bad_input::matmul_like", mutates_args=())
def matmul_like(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b

@matmul_like.register_fake
def _(a, b):
    return a.new_empty(a.shape[0], b.shape[1])

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)
        self.weight = nn.Parameter(torch.zeros(8, 8))

    def forward(self, x):
        return self.last(matmul_like(self.first(x), self.weight))
"""

NINES = "9" * 5000
OPERATOR = "cli_bad_input::matmul_like"


def _changed(document: Document, *path: str | int, value: object) -> Document:
    """A copy with one value changed, sealed again."""
    copy = json.loads(json.dumps(document))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return with_digest(copy)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("bad")
    (home / "nets.py").write_text(NETS, encoding="utf-8")
    (home / "custom.py").write_text(CUSTOM)
    (home / "broken.py").write_text("def net(:\n    pass\n")
    (home / "importing.py").write_text("import no_such_package_anywhere\n")
    (home / "family.py").write_text("not_a_family = 3\n")
    (home / "leaves.py").write_text("raise SystemExit(5)\n")
    policy = Policy(family_named("parallel"), parse_sparsity("0.75"))
    good = plan_document(plan(chain(), policy))
    documents = {
        "plan": good,
        "spec": spec_document(chain()),
        "digest": {**good, "digest": "0" * 64},
        "undigested": {key: value for key, value in good.items() if key != "digest"},
        "version": _changed(good, "schema", value="iftplan.plan/99"),
        "foreign": {"hello": 1},
        "key": _changed(good, "colour", value="red"),
        "nested": _changed(good, "layers", 1, "nnz", value="many"),
        "boolean": _changed(good, "layers", 1, "nnz", value=True),
        "missing": with_digest({key: value for key, value in good.items() if key != "layers"}),
        "ledger": _changed(good, "layers", 1, "macs", value=good["layers"][1]["macs"] + 1),
        "total": _changed(good, "planned", "layers", value=1),
        "python": _changed(good, "model", value="nets.py:small"),
        "audit": with_digest({"schema": "iftplan.audit/1", "convention": "mac"}),
        "units": with_digest(
            {"schema": "iftplan.audit/1", "convention": "miles", "subject": "x", "layers": [{"name": 3}]}
        ),
    }
    for name, document in documents.items():
        (home / f"{name}.json").write_text(dumps(document))
    (home / "malformed.json").write_text('{"schema": "iftplan.plan/1",,}')
    (home / "truncated.json").write_text(dumps(good)[:400])
    (home / "list.json").write_text("[1, 2]")
    (home / "empty.json").write_text("")
    (home / "nan.json").write_text('{"schema": "iftplan.plan/1", "sparsity": NaN}')
    (home / "deep.json").write_text('{"a":' + "[" * 100_000)
    (home / "digits.json").write_text('{"schema": "iftplan.plan/1", "sparsity": ' + NINES + "}")
    (home / "surrogate.json").write_text('{"schema": "iftplan.plan/1", "model": "\\ud800"}')
    (home / "latin.json").write_bytes('{"schema": "é"}'.encode("latin-1"))
    (home / "latin.txt").write_bytes("conv3x3 # é".encode("latin-1"))
    (home / "layers.txt").write_text("# nothing but a comment\n\n")
    (home / "folder.json").mkdir()
    llama = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
             "num_attention_heads": 2, "vocab_size": 8}  # fmt: skip
    for name, config in {
        "remote": {**llama, "auto_map": {"AutoModel": "code.py--Net"}},
        "unknown_type": {**llama, "model_type": "lama"},
        "unknown_class": {**llama, "architectures": ["LlamaForCausalLN"]},
        "no_class": llama,
    }.items():
        (home / f"hf_{name}.json").write_text(json.dumps(config))
    (home / "hf_text.json").write_text("not json")
    (home / "kept.json").write_text("as it was")
    return home


def is_one_paragraph(run: Run, code: int, *parts: str) -> None:
    """The status, one paragraph on stderr that names what was given, and nothing on stdout."""
    assert run.code == code, (run.code, run.err[-1000:])
    assert run.out == "", "nothing is printed as data when there is no answer"
    assert "Traceback" not in run.err
    assert run.message.startswith("iftplan: ")
    assert "\n" not in run.message, "one paragraph"
    assert "of our own" not in run.message, "bad input is not our mistake"
    for part in parts:
        assert part in run.message


# --- without torch -------------------------------------------------------------------------------------

SOLVE = ("solve", "--layer", "conv3x3")
LIGHT: dict[str, tuple[tuple[str | bytes, ...], tuple[str, ...]]] = {
    "unknown layer kind": (("solve", "--layer", "konv3x3"), ("konv", "conv")),
    "empty layer": (("solve", "--layer", ""), ("''", "conv3x3:64-128")),
    "no layer": (("solve",), ("--layer",)),
    "zero channels": (("solve", "--layer", "linear:0-4"), ("at least 1 channel, not 0", "1")),
    "negative channels": (("solve", "--layer", "linear:-4-4"), ("-4-4",)),
    "one channel count": (("solve", "--layer", "linear:4"), ("'4'", "64-128")),
    "kernel of a linear layer": (("solve", "--layer", "linear3x3:4-4"), ("3x3", "linear:IN-OUT")),
    "kernel without dimensions": (("solve", "--layer", "conv3:4-4"), ("conv3x3", "conv1d3")),
    "four dimensions": (("solve", "--layer", "conv3x3x3x3"), ("3x3x3x3", "at most 3")),
    "zero kernel": (("solve", "--layer", "conv0x3"), ("0", "smallest is 1")),
    "zero positions": (("solve", "--layer", "conv3x3:4-4@0x4"), ("0x4", "@16x16")),
    "unknown key": (("solve", "--layer", "conv3x3:4-4,pad=1"), ("'pad'", "groups")),
    "key given twice": (("solve", "--layer", "conv3x3:4-4,stride=2,stride=3"), ("'stride'", "once")),
    "nothing after a comma": (("solve", "--layer", "conv3x3:4-4,"), ("''", "groups")),
    "nothing after @": (("solve", "--layer", "conv3x3:4-4@"), ("''", "@16x16")),
    "key without value": (("solve", "--layer", "conv3x3:4-4,groups"), ("groups",)),
    "groups that do not divide": (("solve", "--layer", "conv3x3:64-64,groups=3"), ("64", "3 groups", "63")),
    "digits of another script": (("solve", "--layer", "linear:٤-٤"), ("٤-٤",)),
    "channels beyond any machine": (("solve", "--layer", f"linear:{NINES}-3"), ("digits",)),
    "bytes that are no text": (("solve", "--layer", b"conv\xff3x3"), ("conv",)),
    "sparsity 1": ((*SOLVE, "--sparsity", "1"), ("sparsity 1 ", "0.99")),
    "negative sparsity": ((*SOLVE, "--sparsity", "-0.5"), ("-0.5", "nearest sparsity is 0")),
    "sparsity in per cent without the sign": ((*SOLVE, "--sparsity", "75"), ("75", "0.75")),
    "nan": ((*SOLVE, "--sparsity", "nan"), ("'nan'", "0.75")),
    "inf": ((*SOLVE, "--sparsity", "inf"), ("'inf'", "0.75")),
    "empty sparsity": ((*SOLVE, "--sparsity", ""), ("no sparsity", "0.75")),
    "division by zero": ((*SOLVE, "--sparsity", "1/0"), ("'1/0'", "3/4")),
    "sparsity of 5000 digits": ((*SOLVE, "--sparsity", NINES), ("digits",)),
    "second sparsity wrong": ((*SOLVE, "--sparsity", "0.5,x"), ("'x'",)),
    "rank below one": (
        ("solve", "--layer", "linear:2-2", "--sparsity", "0.5", "--transform", "lowrank"),
        ("rank", "linear:2-2", "smallest is 1", "nearest"),
    ),
    "doped rank below one": (
        ("solve", "--layer", "linear:1-1", "--sparsity", "0.5", "--transform", "doped"),
        ("rank of 0.25", "nearest feasible sparsity"),
    ),
    "unknown transform": ((*SOLVE, "--transform", "wider"), ("'wider'", "wide")),
    "empty transform": ((*SOLVE, "--transform", ""), ("''", "wide")),
    "family file missing": ((*SOLVE, "--transform", "none_here.py:f"), ("none_here.py",)),
    "family that is none": ((*SOLVE, "--transform", "family.py:not_a_family"), ("family.py:not_a_family",)),
    "family file that exits": ((*SOLVE, "--transform", "leaves.py:f"), ("leaves.py", "SystemExit")),
    "unknown mask": ((*SOLVE, "--mask", "triangular"), ("'triangular'", "2:4")),
    "mask that keeps more than it has": ((*SOLVE, "--mask", "8:4"), ("8:4",)),
    "round to 0": ((*SOLVE, "--round-to", "0"), ("--round-to", "0")),
    "unknown format": ((*SOLVE, "--format", "yaml"), ("'yaml'", "json")),
    "unknown convention": ((*SOLVE, "--convention", "gmac"), ("'gmac'", "mac")),
    "unknown option": ((*SOLVE, "--sparsty", "0.5"), ("--sparsty", "--sparsity")),
    "option without value": (("solve", "--layer"), ("--layer",)),
    "unknown command": (("slove",), ("'slove'",)),
    "missing argument": (("plan",), ("MODEL", "iftplan plan --help")),
    "too many arguments": (("diff", "a.json", "b.json", "c.json"), ("c.json",)),
    "missing layers file": (("solve", "--layers", "none_here.txt"), ("none_here.txt", "No such file")),
    "directory as layers file": (("solve", "--layers", "folder.json"), ("folder.json", "directory")),
    "layers file with no layer": (("solve", "--layers", "layers.txt"), ("no layer",)),
    "layers file that is not UTF-8": (("solve", "--layers", "latin.txt"), ("latin.txt", "UTF-8")),
    "empty stdin for layers": (("solve", "--layers", "-"), ("no layer",)),
    "missing plan": (("audit", "none_here.json"), ("none_here.json", "No such file")),
    "directory as plan": (("audit", "folder.json"), ("folder.json", "directory")),
    "malformed JSON": (("audit", "malformed.json"), ("malformed.json", "line 1, column 29")),
    "truncated JSON": (("audit", "truncated.json"), ("truncated.json", "line ")),
    "empty file": (("audit", "empty.json"), ("empty.json", "line 1")),
    "empty stdin": (("audit", "-"), ("line 1",)),
    "a list": (("audit", "list.json"), ("list.json", "list")),
    "NaN in JSON": (("audit", "nan.json"), ("nan.json", "NaN")),
    "JSON too deep": (("audit", "deep.json"), ("deep.json",)),
    "JSON with 5000 digits": (("audit", "digits.json"), ("digits.json", "digits")),
    "half of a surrogate pair": (("audit", "surrogate.json"), ("surrogate.json",)),
    "not UTF-8": (("audit", "latin.json"), ("latin.json", "UTF-8")),
    "wrong digest": (("audit", "digest.json"), ("digest.json", "0000000000000000")),
    "no digest": (("audit", "undigested.json"), ("undigested.json", "digest")),
    "unknown version": (("audit", "version.json"), ("iftplan.plan/99", "iftplan.plan/1")),
    "no schema": (("audit", "foreign.json"), ("foreign.json", "schema")),
    "unknown document key": (("audit", "key.json"), ("colour",)),
    "wrong type deep inside": (("audit", "nested.json"), ("layers.1.nnz", "many")),
    "true as a count": (("audit", "boolean.json"), ("layers.1.nnz",)),
    "no rows": (("audit", "missing.json"), ("layers",)),
    "row that does not add up": (("audit", "ledger.json"), ("layers.1.macs",)),
    "total that does not add up": (("audit", "total.json"), ("planned",)),
    "a spec to audit": (("audit", "spec.json"), ("spec.json", "spec")),
    "a plan to plan from": (("plan", "plan.json"), ("plan.json", "plan document")),
    "an audit report without rows": (("diff", "audit.json", "audit.json"), ("audit.json",)),
    "an audit report of another form": (("diff", "plan.json", "units.json"), ("units.json", "convention")),
    "two stdins": (("diff", "-", "-"), ("stdin",)),
    "against and budget": (
        ("audit", "zoo:resnet18", "--against", "zoo:resnet34", "--budget", "1G"),
        ("--against", "--budget"),
    ),
    "a plan against another": (("audit", "plan.json", "--against", "plan.json"), ("--against",)),
    "a model beside a model": (("audit", "zoo:resnet18", "--model", "nets.py:small"), ("--model",)),
    "bad allowance": (("audit", "zoo:resnet18", "--allow", "op"), ("'op'", "NAME=MACS_PER_CALL")),
    "negative allowance": (("audit", "zoo:resnet18", "--allow", "op=-3"), ("op=-3",)),
    "negative tolerance": (("audit", "zoo:resnet18", "--tolerance", "-1"), ("-1", "smallest is 0")),
    "tolerance that is no number": (("audit", "zoo:resnet18", "--tolerance", "tight"), ("'tight'",)),
    "tolerance with an endless exponent": (("audit", "zoo:resnet18", "--tolerance", "1e999999999"), ("1e9",)),
    "unknown engine": (("audit", "zoo:resnet18", "--engine", "abacus"), ("'abacus'", "meta")),
    "python in a plan, unnamed": (("audit", "python.json"), ("nets.py:small", "--model", "--trust")),
    "several transforms": (("plan", "spec.json", "--transform", "wide,parallel"), ("wide,parallel",)),
    "unknown layer kept dense": (
        ("plan", "spec.json", "--transform", "parallel", "--keep-dense", "boddy"),
        ("'boddy'", "'body'"),
    ),
    "input beside a spec": (("plan", "spec.json", "--input", "1x3x9x9"), ("spec.json", "input")),
    "input that is none": (("plan", "spec.json", "--input", "1,3,8,8"), ("1,3,8,8", "1x3x224x224")),
    "input of size 0": (("plan", "spec.json", "--input", "0x3x8x8"), ("0x3x8x8", "smallest is 1")),
    "negative input": (("plan", "spec.json", "--input", "-1x3x8x8"), ("-1x3x8x8",)),
    "infeasible": (
        ("plan", "spec.json", "--transform", "lowrank", "--sparsity", "0.999"),
        ("0.999", "nearest feasible sparsity is"),
    ),
    "width closed by parallel": (
        ("plan", "spec.json", "--transform", "parallel", "--close", "width"),
        ("width", "wide"),
    ),
    "unknown scope": (("plan", "spec.json", "--scope", "world"), ("'world'", "matrices")),
    "unknown zoo model": (("plan", "zoo:resnet19"), ("'resnet19'", "zoo:resnet18")),
    "a name without a form": (("plan", "resnet18"), ("'resnet18'", "zoo:resnet18")),
    "a file without a factory": (("plan", "nets.py"), ("nets.py:FACTORY",)),
    "output in no directory": (
        (*SOLVE, "-o", "none_here/out.json"),
        ("none_here/out.json", "nothing was changed"),
    ),
    "output is a directory": ((*SOLVE, "-o", "folder.json"), ("folder.json", "directory")),
    "output where nobody may write": ((*SOLVE, "-o", "/proc/out.json"), ("/proc/out.json",)),
    "output without a name": ((*SOLVE, "-o", ""), ("-o",)),
}  # fmt: skip


OWN_PROCESS = (
    "unknown layer kind",
    "bytes that are no text",
    "sparsity 1",
    "rank below one",
    "round to 0",
    "unknown command",
    "empty stdin",
    "missing plan",
    "malformed JSON",
    "wrong digest",
    "not UTF-8",
    "python in a plan, unnamed",
    "infeasible",
    "output in no directory",
)
"""Cases that are also run as users run them; the rest share one process, which is ten times faster."""


def with_output(arguments: Sequence[str | bytes]) -> list[str | bytes]:
    """Ask for a file that exists, so that it can be seen to stay as it was."""
    takes_output = len(arguments) > 2 and arguments[0] in ("solve", "plan", "audit", "diff")
    return [*arguments, *(("-o", "kept.json") if takes_output and "-o" not in arguments else ())]


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but what Python caches there."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.fixture(scope="module")
def light(folder: Path) -> dict[str, Run]:
    before = files(folder)
    commands = [[os.fsdecode(a) for a in with_output(arguments)] for arguments, _ in LIGHT.values()]
    runs = many(commands, folder)
    assert files(folder) == before, "nothing was written, not even half"
    return dict(zip(LIGHT, runs, strict=True))


@pytest.mark.parametrize("case", LIGHT)
def test_bad_input_is_refused(light: dict[str, Run], case: str) -> None:
    is_one_paragraph(light[case], 2, *LIGHT[case][1])


@pytest.mark.parametrize("case", OWN_PROCESS)
def test_bad_input_is_refused_in_a_process_of_its_own(folder: Path, case: str) -> None:
    arguments, parts = LIGHT[case]
    before = files(folder)
    is_one_paragraph(iftplan(*with_output(arguments), cwd=folder), 2, *parts)
    assert files(folder) == before, "nothing was written, not even half"


@pytest.mark.parametrize("arguments", [("models",), (*SOLVE, "--format", "json")])
def test_a_pipe_that_closes_is_no_traceback(folder: Path, arguments: tuple[str, ...]) -> None:
    command = f"set -o pipefail; {sys.executable} -m iftplan {' '.join(arguments)} | head -c 0"
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 141), "0 where all was written before the pipe closed"
    assert done.stderr == "", "a reader that has had enough is no trouble"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
@pytest.mark.parametrize("format", ["table", "json", "csv"])
def test_a_full_disk_is_said(folder: Path, format: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "iftplan", "models", "--format", format],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    is_one_paragraph(Run(done.returncode, "", done.stderr), 2, "No space left", "-o FILE")


def test_a_closed_stdout_is_said(folder: Path) -> None:
    command = f"{sys.executable} -m iftplan models >&-"
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60)
    is_one_paragraph(Run(done.returncode, "", done.stderr), 2, "stdout is closed", "-o FILE")


def test_data_that_an_encoding_does_not_have_are_not_changed(folder: Path) -> None:
    run = iftplan(*SOLVE, "--format", "csv", cwd=folder, env={"PYTHONIOENCODING": "ascii"})
    is_one_paragraph(run, 2, "ascii", "PYTHONIOENCODING=utf-8")


def test_an_infeasible_plan_names_the_nearest_sparsity_which_is_feasible(folder: Path) -> None:
    asked = ("plan", "spec.json", "--transform", "lowrank", "--format", "json", "--sparsity")
    refused = iftplan(*asked, "0.999", cwd=folder)
    found = re.search(r"nearest feasible sparsity is (0\.\d+)\.", refused.message)
    assert found, refused.message
    granted = iftplan(*asked, found[1], cwd=folder)
    assert granted.code == 0
    assert granted.out
    beyond = iftplan(*asked, str(round(float(found[1]) + 0.01, 2)), cwd=folder)
    assert beyond.code == 2, "a hundredth nearer to what was asked is infeasible"


# --- with torch: many commands in one process -------------------------------------------------------

HEAVY: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "factory that raises": (("plan", "nets.py:raises", "--input", "1x8"), 2, ("nets.py:raises", "RuntimeError: no such weights", "line 6")),
    "factory that exits": (("plan", "nets.py:exits", "--input", "1x8"), 2, ("nets.py:exits", "SystemExit: 7")),
    "factory that gives None": (("audit", "nets.py:nothing", "--input", "1x8"), 2, ("nets.py:nothing", "None")),
    "factory that gives a number": (("audit", "nets.py:number", "--input", "1x8"), 2, ("a int", "nn.Module")),
    "factory with an argument": (("audit", "nets.py:needs", "--input", "1x8"), 2, ("nets.py:needs", "size")),
    "missing attribute": (("audit", "nets.py:smal", "--input", "1x8"), 2, ("smal", "Did you mean 'small'")),
    "missing file": (("audit", "netz.py:small", "--input", "1x8"), 2, ("netz.py", "Did you mean 'nets.py'")),
    "missing module": (("audit", "no_such_module:net", "--input", "1x8"), 2, ("no_such_module",)),
    "missing import inside": (("audit", "importing.py:net", "--input", "1x8"), 2, ("importing.py", "no_such_package_anywhere")),
    "syntax error": (("audit", "broken.py:net", "--input", "1x8"), 2, ("broken.py", "SyntaxError", "line 1")),
    "file that exits": (("audit", "leaves.py:net", "--input", "1x8"), 2, ("leaves.py", "SystemExit: 5")),
    "attribute that is no name": (("audit", "nets.py:small()", "--input", "1x8"), 2, ("small()",)),
    "no inputs known": (("plan", "nets.py:small"), 2, ("nets.py:small", "--input 1x3x224x224")),
    "no inputs known to audit": (("audit", "nets.py:small"), 2, ("nets.py:small", "--input")),
    "shape that does not fit": (("plan", "nets.py:small", "--input", "1x9"), 3, ("1x9", "Sequential")),
    "shape that does not fit an audit": (("audit", "nets.py:small", "--input", "1x9"), 3, ("1x9", "Sequential")),
    "wrong number of inputs": (("plan", "nets.py:small", "--input", "1x8", "--input", "1x8"), 3, ("1x8, 1x8",)),
    "input by a wrong name": (("plan", "nets.py:small", "--input", "image=1x8"), 3, ("image",)),
    "unknown dtype": (("plan", "nets.py:small", "--input", "1x8:int65"), 2, ("int65", "int64")),
    "wrong dtype": (("plan", "nets.py:small", "--input", "1x8:int64"), 3, ("int64",)),
    "input of more elements than can be": (("plan", "nets.py:small", "--input", "999999999999x999999999999x8"), 2, ("999999999999x999999999999x8",)),
    "unknown operator": (("plan", "custom.py:Net", "--input", "2x8"), 3, (OPERATOR, "1 call")),
    "configuration with code of its own": (("plan", "hf:hf_remote.json"), 2, ("hf_remote.json", "auto_map", "never run")),
    "configuration missing": (("plan", "hf:none_here.json"), 2, ("none_here.json", "No such file")),
    "configuration that is no JSON": (("plan", "hf:hf_text.json"), 2, ("hf_text.json", "JSON")),
    "configuration that is a list": (("plan", "hf:list.json"), 2, ("list.json", "list")),
    "configuration of no known type": (("plan", "hf:hf_unknown_type.json"), 2, ("'lama'", "llama")),
    "configuration of no known class": (("plan", "hf:hf_unknown_class.json"), 2, ("LlamaForCausalLN", "LlamaForCausalLM")),
    "configuration without a class": (("plan", "hf:hf_no_class.json"), 2, ("hf_no_class.json", "#Llama")),
    "timm missing": (("plan", "timm:resnet18"), 2, ("timm is not installed", "pip install timm")),
    "torchvision missing": (("plan", "torchvision:resnet18"), 2, ("torchvision is not installed",)),
    "nothing after the colon": (("plan", "timm:"), 2, ("'timm:'",)),
    "wide that cannot close": (("plan", "nets.py:narrow", "--input", "5x8"), 2, ("0.75", "0 (reads the model's input)", "nearest feasible sparsity is")),
    "stale by another model": (("audit", "python.json", "--model", "nets.py:narrow"), 4, ("nets.py:narrow", "not the model that the plan was made for")),
    "a plan that holds Python, with a model that is missing": (("audit", "python.json", "--model", "none_here.py:f"), 2, ("none_here.py",)),
    "module name that is German": (("plan", "nets.py:Netz", "--input", "1x8", "--keep-dense", "größer", "--transform", "parallel"), 2, ("'größer'", "'größe'")),
}  # fmt: skip


@pytest.fixture(scope="module")
def heavy(folder: Path) -> dict[str, Run]:
    commands = {
        case: [*arguments, "-o", "kept.json"]
        for case, (arguments, _, _) in HEAVY.items()
        if not _is_there(case)
    }
    return dict(zip(commands, many(list(commands.values()), folder), strict=True))


def _is_there(case: str) -> bool:
    """Whether a library whose absence is to be seen is installed."""
    library, _, missing = case.partition(" ")
    return missing == "missing" and library in ("timm", "torchvision") and find_spec(library) is not None


@pytest.mark.parametrize("case", HEAVY)
def test_a_model_that_cannot_be_is_refused(folder: Path, heavy: dict[str, Run], case: str) -> None:
    if _is_there(case):
        pytest.skip("it is installed, so its absence cannot be seen")
    _, code, parts = HEAVY[case]
    is_one_paragraph(heavy[case], code, *parts)
    assert (folder / "kept.json").read_text() == "as it was"


CHECKS: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "unknown operator": (("audit", "custom.py:Net", "--input", "2x8"), 3, (OPERATOR, f"--allow {OPERATOR}=")),
    "allowed operator": (("audit", "custom.py:Net", "--input", "2x8", "--allow", f"{OPERATOR}=128"), 0, ()),
    "another operator allowed": (("audit", "custom.py:Net", "--input", "2x8", "--allow", "other::op=0"), 3, (OPERATOR,)),
    "unknown operator within a budget": (("audit", "custom.py:Net", "--input", "2x8", "--budget", "1G"), 3, (OPERATOR,)),
    "uncalled module": (("audit", "nets.py:Spare", "--input", "2x8"), 3, ("spare", "--allow-uncalled spare")),
    "allowed module": (("audit", "nets.py:Spare", "--input", "2x8", "--allow-uncalled", "spare"), 0, ()),
    "budget exceeded": (("audit", "nets.py:small", "--input", "1x8", "--budget", "447"), 1, ("448", "447")),
    "budget met": (("audit", "nets.py:small", "--input", "1x8", "--budget", "448"), 0, ()),
    "out of tolerance": (("audit", "nets.py:small", "--input", "1x8", "--against", "nets.py:narrow"), 1, ("448", "160", "nets.py:narrow")),
    "within a wide tolerance": (("audit", "nets.py:small", "--input", "1x8", "--against", "nets.py:narrow", "--tolerance", "2"), 0, ()),
    "difference": (("diff", "nets.py:small", "nets.py:narrow", "--input", "1x8", "--exit-code"), 1, ("differ",)),
    "difference shown": (("diff", "nets.py:small", "nets.py:narrow", "--input", "1x8"), 0, ()),
    "no difference": (("diff", "nets.py:small", "nets.py:small", "--input", "1x8", "--exit-code"), 0, ()),
}  # fmt: skip


@pytest.fixture(scope="module")
def checks(folder: Path) -> dict[str, Run]:
    commands = [[*arguments, "--format", "json"] for arguments, _, _ in CHECKS.values()]
    return dict(zip(CHECKS, many(commands, folder), strict=True))


@pytest.mark.parametrize("case", CHECKS)
def test_a_failed_check_gives_its_report_and_its_status(checks: dict[str, Run], case: str) -> None:
    arguments, code, parts = CHECKS[case]
    run = checks[case]
    assert run.code == code, run.err
    assert "Traceback" not in run.err
    assert "\n\n" not in run.message
    for part in parts:
        assert part in run.message
    report = json.loads(run.out)
    if arguments[0] == "audit":
        assert report["passed"] is (code == 0), "what could not be measured has not passed"


def test_an_allowed_operator_is_counted_at_the_cost_given(checks: dict[str, Run]) -> None:
    report = json.loads(checks["allowed operator"].out)
    assert report["measured_macs"] == 2 * 8 * 8 + 128 + 2 * 8 * 4
    assert any(OPERATOR in line for line in report["assumptions"])


def test_an_interrupted_factory_ends_as_shells_expect(folder: Path) -> None:
    (run,) = many([["plan", "nets.py:interrupted", "--input", "1x8", "-o", "kept.json"]], folder)
    assert run.code == 130
    assert "Traceback" not in run.err
    assert (folder / "kept.json").read_text() == "as it was"


def test_a_noisy_factory_does_not_soil_the_data(folder: Path) -> None:
    (run,) = many([["audit", "nets.py:noisy", "--input", "1x4", "--format", "json"]], folder)
    assert run.code == 0
    assert json.loads(run.out)["measured_macs"] == 32
    assert "a line that is no data" in run.err


def test_an_interrupted_command_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\ndef net():\n    print('building', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "iftplan", "plan", "slow.py:net", "--input", "1x4", "-o", "out.json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    deadline = time.monotonic() + 60
    while "building\n" not in iter(process.stderr.readline, "") and time.monotonic() < deadline:
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("existing", [True, False])
def test_a_directory_without_write_permission_is_left_as_it_was(tmp_path: Path, existing: bool) -> None:
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind the superuser")
    closed = tmp_path / "closed"
    closed.mkdir()
    if existing:
        (closed / "out.json").write_text("as it was")
    closed.chmod(0o500)
    run = iftplan(*SOLVE, "-o", "closed/out.json", cwd=tmp_path)
    closed.chmod(0o700)
    is_one_paragraph(run, 2, "closed/out.json")
    assert [p.read_text() for p in closed.iterdir()] == (["as it was"] if existing else [])


def test_a_model_that_changed_after_planning_is_stale(tmp_path: Path) -> None:
    net = tmp_path / "net.py"
    text = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Linear(4, {0}), nn.Linear({0}, {0}), nn.Linear({0}, 4))\n"
    net.write_text(text.format(8))
    planned = iftplan(
        "plan", "net.py:net", "--transform", "parallel", "--input", "2x4", "-o", "p.json", cwd=tmp_path
    )
    assert planned.code == 0, planned.err
    net.write_text(text.format(16))
    is_one_paragraph(
        iftplan("audit", "p.json", "--trust", cwd=tmp_path), 4, "net.py:net", "iftplan plan net.py:net"
    )


def test_a_model_to_train_without_its_plan_is_met_with_the_setting(tmp_path: Path) -> None:
    run = iftplan("train", "--model", "zoo:resnet18-cifar", "--dry-run", cwd=tmp_path)
    is_one_paragraph(run, 2, "no plan was given", "--set plan.model=zoo:resnet18-cifar")
