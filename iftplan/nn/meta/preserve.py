"""What a model's code keeps outside of the model, as it was after a pass that only looked.

A pass runs on a copy of the model, so what the model itself keeps is safe. Its code may keep values elsewhere: in
globals, attributes of classes, default arguments, closures of hooks, cached functions. This module finds what
the code can reach by the names in it, and puts it back.
"""

from __future__ import annotations

import functools
import gc
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

# `_pytest` stands in what a test module asserts.
_LIBRARIES: Final = frozenset({"torch", "numpy", "sympy", "iftplan", "_pytest", *sys.stdlib_module_names}) - {
    "__main__"
}
_PLAIN: Final = (str, int, float, complex, bytes, type(None), torch.dtype, torch.device, torch.Size)
_MANY: Final = 10_000  # elements of one container that are looked into
_SMALL: Final = 1 << 20  # elements of a tensor outside of the model that is worth a copy
# What Python calls by itself while a model runs; whatever else is called is named by some code.
_IMPLICIT: Final = frozenset(
    f"__{name}__"
    for name in (
        *(
            "call",
            "getattr",
            "getattribute",
            "setattr",
            "get",
            "set",
            "getitem",
            "setitem",
            "missing",
            "contains",
        ),
        *("iter", "next", "len", "bool", "enter", "exit", "index", "add", "radd", "mul", "rmul", "matmul"),
        *("torch_function", "torch_dispatch"),
    )
)
_BY_WORD: Final = frozenset({"getattr", "setattr", "hasattr", "globals", "vars", "__dict__"})
_MISSING: Final = object()
_Put = Callable[[Any], None]


@contextmanager
def preserve(model: nn.Module) -> Iterator[None]:
    """Run passes of `model`, or of copies of it, that leave nothing behind.

    Meanwhile functions under `functools.lru_cache` answer from empty caches of their own. Afterwards globals,
    attributes of classes, closures and containers that the model's code can reach hold what they held, and
    random numbers go on where they were.
    """
    reached = _Reached()
    reached.look(model)
    reached.swap_caches()
    numpy = sys.modules.get("numpy")
    states = random.getstate(), numpy and numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        reached.restore()
        random.setstate(states[0])
        if numpy:
            numpy.random.set_state(states[1])


