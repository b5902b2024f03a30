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
from iftplan.nn.torch_internals import CANARIES, failure, symbolic
from tests.support.hand_specs import chain

NN = Path(torch_internals.__file__).parents[1]
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


def test_one_module_touches_what_torch_does_not_promise() -> None:
    paths = [path for path in NN.rglob("*.py") if path.parent.name != "torch_internals"]
    assert {str(path): names for path in paths if (names := private_names(path.read_text("utf-8")))} == {}
    assert len(private_names((NN / "torch_internals/__init__.py").read_text("utf-8"))) > 12


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
        symbolic.ShapeEnv,
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


class Renamed(symbolic.ShapeEnv):
    """A later release whose entry point has another name: what is overridden is never asked."""

    def create_symintnode(self, *args: Any, **kwargs: Any) -> None:
        raise AttributeError("'SymNode' object has no attribute 'expr'")


class Unasked(symbolic.ShapeEnv):
    """A later release that no longer asks for equalities: every size is taken to be what it is in the dense model."""

    def create_symintnode(self, sym: Any, *, hint: Any = None, source: Any = None) -> Any:
        return hint


@pytest.mark.parametrize(("environment", "says"), [(Renamed, "raises AttributeError"), (Unasked, "raises")])
def test_a_release_in_which_sizes_are_not_followed_is_named(
    environment: type, says: str, monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    monkeypatch.setattr(symbolic, "ShapeEnv", environment)
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
    monkeypatch.setattr(symbolic, "MISSING", "cannot import name 'ShapeEnv'")
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


COMPILER = """
import sys, torch
from torch import nn
from iftplan.nn.counting.measure import measure
from iftplan.models.spec import InputSpec

net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4), nn.Softmax(-1))
assert measure(net, (InputSpec((1, 3, 8, 8)),)).macs
assert "torch._dynamo" not in sys.modules, "a count has imported the compiler"

import torch._dynamo
hidden = []
disable = torch._dynamo.disable
torch._dynamo.disable = lambda fn, *args, **more: hidden.append(fn.__name__) or disable(fn, *args, **more)
assert (torch.empty(2, 3, device="meta") + 1).shape == (2, 3)
assert hidden, "torch's own way is not taken where the compiler is there"
assert torch.equal(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(3)), torch.full((3,), 2.0))
"""


def test_counting_imports_no_compiler_and_hides_from_one_that_is_there() -> None:
    subprocess.run([sys.executable, "-c", COMPILER], check=True)
