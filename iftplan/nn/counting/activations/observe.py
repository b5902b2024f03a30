"""A pass over data that counts zeros among activations, and sets some to zero where a selection says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from iftplan.models.dynamic.activations import ActivationSparsity, LayerActivity
from iftplan.models.dynamic.selection import InputSelection
from iftplan.nn.counting.activations.products import WeightProduct, product_of
from iftplan.nn.counting.activations.selectors import SAMPLED_TOKENS, errors, kept
from iftplan.nn.counting.engines.meta import ShapeRules
from iftplan.nn.counting.operators.registry import OPERATORS, Operators
from iftplan.nn.counting.passes.conditions import counting_conditions
from iftplan.nn.counting.passes.data import Data
from iftplan.nn.counting.passes.dispatch import DispatchNet
from iftplan.nn.counting.passes.ledger import Ledger, Names
from iftplan.nn.counting.passes.module_stack import module_scope
from iftplan.nn.meta.cpu_copy import PlainRecurrence
from iftplan.nn.torch_internals import require, without_torch_function

Place = tuple[str, str]
"""A module and a weight that it used."""


@dataclass(slots=True)
class Activity:
    """Running totals of one weight in one module: MACs of whole weights, those that met a weight that counts, and of them skipped."""

    elements: int = 0
    nonzeros: int = 0
    macs: int = 0
    met: int = 0
    skipped: int = 0
    error: float = 0.0
    tokens: int = 0


@dataclass(slots=True)
class Observed:
    """Totals of passes over data.

    Attributes:
        selection: rule by which inputs are set to zero.
        ledger: static counts of the same passes.
        nonzeros: whether weights that are zero count in neither number.
        activities: of each weight in each module.
        samples: weight → first tokens that met it, with its matrix; only if they are collected.
    """

    selection: InputSelection
    ledger: Ledger
    nonzeros: bool = False
    activities: dict[Place, Activity] = field(default_factory=dict)
    samples: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def sparsity(self, count: int, loss: float | None) -> ActivationSparsity:
        """The totals as a value.

        Args:
            count: samples that were passed through.
            loss: mean cross entropy in nats; None without targets.
        """
        layers: list[LayerActivity] = []
        unobserved: dict[str, int] = {}
        for found in self.ledger.table("meta", ()).contractions:
            seen = self.activities.get((found.module, found.weight or ""))
            if seen is None or seen.macs != found.macs:  # another operator used the weight too
                place = f"{found.module or found.weight or 'the model'}:{found.operator}"
                unobserved[place] = unobserved.get(place, 0) + found.macs
                continue
            error = seen.error / seen.tokens if seen.tokens else None
            layers.append(
                LayerActivity(
                    found.module,
                    found.weight or "",
                    seen.elements,
                    seen.nonzeros,
                    seen.met,
                    seen.met - seen.skipped,
                    error,
                )
            )
        return ActivationSparsity(
            str(self.selection),
            count,
            tuple(layers),
            MappingProxyType(unobserved),
            MappingProxyType(dict(self.ledger.unknown)),
            loss,
            self.selection.thresholds,
        )


class ActivationNet(DispatchNet):  # type: ignore[no-untyped-call]
    """Counts every operator, and the zeros among the activations of those that multiply them with a weight.

    Args:
        observed: where the totals go.
        operators: formulas of all operators.
        collects: whether tokens are collected for thresholds, and none is set to zero.
    """

    def __init__(self, observed: Observed, operators: Operators, *, collects: bool) -> None:
        super().__init__(observed.ledger, operators)
        self.observed = observed
        self.collects = collects

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        module = self.ledger.stack[-1]
        names = [self.ledger.names.parameter(argument, module) for argument in args]
        product = product_of(func._schema.name, args, [name is not None for name in names])
        if product is not None:
            weight = next(n for n, a in zip(names, args, strict=True) if a is product.w and n is not None)
            path = self.ledger.names.modules[module] if module is not None else ""
            before = self._macs(module, weight)
            with without_torch_function(), torch.no_grad():
                x = self._selected(product, path, weight)
            args = (*args[: product.place], x, *args[product.place + 1 :])
            result = super().__torch_dispatch__(func, types, args, kwargs)
            with without_torch_function(), torch.no_grad():
                self._note(product, x, (path, weight), self._macs(module, weight) - before)
            return result
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _macs(self, module: nn.Module | None, weight: str) -> int:
        """MACs that the ledger has of a weight in a module so far."""
        return sum(
            macs
            for (where, _, used), (macs, _) in self.ledger.entries.items()
            if (where, used) == (module, weight)
        )

    def _selected(self, product: WeightProduct, module: str, weight: str) -> Tensor:
        """The activations without those that the selection leaves out."""
        selection = self.observed.selection
        if not product.is_matrix or not selection.covers(module):
            return product.x
        if self.collects:
            self._collect(product, weight)
            return product.x
        stay = kept(product.x, product.w, selection, weight)
        if stay is None:
            return product.x
        seen = self.observed.activities.setdefault((module, weight), Activity())
        seen.error += float(errors(product.x, product.w, stay).sum())
        seen.tokens += len(product.x)
        return product.x * stay

    def _collect(self, product: WeightProduct, weight: str) -> None:
        before = self.observed.samples.get(weight)
        rows = product.x if before is None else torch.cat((before[0], product.x))
        self.observed.samples[weight] = rows[:SAMPLED_TOKENS].clone(), product.w

    def _note(self, product: WeightProduct, x: Tensor, place: Place, macs: int) -> None:
        """Add one call."""
        nonzeros = self.observed.nonzeros
        shown = replace(product, x=x)
        seen = self.observed.activities.setdefault(place, Activity())
        seen.elements += x.numel()
        seen.nonzeros += int(x.count_nonzero())
        seen.macs += macs
        seen.met += macs * int(product.w.count_nonzero()) // product.w.numel() if nonzeros else macs
        seen.skipped += shown.skipped_macs(nonzeros=nonzeros)


@contextmanager
def observing(
    model: nn.Module,
    selection: InputSelection,
    *,
    nonzeros: bool = False,
    operators: Operators = OPERATORS,
    collects: bool = False,
) -> Iterator[Observed]:
    """Context in which passes of a model are observed; it is in eval mode meanwhile, and gradients are off.

    Args:
        model: with values.
        selection: rule by which inputs are set to zero.
        nonzeros: whether weights that are zero count in neither number.
        operators: formulas of all operators.
        collects: whether tokens are collected for thresholds, and none is set to zero.

    Raises:
        MeasureError: the pass ended the process, or computed in threads of its own.
    """
    require("counting")
    ledger = Ledger(Names(model), data=Data.GIVEN)
    observed = Observed(selection, ledger, nonzeros)
    net = ActivationNet(observed, operators, collects=collects)
    with counting_conditions(model), PlainRecurrence(), module_scope(ledger), net, ShapeRules(ledger, net):
        yield observed
