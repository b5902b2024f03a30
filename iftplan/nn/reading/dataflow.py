"""Which weights a forward pass contracts or looks up, in what layout, and where they stand in the graph.

One pass under a dispatch mode. Every tensor is marked with the weight layers that it
comes from directly, that is with no other weight layer in between:

- a weight layer is *first* if the model's input is all that its operand comes from;
- it is *last* if the model's output comes from it directly and no other weight layer reads it.

So roles follow from what is computed; a name or a coincidence of sizes never decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from iftplan.models.spec import InputSpec
from iftplan.nn.counting.operators.registry import OPERATORS
from iftplan.nn.counting.passes.data import Data, look, look_as_needed
from iftplan.nn.counting.passes.dispatch import grouped_mm, without_data
from iftplan.nn.counting.passes.ledger import Ledger, Names
from iftplan.nn.counting.shape_rules.elementwise import ELEMENTWISE
from iftplan.nn.meta.factories import FactoriesOnMeta
from iftplan.nn.reading.outputs import held
from iftplan.nn.torch_internals import TorchDispatchMode, inside_transform, storage_address, without_dispatch

Node = tuple[str, bool]  # a weight, and whether it is looked up: a tied embedding is two layers
_INPUT: Node = ("", True)
_NOTHING: frozenset[Node] = frozenset()
_LOOKUPS = frozenset({"aten::embedding", "aten::_embedding_bag", "aten::_embedding_bag_forward_only"})
_TRANSPOSED, _GROUPS = 6, 8  # arguments of aten::convolution
_GROUPED_MM = torch.ops.aten._grouped_mm.default
_PLAIN = frozenset({Tensor, nn.Parameter})


@dataclass(frozen=True, slots=True)
class WeightUse:
    """One weight layer of the graph, at its first use.

    Attributes:
        weight: qualified parameter name (the first of a tied one's names).
        lookup: rows are looked up (an embedding); otherwise it is contracted.
        operator: plain name: embedding, convolution, mm, addmm, grouped_mm …
        rows_are_outputs: the layout of a matrix: `(out, in)` as in `nn.Linear`, or `(in, out)`.
        transposed: it is the kernel of a transposed convolution.
        groups: the groups of a convolution.
        experts: how many matrices the weight stacks, each of which meets rows of its own.
        even: all of it is used equally often; false where it is sliced, and parts are left out or meet fewer rows.
        first: its operand comes from the model's input and no other weight layer.
        last: the output comes from it, and no other weight layer reads it.
    """

    weight: str
    lookup: bool
    operator: str
    rows_are_outputs: bool = True
    transposed: bool = False
    groups: int = 1
    experts: int = 1
    even: bool = True
    first: bool = False
    last: bool = False


def weight_uses(
    model: nn.Module, inputs: Sequence[InputSpec], data: Data = Data.ASSUMED
) -> tuple[WeightUse, ...]:
    """Every weight layer of one forward pass, in the order of first use.

    Args:
        model: any module, left as it was.
        inputs: what the pass takes.
        data: whether the pass needs values, as `look_as_needed` says.
    """
    if data is Data.GIVEN:
        return look(model, inputs, data, _see).result
    given = ", ".join(map(str, inputs)) or "no inputs"
    called = f"{type(model).__name__} could not be run on {given}"
    return look_as_needed(model, inputs, _see, lambda _: None, called).result


def _see(
    model: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object], data: Data
) -> tuple[WeightUse, ...]:
    dataflow = _Dataflow(dict(model.named_parameters()), list(_tensors((args, kwargs))))
    with dataflow, _Elementwise(dataflow, data):
        output = model(*args, **kwargs)
    return dataflow.uses(output)


class _Elementwise(FactoriesOnMeta):
    """Answers work without contractions from its shapes, as the engine that counts does."""

    def __init__(self, dataflow: _Dataflow, data: Data) -> None:
        super().__init__(data is not Data.GIVEN)
        self._dataflow = dataflow
        self._unread = Ledger(Names(nn.Module()), data=data)  # what it costs is counted elsewhere

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        rule = ELEMENTWISE.get(func) if self.active else None
        if rule is not None and _PLAIN.issuperset(types) and not inside_transform():
            guard = without_dispatch()  # a rule's own empty tensors come from nowhere
            try:
                result = rule(self._unread, *args, **(kwargs or {}))
            finally:
                del guard  # an exception would keep its frame, and with it this, alive
            if result is not NotImplemented:
                self._dataflow.follow(result, (args, kwargs or {}))
                return result
        return super().__torch_function__(func, types, args, kwargs)


class _Dataflow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Marks storages, not tensors, so that a view and a write through a view need no rule of their own."""

    def __init__(self, weights: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights = {storage_address(tensor): (name, tensor) for name, tensor in weights.items()}
        self._origins = {storage_address(tensor): frozenset([_INPUT]) for tensor in inputs}
        # What is marked stays alive: its address must not be given to a second storage.
        self._kept: list[Tensor] = [*weights.values(), *inputs]
        self._uses: dict[Node, WeightUse] = {}
        self._read: set[Node] = set()
        # weight that is contracted → its parts → numbers of the other operand that each met
        self._parts: dict[str, dict[_Part, int]] = {}

    def uses(self, output: object) -> tuple[WeightUse, ...]:
        """What was seen, with the role that the model's output decides."""
        final = self._origin(held(output)) - self._read
        return tuple(
            replace(use, last=node in final, even=use.lookup or self._is_even(use.weight))
            for node, use in self._uses.items()
        )

    def _is_even(self, weight: str) -> bool:
        """Whether the parts of a weight that were contracted make it up, and each met as many rows."""
        parts = self._parts[weight]
        size = next(tensor.numel() for name, tensor in self._weights.values() if name == weight)
        partial = [part for part in parts if part.numel < size]
        if not partial:
            return True
        whole = len(partial) == len(parts) and sum(part.numel for part in partial) == size
        return whole and len({parts[part] for part in partial}) == 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return Data.ASSUMED.item(args[0].dtype)  # the counter logs this assumption
        result: Any
        if func is _GROUPED_MM and args[0].is_meta:
            result = grouped_mm(*args, **(kwargs or {}))  # torch's own refuses all but bfloat16
        else:
            result = without_data(func, args, kwargs)
        self.follow(result, (args, kwargs), self._use(func._schema.name, args))
        return result

    def follow(self, result: object, arguments: object, use: WeightUse | None = None) -> None:
        """Mark what an operator gave with what its arguments come from.

        Args:
            result: of the operator.
            arguments: that it took.
            use: the weight layer that it is, if it is one.
        """
        operands = list(_tensors(arguments))
        origin = self._origin(operands)
        if use is not None:
            origin = self._recorded(use, origin)
        for tensor in _tensors(result):
            self._mark(tensor, origin, operands)

    def _origin(self, tensors: Iterable[Tensor]) -> frozenset[Node]:
        return _NOTHING.union(*(self._origins.get(storage_address(t), _NOTHING) for t in tensors))

    def _recorded(self, use: WeightUse, origin: frozenset[Node]) -> frozenset[Node]:
        node = (use.weight, use.lookup)
        self._uses.setdefault(node, replace(use, first=origin == {_INPUT}))
        self._read |= origin - {node}
        return frozenset([node])

    def _mark(self, tensor: Tensor, origin: frozenset[Node], operands: Sequence[Tensor]) -> None:
        key = storage_address(tensor)
        if origin:
            self._origins[key] = origin  # a write in place has what was there before among its operands
            self._kept.append(tensor)
        elif key not in self._weights:
            sources = {self._weights[k] for k in map(storage_address, operands) if k in self._weights}
            if len(sources) == 1 and (source := sources.pop())[1].numel() == tensor.numel():
                # A cast, copied, rearranged or masked weight is still that weight.
                self._weights[key] = (source[0], tensor)
                self._kept.append(tensor)

    def _note_part(self, weight: str, operand: Tensor, args: Sequence[Any], operands: Sequence[int]) -> None:
        """Remember which part of a weight is contracted, and how much it met."""
        others = [args[i] for i in operands if args[i] is not operand and isinstance(args[i], Tensor)]
        part = _Part(int(operand.storage_offset()), operand.numel())
        met = self._parts.setdefault(weight, {})
        met[part] = met.get(part, 0) + sum(other.numel() for other in others)

    def _use(self, operator: str, args: Sequence[Any]) -> WeightUse | None:
        if operator in _LOOKUPS:
            found = self._weights.get(storage_address(args[0]))
            return WeightUse(found[0], True, "embedding") if found else None
        known = OPERATORS.get(operator)
        for position in known.operands if known else ():
            found = self._weights.get(storage_address(args[position]))
            if known and found:
                use = WeightUse(found[0], False, known.name)
                self._note_part(found[0], args[position], args, known.operands)
                if known.name == "convolution":
                    return replace(use, transposed=args[_TRANSPOSED], groups=args[_GROUPS])
                on_the_right = position == known.operands[0]
                return replace(
                    use,
                    rows_are_outputs=_rows_are_outputs(args[position], found[1], on_the_right),
                    experts=_stacked(args[position], found[1]),
                )
        return None


@dataclass(frozen=True, slots=True)
class _Part:
    """View of a weight that one contraction takes."""

    offset: int
    numel: int


def _rows_are_outputs(operand: Tensor, weight: Tensor, on_the_right: bool) -> bool:
    """Whether the contracted index runs along the matrix's columns, told by the strides of the view."""
    if weight.dim() < 2 or operand.dim() < 2:
        return True
    contracted = operand.dim() - (2 if on_the_right else 1)
    along_columns = operand.stride(contracted) == weight.stride(-1)
    return along_columns and operand.shape[contracted] <= weight.shape[-1]


def _stacked(operand: Tensor, weight: Tensor) -> int:
    """How many matrices are multiplied one by one: those of a weight that is taken whole, stacked along its first dimension."""
    whole = operand.dim() == weight.dim() == 3 and operand.numel() == weight.numel()
    by_expert = whole and (operand.shape[0], operand.stride(0)) == (weight.shape[0], weight.stride(0))
    return int(weight.shape[0]) if by_expert else 1


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name, None))
