"""Shape rules of LSTM, GRU and RNN: one call instead of one decomposition per time step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from iftplan.nn.counting.operators import formulas
from iftplan.nn.counting.passes.ledger import Ledger
from iftplan.nn.meta.tensors import empty

Rule = Callable[..., Any]


def _recurrent(name: str) -> Rule:
    """`(input, hx, weights, has_biases, layers, dropout, train, bidirectional, batch_first)` or, packed,
    `(data, batch_sizes, hx, weights, has_biases, layers, dropout, train, bidirectional)`.
    """

    def rule(ledger: Ledger, *arguments: Any, **named: Any) -> Any:
        if named or len(arguments) != 9:
            return NotImplemented
        input, *rest = arguments
        packed = isinstance(rest[2], list | tuple)
        states, weights = rest[1:3] if packed else rest[0:2]
        hidden = list(states) if isinstance(states, list | tuple) else [states]
        batch_first = not packed and rest[7]
        both = rest[7] if packed else rest[6]
        if not _usual(input, weights, 2 if packed else 3):
            return NotImplemented
        positions = prod(input.shape[:-1])
        for weight in weights:
            if weight.dim() == 2:
                parameter = ledger.names.parameter(weight, ledger.stack[-1])
                ledger.add(name, formulas.recurrent(positions, [weight.shape]), parameter)
        features = hidden[0].shape[-1] * (2 if both else 1)
        return (_output(input, features, batch_first), *(empty(h.shape, h.dtype) for h in hidden))

    return rule


def _usual(input: Tensor, weights: Sequence[Tensor], dims: int) -> bool:
    fits = input.dim() == dims and input.shape[-1] == weights[0].shape[1]
    return fits and input.is_meta and all(w.dtype is input.dtype and w.is_meta for w in weights)


def _output(input: Tensor, features: int, batch_first: bool) -> Tensor:
    if not batch_first:
        return empty((*input.shape[:-1], features), input.dtype)
    batch, steps, _ = input.shape  # computed with time first, then seen transposed
    return empty((steps, batch, features), input.dtype).transpose(0, 1)


RECURRENT: Final[MappingProxyType[Any, Rule]] = MappingProxyType(
    {getattr(torch, name): _recurrent(name) for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")}
)
