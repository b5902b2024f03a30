"""What PyTorch does not promise: one module has it all, its canaries sing, and a release in which one does not is named."""

import ast
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import iftplan as ift
from iftplan.base.errors import InfeasibleError, MeasureError
from iftplan.models.spec import InputSpec
from iftplan.nn import torch_internals
from iftplan.nn.counting.measure import measure
from iftplan.nn.torch_internals import CANARIES, failure, sizes
from tests.support.hand_specs import chain

OWN = Path(torch_internals.__file__).parent
NN = OWN.parent
PRIVATE = re.compile(r"^torch(?!\.ops\b)(\.\w+)*\._(?!_|foreach_)|^torch\.fx\.experimental")
"""Operators below torch.ops are called by name, as an exported graph does; torch._foreach_* is the exception that optimizers are written in."""


def private_names(source: str) -> list[str]:
    """Modules of torch with an underscore, and `torch.fx.experimental`, that a module imports or reaches into."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            found.append(ast.unparse(node))
    return [name for name in found if PRIVATE.search(name)]


def test_one_folder_touches_what_torch_does_not_promise() -> None:
    paths = [path for path in NN.rglob("*.py") if OWN not in path.parents]
    assert {str(path): names for path in paths if (names := private_names(path.read_text("utf-8")))} == {}
    assert len(private_names((OWN / "__init__.py").read_text("utf-8"))) > 15


@pytest.mark.parametrize(
    "line",
    [
        "from torch._subclasses.fake_tensor import FakeTensorMode",
        "import torch._dynamo",
        "from torch.utils._pytree import tree_map",
        "from torch.fx.experimental.symbolic_shapes import ShapeEnv",
        "def f():\n    import torch\n    return torch._C._get_tracing_state()",
    ],
)
def test_the_search_would_find(line: str) -> None:
    assert private_names(line)


@pytest.mark.parametrize("use", CANARIES)
def test_every_interface_does_what_is_needed(use: Any) -> None:
    failure.cache_clear()
    assert failure(use) == ""


@pytest.mark.parametrize("use", CANARIES)
def test_asking_again_costs_nothing(use: Any) -> None:
    failure(use)
    begin = time.perf_counter()
    for _ in range(1000):
        torch_internals.require(use)
    assert time.perf_counter() - begin < 0.1


BROKEN = {
    "_dispatches": ("counting", torch.nn.functional, "linear", lambda x, w: x),
    "_knows_views": ("counting", torch_internals, "storage_address", id),
    "_knows_transforms": ("counting", torch_internals, "inside_transform", lambda: False),
    "_records": ("tracing", torch_internals, "call_below_modes", lambda operator, *args: operator(*args)),
    "_follows_sizes": (
        "widths",
        sizes.UnplacedSizes,
        "_maybe_evaluate_static",
        None,
    ),
}


@pytest.fixture
def forgotten() -> Iterator[None]:
    failure.cache_clear()
    yield
    failure.cache_clear()


@pytest.mark.parametrize("canary", ["_dispatches", "_knows_views", "_knows_transforms", "_records"])
def test_a_canary_notices(canary: str, monkeypatch: pytest.MonkeyPatch, forgotten: None) -> None:
    use, place, name, other = BROKEN[canary]
    monkeypatch.setattr(place, name, other)
    assert failure(use)


class Renamed(sizes.UnplacedSizes):
    """A later release whose entry point has another name: what is overridden is never asked."""

    def create_symintnode(self, *args: Any, **kwargs: Any) -> None:
        raise AttributeError("'SymNode' object has no attribute 'expr'")


class Unasked(sizes.UnplacedSizes):
    """A later release that no longer asks for equalities: every size is taken to be what it is in the dense model."""

    def create_symintnode(self, sym: Any, *, hint: Any = None, source: Any = None) -> Any:
        return hint


@pytest.mark.parametrize(("environment", "says"), [(Renamed, "raises AttributeError"), (Unasked, "raises")])
def test_a_release_in_which_sizes_are_not_followed_is_named(
    environment: type, says: str, monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    monkeypatch.setattr(sizes, "UnplacedSizes", environment)
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    spec = ift.read_model(net, "1x8")
    assert spec.macs == 64 + 64 + 32
    assert f"does not work with PyTorch 9.9.9: torch's ShapeEnv {says}" in spec.refusal
    assert "parallel" in spec.refusal and "pip install 'torch<=" in spec.refusal
    assert ift.plan(spec, "parallel", "0.5").residual_macs == 0
    with pytest.raises(InfeasibleError, match=r"PyTorch 9\.9\.9"):
        ift.plan(spec, "wide", "0.5")


def test_a_module_of_torch_that_is_gone_costs_widths_alone(
    monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    monkeypatch.setattr(sizes, "MISSING", "cannot import name 'ShapeEnv'")
    spec = ift.read_model(nn.Linear(8, 4), "1x8")
    assert spec.macs == 32 and "cannot import name 'ShapeEnv'" in spec.refusal


@pytest.mark.parametrize(
    ("use", "engine", "rest"), [("counting", "meta", "flop_counter"), ("tracing", "fvcore", "meta")]
)
def test_an_engine_that_cannot_count_says_so_and_others_do(
    use: Any, engine: str, rest: str, monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    def gone() -> None:
        """torch._C: has it all."""
        raise AttributeError("gone\nsecond line")

    monkeypatch.setattr(torch_internals, "CANARIES", {**CANARIES, use: (gone,)})
    net = nn.Linear(8, 4, device="meta")
    with pytest.raises(MeasureError, match=r"torch\._C raises AttributeError: gone\. ") as error:
        measure(net, (InputSpec((1, 8)),), engine=engine)
    assert rest in str(error.value) and "second line" not in str(error.value)
    assert measure(net, (InputSpec((1, 8)),), engine=rest).macs == 32


def test_counting_with_fvcore_does_not_warn_of_what_the_user_did_not_ask_for() -> None:
    code = (
        "import warnings; warnings.simplefilter('error')\nfrom torch import nn\nfrom iftplan.nn.counting.measure import measure\n"
        "from iftplan.models.spec import InputSpec\nnet = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))\n"
        "print(measure(net, (InputSpec((1, 3, 4, 4)),), engine='fvcore').macs)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{4 * 27 * 4 + 32}\n", "")


def test_plans_of_documents_need_none_of_it(monkeypatch: pytest.MonkeyPatch, forgotten: None) -> None:
    monkeypatch.setattr(torch_internals, "CANARIES", {})
    assert ift.plan(chain(), "wide", "0.75").residual_macs == 0


LATE = """
import sys, torch
from iftplan.models.spec import InputSpec
from iftplan.nn.counting.measure import measure
from iftplan.nn.reading.read import read_model
from iftplan.nn.torch_internals import compiler_loaded
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(), torch.nn.Linear(4, 2))
spec = read_model(net, (InputSpec((1, 3, 8, 8)),))
print(spec.macs, "sympy" in sys.modules, compiler_loaded())
"""


def loaded_late(*more: str) -> list[str]:
    """Lines that a process says which reads a network, and then does more."""
    done = subprocess.run(
        [sys.executable, "-c", LATE + "\n".join(more)], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout.splitlines()


def test_reading_without_widths_loads_neither_sympy_nor_the_compiler() -> None:
    assert loaded_late() == [f"{36 * 27 * 4 + 8} False False"]


def test_widths_are_read_without_the_compiler() -> None:
    lines = loaded_late(
        "wide = read_model(net, (InputSpec((1, 3, 8, 8)),), widths=True)",
        "print(len(wide.couplings.widths), 'sympy' in sys.modules, compiler_loaded())",
    )
    assert lines[1:] == ["3 True False"]


@pytest.mark.parametrize(
    "use",
    [
        "import torch._dynamo; print(callable(torch._dynamo.optimize), compiler_loaded())",
        "from torch._dynamo import config, reset; print(callable(reset), compiler_loaded())",
        "from torch._dynamo.exc import Unsupported; print(issubclass(Unsupported, Exception), compiler_loaded())",
        "import torch._dynamo.utils; print(callable(torch._dynamo.utils.counters.clear), compiler_loaded())",
        "import torch._dynamo.config as c; torch._dynamo.reset(); print(c is torch._dynamo.config, compiler_loaded())",
        "print(torch.compile(lambda x: x + 1, backend='eager')(torch.ones(2)).tolist() == [2, 2], compiler_loaded())",
        "with torch.compiler.set_stance('force_eager'): print(True, compiler_loaded())",
        "print(torch._dynamo.disable(print) is not print, compiler_loaded())",
        "from torch._dynamo import testing; print(callable(testing.rand_strided), compiler_loaded())",
    ],
)
@pytest.mark.parametrize("widths", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_compiler_is_there_for_whoever_uses_it_afterwards(use: str, widths: bool) -> None:
    before = "read_model(net, (InputSpec((1, 3, 8, 8)),), widths=True)" if widths else ""
    assert loaded_late(before, use)[-1] == "True True"


def test_a_function_kept_from_the_compiler_is_kept_from_it_when_it_comes() -> None:
    """What was disabled while there was none is what torch would have disabled."""
    lines = loaded_late(
        "def f(x): return x.sin() + torch.compiler.is_dynamo_compiling()",
        "kept = torch._compile._disable_dynamo(f)",
        "kept(torch.zeros(2))",
        "print(compiler_loaded())",
        "graphs = []",
        "def backend(graph, _): graphs.append(graph); return graph",
        "print(torch.compile(lambda x: kept(x).cos(), backend=backend)(torch.zeros(2)).tolist())",
        "print(any('sin' in str(node.target) for graph in graphs for node in graph.graph.nodes), len(graphs))",
    )
    assert lines[1:] == ["False", "[1.0, 1.0]", "False 1"]


def test_a_training_step_and_lightning_fabric_do_without_the_compiler() -> None:
    """And who asked for the class of compiled modules before there was one knows them when they come."""
    lines = loaded_late(
        "from torch._dynamo import OptimizedModule",
        "from lightning_fabric import wrappers",
        "optimizer = torch.optim.AdamW(net.parameters(), fused=True)",
        "net(torch.ones(2, 3, 8, 8)).sum().backward(); optimizer.step(); optimizer.zero_grad()",
        "print(isinstance(net, OptimizedModule), compiler_loaded())",
        "compiled = torch.compile(net, backend='eager')",
        "print(isinstance(compiled, OptimizedModule), isinstance(net, OptimizedModule))",
        "print(wrappers._unwrap_compiled(compiled)[0] is net)",
    )
    assert lines[1:] == ["False False", "True False", "True"]


@pytest.mark.filterwarnings("ignore:guard_size_oblivious:FutureWarning")
def test_functions_about_symbols_answer_numbers_as_torch_does() -> None:
    from torch.fx.experimental import symbolic_shapes

    from iftplan.nn.torch_internals import late_modules

    answers = late_modules._ANSWERS[symbolic_shapes.__name__]
    conditions: list[tuple[Any, ...]] = [(True,), (False,)]
    arguments: dict[str, list[tuple[Any, ...]]] = {
        "guarding_hint_or_throw": [(3,), (0,)],
        "has_guarding_hint": [(3,), (0,)],
        "is_nested_int": [(3,), (0,)],
        "sym_and": [*conditions, (True, False), (True, True, True)],
        "sym_or": [*conditions, (False, False), (False, True)],
        "sym_eq": [(2, 2), (2, 3), ([2, 3], (2, 3)), ([2, 3], [2]), ([[1], 2], [[1], 2]), ([], [])],
    }
    there = {name for name in answers if hasattr(symbolic_shapes, name)}  # others are of other releases
    assert there >= {"expect_true", "guard_or_false", "is_nested_int", "sym_and", "sym_eq", "sym_or"}
    for name in there:
        answer = answers[name]
        for given in arguments.get(name, conditions):
            assert answer(*given) is getattr(symbolic_shapes, name)(*given), (name, given)
