"""A dense and a wide model run side by side on the meta device: the same operators, at two sizes each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from iftplan.base.errors import InfeasibleError, MeasureError
from iftplan.models.spec import InputSpec
from iftplan.nn.counting.passes.conditions import counting_conditions
from iftplan.nn.counting.passes.data import Data
from iftplan.nn.meta.inputs import make_inputs
from iftplan.nn.torch_internals import TorchDispatchMode, tree_leaves, tree_map
from iftplan.nn.warmstart.replicas import Size


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the forward pass, by its number."""

    number: int


@dataclass(frozen=True, slots=True)
class Call:
    """Operator call of both models, with the arguments of each.

    Attributes:
        function: torch's operator.
        module: path of the module that ran it.
        dense, wide: argument name → what it was in each model, tensors as values.
        outputs: the tensors that came out.
    """

    function: Any
    module: str
    dense: Mapping[str, Any]
    wide: Mapping[str, Any]
    outputs: tuple[Value, ...]

    @property
    def name(self) -> str:
        """The operator without its namespace and, in place, without its underscore."""
        name = str(self.function._schema.name).removeprefix("aten::")
        return name.removesuffix("_") if not name.startswith("_") else name

    def inputs(self) -> list[Value]:
        """Tensors that the operator took."""
        return [leaf for leaf in tree_leaves(self.dense) if isinstance(leaf, Value)]


@dataclass(frozen=True, slots=True)
class Lockstep:
    """Operators and tensor sizes of one pass of the dense and the wide model.

    Attributes:
        calls: in their order.
        sizes: value → the size of each of its dimensions in both.
        named: parameter or buffer → its value; a tied one is one value.
    """

    calls: tuple[Call, ...]
    sizes: Mapping[Value, tuple[Size, ...]]
    named: Mapping[str, Value]


def lockstep(dense: nn.Module, wide: nn.Module, inputs: Sequence[InputSpec]) -> Lockstep:
    """One pass of both models on the meta device, operator by operator.

    Args:
        dense: the model at its own widths.
        wide: the same model at other widths.
        inputs: what one forward pass takes.

    Raises:
        InfeasibleError: they do not run the same operators.
        MeasureError: one does not run there at all.
    """
    first, second = _run(dense, inputs), _run(wide, inputs)
    pairs = list(zip(first.calls, second.calls, strict=False))
    odd = next((a for a, b in pairs if a[:2] != b[:2] or a[3] != b[3]), None)
    if odd or len(first.calls) != len(second.calls) or len(first.shapes) != len(second.shapes):
        where = odd[1] if odd else "the model"
        raise InfeasibleError(
            f"{where or 'the model'} cannot be started from dense weights: at the new widths it runs other operators."
        )
    calls = tuple(Call(a[0], a[1], a[2], b[2], a[3]) for a, b in pairs)
    sizes = {
        Value(i): tuple(zip(a, b, strict=True))
        for i, (a, b) in enumerate(zip(first.shapes, second.shapes, strict=True))
    }
    return Lockstep(calls, sizes, first.named)


_Step = tuple[Any, str, Mapping[str, Any], tuple[Value, ...]]


@dataclass
class _Recorded:
    calls: list[_Step] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    named: dict[str, Value] = field(default_factory=dict)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made = _Recorded()
        self.scope = [""]
        self._numbers: dict[int, Value] = {}
        self._kept: list[Tensor] = []  # an address must not be given to a second tensor

    def value(self, tensor: Tensor) -> Value:
        return self._numbers.get(id(tensor)) or self.new(tensor)

    def new(self, tensor: Tensor) -> Value:
        value = Value(len(self.made.shapes))
        self._numbers[id(tensor)] = value
        self._kept.append(tensor)
        self.made.shapes.append(tuple(tensor.shape))
        return value

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return Data.ASSUMED.item(args[0].dtype)
        names = [argument.name for argument in func._schema.arguments]
        given = tree_map(
            lambda x: self.value(x) if isinstance(x, Tensor) else x,
            dict(zip(names, args, strict=False)) | (kwargs or {}),
        )
        result = func(*args, **(kwargs or {}))
        outputs = tuple(self.new(leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        self.made.calls.append((func, self.scope[-1], given, outputs))
        return result


def _run(model: nn.Module, inputs: Sequence[InputSpec]) -> _Recorded:
    recorder = _Recorder()
    for name, tensor in _tensors(model):
        recorder.made.named[name] = recorder.value(tensor)
    args, kwargs = make_inputs(inputs)
    with ExitStack() as stack:
        for path, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(_entering(recorder, path)).remove)
            stack.callback(module.register_forward_hook(_leaving(recorder)).remove)
        stack.enter_context(counting_conditions(model))
        stack.enter_context(recorder)
        try:
            model(*args, **kwargs)
        except Exception as error:
            raise MeasureError(
                f"{recorder.scope[-1] or type(model).__name__} does not run on the meta device, where its channels would be followed: {str(error).splitlines()[0] if str(error) else type(error).__name__}."
            ) from error
    return recorder.made


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _entering(recorder: _Recorder, path: str) -> Any:
    return lambda *_: recorder.scope.append(path)


def _leaving(recorder: _Recorder) -> Any:
    def leave(*_: object) -> None:
        recorder.scope.pop()

    return leave
