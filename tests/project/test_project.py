"""What surrounds the code: documentation of every public name, clean files, a wheel that is complete."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

import iftplan
from tests.support.places import ROOT, page_named

SOURCES = ("iftplan", "action", "tests", "docs", "benchmarks", "notebooks", ".ci", ".github")

# Pieces are joined here so that this file does not contain what it looks for.
PLACES = "|".join(rf"(?<![\w.])/{place}\b" for place in ("work", "root", "tmp/venv", "home"))
STRANGE = re.compile(rf"{PLACES}|\b[Ss]essio" + r"ns?\b")


def files() -> list[Path]:
    """Text files that belong to the project; what is compiled or built from them does not."""
    rooms = [path for room in SOURCES for path in (ROOT / room).rglob("*")]
    return [
        path
        for path in (*ROOT.iterdir(), *rooms)
        if path.is_file() and path.suffix != ".png" and not {"__pycache__", "_build"} & set(path.parts)
    ]


def strange_lines(paths: Iterable[Path]) -> list[str]:
    """Lines that speak of somebody's machine, or of how the project came to be, rather than of the project."""
    return [
        f"{path.name}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if STRANGE.search(line)
    ]


def test_files_speak_of_the_project_alone() -> None:
    assert len(files()) > 50
    assert strange_lines(files()) == []


@pytest.mark.parametrize(
    "line", ["run /" + "work/main/x", "written in an earlier sessio" + "n", "cd /" + "root"]
)
def test_a_strange_line_would_be_found(line: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"fine\n{line}\nsee https://example.org/work and a/home\n", encoding="utf-8")
    assert strange_lines([page]) == [f"page.md:2: {line}"]


@pytest.mark.parametrize("name", dir(iftplan))
def test_public_names_are_documented(name: str) -> None:
    value = getattr(iftplan, name)
    doc = inspect.getdoc(value)
    assert doc and doc != inspect.getdoc(type(value))
    assert f"`ift.{name}" in page_named("python.md").read_text(encoding="utf-8") or name == "IftplanError"


def test_every_declared_dependency_can_be_imported_and_is_named_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[<>=!~\[]", requirement)[0] for requirement in project["dependencies"]]
    assert len(names) == len(set(names))
    assert {"sympy", "fvcore", "pandas", "matplotlib", "typer"} <= set(names)


def test_every_package_that_the_core_imports_is_declared() -> None:
    """torch and what builds on it are extras, so are the libraries of reports, training, sweeps and kernels; the rest is in the base install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = ("report", "train", "sweep", "cluster", "bench", "jax")
    required = (*project["dependencies"], *(line for extra in wanted for line in extras[extra]))
    import_names = {"pillow": "PIL", "scikit_learn": "sklearn"}
    distributions = {re.split(r"[<>=!~\[]", r)[0].replace("-", "_") for r in required}
    declared = {import_names.get(name, name) for name in distributions}
    optional = {"torch", "transformers", "timm", "torchvision", "iftplan", "pytest"}
    optional |= {
        "datasets",
        "mlflow",
        "pytorch_lightning",
        "safetensors",
    }  # asked for by name, at the moment of use
    optional |= {"llvmlite"}  # half of numba, of the same release
    optional |= {"onnx"}  # the extra of its name, and deepsparse brings it in a process of its own
    imported = {
        match.split(".")[0]
        for path in (ROOT / "iftplan").rglob("*.py")
        for match in re.findall(r"^\s*(?:from|import) ([a-zA-Z_][\w.]*)", path.read_text("utf-8"), re.M)
    }
    assert "sympy" in imported
    assert imported - declared - optional - set(sys.stdlib_module_names) == set()


def test_the_readme_gives_the_two_commands_that_the_makefile_has() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^make (\w+)$", readme, re.M) == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in ("demo", "test"))


def test_ci_runs_the_tests_in_a_fresh_environment() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert re.search(r"make test VENV=\"\$\w+/venv\"", text)
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.slow
def test_the_wheel_is_complete(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "iftplan", source / "iftplan", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*build, "-w", str(tmp_path), str(source)], check=True, timeout=300)
    built = (
        tmp_path / "iftplan-0.dev0-py3-none-any.whl"
    )  # of a folder that has neither git nor an archive's tag
    with zipfile.ZipFile(built) as wheel:
        inside = set(wheel.namelist())
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "iftplan").rglob("*.py")}
    assert modules <= inside
    assert "iftplan/py.typed" in inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert any(name.endswith("entry_points.txt") for name in inside)
    assert not any(name.startswith("tests") for name in inside)