class _Reached:
    """Walks from a model over its code, and remembers what it found on the way."""

    def __init__(self) -> None:
        self._seen: dict[int, object] = {}  # keeps alive what was seen, so that an id stays its name
        self._queue: list[Any] = []
        self._named: set[str] = {"forward"}
        self._owners: set[int] = set()
        self._having: dict[str, list[tuple[Mapping[str, Any], type | None]]] = {}
        self._slots: list[tuple[Callable[[], Any], _Put, Any]] = []
        self._undo: list[Callable[[], object]] = []
        self._caches: dict[int, Any] = {}

    def look(self, model: nn.Module) -> None:
        """Walk over all that the model's code can name."""
        collecting = gc.isenabled()
        gc.disable()  # thousands of small objects are made here, none of them garbage
        try:
            self._queue.append(model)
            while self._queue:
                value = self._queue.pop()
                if not issubclass(type(value), _PLAIN) and id(value) not in self._seen:
                    self._seen[id(value)] = value
                    with suppress(
                        Exception
                    ):  # some objects answer no question: dead proxies, mocks that only raise
                        self._visit(value)
        finally:
            if collecting:
                gc.enable()

    def swap_caches(self) -> None:
        """Put a function with an empty cache in the place of every cached one."""
        for _, put, value in self._slots:
            again = self._without_cache(value)
            if again is not value:
                put(again)

    def restore(self) -> None:
        """Restore the values of slots and containers."""
        for get, put, value in self._slots:
            if get() is not value:
                put(value)
        for undo in self._undo:
            undo()

    # --- the walk ---------------------------------------------------------------------------------------

    def _visit(self, value: Any) -> None:
        match value:
            case Tensor():
                self._tensor(value)
            case FunctionType():
                self._function(value)
            case MethodType():
                self._queue += (value.__func__, value.__self__)
            case staticmethod() | classmethod():
                self._queue.append(value.__func__)
            case property():
                self._queue += (value.fget, value.fset)
            case functools.partial():
                self._queue += (value.func, value.args, value.keywords)
            case functools.cached_property():
                self._queue.append(value.func)
            case functools._lru_cache_wrapper():
                self._queue.append(value.__wrapped__)
            case type():
                for base in value.__mro__:
                    if not _is_library(base.__module__):
                        self._own(vars(base), base)
            case ModuleType():
                if not _is_library(value.__name__):
                    self._own(vars(value), None)
            case dict() | list() | set() | deque():
                self._container(value)
            case tuple() | frozenset():
                self._queue += value
            case torch.Generator():
                self._undo.append(functools.partial(_state, value, value.get_state()))
            case random.Random():
                self._undo.append(functools.partial(value.setstate, value.getstate()))
            case _:
                self._queue.append(type(value))
                if isinstance(value, nn.Module) or not _is_library(type(value).__module__):
                    self._queue.append(_attributes(value))

    def _function(self, function: FunctionType) -> None:
        if _is_library(function.__module__):
            return
        self._queue += (function.__dict__, function.__defaults__, function.__kwdefaults__)
        for cell in function.__closure__ or ():
            self._slot(functools.partial(_held, cell), functools.partial(setattr, cell, "cell_contents"))
        if _is_library(function.__globals__.get("__name__")):
            return  # a decorator of a library's around a function of the model's
        self._own(function.__globals__, None)
        for name in _names(function.__code__):
            if name not in self._named:
                self._named.add(name)
                for namespace, cls in self._having.get(name, ()):
                    self._member(namespace, cls, name)

    def _own(self, namespace: Mapping[str, Any], cls: type | None) -> None:
        """Look at the members of a module or a class whose names some code says, now or later."""
        key = id(cls or namespace)
        if key in self._owners:
            return
        self._owners.add(key)
        for name in list(namespace):
            self._having.setdefault(name, []).append((namespace, cls))
            if name in self._named or (cls and name in _IMPLICIT):
                self._member(namespace, cls, name)
        if isinstance(namespace, dict):
            self._undo.append(functools.partial(self._drop_new, namespace, frozenset(namespace)))

    def _member(self, namespace: Mapping[str, Any], cls: type | None, name: str) -> None:
        put: _Put = (
            functools.partial(setattr, cls, name)
            if cls
            else functools.partial(_set, cast("dict[str, Any]", namespace), name)
        )
        self._slot(functools.partial(namespace.get, name, _MISSING), put)

    def _slot(self, get: Callable[[], Any], put: _Put) -> None:
        value = get()
        if value is not _MISSING:
            self._slots.append((get, put, value))
            self._queue.append(value)

    def _drop_new(self, namespace: dict[str, Any], before: frozenset[str]) -> None:
        """Globals that the pass made, but for what it imported or defined."""
        for name in [n for n in self._named if n in namespace and n not in before]:
            if not isinstance(namespace[name], ModuleType | type | FunctionType):
                del namespace[name]

    def _container(self, value: Any) -> None:
        kind = _kind(value)  # a class of the user's may answer otherwise, or import all that it lists
        saved = _saved(value)
        self._undo.append(functools.partial(_refill, value, saved))
        if kind.__len__(value) > _MANY:
            return
        if isinstance(value, dict):
            for key in kind.__iter__(value):
                get = functools.partial(dict.get, value, key, _MISSING)
                self._slot(get, functools.partial(kind.__setitem__, value, key))
                self._queue.append(key)
        else:
            self._queue += saved

    def _tensor(self, tensor: Tensor) -> None:
        if not tensor.is_meta and tensor.layout is torch.strided and tensor.numel() <= _SMALL:
            saved, version = tensor.detach().clone(), tensor._version
            self._undo.append(functools.partial(_rewrite, tensor, saved, version))

    def _without_cache(self, value: Any) -> Any:
        """A cached function with an empty cache, the same one wherever it is met; other values as they are."""
        if issubclass(type(value), staticmethod | classmethod):
            inner = self._without_cache(value.__func__)
            return value if inner is value.__func__ else type(value)(inner)
        if type(value) is not functools._lru_cache_wrapper or _is_library(value.__module__):
            return value
        if id(value) not in self._caches:
            self._caches[id(value)] = functools.lru_cache(**value.cache_parameters())(value.__wrapped__)
        return self._caches[id(value)]


def _is_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _LIBRARIES


def _attributes(value: object) -> Any:
    """The attributes that an object holds itself, without a question to code of its own."""
    try:
        return object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None


def _names(code: CodeType) -> Iterator[str]:
    """Every name of a global or an attribute, and every word that may be used as one."""
    yield from code.co_names
    by_word = not _BY_WORD.isdisjoint(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
        elif by_word and isinstance(constant, str) and constant.isidentifier():
            yield constant


def _held(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty as yet
        return _MISSING


def _set(namespace: Any, name: str, value: Any) -> None:
    namespace[name] = value


def _state(generator: torch.Generator, state: Tensor) -> None:
    generator.set_state(state)


def _kind(container: Any) -> Any:
    """The class of Python's own that a container is of."""
    return next(kind for kind in (OrderedDict, dict, list, set, deque) if isinstance(container, kind))


def _saved(container: Any) -> Any:
    """The elements of a container in their order, of a dictionary the pairs."""
    kind = _kind(container)
    if isinstance(container, dict):
        return [(key, dict.get(container, key)) for key in kind.__iter__(container)]
    return list(kind.__iter__(container))


def _refill(container: Any, saved: Any) -> None:
    """Give a container its elements again, in their order, unless it has them."""
    kind = _kind(container)
    if _identities(_saved(container)) == _identities(saved):
        return
    kind.clear(container)
    if isinstance(container, dict):
        for key, value in saved:
            kind.__setitem__(container, key, value)
    else:
        (kind.update if kind is set else kind.extend)(container, saved)


def _identities(elements: list[Any]) -> list[Any]:
    return [tuple(map(id, e)) if type(e) is tuple else id(e) for e in elements]


def _rewrite(tensor: Tensor, saved: Tensor, version: int) -> None:
    if tensor._version != version or not torch.equal(tensor, saved):
        with torch.no_grad():
            tensor.copy_(saved)
