"""Reading, planning, measuring and applying leave a network as it was, wherever it keeps its values."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import random
import threading
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import iftplan as ift
from iftplan.base.errors import IftplanError
from iftplan.models.counting import ENGINES
from iftplan.models.spec import InputSpec
from iftplan.nn import apply, measure_step, read_model
from iftplan.nn.counting.measure import measure
from iftplan.nn.meta.preserve import preserve
from iftplan.nn.reading.widths.trace import trace_widths

SPECS = (InputSpec((2, 8)),)
SEEN: dict[str, Any] = {}
TABLE: Tensor | None = None
CALLS = 0
STEPS = torch.zeros(3)


class Registry:
    """An object that is no module."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.latest: Any = None


REGISTRY = Registry()


@functools.cache
def ramp(size: int) -> Tensor:
    return torch.arange(float(size))


class Host(nn.Module):
    """Two layers, and whatever `remembered` adds between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 3)
        self.shift = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.remembered(self.first(x)).relu())

    def remembered(self, x: Tensor) -> Tensor:
        return x


class InDictionary(Host):
    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[str, Tensor] = {}

    def remembered(self, x: Tensor) -> Tensor:
        if "k" not in self.cache:
            self.cache["k"] = self.shift * 2
        return x + self.cache["k"]


class InList(Host):
    def __init__(self) -> None:
        super().__init__()
        self.cache: list[Tensor] = []

    def remembered(self, x: Tensor) -> Tensor:
        self.cache.append(x.mean(0) + self.shift)
        return x + self.shift * len(self.cache)


class InAttribute(Host):
    def __init__(self) -> None:
        super().__init__()
        self.table: Tensor | None = None

    def remembered(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = self.shift * 2
        return x * self.table


class InObject(Host):
    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry()

    def remembered(self, x: Tensor) -> Tensor:
        self.registry.latest = self.registry.kept.setdefault("k", self.shift * 2)
        return x + self.registry.latest


class InSharedObject(Host):
    def remembered(self, x: Tensor) -> Tensor:
        REGISTRY.latest = REGISTRY.kept.setdefault("k", self.shift * 2)
        return x + REGISTRY.latest


class InGlobalDictionary(Host):
    def remembered(self, x: Tensor) -> Tensor:
        return x + SEEN.setdefault("k", self.shift * 2)


class InGlobalVariable(Host):
    def remembered(self, x: Tensor) -> Tensor:
        global TABLE
        if TABLE is None:
            TABLE = self.shift * 2
        return x + TABLE


MADE_LATER: Tensor  # by the first call


class InNewGlobal(Host):
    def remembered(self, x: Tensor) -> Tensor:
        global MADE_LATER
        if "MADE_LATER" not in globals():
            MADE_LATER = self.shift * 2
        return x + MADE_LATER


class InClass(Host):
    cache: dict[str, Tensor] = {}  # noqa: RUF012 - shared on purpose
    latest: Tensor | None = None

    def remembered(self, x: Tensor) -> Tensor:
        type(self).latest = self.cache.setdefault("k", self.shift * 2)
        return x + self.latest


class InDefault(Host):
    def remembered(self, x: Tensor, cache: dict[str, Tensor] = {}) -> Tensor:  # noqa: B006
        return x + cache.setdefault("k", self.shift * 2)


class InCachedMethod(Host):
    @functools.lru_cache(maxsize=4)  # noqa: B019
    def doubled(self) -> Tensor:
        return self.shift * 2

    def remembered(self, x: Tensor) -> Tensor:
        return x + self.doubled()


class InInstanceCache(Host):
    def __init__(self) -> None:
        super().__init__()
        self.doubled = functools.lru_cache(lambda: self.shift * 2)

    def __reduce__(self) -> Any:  # a lambda cannot be pickled
        return (_with_state, (InInstanceCache, self.state_dict()))

    def __deepcopy__(self, memo: dict[int, Any]) -> InInstanceCache:
        return _with_state(InInstanceCache, {k: v.clone() for k, v in self.state_dict().items()})

    def remembered(self, x: Tensor) -> Tensor:
        return x + self.doubled()


def _with_state(kind: Callable[[], Any], state: dict[str, Tensor]) -> Any:
    made = kind()
    made.load_state_dict(state)
    return made


class InCachedFunction(Host):
    def remembered(self, x: Tensor) -> Tensor:
        return x + ramp(8)


class InCachedProperty(Host):
    @functools.cached_property
    def doubled(self) -> Tensor:
        return self.shift * 2

    def remembered(self, x: Tensor) -> Tensor:
        return x + self.doubled


class InBuffer(Host):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def remembered(self, x: Tensor) -> Tensor:
        self.steps += 1
        self.norm.num_batches_tracked.add_(1)
        self.norm.running_mean = self.norm.running_mean * 0.5
        return self.norm(x)


class InParameter(Host):
    def remembered(self, x: Tensor) -> Tensor:
        self.shift.data.mul_(0.5)
        return x + self.shift


class Counting(Host):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def remembered(self, x: Tensor) -> Tensor:
        global CALLS
        self.calls += 1
        CALLS += 1
        STEPS.add_(1)
        return x * self.calls * CALLS + STEPS.sum()


class Random(Host):
    def remembered(self, x: Tensor) -> Tensor:
        return x + torch.rand(8) + random.random() + float(np.random.rand())


class Locked(InDictionary):
    """Cannot be deep-copied without saying how, and keeps a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.generator = torch.Generator().manual_seed(3)

    def __getstate__(self) -> Any:
        return {k: v for k, v in vars(self).items() if k not in ("lock", "generator")}

    def __setstate__(self, state: Any) -> None:
        vars(self).update(state, lock=threading.Lock(), generator=torch.Generator().manual_seed(3))

    def remembered(self, x: Tensor) -> Tensor:
        with self.lock:
            return super().remembered(x) + torch.rand(8, generator=self.generator)


