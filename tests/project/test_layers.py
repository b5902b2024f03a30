"""The rooms of the project and who may look into which: one line of order, a check that can fail, and proofs by running."""

import ast
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.pages.rooms_picture import picture
from tests.support.places import MOST, PACKAGE, ROOT, page_named

ORDER = "base cache masks report models families plans runs nn jaxnn plots checks api cli __main__".split()  # noqa: SIM905  (one line)
"""Lowest first. A module imports from its own room and from those before it, never from those after it."""

LAZY_ONLY = {
    "nn": "torch enters there: whoever calls it imports it when it is called",
    "jaxnn": "JAX enters there, likewise",
}
"""Rooms that others import inside functions only."""

LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "torch": ("nn",),
    "transformers": ("nn",),
    "fvcore": ("nn",),
    "jax": ("jaxnn",),
    "flax": ("jaxnn",),
    "equinox": ("jaxnn",),
    "optax": ("jaxnn",),
    "numpy": ("nn", "jaxnn"),
    "pandas": (),
    "pyarrow": (),
    "optuna": ("runs.sweeps",),
    "sqlalchemy": ("runs.sweeps",),
    "fsspec": (),
    "submitit": (),
    "filelock": ("runs.sweeps", "nn"),
    "matplotlib": ("plots",),
    "sympy": ("families.symbols", "families.derivation", "families.steps", "nn"),
    "pydantic": (
        "base.validation",
        "models.cost_document",
        "models.document",
        "plans.document",
        "plans.audit.document",
        "plans.speed.document",
        "runs.document",
        "runs.settings",  # the ranges of settings, beside them
        "checks.configuration_file",
        "checks.baseline",
        "nn.export.sparse_files",
    ),
    "typer": ("cli",),
    "click": ("cli",),
    "rich": (),
    "tabulate": (),
    "pytest": ("checks.pytest_plugin",),
    "jinja2": (),
    "squarify": (),
    "plotly": (),
    "junitparser": (),
    "sarif_pydantic": (),
}
"""Library → the rooms or modules that may import it at module level; inside functions everyone may, but for frameworks."""

HOMES = {
    **dict.fromkeys(("torch", "transformers", "fvcore", "timm", "torchvision"), ("nn",)),
    **dict.fromkeys(("jax", "flax", "equinox", "optax", "orbax"), ("jaxnn",)),
}
"""Framework's library → the rooms that are about it."""

PROBES = {
    ("cli", "torch"): "asks whether it can be imported, to say which extra to install",
    ("cli", "jax"): "likewise",
}


@dataclass(frozen=True)
class Import:
    """One import statement's target: when it happens, and where it is written."""

    target: str
    lazy: bool
    line: int


