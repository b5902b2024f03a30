"""Suggestions of other inputs, for the ways in which a forward pass fails on those that were given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from inspect import Parameter, signature

from torch import nn

from iftplan.models.spec import InputSpec

_UNKNOWN_KEYWORD = re.compile(r"unexpected keyword argument '(\w+)'")
_WANTS_NUMBERS = re.compile(
    r"scalar types?:? (Long|Int)|dtype long|LongTensor|integer|to be Long|indices.*(Long|Int)"
)

_OTHER_SIZES = re.compile(
    r"channel|expected \dD|Expected \dD|mat1 and mat2|same reduction dim|size mismatch", re.I
)


def input_hint(error: Exception, model: nn.Module, inputs: Sequence[InputSpec]) -> str:
    """Sentence with the inputs to write instead, after a space; empty where none is known.

    Args:
        error: that the pass ended with.
        model: whose pass it was.
        inputs: that it was given.
    """
    told = str(error)
    if isinstance(error, TypeError) and (named := _UNKNOWN_KEYWORD.search(told)):
        return _as_dictionary(model, inputs, named[1])
    floats = [given for given in inputs if given.shape is not None and given.dtype == "float32"]
    if floats and _WANTS_NUMBERS.search(told):
        whole = replace(floats[0], dtype="int64")
        return f". Token ids and other indices are whole numbers; write `inputs={str(whole)!r}`."
    return _first_layer(model) if _OTHER_SIZES.search(told) else ""


def _counted(count: int, noun: str) -> str:
    """A number of things, the noun in its plural where it has one."""
    return f"{count} {noun}{'s' * (count != 1)}"


def _first_layer(model: nn.Module) -> str:
    """What the first layer of a model reads, where that is a layer of torch."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        layer = f"{name} ({kind})" if name else kind
        if isinstance(module, nn.modules.conv._ConvNd):
            sides = "".join(f"x{side}" for side in "DHW"[-len(module.kernel_size) :])
            return f". Its first layer, {layer}, reads {_counted(module.in_channels, 'channel')}: write 1x{module.in_channels}{sides}."
        if isinstance(module, nn.Linear):
            return f". Its first layer, {layer}, reads {_counted(module.in_features, 'feature')}: write 1x{module.in_features}."
        if isinstance(module, nn.Embedding):
            return ""
    return ""


def _as_dictionary(model: nn.Module, inputs: Sequence[InputSpec], name: str) -> str:
    """The entries of a dictionary, which the only argument of a forward pass may be."""
    usual = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    taken = [p.name for p in signature(model.forward).parameters.values() if p.kind in usual]
    whole = all(given.name for given in inputs) and name in {given.name for given in inputs}
    if len(taken) != 1 or not whole:
        return f". It takes {', '.join(taken)}." if taken else ""
    entries = [str(replace(given, name=f"{taken[0]}.{given.name}")) for given in inputs]
    return f". If {taken[0]} is a dictionary with these entries, write `inputs={entries!r}`."