class Hooked(Host):
    """Features taken by a hook, the usual way."""

    def __init__(self) -> None:
        super().__init__()
        self.first.register_forward_hook(_keep)


def _keep(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output + SEEN.setdefault("hooked", output.mean(0).detach())


class Rebound(Host):
    """Its forward is a method that was bound by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[str, Tensor] = {}
        self.remembered = MethodType(InDictionary.remembered, self)  # type: ignore[method-assign]


ZOO = (
    InDictionary,
    InList,
    InAttribute,
    InObject,
    InSharedObject,
    InGlobalDictionary,
    InGlobalVariable,
    InNewGlobal,
    InClass,
    InDefault,
    InCachedMethod,
    InInstanceCache,
    InCachedFunction,
    InCachedProperty,
    InBuffer,
    InParameter,
    Counting,
    Random,
    Locked,
    Hooked,
    Rebound,
)


def every_reading(model: nn.Module) -> None:
    """All that looks at a model."""
    for engine in ENGINES:
        try:
            measure(model, SPECS, engine=engine)
        except IftplanError:
            assert engine != "meta"
    measure_step(model, SPECS)
    read = read_model(model, SPECS, widths=True)
    for family in ("wide", "parallel", "doped"):
        if family == "wide" and read.couplings is None:
            continue
        apply(ift.plan(read, family, "1/2", keep_dense=()), model)


def answers(model: nn.Module) -> list[Tensor]:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    return [model(torch.ones(2, 8)) for _ in range(2)]


def forget() -> None:
    """Empty all that lives outside of a model."""
    global TABLE, CALLS
    TABLE, CALLS = None, 0
    SEEN.clear()
    STEPS.zero_()
    REGISTRY.__init__()  # type: ignore[misc]
    InClass.cache.clear()
    InClass.latest = None
    globals().pop("MADE_LATER", None)
    InDefault.remembered.__defaults__[0].clear()
    InCachedMethod.doubled.cache_clear()
    ramp.cache_clear()


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    forget()


@pytest.mark.parametrize("kind", ZOO)
def test_a_network_computes_what_it_did(kind: type[Host]) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        every_reading(model)
        assert fakes(model) == []
        found = answers(model)
        forget()
        wanted = answers(twin)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        again(torch.ones(2, 8))


@pytest.mark.parametrize("kind", ZOO)
def test_what_a_network_kept_before_is_kept(kind: type[Host]) -> None:
    """A network that has run answers from what it kept, before and after."""
    torch.manual_seed(0)
    model = kind().eval()
    with torch.no_grad():
        answers(model)
        every_reading(model)
        assert fakes(model) == []
        model(torch.ones(2, 8))


def fakes(model: nn.Module) -> list[object]:
    """Symbolic, fake and meta values that can be reached from the model, its class and this file."""
    found: list[object] = []
    queue: list[Any] = [model, type(model), SEEN, REGISTRY, TABLE, globals().get("MADE_LATER"), ramp]
    seen: set[int] = set()
    while queue:
        value = queue.pop()
        if id(value) in seen or (isinstance(value, type) and value.__module__.startswith("torch")):
            continue
        seen.add(id(value))
        if isinstance(value, FakeTensor | torch.SymInt | torch.SymFloat | torch.SymBool) or (
            isinstance(value, Tensor) and value.is_meta
        ):
            found.append(value)
        elif isinstance(value, dict) and "__builtins__" in value:
            continue  # a module: what this test knows of it is in the queue
        queue += [v for v in gc.get_referents(value) if not isinstance(v, type(gc))]
    return found


def test_random_numbers_go_on_where_they_were() -> None:
    model = Random().eval()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    wanted = torch.rand(1), random.random(), np.random.rand()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    measure(model, SPECS)
    measure_step(model, SPECS)
    read_model(model, SPECS, widths=True)
    assert (torch.rand(1), random.random(), np.random.rand()) == wanted


def test_a_model_on_the_meta_device_is_left_alone_too() -> None:
    with torch.device("meta"):
        model = Counting().eval()
        kept = InDictionary().eval()
    for network in (model, kept):
        measure(network, SPECS)
        trace_widths(network, SPECS)
    assert (model.calls, CALLS, kept.cache) == (0, 0, {})


def test_a_pass_that_fails_leaves_nothing_either() -> None:
    class Failing(InDictionary):
        def forward(self, x: Tensor) -> Tensor:
            SEEN["x"] = super().forward(x)
            raise ValueError("no")

    model = Failing()
    with pytest.raises(IftplanError):
        read_model(model, SPECS, widths=True)
    assert (model.cache, SEEN, model.training) == ({}, {}, True)


def test_what_is_imported_meanwhile_stays() -> None:
    """Only values are put back: a module that a forward pass imports first is still there."""
    namespace: dict[str, Any] = {"__name__": "somewhere"}
    exec(
        "def f():\n    global wave\n    import wave\nclass M:\n    def forward(self):\n        f()", namespace
    )
    with preserve(namespace["M"]()):
        namespace["f"]()
    assert namespace["wave"].__name__ == "wave"


def test_functions_bound_to_a_model_are_bound_to_its_copy() -> None:
    """A forward that is a closure over the model counts the copy, whose parts have names."""
    model = nn.Module()
    model.layer = nn.Linear(8, 4)
    model.forward = lambda x: model.layer(x)
    table = measure(model, SPECS)
    assert [(c.module, c.weight, c.macs) for c in table.contractions] == [("layer", "layer.weight", 64)]


class NoAnswer:
    """An object that answers no question, as the mocks of some libraries."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class Mocked(Host):
    def remembered(self, x: Tensor) -> Tensor:
        SEEN["x"] = NOTHING
        return x


NOTHING: list[Any] = []


@pytest.mark.parametrize("silent", [NoAnswer, lambda: weakref.proxy(Registry())])
def test_objects_that_answer_no_question_are_passed_over(silent: Callable[[], Any]) -> None:
    SEEN.clear()
    NOTHING[:] = [silent()]
    with preserve(model := Mocked()):
        model(torch.zeros(2, 8))
    assert not SEEN
    NOTHING.clear()