def imports_of(source: str) -> Iterator[Import]:
    """Every import of a module, name by name, those for type checkers left out."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    yield from walk(ast.Module([other], []), lazy)
                continue
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, lazy, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = "." * child.level + (child.module or "")
                if base.split(".")[0] == "iftplan":
                    yield from (Import(f"{base}.{alias.name}", lazy, child.lineno) for alias in child.names)
                else:
                    yield Import(base, lazy, child.lineno)
            yield from walk(
                child, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            )

    yield from walk(ast.parse(source), False)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def violations(sources: Mapping[str, str]) -> list[str]:
    """What breaks the contract, one sentence each: sources by dotted module name."""
    return [
        f"{module}:{found.line} {problem}"
        for module, source in sources.items()
        for found in imports_of(source)
        if (problem := _problem(module, found))
    ]


def _problem(module: str, found: Import) -> str:
    room = room_of(module)
    if found.target.startswith("."):
        return "imports relatively; write the whole name"
    if room != "__init__" and room not in ORDER:
        return f"has no room: {room} is not in the order"
    top = found.target.split(".")[0]
    if top == "iftplan":
        return _inside(room, room_of(found.target), found)
    if top in HOMES and room not in HOMES[top] and (room, top) not in PROBES:
        return f"imports {top}, which lives in iftplan.{' and iftplan.'.join(HOMES[top])}"
    if top in LIBRARIES and not found.lazy and not any(_within(module, place) for place in LIBRARIES[top]):
        return f"imports {top} at module level; import it where it is used"
    return ""


def _within(module: str, place: str) -> bool:
    return f"{module}.".startswith(f"iftplan.{place}.")


def _inside(room: str, target: str, found: Import) -> str:
    if room == target:
        return ""
    if room == "__init__" or target == "__init__":
        return f"imports {found.target}: the package itself imports nothing and is imported by nobody"
    if target not in ORDER:
        return f"imports {found.target}, which has no room"
    if ORDER.index(target) > ORDER.index(room):
        return f"imports {found.target}, which is not below it"
    if target in LAZY_ONLY and not found.lazy:
        return f"imports {found.target} at module level; import it where it is called"
    return ""


# --- folders --------------------------------------------------------------------------------------------


def folders_of(modules: Iterator[str] | Mapping[str, str]) -> dict[str, set[str]]:
    """Every folder with its entries, files and folders alike, by dotted name."""
    found: dict[str, set[str]] = {}
    for module in modules:
        parent, _, name = module.rpartition(".")
        while parent:
            found.setdefault(parent, set()).add(name)
            parent, _, name = parent.rpartition(".")
    return found


def circles(sources: Mapping[str, str]) -> list[str]:
    """Entries of one folder that import each other, over others too, as `folder: this, that`.

    A folder counts with every import of whatever lies in it, a file with those at module level, which Python itself has
    to bring into an order.
    """
    folders = folders_of(sources)
    arrows: dict[str, dict[str, set[str]]] = {folder: {} for folder in folders}
    for module, source in sources.items():
        for found in imports_of(source):
            pair = _parting(module, found.target, folders)
            if pair is None:
                continue
            folder, start, end = pair
            if not found.lazy or f"{folder}.{start}" in folders or f"{folder}.{end}" in folders:
                arrows[folder].setdefault(start, set()).add(end)
    said = []
    for folder, graph in sorted(arrows.items()):
        reached = {name: _reached(graph, name) for name in graph}
        circle = sorted(name for name in graph if name in reached[name])
        if circle:
            said.append(f"{folder}: {', '.join(circle)}")
    return said


def _parting(module: str, target: str, folders: Mapping[str, set[str]]) -> tuple[str, str, str] | None:
    """The folder in which the ways to two modules part, and the entry of each there."""
    folder, ways, ends = "", module.split("."), target.split(".")
    for start, end in zip(ways, ends, strict=False):
        if start != end:
            return (folder, start, end) if {start, end} <= folders.get(folder, set()) else None
        folder = f"{folder}.{start}" if folder else start
    return None


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found, queue = set(), list(graph[start])
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += graph.get(name, ())
    return found


def project() -> dict[str, str]:
    return {
        ".".join(("iftplan", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path.read_text(encoding="utf-8")
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def test_lower_rooms_never_import_upper_ones() -> None:
    assert violations(project()) == []


def test_every_room_exists_and_every_module_has_one() -> None:
    assert {room_of(module) for module in project()} - {"__init__"} == set(ORDER)


def test_no_two_public_classes_share_a_name() -> None:
    homes: dict[str, list[str]] = {}
    for module, source in project().items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module)
    assert len(homes) > 300
    # what is the same in PyTorch and in JAX is called the same
    twins = {name for name, found in homes.items() if sorted(map(room_of, found)) == ["jaxnn", "nn"]}
    assert {name: found for name, found in homes.items() if len(found) > 1 and name not in twins} == {}


def test_the_architecture_page_names_files_that_exist() -> None:
    page = page_named("architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(iftplan/[\w/.]+)`", page))
    assert len(named) > 20
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_the_architecture_page_names_the_rooms_in_their_order() -> None:
    page = page_named("architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)/?`", row)]
    assert [*named, "__main__"] == ORDER


def test_no_folder_is_in_a_circle_and_no_files_inside_one() -> None:
    assert circles(project()) == []


def test_no_folder_holds_more_than_one_can_take_in() -> None:
    """Every file counts, whatever its kind; but for the kept documents of the zoo, which nobody reads one by one."""
    folders = [
        PACKAGE,
        *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__"),
    ]
    found = {folder.relative_to(PACKAGE): len(_entries(folder)) for folder in folders}
    assert {str(folder) for folder, entries in found.items() if entries > MOST} == {"models/zoo/documents"}


def _entries(folder: Path) -> list[Path]:
    """What one sees in a folder, without what stands in every one or marks the package."""
    return [
        entry for entry in folder.iterdir() if not entry.name.startswith("__") and entry.name != "py.typed"
    ]


def test_every_folder_says_what_it_holds() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert {str(f) for f in folders if not ast.get_docstring(ast.parse(_init(f)))} == set()


def _init(folder: Path) -> str:
    file = folder / "__init__.py"
    return file.read_text(encoding="utf-8") if file.exists() else ""


def test_every_exception_is_used() -> None:
    """An exception that nobody needs any more would hide the next mistake."""
    probes = {(room_of(m), i.target) for m, s in project().items() for i in imports_of(s)}
    assert set(PROBES) <= probes
    places = {place for allowed in LIBRARIES.values() for place in allowed}
    assert {p for p in places if not any(_within(m, p) for m in project())} == set()


@pytest.mark.parametrize(
    ("module", "source", "says"),
    [
        ("base.errors", "from iftplan.report.table import Table", "imports iftplan.report.table.Table, which is not below it"),
        ("families.solver", "from iftplan.plans import planner", "imports iftplan.plans.planner, which is not below it"),
        ("plans.planner", "import iftplan.cli.main", "imports iftplan.cli.main, which is not below it"),
        ("report.table", "def f():\n    from iftplan.cli import output", "not below it"),
        ("report.display", "class S:\n    def f(self):\n        from iftplan.plans.tables import plan_table", "not below it"),
        ("nn.reading.read", "from iftplan.api import plan", "not below it"),
        ("plans.plan", "class P:\n    def f(self):\n        from iftplan.plans.tables import plan_table", ""),
        ("plans.planner", "def f():\n    from iftplan.nn.reading import read", "not below it"),
        ("api", "from iftplan.nn.reading import read", "at module level; import it where it is called"),
        ("api", "def f():\n    from iftplan.nn.reading import read", ""),
        ("plans.planner", "def f():\n    import torch", "imports torch, which lives in iftplan.nn"),
        ("models.spec", "if True:\n    import torch.nn", "imports torch"),
        ("nn.reading.read", "def f():\n    import jax.numpy", "imports jax, which lives in iftplan.jaxnn"),
        ("jaxnn.counting.walk", "def f():\n    import torch", "imports torch, which lives in iftplan.nn"),
        ("jaxnn.counting.walk", "import jax", ""),
        ("api", "from iftplan.jaxnn import reading", "at module level; import it where it is called"),
        ("models.spec", "try:\n    import torch\nexcept ImportError:\n    pass", "imports torch"),
        ("api", "if TYPE_CHECKING:\n    from torch import nn", ""),
        ("api", "if TYPE_CHECKING:\n    pass\nelse:\n    from torch import nn", "imports torch"),
        ("nn.reading.read", "import torch", ""),
        ("families.solver", "import sympy", "imports sympy at module level"),
        ("families.solver", "def f():\n    import sympy", ""),
        ("families.symbols", "import sympy", ""),
        ("report.table", "from rich.table import Table", "imports rich at module level"),
        ("plans.plan", "import pandas as pd", "imports pandas at module level"),
        ("cli.commands.planning.plan", "import matplotlib.pyplot", "imports matplotlib at module level"),
        ("plans.document.plan", "from pydantic import ConfigDict", ""),
        ("plans.plan", "from pydantic import ConfigDict", "imports pydantic at module level"),
        ("families.solver", "from .family import Family", "imports relatively"),
        ("helpers", "from iftplan.base.errors import InputError", "has no room: helpers"),
        ("families.solver", "from iftplan.helpers import x", "imports iftplan.helpers.x, which has no room"),
        ("families.solver", "from iftplan import InputError\nimport iftplan", "which has no room"),
        ("families.solver", "import iftplan", "is imported by nobody"),
    ],
)  # fmt: skip
def test_the_check_sees_every_kind_of_breach(module: str, source: str, says: str) -> None:
    found = violations({f"iftplan.{module}": source})
    assert bool(found) == bool(says)
    assert not says or says in found[0]


LAZY = "def f():\n    from iftplan.{} import x"


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({"a.b": "from iftplan.a.c import x", "a.c": "from iftplan.a.b import x"}, ["iftplan.a: b, c"]),
        ({"a.b": "from iftplan.a import c", "a.c": "from iftplan.a import b"}, ["iftplan.a: b, c"]),
        ({"a.b": "from iftplan.a.c import x", "a.c": LAZY.format("a.b")}, []),  # files of one folder
        ({"a.b": "from iftplan.a.c.d import x", "a.c.d": LAZY.format("a.b")}, ["iftplan.a: b, c"]),
        ({"a.b": "from iftplan.c.d import x", "c.e": LAZY.format("a.f"), "a.f": "", "c.d": ""}, ["iftplan: a, c"]),
        ({"a.b": LAZY.format("a.c"), "a.c": "from iftplan.a.d import x", "a.d": "from iftplan.a.c import x"}, ["iftplan.a: c, d"]),
        ({"a": "from iftplan.a.b import x", "a.b": "from iftplan.a.c import x", "a.c": ""}, []),  # the folder's own names
    ],
)  # fmt: skip
def test_the_search_for_circles_finds_them(sources: dict[str, str], found: list[str]) -> None:
    assert circles({f"iftplan.{module}": source for module, source in sources.items()}) == found


# --- the picture on the architecture page ----------------------------------------------------------------

DRAWN = ROOT / "docs" / "pictures" / "rooms.svg"


def purpose(room: str) -> str:
    """The first sentences of a room's docstring."""
    folder = PACKAGE / room
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(doc.split("\n\n")[0].split())


