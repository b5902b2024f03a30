"""fvcore as an engine of its own: the operators that torch's jit tracer records, counted with our formulas.

Its own formulas are not used (they add norms and pooling and miss fused attention). On the meta
device there is one thing to put right, see `TracedOnMeta`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from iftplan.base.errors import MeasureError
from iftplan.models.counting import CountTable
from iftplan.nn.counting.operators.registry import OPERATORS, Operator, Operators, may_contract
from iftplan.nn.counting.passes.data import Data
from iftplan.nn.counting.passes.dispatch import DatalessAnswers, refuse_dtypes
from iftplan.nn.counting.passes.ledger import Ledger, Names
from iftplan.nn.meta.factories import FactoriesOnMeta
from iftplan.nn.torch_internals import (
    call_below_modes,
    compiled_in_trace,
    forward_hooks,
    quiet_tracer,
    require,
    tracing,
    tree_flatten,
    tree_leaves,
    tree_unflatten,
    without_modes,
)

with quiet_tracer():
    from fvcore.nn.jit_analysis import JitModelAnalysis

_CONVOLUTION = torch.ops.aten.convolution.default
# Operators that hand a parameter on unchanged but for its shape: the weight is looked for behind them.
_RESHAPED = (
    *(
        "t",
        "transpose",
        "permute",
        "view",
        "reshape",
        "expand",
        "unsqueeze",
        "squeeze",
        "flatten",
        "unflatten",
    ),
    *("mT", "chunk", "split", "unbind", "select", "slice", "detach", "contiguous", "to"),
)
_VIEWS = frozenset((*(f"aten::{name}" for name in _RESHAPED), "prim::ListUnpack", "prim::TupleUnpack"))

# Nodes with graphs of their own, which fvcore passes over: scripted functions and what they fork.
_WITHIN = ("prim::fork", "prim::If", "prim::Loop", "prim::CallFunction", "prim::CallMethod")


class TracedOnMeta(DatalessAnswers):  # type: ignore[no-untyped-call]
    """Lets the jit tracer see convolutions on the meta device.

    The tracer does not record aten::convolution but the aten::_convolution that the eager kernel calls from
    it. The meta kernel makes no such call, so the tracer would lose every convolution; this mode makes it.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not _CONVOLUTION or not tracing():
            return super().__torch_dispatch__(func, types, args, kwargs)
        return call_below_modes(torch.ops.aten._convolution.default, *args, False, False, False, False)


class FvcoreEngine:
    """Engine that counts with fvcore and our formulas."""

    name = "fvcore"

    def __init__(self, operators: Operators = OPERATORS) -> None:
        self.operators = operators

    def count(
        self, model: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object], data: Data
    ) -> CountTable:
        """Count of one forward pass in MACs, traced by fvcore with a handle for each contraction.

        Args:
            model: set to eval mode by the caller; its tensors have a dense layout.
            args: positional inputs of the pass.
            kwargs: keyword inputs of the pass.
            data: whether tensors have values, or what is assumed in their place.

        Raises:
            MeasureError: fvcore's total is not the sum of what the handles gave, or a tensor is sparse.
        """
        for name, tensor in model.state_dict().items():
            if tensor.layout is not torch.strided:
                raise _sparse(name)
        require("tracing")
        runner = _Runner(model, args, kwargs)
        ledger = Ledger(Names(model), data=data)
        analysis = JitModelAnalysis(runner, runner.tensors)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        graph = _Graph(ledger, runner, len(runner.tensors))
        analysis.set_op_handle(**{name: graph.handle(operator) for name, operator in self.operators.items()})
        analysis.set_op_handle(**dict.fromkeys(_WITHIN, graph.unseen))
        where = (
            without_modes() if data is Data.GIVEN else _without_data(ledger)
        )  # with data, modes hide convolutions
        with quiet_tracer(), _hooks_restored(model), compiled_in_trace(), where:
            runner.return_every_result()
            total = analysis.total()
        for kind, calls in analysis.unsupported_ops().items():
            if may_contract(kind) or kind.startswith("prim::PythonOp"):
                ledger.unknown[kind] += calls
        table = ledger.table(self.name, ())
        if total != table.macs:
            raise MeasureError(f"fvcore's total of {total} MACs is not the {table.macs} its handles gave.")
        return table


_OURS: Final = frozenset(OPERATORS.values())
"""Operators whose operands have one type."""
_NOTHING: Final[Any] = None
"""In the place of a result's shape, where there is no result."""


