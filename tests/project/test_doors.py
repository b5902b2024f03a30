"""What users import: `iftplan`, and one module a topic. Pages and notebooks show no other address, and the package needs none of them itself."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.places import PAGES, ROOT

PACKAGE = ROOT / "iftplan"
STUBS = sorted(PACKAGE.rglob("__init__.pyi"))
LAZY = {".".join(("iftplan", *stub.parent.relative_to(PACKAGE).parts)) for stub in STUBS}
DOORS = {module for module in LAZY if module.count(".") < 2} | {"iftplan.masks"}
if find_spec("jax") is None:
    DOORS -= {"iftplan.jaxnn"}


def modules_of(source: str) -> Iterator[tuple[str, str]]:
    """(module, name) of every import of the package in Python source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "iftplan":
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "iftplan")


def shown(path: Path) -> Iterator[str]:
    """The Python source that a page or a notebook shows."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        for cell in json.loads(text)["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and not source.startswith("%%"):  # of a shell
                yield re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE)
    else:
        yield from re.findall(r"^```python[^\n]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


SHOWING = [
    *sorted(ROOT.glob("*.md")),
    *PAGES,
    *sorted(ROOT.glob("notebooks/*.ipynb")),
]


def beyond_doors(source: str) -> list[str]:
    """Imports of the package that come through no door."""
    return [f"{module} {name}".strip() for module, name in modules_of(source) if module not in DOORS]


def test_pages_and_notebooks_import_through_doors() -> None:
    found = {path.name: [x for source in shown(path) for x in beyond_doors(source)] for path in SHOWING}
    assert {name: imports for name, imports in found.items() if imports} == {}
    assert sum(bool(list(modules_of(s))) for path in SHOWING for s in shown(path)) > 30


def test_that_check_sees_a_deep_path() -> None:
    assert beyond_doors("from iftplan.nn.counting.measure import measure") == [
        "iftplan.nn.counting.measure measure"
    ]
    assert beyond_doors("import iftplan.plans.plan") == ["iftplan.plans.plan"]
    assert beyond_doors("from iftplan.nn import measure\nimport iftplan as ift") == []


@pytest.mark.parametrize("door", sorted(DOORS))
def test_every_name_of_a_door_opens(door: str) -> None:
    module = import_module(door)
    assert module.__all__
    for name in module.__all__:
        assert name in dir(module)
        assert getattr(module, name) is not None


def test_every_door_is_an_attribute_of_the_package_and_costs_nothing_until_it_is_used() -> None:
    program = f"""
import sys
import iftplan as ift
for door in {sorted(DOORS - {"iftplan"})!r}:
    assert getattr(ift, door.removeprefix("iftplan.")).__name__ == door
print(*{{"torch", "matplotlib", "sympy", "pandas"}} & set(sys.modules))
assert ift.plots.cardinality_picture("linear:4-4").title
assert "matplotlib" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_what_needs_torch_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('there is no torch')")
    program = """
import iftplan as ift
from iftplan.checks import flop_budget

plan = ift.plan("zoo:digits-cnn", "wide", 0.75)
for call in (
    lambda: ift.audit(plan), lambda: flop_budget("zoo:digits-cnn", "1M"), lambda: ift.nn.apply, lambda: ift.nn.RigL()
):
    try:
        call()
    except (ift.IftplanError, ImportError) as error:
        print(type(error).__name__, error)
try:
    from iftplan.nn import measure
except ImportError as error:
    print(type(error).__name__, error)
"""
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    told = "needs PyTorch, which cannot be imported (there is no torch). Install it with: pip install 'iftplan[torch]'."
    said = [f"InputError audit {told}", f"InputError flop_budget {told}"]
    said += [f"ImportError {name} {told}" for name in ("apply", "RigL", "measure")]
    assert done.stdout.splitlines() == said, done.stderr


def test_the_package_itself_goes_through_no_lazy_door() -> None:
    """A name may move from file to file only if the files themselves say where it is."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for module, name in modules_of(path.read_text(encoding="utf-8")):
            public = import_module(module).__all__ if module in LAZY else ()
            folder = PACKAGE.joinpath(*module.split(".")[1:])
            if name in public and not (folder / f"{name}.py").exists() and not (folder / name).is_dir():
                found.append(f"{path.relative_to(PACKAGE)}: from {module} import {name}")
    assert found == []
