"""Commands on JAX models: which framework they are of is found out, and the other one is never imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="JAX, of the extra jax, is not installed")
pytest.importorskip("flax", reason="Flax, of the extra jax, is not installed")

import iftplan as ift

FACTORIES = """
import jax, jax.numpy as jnp
from flax import linen

def dense():
    return linen.Dense(4), jnp.ones((2, 8))

def bare():
    return linen.Dense(4)

def deep():
    return linen.Sequential([linen.Dense(16), linen.Dense(16), linen.Dense(4)]), jnp.ones((2, 8))

def mixed():
    class Mixed(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Conv(4, (3, 3), use_bias=False)(x).reshape(64, 4)
            w = self.param("w", linen.initializers.ones, (4, 4))
            return jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=5)[0]

    return Mixed(), jnp.ones((1, 8, 8, 3))

def loop():
    return (lambda x, n: jax.lax.fori_loop(0, n, lambda _, c: c @ c, x)), jnp.ones((4, 4)), jnp.int32(3)
"""


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ("spec net.py:dense", 0, "linear:8-4@2"),
        ("audit net.py:dense --budget 64", 0, "PASSED"),
        ("audit net.py:dense --budget 63", 1, "failed"),
        ("audit net.py:dense --against net.py:dense", 0, "PASSED"),
        ("audit net.py:bare --input 3x8", 0, "96 MACs"),
        ("audit net.py:bare", 2, "does not tell its inputs"),
        ("audit net.py:loop", 3, "while (1 call)"),
        ("spec net.py:loop", 3, "while (1 call)"),
        ("audit net.py:loop --allow while=192", 0, "192 MACs"),
        ("audit net.py:dense --nonzeros", 2, "--nonzeros cannot be combined with a model in JAX"),
        ("audit zoo:resnet18 --framework jax", 2, "zoo:resnet18 is no JAX model"),
        ("spec zoo:resnet18 --framework jax", 2, "zoo:resnet18 is no JAX model"),
        ("spec net.py:absent", 2, "has no absent"),
    ],
)
def test_commands_count_jax_models(tmp_path: Path, words: str, status: int, says: str) -> None:
    (tmp_path / "net.py").write_text(FACTORIES)
    done = subprocess.run(
        [sys.executable, "-m", "iftplan", *words.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, says in done.stdout + done.stderr) == (status, True), done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_spec_document_of_jax_is_planned_without_it(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FACTORIES)
    for words in (
        "spec net.py:dense -o s.json",
        "plan s.json --transform none --sparsity 0.5 --keep-dense none -o p.json",
    ):
        subprocess.run(
            [sys.executable, "-m", "iftplan", *words.split()], cwd=tmp_path, check=True, capture_output=True
        )
    assert json.loads((tmp_path / "p.json").read_text())["schema"] == "iftplan.plan/1"


WATCHED = """
import sys
from iftplan.cli.main import main

try:
    main(sys.argv[1:])
except SystemExit as ended:
    print("status:", ended.code)
print("loaded:", *(name for name in ("torch", "jax") if name in sys.modules))
"""


@pytest.mark.parametrize(
    "words",
    ["spec net.py:dense", "audit net.py:dense --budget 64", "plan net.py:deep --transform parallel", "diff net.py:dense net.py:deep"],
)  # fmt: skip
def test_a_command_on_a_jax_model_imports_no_torch(tmp_path: Path, words: str) -> None:
    (tmp_path / "net.py").write_text(FACTORIES)
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *words.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-2:] == ["status: 0", "loaded: jax"], done.stderr


def test_read_model_takes_the_source_of_a_jax_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    assert ift.read_model("net.py:dense").macs == 64
    assert ift.read_model("net.py:bare", "3x8").macs == 96


def test_xla_counts_beside_with_a_reason_for_each_difference(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FACTORIES)
    words = "audit net.py:mixed --cross-check --format json"
    done = subprocess.run(
        [sys.executable, "-m", "iftplan", *words.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    # 8x8 images, a 3x3 kernel: the padding is met by 8*8*9 - 22*22 = 92 taps; then 5 products of a scan
    assert report["counters"]["jaxpr"] == 8 * 8 * 9 * 3 * 4 + 5 * 64 * 4 * 4
    assert report["counters"]["xla"] >= 22 * 22 * 3 * 4 + 64 * 4 * 4
    padding, loop, *rest = report["notes"]
    assert padding == "XLA counts 5 808 of conv_general_dilated's 6 912 MACs: taps on padding are left out."
    assert loop == "XLA counts 1 024 of dot_general's 5 120 MACs: the body of a loop is counted once."
    assert all("elementwise work" in sentence for sentence in rest)


TWIN = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
"""
NET = """
import jax, jax.numpy as jnp
from flax import linen

class Net(linen.Module):
    hidden: int = 16

    @linen.compact
    def __call__(self, x):
        return linen.Dense(4, name="2")(linen.relu(linen.Dense(self.hidden, name="0")(x)))

def build():
    return Net(), jax.ShapeDtypeStruct((2, 8), jnp.float32)
"""
CONFIGURATION = """
[models.in_torch]
source = "twin.py:build"
inputs = ["2x8"]
budget.macs = "384"

[models.in_jax]
source = "net.py:build"
budget.macs = "384"

[models.planned]
source = "wide.json"
model = "net.py:build"
budget.macs = "384"
"""


def run(folder: Path, words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "iftplan", *words.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_repository_of_both_frameworks_is_checked_and_compared(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "twin.py").write_text(TWIN)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "iftplan.toml").write_text(CONFIGURATION)
    planned = run(
        tmp_path, "plan net.py:build --transform wide --sparsity 0.5 --keep-dense none -o wide.json"
    )
    assert planned.returncode == 0, planned.stderr
    assert json.loads((tmp_path / "wide.json").read_text())["widths"] == {"hidden": 23}
    checked = run(tmp_path, "check --format csv")
    assert checked.returncode == 0, checked.stderr
    rows = [line.split(",") for line in checked.stdout.splitlines()[1:]]
    assert [(row[0], "384" in row, "passed" in row) for row in rows] == [
        (name, True, True) for name in ("in_torch", "in_jax", "planned")
    ]
    same = run(tmp_path, "diff twin.py:build net.py:build --input 2x8 --exit-code")
    assert (same.returncode, "384 → 384 MACs" in same.stdout) == (0, True), same.stderr
    (tmp_path / "net.py").write_text(NET.replace("hidden: int = 16", "hidden: int = 17"))
    grown = run(tmp_path, "check in_jax")
    assert (grown.returncode, "384 allowed" in grown.stderr) == (1, True), grown.stderr
    changed = run(tmp_path, "diff twin.py:build net.py:build --input 2x8 --format json")
    assert [layer["difference"] for layer in json.loads(changed.stdout)["layers"]] == [16, 8]


def test_a_planned_model_of_jax_is_audited(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    assert (
        run(
            tmp_path, "plan net.py:build --transform wide --sparsity 0.5 --keep-dense none -o w.json"
        ).returncode
        == 0
    )
    refused = run(tmp_path, "audit w.json --no-cache")
    assert (refused.returncode, "would run Python code" in refused.stderr) == (2, True), refused.stderr
    audited = run(tmp_path, "audit w.json --model net.py:build")
    assert (audited.returncode, "PASSED" in audited.stdout) == (0, True), audited.stdout + audited.stderr
