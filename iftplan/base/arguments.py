"""Arguments of public functions held against their annotations: a wrong one is named, with what can stand there."""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import EnumType
from fractions import Fraction
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from iftplan.base.errors import InputError, needs_torch
from iftplan.base.suggestions import did_you_mean

P = ParamSpec("P")
R = TypeVar("R")


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """The function with its arguments checked: a wrong type or choice is refused before anything is computed.

    Only what can be seen at once is checked: classes, `Literal` choices, enumerations (whose members may be written as
    strings), and unions of them. A choice may be written in any case.

    Raises:
        InputError: names the function, the argument, what was given and what can be.
    """
    signature = inspect.signature(function)
    hints: dict[str, Any] = {}

    @wraps(function)
    def refusing(*args: P.args, **kwargs: P.kwargs) -> R:
        __tracebackhide__ = True  # pytest shows the test, not this
        bound = _bound(function, signature, args, kwargs)
        if not hints:
            hints.update(_hints(function))
        for name, value in bound.arguments.items():
            kind = hints.get(name)
            values = (
                value if signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL else (value,)
            )
            if kind is None or all(_fits(one, kind) for one in values):
                continue
            wrong = next(one for one in values if not _fits(one, kind))
            choice = _chosen(wrong, kind)
            if choice is None:
                raise InputError(_refusal(_name(function), name, wrong, kind, bound.arguments, hints))
            bound.arguments[name] = choice
        try:
            return function(*bound.args, **bound.kwargs)
        except ImportError as error:
            if not (told := needs_torch(_name(function), error)):
                raise
            raise InputError(told) from error

    return refusing


def check_names(function: Callable[P, R]) -> Callable[P, R]:
    """The function with the names of its arguments checked, and their values left to it.

    Raises:
        InputError: an argument that the function does not have, or one too few; names those that it has.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def refusing(*args: P.args, **kwargs: P.kwargs) -> R:
        _bound(function, signature, args, kwargs)
        return function(*args, **kwargs)

    return refusing


def _bound(
    function: Callable[..., Any],
    signature: inspect.Signature,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> inspect.BoundArguments:
    """The arguments by name."""
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(
            f"{_name(function)}: {error}; it takes {_parameters(signature)}.{_meant(error, signature)}"
        ) from error


def one_of(argument: str, value: object, choices: Collection[str]) -> str:
    """The choice that a value names, in any case.

    Args:
        argument: name of the argument, for the message.
        value: what was given.
        choices: the strings that it may be.

    Raises:
        InputError: names the argument, its choices and the nearest.
    """
    if (choice := _in_any_case(value, choices)) is not None:
        return choice
    meant = did_you_mean(str(value), choices, cutoff=0.4)
    raise InputError(
        f"{argument} = {value!r} is not one of its choices: {', '.join(map(repr, choices))}.{meant}"
    )


def names_in(argument: str, value: object) -> tuple[str, ...]:
    """Names as a list, whether one or several were given; text may hold several between commas.

    Raises:
        InputError: something among them is no name.

    Example:
        >>> names_in("keep_dense", "first, last"), names_in("keep_dense", ["first", "last"])
        (('first', 'last'), ('first', 'last'))
    """
    if isinstance(value, str):
        return tuple(filter(None, (name.strip() for name in value.split(","))))
    found = tuple(value) if isinstance(value, Iterable) else (value,)
    for name in found:
        if not isinstance(name, str):
            raise InputError(f"{argument} takes names as strings, not {_kind_of(name)}.")
    return found


def _in_any_case(value: object, choices: Collection[str]) -> str | None:
    if not isinstance(value, str) or value in choices:
        return value if isinstance(value, str) else None
    return next((choice for choice in choices if choice.lower() == value.lower()), None)


def _chosen(value: object, kind: Any) -> object:
    """The choice that a string names, of an enumeration its member; None where it names none."""
    name = _in_any_case(value, _choices(kind))
    members = (one for found in _kinds(kind) for one in _members(found))
    return next((one for one in members if one.value == name), name) if name is not None else None


def _members(kind: Any) -> tuple[Any, ...]:
    """Members of an enumeration; none of anything else."""
    return tuple(kind) if isinstance(kind, EnumType) else ()


def _choices(kind: Any) -> list[str]:
    """Strings that an annotation lists, and those of enumerations."""
    listed: list[object] = []
    for one in _kinds(kind):
        if get_origin(one) is Literal:
            listed += get_args(one)
        listed += [member.value for member in _members(one)]
    return [choice for choice in listed if isinstance(choice, str)]


_SYNONYMS: Mapping[str, str] = {
    "structure": "mask",
    "mask": "structure",
    "transform": "family",
    "input": "inputs",
    "batch": "inputs",
    "close_by": "close",
    "pass_": "passes",
    "algo": "algorithm",
    "method": "algorithm",
    "total_steps": "steps",
    "num_steps": "steps",
    "delta_t": "interval",
    "update_freq": "interval",
    "update_frequency": "interval",
    "alpha": "fraction",
    "drop_fraction": "fraction",
    "prune_rate": "fraction",
    "start": "begin",
    "t_end": "end",
    "stop": "end",
}
"""What an argument is called elsewhere → its name here, where the function has one of that name."""


def _meant(error: TypeError, signature: inspect.Signature) -> str:
    """The argument that an unknown keyword stands for, as a question."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if found is None:
        return ""
    synonym = _SYNONYMS.get(found[1].lower(), "")
    asked = synonym if synonym in signature.parameters else found[1]
    return did_you_mean(asked, signature.parameters, cutoff=0.6)


