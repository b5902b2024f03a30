"""Ledger of a forward pass: contractions, elementwise work, unknown operators."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from iftplan.masks.attention.product import AttentionCall
from iftplan.models.counting import Contraction, CountTable, Values
from iftplan.nn.counting.passes.data import ASSUMED_ITEM, FOR_THIS_INPUT, Data
from iftplan.nn.torch_internals import storage_address


class Names:
    """Names of a model's modules and parameters, found again by identity or by storage.

    Storage identity also finds views of a parameter (`weight.t()`, one of three projections in a joint
    weight), on the meta device as well. A tied parameter has the first of its names.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules: dict[nn.Module, str] = {}
        self._by_id: dict[int, str] = {}
        self._by_storage: dict[int, str] = {}
        self._derived: dict[int, str] = {}
        self._alive: list[Tensor] = []  # an id is only a name while its tensor lives
        self.reparametrized: dict[nn.Module, dict[str, str]] = {}
        for path, module in model.named_modules():
            self.modules[module] = path
            self._add_parameters(module, path)

    def _add_parameters(self, module: nn.Module, path: str) -> None:
        prefix = f"{path}." if path else ""
        for name, parameter in module._parameters.items():
            if parameter is None or id(parameter) in self._by_id:
                continue
            self._by_id[id(parameter)] = prefix + name
            self._alive.append(parameter)
            self._by_storage.setdefault(storage_address(parameter), prefix + name)
            if name.endswith("_orig"):  # torch.nn.utils.prune computes the weight before each forward
                pruned = self.reparametrized.setdefault(module, {})
                pruned[name.removesuffix("_orig")] = prefix + name

    def derive(self, tensor: Tensor, name: str) -> None:
        """Let `tensor`, computed from a parameter by a parametrization, carry that parameter's name."""
        self._derived[storage_address(tensor)] = name
        self._alive.append(tensor)

    def parameter(self, tensor: object, module: nn.Module | None = None) -> str | None:
        """The name of the parameter that `tensor` is, or is a view of, or was pruned from in `module`."""
        if not isinstance(tensor, Tensor):
            return None
        name = self._by_id.get(id(tensor))
        if name is not None:
            return name
        storage = storage_address(tensor)
        name = self._by_storage.get(storage) or self._derived.get(storage)
        if name is None and module is not None and module in self.reparametrized:
            return self._pruned(storage, module)
        return name

    def _pruned(self, storage: int, module: nn.Module) -> str | None:
        for attribute, original in self.reparametrized[module].items():
            weight = getattr(module, attribute, None)
            if isinstance(weight, Tensor) and storage_address(weight) == storage:
                return original
        return None


@dataclass(slots=True)
class Ledger:
    """The running totals of one pass.

    `stack` holds the modules that are running, innermost last; `data` is what answers for values of tensors, and
    `asked` whether any was asked for. `attention` holds for each module the attention that it called, None for one whose
    sizes or mask are its own affair.
    """

    names: Names
    stack: list[nn.Module | None] = field(default_factory=lambda: [None])
    ran: set[nn.Module] = field(default_factory=set)
    entries: dict[tuple[nn.Module | None, str, str | None], list[int]] = field(default_factory=dict)
    elementwise: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    attention: dict[nn.Module | None, set[AttentionCall | None]] = field(default_factory=dict)
    assumptions: dict[str, None] = field(default_factory=dict)
    data: Data = Data.ASSUMED
    asked: bool = False

    def __post_init__(self) -> None:
        if self.data is Data.GIVEN:
            self.assume(FOR_THIS_INPUT)

    def contraction(self, operator: str, macs: int, *operands: object) -> None:
        """Add one call of an operator; the first operand that is a parameter counts as its weight.

        Args:
            operator: qualified name, such as "aten::mm".
            macs: multiply-accumulates of the call.
            *operands: tensors among which the weight is looked for, in this order.
        """
        module = self.stack[-1]
        weight = None
        for operand in operands:
            weight = self.names.parameter(operand, module)
            if weight is not None:
                break
        self.add(operator, macs, weight)

    def add(self, operator: str, macs: int, weight: str | None) -> None:
        """Add one call of an operator whose weight is known.

        Args:
            operator: qualified name, such as "aten::mm".
            macs: multiply-accumulates of the call.
            weight: name of the parameter; None for a product of two activations.
        """
        entry = self.entries.setdefault((self.stack[-1], operator, weight), [0, 0])
        entry[0] += macs
        entry[1] += 1

    def attend(self, call: AttentionCall | None) -> None:
        """Note the sizes of a call of attention, whose MACs are counted elsewhere."""
        self.attention.setdefault(self.stack[-1], set()).add(call)

    def _attention(self, module: nn.Module | None, operator: str) -> AttentionCall | None:
        """The one kind of attention that a module called; None if it called several, or none."""
        calls = self.attention.get(module, set()) if operator == "attention" else set()
        return next(iter(calls)) if len(calls) == 1 else None

    def assume(self, sentence: str) -> None:
        """Log an assumption once."""
        self.assumptions[sentence] = None

    def item(self, dtype: torch.dtype) -> bool | int:
        """Value that a tensor without data answers with, logged as an assumption."""
        self.asked = True
        self.assume(ASSUMED_ITEM)
        return self.data.item(dtype)

    @property
    def values(self) -> Values:
        """Origin of the values that the model asked its tensors for."""
        if self.data is Data.GIVEN:
            return Values.GIVEN
        return Values.ASSUMED if self.asked else Values.UNASKED

    def table(self, engine: str, uncalled: tuple[str, ...]) -> CountTable:
        """Count table of the pass."""
        path = self.names.modules
        return CountTable(
            engine=engine,
            contractions=tuple(
                Contraction(
                    path[module] if module else "",
                    operator,
                    macs,
                    weight,
                    calls,
                    self._attention(module, operator) if weight is None else None,
                )
                for (module, operator, weight), (macs, calls) in self.entries.items()
            ),
            elementwise=dict(self.elementwise),
            unknown=dict(self.unknown),
            uncalled=uncalled,
            assumptions=tuple(self.assumptions),
            values=self.values,
        )
