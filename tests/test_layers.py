"""The rooms of the project and who may look into which: one table, a check that can fail, and proofs by running."""

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import iftplan

ROOT = Path(iftplan.__file__).parent

ROOMS = (
    "errors shown polynomial widening budget cardinality runs symbols expressions scales estimates opens machine",
    "arguments footprint units settings spec counting masks distributions vouched validation transforms documents schedules revisions workers pareto",
    "notation costs form solution cautions zoo_index scalefile estimatefile observations scaling histories",
    "closed_forms derive realise sources plans specfile solvefile diffs axes",
    "families symbolic policy audits supar training_cost entries",
    "solver rows reportfile planledger runfile checks tradeoffs",
    "planfile runrecords",
    "closing configuration measurements observationfile timings tradeofffile",
    "planwidths configfile judging profiles",
    "planner checkcache profilefile pricing",
    "checking sweeps published spaces plantimes",
    "revision_costs searching sweeptable trialqueue wallclock",
    "campaigns",
    "report",
    "plots",
    "nn",
    "api assertions",
    "cli pytest_plugin",
    "__main__",
)
"""Lowest first. A module imports only from rows below its own: never upwards, never its siblings in a row.

`transforms`, `masks`, `report`, `nn` and `cli` are packages; inside one of them anything may import anything.
"""

RANK = {room: rank for rank, row in enumerate(ROOMS) for room in row.split()}

LOOKS_UP = {("shown", "report"): "values show themselves: they ask the report, when they are printed"}
"""Imports upwards, allowed inside functions only."""

LAZY_ONLY = {"nn": "torch enters there: whoever calls it imports it when it is called"}
"""Rooms that others import inside functions only."""

LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "torch": ("nn",),
    "transformers": ("nn",),
    "fvcore": ("nn",),
    "numpy": ("nn",),
    "pandas": (),
    "pyarrow": (),
    "optuna": ("searching", "trialqueue", "campaigns"),
    "filelock": ("trialqueue", "nn"),
    "matplotlib": ("plots",),
    "sympy": ("symbols", "expressions", "derive", "symbolic", "nn"),
    "pydantic": (
        "validation",
        "planfile",
        "scalefile",
        "estimatefile",
        "profilefile",
        "specfile",
        "reportfile",
        "runfile",
        "runs",  # the ranges of settings, beside them
        "configfile",
        "measurements",
    ),
    "typer": ("cli",),
    "click": ("cli",),
    "rich": (),
    "tabulate": (),
    "pytest": ("pytest_plugin",),
    "jinja2": (),
    "squarify": (),
    "plotly": (),
    "junitparser": (),
    "sarif_pydantic": (),
}
"""Library → the rooms that may import it at module level; inside functions everyone may, but for torch."""

TORCH = frozenset({"torch", "transformers", "fvcore", "timm", "torchvision"})
PROBES = {("cli", "torch"): "asks whether it can be imported, to say which extra to install"}


@dataclass(frozen=True)
class Import:
    """One import statement's target: when it happens, and where it is written."""

    target: str
    lazy: bool
    line: int


def imports_of(source: str) -> Iterator[Import]:
    """Every import of a module, those for type checkers left out."""

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
                if base == "iftplan":
                    yield from (Import(f"iftplan.{alias.name}", lazy, child.lineno) for alias in child.names)
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
        if (problem := _problem(room_of(module), found))
    ]


def _problem(room: str, found: Import) -> str:
    if found.target.startswith("."):
        return "imports relatively; write the whole name"
    if room != "__init__" and room not in RANK:
        return f"has no room: add {room} to the table"
    top = found.target.split(".")[0]
    if top == "iftplan":
        return _inside(room, room_of(found.target), found)
    if top in TORCH and room != "nn" and (room, top) not in PROBES:
        return f"imports {top}, which lives in iftplan.nn"
    if top in LIBRARIES and not found.lazy and room not in LIBRARIES[top]:
        return f"imports {top} at module level; import it where it is used"
    return ""


def _inside(room: str, target: str, found: Import) -> str:
    if room == target:
        return ""
    if room == "__init__" or target == "__init__":
        return f"imports {found.target}: the package itself imports nothing and is imported by nobody"
    if target not in RANK:
        return f"imports {found.target}, which has no room"
    if found.lazy and (room, target) in LOOKS_UP:
        return ""
    if RANK[target] >= RANK[room]:
        return f"imports {found.target}, which is not below it"
    if target in LAZY_ONLY and not found.lazy:
        return f"imports {found.target} at module level; import it where it is called"
    return ""


