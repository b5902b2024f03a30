"""What can be counted: functions with arguments, and modules of Flax and Equinox with inputs, as one kind of value."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from inspect import Parameter, signature
from itertools import chain
from typing import Any

import jax
import numpy as np

from iftplan.base.errors import InputError, MeasureError
from iftplan.jaxnn.sources.layers import linen_watch, nnx_classes, pytree_classes
from iftplan.models.spec import InputSpec

Tree = Any
"""Arrays or their shapes, in dictionaries, lists and whatever else JAX takes apart."""


@dataclass(frozen=True, slots=True)
class Traceable:
    """A function of weights and inputs.

    Attributes:
        name: what messages call it.
        function: of the arguments.
        arguments: shapes, in any containers; the first holds the weights, if `has_weights`.
        inputs: all other arguments, array by array.
        has_weights: whether the first argument is a container of weights.
        root: the name that all its code is traced under; left out of the names of modules.
        classes: path of a module → its class, "" for a linear layer or a convolution; empty for a function.
        stacks: whether a plain layer may hold a stack of weights, one for each step of a scan.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Tree, ...]
    inputs: tuple[InputSpec, ...]
    has_weights: bool = True
    root: str = ""
    classes: Mapping[str, str] = field(default_factory=dict)
    stacks: bool = False
    parameters: frozenset[str] | None = None

    def trained(self) -> dict[str, Any]:
        """Name → shape of what training moves: weights without statistics and counters."""
        named = self.weights().items()
        return {
            name: leaf
            for name, leaf in named
            if (self.parameters is None and jax.dtypes.issubdtype(leaf.dtype, np.inexact))
            or (self.parameters is not None and name in self.parameters)
        }

    def weights(self) -> dict[str, Any]:
        """Name → shape of everything in the first argument, if that holds weights."""
        if not self.has_weights:
            return {}
        return leaf_names(self.arguments[0])


def fingerprint(model: Traceable) -> str:
    """SHA-256 (hex) over the model's name and the names and shapes of its weights."""
    weights = [[weight, list(leaf.shape)] for weight, leaf in model.weights().items()]
    document = {"model": model.name, "weights": weights}
    return sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()


def leaf_names(tree: Tree) -> dict[str, Any]:
    """Name → array of a container of weights, in its order; "params." and ".value" of Flax's containers are left out."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {weight_name(path): leaf for path, leaf in found}


def traceable(model: object, arguments: Sequence[object] = ()) -> Traceable:
    """A model and its arguments as a function of shapes.

    Args:
        model: a function, a module of `flax.linen` or `flax.nnx`, or a callable that holds arrays, as Equinox' modules do.
        arguments: of the function or of the module's call: arrays, shapes, containers of them, or plain values. Of a
            function whose first argument is a container, that holds the weights.

    Raises:
        InputError: it cannot be called.
        MeasureError: its weights cannot be made without data.
    """
    if is_linen(model):
        return _linen(model, arguments)
    if is_nnx(model):
        return _nnx(model, arguments)
    if not callable(model):
        raise InputError(
            f"a {type(model).__name__} is no JAX model. Give a function, or a module of Flax or Equinox, and its inputs."
        )
    if not jax.tree_util.all_leaves([model]):
        return _pytree(model, arguments)
    has_weights = bool(arguments) and not jax.tree_util.all_leaves([arguments[0]])
    inputs = _inputs(model, arguments)[1 if has_weights else 0 :]
    shapes = _arrays(arguments)
    return Traceable(
        _name(model), _filled(model, arguments), shapes, tuple(chain.from_iterable(inputs)), has_weights
    )


def _linen(model: Any, arguments: Sequence[object]) -> Traceable:
    key = jax.eval_shape(lambda: jax.random.key(0))

    def weights(key: Any, *inputs: Any) -> Any:
        return _filled(partial(model.init, {"params": key, "dropout": key}), arguments)(*inputs)

    def forward(variables: Any, *inputs: Any) -> Any:
        return _filled(partial(model.apply, variables), arguments)(*inputs)

    inputs = _arrays(arguments)
    classes: dict[str, str] = {}
    try:
        with linen_watch(classes):
            variables = jax.eval_shape(weights, key, *inputs)
    except Exception as error:
        raise _failed(_name(model), "initialised", inputs, error) from error
    root = getattr(model, "traced_as", "") or model.name or type(model).__name__
    whole = _module(model, forward, variables, arguments, root)
    parameters = variables.get("params") if isinstance(variables, Mapping) else None
    own = None if parameters is None else frozenset(leaf_names({"params": parameters}))
    return replace(whole, classes=classes, stacks=True, parameters=own)


def _nnx(model: Any, arguments: Sequence[object]) -> Traceable:
    from flax import nnx

    definition, state = nnx.split(model)

    def forward(state: Any, *inputs: Any) -> Any:
        network = nnx.merge(definition, state)
        network.eval()
        return _filled(network, arguments)(*inputs)

    own = frozenset(leaf_names(nnx.state(model, nnx.Param)))
    return replace(
        _module(model, forward, _shapes(state), arguments), classes=nnx_classes(model), parameters=own
    )


def _pytree(model: Any, arguments: Sequence[object]) -> Traceable:
    """A callable that JAX takes apart: its arrays are weights, and whatever else it holds stays in it."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(model)
    arrays = {_joined(path): _shape(leaf) for path, leaf in leaves if _is_array(leaf)}

    def forward(arrays: Mapping[str, Any], *inputs: Any) -> Any:
        whole = [arrays.get(_joined(path), leaf) for path, leaf in leaves]
        return _filled(jax.tree_util.tree_unflatten(structure, whole), arguments)(*inputs)

    return replace(_module(model, forward, arrays, arguments), classes=pytree_classes(model))


