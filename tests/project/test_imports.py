"""No command imports what it does not need: for each, the libraries that it may."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.cli_runs import many

HEAVY = (
    "torch", "jax", "flax", "torch._dynamo.eval_frame", "torch._inductor", "torch.onnx", "torchmetrics", "transformers", "fvcore", "sympy", "numpy", "scipy", "sklearn",
    "pandas", "pyarrow", "matplotlib", "PIL", "rich.console", "jinja2", "tabulate", "pydantic", "optuna", "networkx", "filelock",
    "sqlite3", "asyncio", "http", "ssl", "multiprocessing", "unittest",
)  # fmt: skip

WITH_TORCH = {"torch", "numpy", "asyncio", "http", "ssl", "multiprocessing", "unittest"}
"""What `import torch` imports by itself; a test holds it to that."""

DOCUMENTS = {"pydantic"}
"""What reads documents strictly."""

MEASURING = WITH_TORCH | DOCUMENTS

WIDTHS = MEASURING | {"sympy"}
"""Sizes that are symbols are SymPy's."""

SECOND = {"fvcore", "tabulate"}
"""A second engine counts too, and brings what it prints with."""

MAY: dict[str, set[str]] = {
    "--help": set(),
    "--version": set(),
    **{f"{name} --help": set() for name in ("solve", "plan", "audit", "check", "diff", "explore", "train", "prune", "soup", "sweep", "pareto", "plot", "advise", "bench", "spec", "models")},
    "solve --layer conv3x3:64-128@16x16": set(),
    "solve --layer conv3x3:64-128@16x16 --format json": set(),
    "solve --layer conv3x3 --layer attention": set(),
    "solve --layer conv3x3 --steps": {"sympy"},
    "solve --layer conv3x3:64-128 --format markdown": {"tabulate"},
    "models": set(),
    "advise --params 1e9 --compute 1e21": set(),
    "advise --law joint-moe": set(),
    "plan spec.json --transform wide": DOCUMENTS,
    "plan spec.json --transform parallel --format json": DOCUMENTS,
    "spec spec.json": DOCUMENTS,
    "diff wide.json parallel.json": DOCUMENTS,
    "diff spec.json wide.json": DOCUMENTS,
    "pareto --paper --task CIFAR-100": DOCUMENTS,
    "check": DOCUMENTS,
    "plan net.py:net --input 5x8 --transform parallel": MEASURING,
    "plan net.py:net --input 5x8 --transform wide": WIDTHS,
    "plan zoo:resnet18-cifar --transform wide": DOCUMENTS,
    "plan zoo:gpt3-small --transform parallel": DOCUMENTS,
    "spec zoo:bert-small": DOCUMENTS,
    "audit wide.json --model net.py:net": WIDTHS | SECOND,
    "audit parallel.json --model net.py:net": MEASURING | SECOND,
    "audit net.py:net --input 5x8": MEASURING | SECOND,
    "audit zoo.json": MEASURING | SECOND,
    "audit zoo:digits-cnn": MEASURING | SECOND,
    "train --steps 1 --out wide": WIDTHS | {"filelock"},
    "train --method dense --steps 1 --out dense": MEASURING | {"filelock"},
}  # fmt: skip
"""Command → what of the heavy it may import."""

LISTING = """
import sys
from iftplan.cli.main import main

try:
    main(sys.argv[1:])
except SystemExit as ended:
    status = ended.code
names = sys.stdin.read().split()
print("loaded:", *[name for name in names if name in sys.modules])
print("status:", status)
"""
NET = """
from torch import nn


def net():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
"""


def loaded_by(words: str, folder: Path) -> set[str]:
    """What of the heavy a command imports, for a good result."""
    done = subprocess.run(
        [sys.executable, "-c", LISTING, *words.split()],
        cwd=folder,
        input=" ".join(HEAVY),
        capture_output=True,
        text=True,
        check=True,
    )
    *_, loaded, status = done.stdout.splitlines()
    assert status == "status: 0", done.stderr
    return set(loaded.split()[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("imports")
    (home / "net.py").write_text(NET)
    (home / "iftplan.toml").write_text('[models.net]\nsource = "net.py:net"\ninputs = ["5x8"]\n')
    many([["spec", "net.py:net", "--input", "5x8", "-o", "spec.json"]], home)
    many(
        [["plan", "spec.json", "--transform", name, "-o", f"{name}.json"] for name in ("wide", "parallel")],
        home,
    )
    many([["plan", "zoo:resnet8-cifar", "--transform", "wide", "-o", "zoo.json"], ["check"]], home)
    return home


@pytest.mark.parametrize("words", MAY)
def test_a_command_imports_what_it_needs_and_no_more(folder: Path, words: str) -> None:
    assert loaded_by(words, folder) - MAY[words] == set()


def test_torch_imports_what_is_said_of_it() -> None:
    program = f"import sys, torch; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= WITH_TORCH


METRICS = """
import sys
from iftplan.nn.training.parallel.fabric import no_metrics_loaded
with no_metrics_loaded():
    from lightning_fabric.utilities.imports import _TORCHMETRICS_GREATER_EQUAL_1_0_0 as new
print(bool(new), "torchmetrics" in sys.modules, "transformers" in sys.modules)
import torchmetrics
with no_metrics_loaded():
    print(sys.modules["torchmetrics"] is torchmetrics, hasattr(torchmetrics, "Metric"))
"""


@pytest.mark.skipif(
    find_spec("torchmetrics") is None, reason="torchmetrics is not installed: nothing is left out"
)
def test_lightning_fabric_knows_the_version_of_torchmetrics_without_it() -> None:
    done = subprocess.run([sys.executable, "-c", METRICS], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True False False", "True True"]


def test_the_list_would_see_what_is_imported(folder: Path) -> None:
    assert "sympy" in loaded_by("solve --layer conv3x3 --steps", folder)
    assert "pydantic" in loaded_by("plan spec.json --transform wide", folder)


ENDING = """
import gc, sys
from iftplan.cli.main import main

try:
    main({given})
except SystemExit:
    pass
print(gc.get_freeze_count() > 100_000, gc.isenabled())
"""


def test_what_is_imported_is_not_looked_through_for_garbage_but_in_a_process_of_ones_own(
    folder: Path,
) -> None:
    words = ["spec", "net.py:net", "--input", "5x8", "--no-cache"]
    for given, said in (("", "True True"), (repr(words), "False True")):
        done = subprocess.run(
            [sys.executable, "-c", ENDING.format(given=given), *words],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == said