def project() -> dict[str, str]:
    return {
        ".".join(("iftplan", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path.read_text(encoding="utf-8")
        for path in sorted(ROOT.rglob("*.py"))
    }


def test_lower_rooms_never_import_upper_ones():
    assert violations(project()) == []


def test_every_room_exists_and_every_module_has_one():
    assert {room_of(module) for module in project()} - {"__init__"} == set(RANK)


def test_every_exception_is_used():
    """An exception that nobody needs any more would hide the next mistake."""
    found = {(room_of(m), room_of(i.target)) for m, s in project().items() for i in imports_of(s) if i.lazy}
    assert set(LOOKS_UP) <= found
    probes = {(room_of(m), i.target) for m, s in project().items() for i in imports_of(s)}
    assert set(PROBES) <= probes


@pytest.mark.parametrize(
    ("module", "source", "says"),
    [
        ("errors", "from iftplan.units import count", "imports iftplan.units, which is not below it"),
        ("solver", "from iftplan import planner", "imports iftplan.planner, which is not below it"),
        ("planner", "import iftplan.cli.main", "imports iftplan.cli.main, which is not below it"),
        ("realise", "from iftplan.derive import family", "which is not below it"),  # siblings
        ("report.plans", "def f():\n    from iftplan.cli import output", "not below it"),
        ("nn.trace", "from iftplan.api import plan", "not below it"),
        ("plans", "from iftplan.report.plans import plan_table", "not below it"),
        ("shown", "class S:\n    def f(self):\n        from iftplan.report.values import text", ""),
        (
            "plans",
            "class P:\n    def f(self):\n        from iftplan.report.values import text",
            "not below it",
        ),
        ("planner", "def f():\n    from iftplan.nn import trace", "not below it"),
        ("api", "from iftplan.nn import trace", "at module level; import it where it is called"),
        ("api", "def f():\n    from iftplan.nn import trace", ""),
        ("planner", "def f():\n    import torch", "imports torch, which lives in iftplan.nn"),
        ("spec", "if True:\n    import torch.nn", "imports torch"),
        ("spec", "try:\n    import torch\nexcept ImportError:\n    pass", "imports torch"),
        ("api", "if TYPE_CHECKING:\n    from torch import nn", ""),
        ("api", "if TYPE_CHECKING:\n    pass\nelse:\n    from torch import nn", "imports torch"),
        ("nn.trace", "import torch", ""),
        ("solver", "import sympy", "imports sympy at module level"),
        ("solver", "def f():\n    import sympy", ""),
        ("report.table", "from rich.table import Table", "imports rich at module level"),
        ("plans", "import pandas as pd", "imports pandas at module level"),
        ("cli.plan", "import matplotlib.pyplot", "imports matplotlib at module level"),
        ("planfile", "from pydantic import ConfigDict", ""),
        ("plans", "from pydantic import ConfigDict", "imports pydantic at module level"),
        ("solver", "from .form import Family", "imports relatively"),
        ("helpers", "from iftplan.errors import InputError", "has no room: add helpers"),
        ("solver", "from iftplan.helpers import x", "imports iftplan.helpers, which has no room"),
        ("solver", "from iftplan import InputError\nimport iftplan", "which has no room"),
        ("solver", "import iftplan", "is imported by nobody"),
    ],
)
def test_the_check_sees_every_kind_of_breach(module, source, says):
    found = violations({f"iftplan.{module}": source})
    assert bool(found) == bool(says)
    assert not says or says in found[0]


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
    module for module in project() if room_of(module) not in ("nn", "__main__") and module != "iftplan.cli"
)


def test_the_whole_core_imports_without_torch():
    done = without(
        set(TORCH), f"import importlib\nfor name in {CORE}:\n    importlib.import_module(name)\nprint('fine')"
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_that_proof_can_fail():
    done = without(set(TORCH), "import iftplan.nn.trace")
    assert done.returncode == 1
    assert "torch is blocked" in done.stderr


def test_a_spec_is_planned_and_saved_without_torch(tmp_path):
    code = f"""
    import sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from hand_specs import chain
    import iftplan as ift
    plan = ift.plan(chain(), "wide", "3/4")
    ift.save(plan, {str(tmp_path / "plan.json")!r})
    assert ift.load({str(tmp_path / "plan.json")!r}) == plan
    print(plan.residual_macs)
    """
    done = without(set(TORCH), code)
    assert (done.stdout, done.stderr) == ("0\n", "")


HEAVY = {"torch", "pandas", "matplotlib", "sympy", "numpy", "transformers", "fvcore", "pydantic"}
LISTING = """
import sys
from iftplan.cli.main import main
try:
    main({arguments!r})
except SystemExit as ended:
    code = ended.code
print("loaded:", *sorted({heavy!r} & set(sys.modules)), "exit", code)
"""


def loaded_by(*arguments: str) -> str:
    done = run(LISTING.format(arguments=list(arguments), heavy=HEAVY))
    assert done.stderr == ""
    return done.stdout.splitlines()[-1]


SOLVE = ("solve", "--sparsity", "0.75", "--layer")


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("solve", "--help"), ("plan", "--help"), ("audit", "--help"), ("check", "--help"), ("diff", "--help"), ("sweep", "--help"), ("models", "--help"), ("pareto", "--help"), ("advise", "--help"), ("plot", "--help")],
    ids=" ".join,
)  # fmt: skip
def test_help_and_version_import_nothing_heavy(arguments):
    assert loaded_by(*arguments) == "loaded: exit 0"


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_numeric_solve_imports_nothing_heavy(form):
    assert loaded_by(*SOLVE, "conv3x3:64-128@16x16", "--format", form) == "loaded: exit 0"


def test_those_proofs_can_fail():
    """A symbolic answer needs SymPy, and is seen to load it."""
    assert "sympy" in loaded_by(*SOLVE, "conv3x3")
    assert "sympy" in run("import sys, sympy; print(*sys.modules)").stdout.split()


def test_the_package_itself_imports_none_of_its_modules():
    done = run("import sys, iftplan; print(sorted(m for m in sys.modules if m.startswith('iftplan')))")
    assert done.stdout == "['iftplan']\n"
    assert (
        run("import iftplan; iftplan.solve; import sys; assert 'iftplan.solver' in sys.modules").returncode
        == 0
    )
