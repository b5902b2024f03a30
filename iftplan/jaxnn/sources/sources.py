"""From a MODEL argument to a JAX model and its inputs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from inspect import signature
from typing import TypeGuard

import jax

from iftplan.base.errors import IftplanError, InputError, one_line
from iftplan.base.factories.factory import file_factory, module_factory
from iftplan.jaxnn.sources.configuration import Configurable, Made
from iftplan.jaxnn.sources.models import Traceable, is_module, traceable
from iftplan.models.notation import parse_input
from iftplan.models.sources import SourceKind, parse_source


def construct(source: str, inputs: Sequence[object] = ()) -> Traceable:
    """The JAX model that a MODEL argument names, ready to be traced; see `configured`.

    Args:
        source: `package.module:factory` or `path/file.py:factory`.
        inputs: that the user gave.

    Raises:
        InputError: the source cannot be found, read or called, gives no JAX model, or has no inputs.
    """
    return traceable(*configured(source, inputs).made({}))


def configured(
    model: object, inputs: Sequence[object] = (), *, otherwise: Sequence[object] = (), values: bool = False
) -> Configurable:
    """A JAX model, or the one that a MODEL argument names, that can be built again at other sizes where it tells some.

    Its factory returns a function, a module, or either with its arguments as a tuple. What it returns is made without
    data where that is possible.

    Args:
        model: the model, the function without arguments that builds it, or `package.module:factory` or `path/file.py:factory`.
        inputs: that the user gave, as `traceable` takes arguments, or as "1x32x32x3"; they stand in the place of the
            factory's own inputs, not of its weights.
        otherwise: inputs where neither the user nor the factory gives any.
        values: whether what a factory builds has values, rather than shapes.

    Raises:
        InputError: the source cannot be found, read or called, gives no JAX model, or has no inputs.
    """
    if isinstance(model, str):
        name, factory = model, _factory(model)
    elif _builds(model):
        name, factory = getattr(model, "__name__", type(model).__name__), model
    else:
        given = tuple(inputs or otherwise)
        return Configurable.of_module(model, given) or Configurable({}, lambda sizes: (model, given))

    def made(call: Callable[[], object]) -> Made:
        with redirect_stdout(sys.stderr):  # what a user's module prints must not end up in our data
            return _with_inputs(call() if values else _called(call, name), inputs, otherwise, name)

    found = Configurable.of_factory(factory, made)
    return found if found.sizes else Configurable.of_module(*found.made({})) or found


def _builds(model: object) -> TypeGuard[Callable[..., object]]:
    """Whether a function builds models rather than being one: it can be called without arguments."""
    if is_module(model) or not callable(model) or not jax.tree_util.all_leaves([model]):
        return False
    try:
        parameters = signature(model).parameters.values()
    except (TypeError, ValueError):  # some are written in C
        return False
    return all(p.default is not p.empty or p.kind is p.VAR_KEYWORD for p in parameters)


def _with_inputs(
    returned: object, inputs: Sequence[object], otherwise: Sequence[object], source: str
) -> Made:
    """The model that a factory returned, and the arguments to call it with.

    Args:
        returned: by the factory.
        inputs: that the user gave.
        otherwise: inputs where nobody gave any.
        source: what messages call the factory.
    """
    parts = returned if isinstance(returned, tuple) and returned and callable(returned[0]) else (returned,)
    model, given = parts[0], [*parts[1:]]
    if inputs:
        weights = given[:1] if given and not jax.tree_util.all_leaves([given[0]]) else []
        given = [*weights, *(parse_input(i) if isinstance(i, str) else i for i in inputs)]
    given = given or [*otherwise]
    if not given:
        raise InputError(
            f"{source} does not tell its inputs. Give them as input shapes, such as 1x32x32x3, or let the factory return a tuple: the function or module, then its arguments."
        )
    return model, tuple(given)


def _factory(text: str) -> Callable[..., object]:
    source = parse_source(text)
    match source.kind:
        case SourceKind.MODULE:
            return module_factory(source.target, source.attribute, is_module)
        case SourceKind.FILE:
            return file_factory(source.target, source.attribute, is_module)
    raise InputError(
        f"{text} is no JAX model. Name a function without arguments that returns one: package.module:factory or path/file.py:factory."
    )


def _called(factory: Callable[[], object], source: str) -> object:
    """What the factory returns: with shapes in the place of arrays if it can be run so, else with arrays."""
    kept: list[object] = []

    def arrays() -> list[object]:
        leaves, structure = jax.tree_util.tree_flatten(factory())
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]
        kept[:] = [leaves, structure, places]
        return [leaves[place] for place in places]

    try:
        shapes = jax.eval_shape(arrays)
        leaves, structure, places = kept
        whole = list(leaves)  # type: ignore[call-overload]
        for place, shape in zip(places, shapes, strict=True):  # type: ignore[call-overload]
            whole[place] = shape
        return jax.tree_util.tree_unflatten(structure, whole)
    except IftplanError:
        raise
    except Exception:  # it looks at values, or holds tracers where shapes cannot stand
        pass
    try:
        return factory()
    except IftplanError:
        raise
    except (Exception, SystemExit) as error:
        said = one_line(error)
        raise InputError(f"building {source} failed with {type(error).__name__}: {said}") from error
