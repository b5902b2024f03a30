"""Cost of a training step: the forward pass and, for each of its products, the gradients that are needed.

A product `a · b` has two gradients, each a product of the same size: the one of `a` is needed if anything before
`a` is trained, the one of `b` likewise. So the layer that reads the model's input has no input gradient, a frozen
weight no weight gradient, and groups need no term, for they are in the forward product already. What is
computed again to save memory is not among them: what fused attention computes again is work of a kernel, what
checkpoints do is counted beside them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType, MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from iftplan.base.arguments import check_arguments
from iftplan.base.units import count
from iftplan.models.counting import Values
from iftplan.nn.counting.operators import formulas as f
from iftplan.nn.counting.operators.registry import OPERATORS, Operator
from iftplan.nn.counting.operators.whole_functions import summed_products
from iftplan.nn.counting.passes.data import Data, look_as_needed
from iftplan.nn.counting.passes.dispatch import DispatchNet, to_shapes
from iftplan.nn.counting.passes.lazy_modules import materialise
from iftplan.nn.counting.passes.ledger import Ledger, Names
from iftplan.nn.counting.passes.module_stack import module_scope
from iftplan.nn.counting.saved_tensors import SavedTensors
from iftplan.nn.meta.factories import FactoriesOnMeta
from iftplan.nn.meta.inputs import Inputs, given_inputs
from iftplan.nn.meta.wrappers import unwrapped
from iftplan.nn.torch_internals import tree_leaves

_CHECKPOINT: Final = inspect.unwrap(checkpoint).__code__
WITHOUT_GRADIENTS = (
    "products that ran under torch.no_grad, or inside a function with a backward of its own (a reentrant "
    "checkpoint is one), were counted without gradients"
)

_OURS = "iftplan::block_attention"
"""Operator of this project's that stands for attention with gradients."""


@dataclass(frozen=True, slots=True)
class StepMacs:
    """Contraction MACs of one training step, without the optimizer's elementwise work.

    Attributes:
        forward: MACs of the forward pass.
        backward: MACs of all gradients.
        modules: module → MACs forward and backward.
        unknown: operator → calls, for operators without a formula.
        assumptions: sentences, one for each thing that had to be assumed.
        activation_bytes: what the forward pass keeps for the backward pass, without parameters and buffers.
        recomputed: MACs that the backward pass computes again, under `torch.utils.checkpoint`; None where they could
            not be counted.
        values: where the values came from if the model branched on tensors.
    """

    forward: int
    backward: int
    modules: Mapping[str, tuple[int, int]]
    unknown: Mapping[str, int]
    assumptions: tuple[str, ...]
    values: Values = Values.UNASKED
    activation_bytes: int = 0
    recomputed: int | None = 0

    @property
    def macs(self) -> int:
        """MACs of both passes, each product counted once: what a model's FLOPs utilization (MFU) goes by."""
        return self.forward + self.backward

    @property
    def executed(self) -> int | None:
        """MACs of both passes with all that is computed again (HFU); None where that is not known."""
        return None if self.recomputed is None else self.macs + self.recomputed


@check_arguments
def measure_step(
    model: nn.Module,
    inputs: Inputs,
    *,
    operators: Mapping[str, Operator] = MappingProxyType({}),
) -> StepMacs:
    """MACs of one forward and backward pass, with the gradients of parameters that require them.

    Args:
        model: on the meta device or the CPU; left as it was.
        inputs: the inputs' shapes and dtypes, or example inputs; no gradients are computed for them.
        operators: qualified name → formula, for operators that would be unknown.

    Raises:
        MeasureError: the model's forward pass raised, or it has to run with data and is too large for that.

    Example:
        >>> from iftplan.models.spec import InputSpec
        >>> cost = measure_step(nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)), [InputSpec((5, 8))])
        >>> cost.forward, cost.backward  # the first layer needs no input gradient
        (960, 1280)
    """
    inputs = given_inputs(inputs, model)
    model = materialise(unwrapped(model), inputs)
    given = ", ".join(map(str, inputs)) or "no inputs"
    called = f"a step of {type(model).__name__} could not be run on {given}"
    seen = look_as_needed(model, inputs, partial(_step, {**OPERATORS, **operators}), _assumed, called)
    return replace(seen.result, assumptions=(*seen.result.assumptions, *seen.assumed))


def _assumed(step: StepMacs) -> object:
    """What was counted, if the model asked for values on the way."""
    return (step.modules, step.unknown) if step.values is Values.ASSUMED else None


def _step(
    operators: Mapping[str, Operator],
    model: nn.Module,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    data: Data,
) -> StepMacs:
    ledger = Ledger(Names(model), data=data)
    net = _Gradients(ledger, operators)
    for (
        module
    ) in model.modules():  # of the copy, which is not in training; transformers' layers look at the flag
        module.training |= getattr(module, "gradient_checkpointing", False) is True
    saved = SavedTensors(model)
    recomputed: int | None = 0
    with torch.enable_grad(), module_scope(ledger), net, _Whole(net):
        with saved:
            outputs = model(*args, **kwargs)
        if net.again:
            recomputed = _recomputed(net, outputs)
    paths = ledger.names.modules
    modules = {paths[m] if m else "": (forward, back) for m, (forward, back) in net.costs.items()}
    if net.again:
        again = "most" if recomputed is None else count(recomputed)
        ledger.assume(
            f"{count(net.again)} MACs are in regions of torch.utils.checkpoint. The backward pass computes {again} "
            "of them again, but they are counted once; what these regions keep is not in the activation memory"
        )
    return StepMacs(
        forward=sum(forward for forward, _ in modules.values()),
        backward=sum(back for _, back in modules.values()),
        modules=modules,
        unknown=dict(ledger.unknown),
        assumptions=tuple(ledger.assumptions),
        values=ledger.values,
        activation_bytes=saved.bytes,
        recomputed=recomputed,
    )


