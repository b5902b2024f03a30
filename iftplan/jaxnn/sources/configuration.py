"""Models that can be built again with other numbers: factories with defaults, and modules of `flax.linen`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from iftplan.jaxnn.sources.models import is_linen

Made = tuple[object, tuple[object, ...]]
"""A model, and the arguments that it is called with."""


@dataclass(frozen=True, slots=True)
class Configurable:
    """Model that can be built again.

    Attributes:
        sizes: whole numbers of its configuration by their paths, such as "width" or "stages.0".
        made: the model and its arguments with some of them replaced.
    """

    sizes: Mapping[str, int]
    made: Callable[[Mapping[str, int]], Made]

    @staticmethod
    def of_factory(
        factory: Callable[..., object], made: Callable[[Callable[[], object]], Made]
    ) -> Configurable:
        """A factory whose arguments have defaults.

        Args:
            factory: returns a model, or a tuple of one and its arguments.
            made: calls a function without arguments, and takes apart what it returns.
        """
        defaults = {
            name: parameter.default
            for name, parameter in _parameters(factory).items()
            if parameter.default is not parameter.empty
        }

        def build(sizes: Mapping[str, int]) -> Made:
            changed = _replaced(defaults, sizes)
            return made(lambda: factory(**{k: v for k, v in changed.items() if v is not defaults[k]}))

        return Configurable(dict(_numbers(defaults)), build)

    @staticmethod
    def of_module(model: object, arguments: tuple[object, ...]) -> Configurable | None:
        """A module with attributes that it can be built again from; None for any other model.

        Args:
            model: the module.
            arguments: that it is called with.
        """
        if not is_linen(model):
            return None
        return Configurable(dict(_numbers(model)), lambda sizes: (_replaced(model, sizes), arguments))


def _parameters(factory: Callable[..., object]) -> Mapping[str, Any]:
    try:
        return signature(factory).parameters
    except (TypeError, ValueError):  # some are written in C
        return {}


def _numbers(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, int]]:
    """Every whole number in a configuration, by its path."""
    if isinstance(value, int) and not isinstance(value, bool):
        yield ".".join(path), value
    for name, part in _parts(value).items():
        yield from _numbers(part, (*path, name))


def _parts(value: object) -> dict[str, object]:
    """What a configuration consists of: fields of dataclasses and modules, items of containers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        left_out = ("parent", "name") if is_linen(value) else ()
        fields = [f.name for f in dataclasses.fields(value) if f.init and f.name not in left_out]
        return {name: getattr(value, name) for name in fields}
    if isinstance(value, Mapping):
        return {name: part for name, part in value.items() if isinstance(name, str)}
    if isinstance(value, list | tuple):
        return {str(place): part for place, part in enumerate(value)}
    return {}


def _replaced(value: Any, sizes: Mapping[str, int]) -> Any:
    """The configuration with other numbers; what holds none of them is the same object."""
    if not sizes:
        return value
    if "" in sizes:
        return sizes[""]
    changed = {}
    for name, part in _parts(value).items():
        inside = {
            path.removeprefix(name).removeprefix("."): size
            for path, size in sizes.items()
            if f"{path}.".startswith(f"{name}.")
        }
        if inside:
            changed[name] = _replaced(part, inside)
    if is_linen(value):
        return value.clone(**changed)
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **changed)  # type: ignore[type-var]
    if isinstance(value, Mapping):
        return type(value)({**value, **changed})  # type: ignore[call-arg]
    rest = [changed.get(str(place), part) for place, part in enumerate(value)]
    return type(value)(*rest) if hasattr(value, "_fields") else type(value)(rest)
