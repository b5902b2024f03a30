"""A factor on an activation, made by the weights that the activation comes from.

Replicas are counted where they are summed over: in the weight that sums, or, between two activations as queries and
keys, and for a weight that is tied to another, in the weights before. The factor moves back through operators that
only rearrange, to the linear layer, convolution or norm whose rows it can be put on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from iftplan.base.errors import InfeasibleError
from iftplan.nn.torch_internals import tree_leaves, tree_map
from iftplan.nn.warmstart.channels import Followed, Slot
from iftplan.nn.warmstart.layout_rules import LAYOUT
from iftplan.nn.warmstart.lockstep import Call, Value

_SCALED = frozenset({"mul", "div"})


@dataclass(frozen=True, slots=True)
class _Source:
    """Where an activation's rows are made: the call, the axis of the rows, and every parameter that makes them."""

    call: int
    axis: int
    slots: tuple[Slot, ...]


class Compensation:
    """Factors on parameters' rows, collected request by request.

    Attributes:
        scales: parameter's dimension → factor of each of its wide rows.
    """

    def __init__(self, found: Followed) -> None:
        self.scales: dict[Slot, Tensor] = {}
        self._found = found
        self._calls = found.run.calls
        self._made = {value: i for i, call in enumerate(self._calls) for value in call.outputs}
        self._users: dict[Value, list[int]] = {}
        for i, call in enumerate(self._calls):
            for value in dict.fromkeys(call.inputs()):
                self._users.setdefault(value, []).append(i)

    def scale(self, reader: int, value: Value, axis: int, factor: Tensor) -> None:
        """Multiply `value`, as call `reader` takes it, by a factor of its wide size along `axis`.

        Args:
            reader: number of the call.
            value: the tensor that it takes.
            axis: dimension of the tensor.
            factor: (wide size of the axis,).

        Raises:
            InfeasibleError: no weights can make that factor, and for that reader alone.
        """
        source = self._source(reader, value)
        rows = self._found.run.sizes[self._calls[source.call].outputs[0]][source.axis][1]
        wanted: Tensor | None = None
        others: list[Tensor] = []
        slots = set(source.slots)
        for call, read, index in self._readers(source, slots, reader):
            if call == reader and read == value:
                shape = [-1 if i == axis % index.dim() else 1 for i in range(index.dim())]
                wanted = torch.ones(rows, dtype=torch.double)
                spread = factor.double().view(shape).expand(index.shape)
                wanted[index] = spread
                if not torch.equal(wanted[index], spread):
                    raise self._refusal(reader, "two of its channels come from one row")
            else:
                others.append(index)
        assert wanted is not None
        if any((wanted[index] != 1).any() for index in others):
            raise self._refusal(reader, "the same rows are read elsewhere")
        for slot in slots:
            self.scales[slot] = self.scales.get(slot, torch.ones(rows, dtype=torch.double)) * wanted

    def multiply(self, reader: int, value: Value, factor: float) -> None:
        """Multiply `value`, as call `reader` takes it, by a number; through a product, by its first factor.

        Args:
            reader: number of the call.
            value: the tensor that it takes.
            factor: for all of it.

        Raises:
            InfeasibleError: the value is a single number, or no weights can make that factor for that reader
                alone.
        """
        product = self._product(value)
        if product is not None:
            reader = product
            value = self._calls[product].dense["batch1" if self._calls[product].name == "baddbmm" else "self"]
        if not self._found.run.sizes[value]:
            raise self._refusal(reader, "it is a single number")
        rows = self._found.run.sizes[value][0][1]
        self.scale(reader, value, 0, torch.full((rows,), factor))

    def _product(self, value: Value) -> int | None:
        """The product of activations that nothing but `value` is made of."""
        made = self._made.get(value)
        while made is not None and len(self._users[value]) == 1:
            call = self._calls[made]
            if call.name in ("bmm", "baddbmm") or (call.name == "mm" and not self._weighs(call)):
                return made
            if call.name not in LAYOUT:
                return None
            value = call.dense["self"]
            made = self._made.get(value)
        return None

    def _weighs(self, call: Call) -> bool:
        return any(dim.slot for dim in self._found.of(call.dense["mat2"]))

    # --- backwards ---

    def _source(self, reader: int, value: Value) -> _Source:
        index = self._made.get(value)
        if index is None:
            raise self._refusal(reader, "no weights come before it")
        call = self._calls[index]
        if call.name in LAYOUT:
            return self._source(reader, call.dense["self"])
        if call.name in _SCALED:
            slots = self._row_slots(call)
            if slots:
                return self._once(reader, index, -1, slots)
            if not isinstance(call.dense["other"], Value):
                return self._source(reader, call.dense["self"])
        if call.name == "add" and (slots := self._row_slots(call)):
            operand = next(v for v in call.inputs() if not self._slot(v, -1))
            return self._source(reader, operand)
        given = call.dense
        match call.name:
            case "addmm":
                return self._once(
                    reader, index, 1, (self._slot(given["self"], -1), self._slot(given["mat2"], 1))
                )
            case "mm":
                return self._once(reader, index, 1, (self._slot(given["mat2"], 1),))
            case "convolution" if not given["transposed"]:
                return self._affine(reader, index, 1, 0)
            case "native_layer_norm" | "_fused_rms_norm":
                return self._affine(reader, index, -1, -1)
            case "native_batch_norm" | "_native_batch_norm_legit_no_training":
                return self._affine(reader, index, 1, 0)
            case _:
                raise self._refusal(reader, f"it comes from {call.name}, which no weight scales")

    def _affine(self, reader: int, index: int, axis: int, row: int) -> _Source:
        given = self._calls[index].dense
        weight, bias = given.get("weight"), given.get("bias")
        slots = [self._slot(weight, row)] if weight else [None]
        slots += [self._slot(bias, 0)] if bias else []
        return self._once(reader, index, axis, tuple(slots))

    def _once(self, reader: int, index: int, axis: int, slots: tuple[Slot | None, ...]) -> _Source:
        found = tuple(slot for slot in slots if slot)
        if len(found) < len(slots):
            raise self._refusal(reader, "the rows before it are no parameter's")
        for name, _ in found:
            if len(self._users[self._found.run.named[name]]) > 1:
                raise self._refusal(reader, f"{name} before it is used more than once")
        return _Source(index, axis, found)

    def _row_slots(self, call: Call) -> tuple[Slot, ...]:
        """The parameters in an elementwise operator that hold one number for each row of the last dimension."""
        rows = self._found.run.sizes[call.outputs[0]][-1:]
        values = [v for v in call.inputs() if self._found.run.sizes[v][-1:] == rows]
        return tuple(slot for value in values if (slot := self._slot(value, -1)))

    def _slot(self, value: Value | None, axis: int) -> Slot | None:
        dims = self._found.of(value)
        return dims[axis].slot if dims else None

    # --- forwards ---

    def _readers(self, source: _Source, slots: set[Slot], last: int) -> Iterator[tuple[int, Value, Tensor]]:
        """Every call that computes with the source's rows: (call, operand, row of each of its elements)."""
        start = self._calls[source.call].outputs[0]
        shape = [w for _, w in self._found.run.sizes[start]]
        axis = source.axis % len(shape)
        index = torch.arange(shape[axis]).view([-1 if i == axis else 1 for i in range(len(shape))])
        waiting = [(start, index.expand(shape))]
        while waiting:
            value, index = waiting.pop()
            for user in self._users.get(value, ()):
                after = None if user == last else self._passed(user, value, index, slots)
                if after is None:
                    yield user, value, index
                else:
                    waiting += after

    def _passed(
        self, user: int, value: Value, index: Tensor, slots: set[Slot]
    ) -> list[tuple[Value, Tensor]] | None:
        """The rows behind an operator that keeps factors as they are; None behind one that does not."""
        call = self._calls[user]
        if call.name in LAYOUT:
            return list(zip(call.outputs, tree_leaves(self._replayed(call, value, index)), strict=True))
        if call.name in _SCALED and not isinstance(call.dense["other"], Value):
            return [(call.outputs[0], index)]
        bias = self._row_slots(call) if call.name == "add" else ()
        rows = torch.arange(index.shape[-1])
        if bias and bool((index == rows).all()):
            slots.update(bias)
            return [(call.outputs[0], index)]
        return None

    @staticmethod
    def _replayed(call: Call, value: Value, index: Tensor) -> object:
        if call.name in ("clone", "_to_copy", "detach", "alias", "lift_fresh", "contiguous"):
            return index
        given: Mapping[str, object] = tree_map(lambda x: index if x == value else x, dict(call.wide))
        names = [argument.name for argument in call.function._schema.arguments]
        if call.name in ("view", "_unsafe_view"):
            return index.reshape([int(n) for n in call.wide["size"]])
        return call.function(*(given[name] for name in names if name in given))

    def _refusal(self, reader: int, why: str) -> InfeasibleError:
        module = self._calls[reader].module or "the model"
        return InfeasibleError(
            f"{module} cannot be started from dense weights: its {self._calls[reader].name} reads copies of "
            f"channels that weights before it have to correct, but {why}."
        )
