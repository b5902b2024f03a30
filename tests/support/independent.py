"""torch's FlopCounterMode as it comes, its own formulas only: a counter that shares nothing with ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from iftplan.models.spec import InputSpec
from iftplan.nn.counting.measure import measure
from iftplan.nn.counting.operators.registry import OPERATORS
from iftplan.nn.counting.passes.conditions import counting_conditions
from iftplan.nn.counting.passes.dispatch import DatalessAnswers
from iftplan.nn.counting.passes.ledger import Ledger, Names
from iftplan.nn.meta.copies import without_data
from iftplan.nn.meta.cpu_copy import SEED, PlainRecurrence, cpu_copy
from iftplan.nn.meta.factories import FactoriesOnMeta
from iftplan.nn.meta.inputs import make_inputs, random_inputs


@dataclass(frozen=True)
class Comparison:
    """One model, counted twice.

    Attributes:
        ours: iftplan's MACs.
        independent: FlopCounterMode's, half of its FLOPs.
        without_formula: operators that FlopCounterMode has no formula for, and so counts as nothing → our MACs.
        unknown: operators that iftplan has no formula for.
    """

    ours: int
    independent: int
    without_formula: Mapping[str, int]
    unknown: Mapping[str, int]

    @property
    def explained(self) -> bool:
        """Whether the totals are equal but for operators that can be named."""
        return self.ours - self.independent == sum(self.without_formula.values()) and not self.unknown


def compared(model: nn.Module, inputs: tuple[InputSpec, ...]) -> Comparison:
    """Count a model on the meta device with iftplan and with FlopCounterMode as it comes.

    Where the other counter needs values, it is given those that iftplan's would take.
    """
    table = measure(model, inputs)
    try:
        independent, passed_over = independently(without_data(model), inputs)
    except Exception:
        independent, passed_over = independently(cpu_copy(model, inputs), inputs, "cpu")
    missing = {name: macs for name, macs in table.by_operator().items() if name in passed_over}
    return Comparison(table.macs, independent, missing, table.unknown)


def independently(
    model: nn.Module, inputs: tuple[InputSpec, ...], device: str = "meta"
) -> tuple[int, set[str]]:
    """FlopCounterMode's MACs of a copy, and the contractions that it passed over for want of a formula.

    Of ours there is only what answers `.item()` where there is no data, and what notes those names.
    """
    if device == "meta":
        args, kwargs = make_inputs(inputs)
    else:
        args, kwargs = random_inputs(inputs, model, generator=torch.Generator().manual_seed(SEED))
    counter, passed = FlopCounterMode(display=False), _PassedOver(Ledger(Names(model)))
    special = FactoriesOnMeta() if device == "meta" else PlainRecurrence()
    model.requires_grad_(False)  # its tracker of modules wants a graph of whatever could have gradients
    with counting_conditions(model), passed, counter, special, torch.no_grad():
        model(*args, **kwargs)
    flops: int = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2, passed.names


class _PassedOver(DatalessAnswers):
    """Sees what comes out below FlopCounterMode."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        known = OPERATORS.get(func._schema.name)
        if known is not None and func._overloadpacket not in flop_registry:
            self.names.add(known.name)
        return super().__torch_dispatch__(func, types, args, kwargs)