def _recomputed(net: _Gradients, outputs: object) -> int | None:
    """MACs of the products that a backward pass runs with gradients: those that checkpoints compute again."""
    roots = [x for x in tree_leaves(outputs) if _trained(x) and x.is_floating_point()]
    net.backward = 0
    try:
        torch.autograd.backward(roots, [torch.ones_like(root) for root in roots])
    except (RuntimeError, NotImplementedError):  # an operator without a backward pass for shapes alone
        return None
    finally:
        found, net.backward = net.backward, None
    return found


class _Gradients(DispatchNet):  # type: ignore[no-untyped-call]
    """Notes beside each product how many gradients it will have."""

    def __init__(self, ledger: Ledger, operators: Mapping[str, Operator]) -> None:
        super().__init__(ledger, operators)
        self.costs: dict[nn.Module | None, tuple[int, int]] = {}
        self.again = 0  # MACs under checkpoints, once for each that is around them
        self.backward: int | None = None  # MACs computed again, once the backward pass runs

    def _count(self, func: Any, args: Sequence[Any], result: Any) -> None:
        if (
            self.backward is None
        ):  # the backward pass has operators of its own, which are no part of the model
            super()._count(func, args, result)
        name = func._schema.name
        operator = self.operators.get(name)
        if operator is None:
            return
        first = result[0] if isinstance(result, tuple | list) and result else result
        macs = operator.cost([to_shapes(a) for a in args], to_shapes(first))
        if macs is None:
            return
        if not torch.is_grad_enabled() and self.backward is None and name != _OURS:
            self.ledger.assume(WITHOUT_GRADIENTS)
            if name.startswith("aten::"):  # others may have a backward pass that is registered with them
                self.add(macs, 0)
                return
        parts = _IN_PARTS.get(operator.name) if OPERATORS.get(name) is operator else None
        gradients = parts or partial(_product, operator)
        self.add(macs, gradients(macs, args))

    def add(self, macs: int, gradients: int) -> None:
        """Write down a product of the running module, and what its gradients take."""
        if self.backward is not None:
            self.backward += macs if torch.is_grad_enabled() else 0
            return
        self.again += macs * _checkpoints_around(sys._getframe())
        module = self.ledger.stack[-1]
        forward, back = self.costs.get(module, (0, 0))
        self.costs[module] = (forward + macs, back + gradients)


class _Whole(FactoriesOnMeta):
    """Adds the products that reach the net as elementwise work."""

    def __init__(self, net: _Gradients) -> None:
        super().__init__(net.ledger.data is not Data.GIVEN)
        self.net = net

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        if (whole := summed_products(func, args, kwargs or {}, result)) is not None:
            _, macs, operands = whole
            if not torch.is_grad_enabled():
                self.net.ledger.assume(WITHOUT_GRADIENTS)
            trained = sum(map(_trained, operands)) if torch.is_grad_enabled() else 0
            self.net.add(macs, macs * trained)
        return result


def _product(operator: Operator, macs: int, args: Sequence[Any]) -> int:
    return macs * sum(map(_trained, (args[k] for k in operator.operands if k < len(args))))


def _attention(macs: int, args: Sequence[Any]) -> int:
    """Scores `q·kᵀ` and weighted values `p·v`, where p needs a gradient if q or k does."""
    query, key, value = args[:3]
    rows = macs // (query.shape[-1] + value.shape[-1])
    scores, values = rows * query.shape[-1], rows * value.shape[-1]
    q, k, v = map(_trained, (query, key, value))
    gradients: int = scores * (q + k) + values * ((q or k) + v)
    return gradients


def _bilinear(macs: int, args: Sequence[Any]) -> int:
    """`x₁ · W`, and its result times `x₂`; the result needs a gradient if x₁ or W does."""
    first, second = f.trilinear(to_shapes(args[:3]), args[3:6], args[6])
    left, weight, right = map(_trained, args[:3])
    return first * (left + weight) + second * ((left or weight) + right)


_IN_PARTS: Final[Mapping[str, Callable[[int, Sequence[Any]], int]]] = MappingProxyType(
    {"attention": _attention, "bilinear": _bilinear}
)
"""Operators that are two products, one with the other's result."""


def _checkpoints_around(frame: FrameType | None) -> int:
    """How many regions of torch.utils.checkpoint are running."""
    found = 0
    while frame is not None:
        found += frame.f_code is _CHECKPOINT
        frame = frame.f_back
    return found


def _trained(value: object) -> bool:
    return isinstance(value, Tensor) and value.requires_grad