def _name(function: Callable[..., Any]) -> str:
    """The name by which a function is called: a class's, of its constructor."""
    owner, _, name = function.__qualname__.rpartition(".")
    return owner if name == "__init__" else name


def _parameters(signature: inspect.Signature) -> str:
    return ", ".join(name for name in signature.parameters if name != "self") or "no arguments"


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations that can be resolved; those of absent libraries are left out."""
    scope = vars(sys.modules[function.__module__])
    found = {}
    for name, text in function.__annotations__.items():
        try:
            found[name] = eval(text, dict(scope)) if isinstance(text, str) else text  # noqa: S307  (our own source)
        except (NameError, AttributeError, TypeError):
            continue
    return found


def _kinds(kind: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation."""
    if isinstance(kind, TypeVar):
        return _kinds(kind.__bound__) if kind.__bound__ else (Any,)
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(one for arm in get_args(kind) for one in _kinds(arm))
    return (kind,)


def _fits(value: object, kind: Any) -> bool:
    return any(_fits_one(value, one) for one in _kinds(kind))


def _fits_one(value: object, kind: Any) -> bool:
    if kind is None or kind is type(None):
        return value is None
    origin = get_origin(kind)
    if origin is Literal:
        return value in get_args(kind)
    if isinstance(origin, type):
        return isinstance(value, origin)
    if kind is Any or not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True  # nothing that can be seen at once
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)


def _refusal(
    function: str, name: str, value: object, kind: Any, given: Mapping[str, Any], hints: Mapping[str, Any]
) -> str:
    choices = _choices(kind)
    if choices and isinstance(value, str):
        try:
            one_of(f"{function}: {name}", value, choices)
        except InputError as error:
            return str(error)
    others = [
        other
        for other, item in given.items()
        if other != name
        and other in hints
        and not _fits(item, hints[other])
        and _fits(item, kind)
        and _fits(value, hints[other])
    ]
    swapped = f" {name} and {others[0]} seem to be swapped." if others else ""
    return f"{function}: {name} is {_kind_of(value)}, but it must be {_said(kind)}.{swapped}"


def _kind_of(value: object) -> str:
    shown = repr(value)
    plain = isinstance(value, str | int | float | bool | None) and len(shown) <= 60
    return shown if plain else f"a {type(value).__name__}"


def _said(kind: Any) -> str:
    names = []
    for one in _kinds(kind):
        if one is None or one is type(None):
            names.append("None")
        elif get_origin(one) is Literal:
            names += [repr(choice) for choice in get_args(one)]
        else:
            origin = get_origin(one) or one
            name = getattr(origin, "__name__", str(origin))
            names.append(_FIELD.get(origin) or _MADE_BY.get(name, name))
    *most, last = dict.fromkeys(names)
    return f"{', '.join(most)} or {last}" if most else last


_FIELD: Mapping[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    Fraction: "a fraction",
    Iterable: "an iterable",
}
_MADE_BY: Mapping[str, str] = {
    "ModelSpec": "a ModelSpec (iftplan.read_model makes one)",
    "Plan": "a Plan (iftplan.plan makes one, iftplan.load reads one)",
    "Family": "a Family (iftplan.family makes one)",
    "CountTable": "a CountTable (iftplan.nn.measure makes one)",
    "Module": "a network (torch.nn.Module)",
    "Optimizer": "an optimizer (torch.optim.Optimizer)",
}