def _module(
    model: Any, forward: Callable[..., Any], weights: Tree, arguments: Sequence[object], root: str = ""
) -> Traceable:
    inputs = tuple(chain.from_iterable(_inputs(model.__call__, arguments)))
    return Traceable(_name(model), forward, (weights, *_arrays(arguments)), inputs, root=root)


def _fixed(argument: object) -> bool:
    """Whether an argument is a plain value, which shapes may depend on."""
    plain = argument is None or isinstance(argument, bool | int | float | str)
    return plain or (isinstance(argument, InputSpec) and argument.is_value)


def _arrays(arguments: Sequence[object]) -> tuple[Tree, ...]:
    return tuple(_shapes(argument) for argument in arguments if not _fixed(argument))


def _filled(function: Callable[..., Any], arguments: Sequence[object]) -> Callable[..., Any]:
    """The function of its arrays alone: plain arguments stand in their places, named ones are passed by name."""

    def of_arrays(*arrays: Any) -> Any:
        rest = iter(arrays)
        positional, keywords = [], {}
        for argument in arguments:
            spec = argument if isinstance(argument, InputSpec) else None
            plain = argument if spec is None else spec.value
            value = plain if _fixed(argument) else next(rest)
            if spec is not None and spec.name is not None:
                keywords[spec.name] = value
            else:
                positional.append(value)
        return function(*positional, **keywords)

    return of_arrays


def _inputs(function: Callable[..., Any], arguments: Sequence[object]) -> list[list[InputSpec]]:
    """Specs of the arrays in each argument that has any; those in containers are named by their paths."""
    try:
        named = [p.name for p in signature(function).parameters.values() if p.kind in _POSITIONAL]
    except (TypeError, ValueError):
        named = []
    found = []
    for place, argument in enumerate(arguments):
        if _fixed(argument):
            continue
        if isinstance(argument, InputSpec):
            found.append([argument])
            continue
        name = named[place] if place < len(named) else f"argument{place}"
        leaves = jax.tree_util.tree_flatten_with_path(_shapes(argument))[0]
        found.append(
            [
                InputSpec(tuple(leaf.shape), str(leaf.dtype), f"{name}.{_joined(path)}" if path else None)
                for path, leaf in leaves
            ]
        )
    return found


_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def weight_name(path: Sequence[Any]) -> str:
    """Name of a weight: its path in the parameters, without what Flax adds around it."""
    return _joined(path).removeprefix("params.").removesuffix(".value")


def _joined(path: Sequence[Any]) -> str:
    return str(jax.tree_util.keystr(tuple(path), simple=True, separator="."))


def trace(model: Traceable) -> Any:
    """The closed jaxpr of a model, without data.

    Raises:
        MeasureError: it does not run on these shapes.
    """
    try:
        return jax.make_jaxpr(model.function)(*model.arguments)
    except Exception as error:
        raise _failed(
            model.name, "traced", model.arguments[1 if model.has_weights else 0 :], error
        ) from error


def _failed(name: str, done: str, inputs: Sequence[object], error: Exception) -> MeasureError:
    leaves = jax.tree_util.tree_leaves(inputs)
    given = ", ".join(str(InputSpec(tuple(leaf.shape), str(leaf.dtype))) for leaf in leaves) or "no inputs"
    said = " ".join(str(error).split("\n\n")[0].split())[:400]
    return MeasureError(f"{name} could not be {done} on {given}: {type(error).__name__}: {said}")


def is_linen(model: object) -> bool:
    """Whether a value is a module of `flax.linen`."""
    return _is_instance(model, *_LINEN)


def is_nnx(model: object) -> bool:
    """Whether a value is a module of `flax.nnx`."""
    return _is_instance(model, *_NNX)


def is_module(model: object) -> bool:
    """Whether a value is a module of Flax."""
    return is_linen(model) or is_nnx(model)


_LINEN = ("flax.linen", "Module")
_NNX = ("flax.nnx", "Module")


def _is_instance(model: object, module: str, name: str) -> bool:
    """Whether a value is of a library's class; a library that is not imported made none."""
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and isinstance(model, found)


def _is_array(leaf: object) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _shapes(tree: object) -> Tree:
    return jax.tree_util.tree_map(_shape, tree, is_leaf=lambda leaf: isinstance(leaf, InputSpec))


def _shape(leaf: Any) -> Any:
    if isinstance(leaf, InputSpec):
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        return jax.ShapeDtypeStruct(leaf.shape, dtype)
    if not _is_array(leaf):
        leaf = np.asarray(leaf)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))


def _name(model: Any) -> str:
    return str(getattr(model, "__name__", type(model).__name__))