def test_the_picture_of_the_rooms_is_of_the_tree() -> None:
    """`IFTPLAN_GOLDEN=write pytest tests/project/test_layers.py -k picture` draws it again."""
    rooms = [room for room in ORDER if room != "__main__"]  # the same door as `cli`
    arrows = {
        (room_of(module), room_of(found.target))
        for module, source in project().items()
        for found in imports_of(source)
        if found.target.startswith("iftplan.")
    }
    inside = {(start, end) for start, end in arrows if start != end and {start, end} <= set(rooms)}
    drawn = picture(rooms, {room: purpose(room) for room in rooms}, inside)
    if os.environ.get("IFTPLAN_GOLDEN") == "write":
        DRAWN.write_text(drawn, encoding="utf-8")
    assert DRAWN.read_text(encoding="utf-8") == drawn
    assert "](../pictures/rooms.svg)" in page_named("architecture.md").read_text(encoding="utf-8")


# --- proofs by running ---------------------------------------------------------------------------------

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocker())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )


def without(blocked: set[str], code: str) -> subprocess.CompletedProcess[str]:
    return run(BLOCKER.format(blocked=blocked) + textwrap.dedent(code))


CORE = sorted(
    module
    for module in project()
    if room_of(module) not in ("nn", "jaxnn", "__main__") and module != "iftplan.cli"
)


