"""Modules of torch that are loaded where they are needed: its compiler, and its sizes that are symbols.

A pass over shapes on the meta device asks both of them for one thing or another, and needs neither where nothing is compiled
and every size is a number. To load them costs as much again as `import torch`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import MappingProxyType, ModuleType
from typing import Any, Final

_COMPILER: Final = "torch._dynamo"
_SYMBOLS: Final = "torch.fx.experimental.symbolic_shapes"
_PROVER: Final = "torch.fx.experimental.validator"
_CONDITIONS: Final = (
    *("expect_true", "guard_or_false", "guard_or_true", "guard_size_oblivious", "statically_known_true"),
)
_LOADING: Final = RLock()


class _Late(ModuleType):
    """A module before it is run: what it has is there as soon as it is asked for."""

    def __getattr__(self, name: str) -> Any:
        spec = vars(self).get("__spec__")
        package = spec is not None and spec.submodule_search_locations is not None
        if name.startswith("__") and not (package and name == "__path__" and _imports_within()):
            raise AttributeError(f"module {vars(self)['__name__']!r} has no attribute {name!r}")
        module = _loaded(self.__name__)
        if package and not hasattr(module, name) and find_spec(f"{self.__name__}.{name}") is not None:
            return import_module(f"{self.__name__}.{name}")  # as `from package import name` does
        return getattr(module, name)


def _imports_within() -> bool:
    """Whether a module inside the asked one is being imported; `from package import name` asks for the path too, and needs none."""
    return sys._getframe(2).f_globals.get("__name__") in ("importlib._bootstrap", "_frozen_importlib")


def put_off_modules() -> None:
    """Let what is not loaded yet of the two be loaded when it is first used."""
    for name, answers in _ANSWERS.items():
        spec = None if name in sys.modules else find_spec(name)
        if spec is None or spec.loader is None:
            continue
        module = module_from_spec(spec)
        vars(module).pop("__path__", None)
        vars(module).update(answers)
        module.__class__ = _Late
        sys.modules[name] = module
        parent, _, own = name.rpartition(".")
        setattr(import_module(parent), own, module)


def settings_of_compiler() -> ModuleType:
    """The compiler's settings, which need nothing else of it."""
    name = f"{_COMPILER}.config"
    package = sys.modules[_COMPILER]
    spec = package.__spec__
    if name not in sys.modules and isinstance(package, _Late) and spec is not None:
        found = PathFinder.find_spec(name, spec.submodule_search_locations)
        assert found is not None and found.loader is not None
        sys.modules[name] = vars(package)["config"] = module_from_spec(found)
        found.loader.exec_module(sys.modules[name])
    return import_module(name)


def compiler_loaded() -> bool:
    """Whether something may have been compiled in this process."""
    return not isinstance(sys.modules.get(_COMPILER), _Late | None)


class _IsCompiled(type):
    """Of a class that stands for the compiler's: what was compiled is its instance, and nothing is before there is a compiler."""

    def __instancecheck__(cls, instance: object) -> bool:
        return compiler_loaded() and isinstance(instance, sys.modules[_COMPILER].OptimizedModule)


class _CompiledModule(metaclass=_IsCompiled):
    """The class of compiled modules, for those who ask of a module whether it is one."""


def _disable(function: Any = None, recursive: bool = True, **more: Any) -> Any:
    """What keeps a function of torch's own from the compiler, from the moment on at which there is one."""
    if function is None or more != {"wrapping": False}:  # asked by somebody else
        return _loaded(_COMPILER).disable(function, recursive, **more)
    kept: list[Callable[..., Any]] = []

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not kept and compiler_loaded():
            kept.append(sys.modules[_COMPILER].disable(function, recursive, **more))
        return kept[0](*args, **kwargs) if kept else function(*args, **kwargs)

    return run


def _graph_break(message: str = "") -> None:
    """What ends a graph where one is being compiled."""


def _where_plain(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
    """What a function about symbols says where there are none: `answer` of numbers, conditions and lists of them."""

    def asked(*args: Any, **kwargs: Any) -> Any:
        if all(map(_is_plain, args)):
            return answer(*args)
        return getattr(_loaded(_SYMBOLS), name)(*args, **kwargs)

    return asked


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, tuple | list) else type(value) in (bool, int)


def _itself(value: Any, *_: Any) -> Any:
    return value


def _equal(one: Any, other: Any) -> bool:
    """Whether numbers, or lists of them, are equal."""
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _proves() -> bool:
    """Whether a prover follows the symbols, which needs a setting that nobody has set by default."""
    from torch.fx.experimental import _config

    return _config.translation_validation and bool(_loaded(_PROVER).translation_validation_enabled())


def _loaded(name: str) -> ModuleType:
    """The module, run."""
    module = sys.modules[name]
    with _LOADING:
        if isinstance(module, _Late):
            spec = module.__spec__
            assert spec is not None and spec.loader is not None
            module.__class__ = ModuleType  # type: ignore[assignment]  # from here on it is what it stands for
            if spec.submodule_search_locations is not None:
                module.__path__ = spec.submodule_search_locations
            spec.loader.exec_module(module)
    return module


_WHERE_PLAIN: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        **dict.fromkeys(_CONDITIONS, _itself),
        "guarding_hint_or_throw": _itself,
        "has_guarding_hint": lambda size: True,
        "is_nested_int": lambda size: False,
        "sym_and": lambda *conditions: all(conditions),
        "sym_or": lambda *conditions: any(conditions),
        "sym_eq": _equal,
    }
)
_ANSWERS: Final[Mapping[str, Mapping[str, Callable[..., Any]]]] = MappingProxyType(
    {
        _COMPILER: {"disable": _disable, "graph_break": _graph_break, "OptimizedModule": _CompiledModule},
        _PROVER: {"translation_validation_enabled": _proves},
        _SYMBOLS: {name: _where_plain(name, answer) for name, answer in _WHERE_PLAIN.items()},
    }
)
"""Module → what of it is answered before it is loaded."""