class _Runner(nn.Module):
    """The model as the tracer wants it: positional tensors in, a tuple of tensors out.

    The tracer drops operators whose results nobody returns, although they run. So every module's results
    are returned.
    """

    def __init__(self, model: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        super().__init__()
        self.model = model
        self._leaves, self._structure = tree_flatten((args, dict(kwargs)))
        self._results: dict[int, Tensor] = {}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What is traced; plain values among the inputs stay what they are."""
        return tuple(leaf for leaf in self._leaves if isinstance(leaf, Tensor))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        traced = iter(tensors)
        leaves = [next(traced) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        args, kwargs = tree_unflatten(leaves, self._structure)
        self.model(*args, **kwargs)
        return tuple(self._results.values())

    def return_every_result(self) -> None:
        """Keep what every module returns."""
        for module in self.model.modules():
            module.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, args: object, result: object) -> None:
        if not tracing():
            return  # run beside the pass, to be compared
        self._results.update((id(leaf), leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor))


@contextmanager
def _without_data(ledger: Ledger) -> Iterator[None]:
    with TracedOnMeta(ledger), FactoriesOnMeta():
        yield


@contextmanager
def _hooks_restored(model: nn.Module) -> Iterator[None]:
    """Take off again what was hooked on; fvcore leaves its own hooks behind when a forward pass raises."""
    before = [(hooks, dict(hooks)) for module in model.modules() for hooks in forward_hooks(module)]
    try:
        yield
    finally:
        for hooks, own in before:
            hooks.clear()
            hooks.update(own)


class _Graph:
    """Reads a traced graph: shapes of values, the module a node belongs to, the parameter behind a value."""

    def __init__(self, ledger: Ledger, runner: _Runner, inputs: int) -> None:
        self._ledger = ledger
        self._modules = dict(runner.named_modules())
        self._inputs = inputs
        unique = {id(t): t for t in runner.state_dict(keep_vars=True).values()}  # the tracer's own order
        self._state: list[str | None] = [ledger.names.parameter(tensor) for tensor in unique.values()]

    def unseen(self, inputs: list[Any], outputs: list[Any]) -> int:
        """A handle for a node whose own graph fvcore does not look into."""
        self._ledger.unknown[outputs[0].node().kind() if outputs else "prim::If"] += 1
        return 0

    def handle(self, operator: Operator) -> Callable[[list[Any], list[Any]], int]:
        """A handle for fvcore that also writes the call into the ledger."""

        def count(inputs: list[Any], outputs: list[Any]) -> int:
            macs = operator.cost([_plain(v) for v in inputs], _plain(outputs[0]) if outputs else _NOTHING)
            node = outputs[0].node() if outputs else None
            if macs is None:
                self._ledger.unknown[operator.name if node is None else node.kind()] += 1
                return 0
            scope = "" if node is None else node.scopeName().split("/")[-1]
            self._ledger.stack[-1] = self._modules[scope] if scope != "" else None
            operands = [inputs[k] for k in operator.operands if k < len(inputs)]
            tensors = (value.type() for value in operands if value.type().kind() == "TensorType")
            if operator in _OURS:
                refuse_dtypes(operator.name, {tensor.dtype() for tensor in tensors} - {None})
            names = (self._parameter(value) for value in operands)
            self._ledger.add(operator.name, macs, next((name for name in names if name), None))
            return macs

        return count

    def _parameter(self, value: Any) -> str | None:
        node = value.node()
        while node.kind() in _VIEWS:
            value = node.inputsAt(0)
            node = value.node()
        if node.kind() != "prim::Param" or value.offset() < self._inputs:
            return None
        index: int = value.offset() - self._inputs
        return self._state[index]


def _sparse(name: str) -> MeasureError:
    return MeasureError(
        f"{name} is sparse, and fvcore cannot see how many values a sparse tensor stores; count with the meta "
        "engine."
    )


def _plain(value: Any) -> Any:
    """A traced value: a tensor is its shape, a list the list of its elements, a constant itself."""
    if "sparse" in value.node().kind():
        raise _sparse(f"the result of {value.node().kind()}")
    if value.type().kind() == "TensorType":
        return tuple(value.type().sizes())
    if value.node().kind() == "prim::ListConstruct":
        return [_plain(v) for v in value.node().inputs()]
    return value.toIValue()
