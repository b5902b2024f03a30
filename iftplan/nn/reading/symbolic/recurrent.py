"""Widths of LSTM, GRU and RNN: the gates of a layer are one matrix, and all layers of a module share a hidden size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from iftplan.nn.reading.symbolic.shapes import SymbolicSizes

RECURRENT: Final[Mapping[Any, str]] = MappingProxyType(
    {
        getattr(torch, name + cell): name + cell
        for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")
        for cell in ("", "_cell")
    }
)
"""Functions that run all layers over all steps, or a cell over one → their plain names."""


def recurrent_dims(module: nn.Module, sizes: SymbolicSizes) -> dict[str, list[Any]]:
    """The symbolic dimensions of the parameters of an LSTM, a GRU, an RNN or one of their cells."""
    own: Any = module
    parameters = {name: p for name, p in module._parameters.items() if p is not None}
    hidden, projected = sizes.new(own.hidden_size), getattr(module, "proj_size", 0)
    fed_back = sizes.new(projected) if projected else hidden
    inputs = sizes.new(own.input_size)
    both = 2 if getattr(module, "bidirectional", False) else 1
    gates = (
        next(p.shape[0] for name, p in parameters.items() if name.startswith("weight_ih")) // own.hidden_size
    )
    dims: dict[str, list[Any]] = {}
    for name in parameters:
        if name.startswith("weight_ih"):
            first = name in ("weight_ih", "weight_ih_l0", "weight_ih_l0_reverse")
            dims[name] = [gates * hidden, inputs if first else both * fed_back]
        elif name.startswith("weight_hh"):
            dims[name] = [gates * hidden, fed_back]
        elif name.startswith("weight_hr"):
            dims[name] = [fed_back, sizes.new(own.hidden_size)]  # equal to the others by what a call asks for
        else:
            dims[name] = [gates * hidden]
    return dims


def recurrent_attributes(module: nn.Module, stand_ins: Mapping[str, Tensor]) -> dict[str, object]:
    """Size attributes of a recurrent module at symbolic sizes, and the list of its weights."""
    layer = "_l0" if isinstance(module, nn.RNNBase) else ""
    weight, back = stand_ins[f"weight_ih{layer}"], stand_ins[f"weight_hh{layer}"]
    projection = stand_ins.get("weight_hr_l0")
    hidden = back.shape[1] if projection is None else projection.shape[1]
    named: dict[str, object] = {"input_size": weight.shape[1], "hidden_size": hidden}
    if projection is not None:
        named["proj_size"] = projection.shape[0]
    if isinstance(module, nn.RNNBase):
        named["_flat_weights"] = [stand_ins.get(name) for name in module._flat_weights_names]
    return named


@dataclass(frozen=True, slots=True)
class RecurrentCall:
    """Call of a function of `RECURRENT`; a cell is a layer with one step.

    Attributes:
        input: (…, inputs), packed or not.
        states: the first hidden state, and the first cell state of an LSTM.
        weights: matrices and biases of all layers and directions.
        both: whether it runs in both directions.
        cell: whether what comes out is the states alone.
    """

    input: Tensor
    states: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    both: bool = False
    cell: bool = False

    @classmethod
    def of(cls, args: Sequence[Any]) -> Self:
        """The call that an operator's positional arguments describe.

        They are `(input, hx, weights, biases, layers, dropout, train, bidirectional, batch_first)` or,
        packed, `(data, batch_sizes, hx, weights, biases, layers, dropout, train, bidirectional)`, or of a
        cell `(input, hx, w_ih, w_hh, b_ih, b_hh)`.
        """
        if isinstance(args[2], Tensor) and not isinstance(args[3], list | tuple):
            own = tuple(args[1]) if isinstance(args[1], list | tuple) else (args[1],)
            weights = tuple(w for w in args[2:6] if isinstance(w, Tensor))
            return cls(args[0], own, weights, cell=True)
        packed = isinstance(args[3], list | tuple)
        states, weights = args[2:4] if packed else args[1:3]
        both = args[8] if packed else args[7]
        given = tuple(states) if isinstance(states, list | tuple) else (states,)
        return cls(args[0], given, tuple(weights), bool(both))

    def agreements(self) -> tuple[Any, ...]:
        """Sizes that the kernels ask to be equal."""
        inner, back = self.weights[:2]
        yes = [self.input.shape[-1] == inner.shape[1], self.states[0].shape[-1] == back.shape[1]]
        if len(self.states) > 1:
            cell = self.states[1].shape[-1]
            yes.append(4 * cell == back.shape[0])
            # a projection is the third matrix of a layer and a direction
            matrices = [weight for weight in self.weights if weight.dim() == 2]
            thirds = matrices[2::3] if self.states[0].shape[-1] != cell else []
            yes += [weight.shape[1] == cell for weight in thirds]
        return tuple(yes)

    def empty(self) -> tuple[Tensor, ...]:
        """Output and last states of the call, as tensors without values."""
        states = tuple(state.new_empty(state.shape) for state in self.states)
        if self.cell:
            return states
        features = self.states[0].shape[-1] * (2 if self.both else 1)
        output = self.input.new_empty((*self.input.shape[:-1], features))
        return (output, *states)