def test_the_whole_core_imports_without_a_framework() -> None:
    done = without(
        set(HOMES), f"import importlib\nfor name in {CORE}:\n    importlib.import_module(name)\nprint('fine')"
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_that_proof_can_fail() -> None:
    done = without(set(HOMES), "import iftplan.nn.reading.read")
    assert done.returncode == 1
    assert "torch is blocked" in done.stderr


def test_a_spec_is_planned_and_saved_without_torch(tmp_path: Path) -> None:
    code = f"""
    import sys
    sys.path.insert(0, {str(ROOT)!r})
    from tests.support.hand_specs import chain
    import iftplan as ift
    plan = ift.plan(chain(), "wide", "3/4")
    ift.save(plan, {str(tmp_path / "plan.json")!r})
    assert ift.load({str(tmp_path / "plan.json")!r}) == plan
    print(plan.residual_macs)
    """
    done = without(set(HOMES), code)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_the_package_itself_imports_none_of_its_modules() -> None:
    done = run("import sys, iftplan; print(sorted(m for m in sys.modules if m.startswith('iftplan')))")
    assert done.stdout == "['iftplan']\n"
    assert (
        run(
            "import iftplan; iftplan.solve; import sys; assert 'iftplan.families.solver' in sys.modules"
        ).returncode
        == 0
    )
