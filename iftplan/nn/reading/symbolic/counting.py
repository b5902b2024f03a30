"""Contractions of one symbolic forward pass: their MACs as expressions, weight by weight.

Two layers see each call: a function mode names what the user called (`matmul`, `attention`), a dispatch
mode below it sees the contraction that is really carried out. Attention is answered at the upper layer,
because its decompositions differ by device while its shape rule does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import sympy
import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.overrides import TorchFunctionMode

from iftplan.nn.counting.operators.registry import OPERATORS, Operator, Operators, may_contract
from iftplan.nn.counting.operators.whole_functions import summed_products
from iftplan.nn.counting.shape_rules.registry import CALLERS
from iftplan.nn.reading.symbolic.held_modules import NotRunError
from iftplan.nn.reading.symbolic.model import NamedScale
from iftplan.nn.reading.symbolic.recurrent import RECURRENT, RecurrentCall
from iftplan.nn.reading.symbolic.shapes import expression
from iftplan.nn.reading.symbolic.unchecked_shapes import ask_for_agreement
from iftplan.nn.torch_internals import TorchDispatchMode, storage_address, tree_leaves, tree_map

Shape = tuple[sympy.Expr, ...]


@dataclass(frozen=True, slots=True)
class SymbolicContraction:
    """Contraction of a forward pass with symbolic sizes, and its MACs.

    Attributes:
        module: path of the innermost running module.
        operator: its plain name, as in count tables.
        macs: multiply-accumulates.
        weight: the parameter among its operands, or None for a product of activations.
        heads: for a product, its third dimension from the end: the number of heads, or a batch.
        head_sizes: for a product, the dimensions that may be the size of a head.
    """

    module: str
    operator: str
    macs: sympy.Expr
    weight: str | None
    heads: sympy.Expr | None = None
    head_sizes: tuple[sympy.Expr, ...] = ()


def _rows(operands: list[Shape], output: Shape) -> sympy.Expr:
    """Every output element sums over the last dimension of the first operand."""
    return sympy.prod(output) * operands[0][-1]


def _convolution(operands: list[Shape], output: Shape) -> sympy.Expr:
    return sympy.prod(operands[1]) * output[0] * sympy.prod(output[2:])


def _transposed(operands: list[Shape], output: Shape) -> sympy.Expr:
    return sympy.prod(operands[1]) * operands[0][0] * sympy.prod(operands[0][2:])


# Products of rows with a stack of matrices, of which each row meets one.
GROUPED: Final = frozenset({"aten::_grouped_mm", "transformers::grouped_mm_fallback"})
_COSTS: Final[Mapping[str, Callable[[list[Shape], Shape], sympy.Expr]]] = MappingProxyType(
    {f"aten::{name}": _rows for name in ("mm", "bmm", "mv", "dot", "vdot", "addmm", "addmv", "baddbmm")}
    | {f"aten::{name}": _rows for name in ("_cdist_forward", "_euclidean_dist")}
    | {"aten::convolution": _convolution}
    | dict.fromkeys(GROUPED, _rows)
)
# Operators whose first tensor is added to the product and is no factor of it.
_ADDEND: Final = frozenset({"aten::addmm", "aten::addmv", "aten::baddbmm"})


@dataclass
class SymbolicCounter:
    """Contractions and weights that one forward pass with symbolic sizes used.

    Attributes:
        names: storage → parameter name.
        scope: paths of the running modules, innermost last.
        calls: the contractions in their order.
        seen: parameters that some operator took.
        inputs: storage → itself, for the model's inputs and what is made of them without any weight.
        readers: modules with a weight that meets such a tensor.
        stacks: the number of matrices in a weight that stacks them, and of which operator.
        choices: sizes of what is chosen from by its number: experts by a router, classes by an argmax.
        scales: float attributes that some tensor was multiplied by → the module that did it, the value.
        derived: storage of a weight that was computed from a parameter → the parameter's name.
    """

    names: Mapping[int, str]
    scope: list[str]
    calls: list[SymbolicContraction] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    inputs: dict[int, torch.UntypedStorage] = field(default_factory=dict)
    readers: set[str] = field(default_factory=set)
    scales: dict[str, tuple[str, float]] = field(default_factory=dict)
    derived: dict[int, tuple[str, torch.UntypedStorage]] = field(default_factory=dict)
    stacks: list[tuple[sympy.Expr, str]] = field(default_factory=list)
    choices: list[sympy.Expr] = field(default_factory=list)
    function: str = ""

    def weight_of(self, tensor: torch.Tensor) -> str | None:
        """The parameter whose storage this tensor is or views, or from which it was computed."""
        known = self.names.get(storage(tensor))
        return known or self.derived.get(storage(tensor), (None, None))[0]

    def derive(self, tensor: torch.Tensor, name: str) -> None:
        """Let a weight that a parametrization computed stand for its parameter, as in count tables."""
        self.derived[storage(tensor)] = (name, tensor.untyped_storage())

    def note_input(self, tensor: torch.Tensor) -> None:
        """Mark a tensor as made of the model's inputs; its storage is kept, so that no other gets its address."""
        self.inputs[storage(tensor)] = tensor.untyped_storage()

    def settle(self, settled: Callable[[sympy.Expr], sympy.Expr]) -> None:
        """Put what was assumed of data into all that was seen."""
        self.calls = [
            replace(
                call,
                macs=settled(call.macs),
                heads=None if call.heads is None else settled(call.heads),
                head_sizes=tuple(map(settled, call.head_sizes)),
            )
            for call in self.calls
        ]
        self.stacks = [(settled(number), operator) for number, operator in self.stacks]
        self.choices = [*map(settled, self.choices)]

    def product(self, operator: str, macs: sympy.Expr, a: Shape, b: Shape) -> None:
        """Add a product of two activations.

        Args:
            operator: qualified name, such as "aten::bmm".
            macs: multiply-accumulates, an expression in the symbolic sizes.
            a: shape of the first, `(…, M, K)`; the dimension before its last two counts heads.
            b: shape of the second, `(…, K, N)`.
        """
        heads = a[-3] if len(a) > 2 else None
        self.calls.append(SymbolicContraction(self.scope[-1], operator, macs, None, heads, (a[-1], b[-1])))


def storage(tensor: torch.Tensor) -> int:
    """Address of the storage that a tensor and its views share."""
    return storage_address(tensor)


@contextmanager
def counting(
    model: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    inputs: Iterable[torch.Tensor],
    scope: list[str],
    held: Set[str] = frozenset(),
    operators: Operators | None = MappingProxyType({}),
) -> Iterator[SymbolicCounter]:
    """Count contractions while the context is open.

    Args:
        model: the model that will run.
        tensors: its symbolic parameters by name.
        inputs: its inputs.
        scope: receives the paths of the running modules.
        held: paths of modules that are given sizes as plain numbers.
        operators: formulas for operators that would be unknown; None where only shapes are asked for, and no cost.
    """
    names: dict[int, str] = {}
    for name, _ in model.named_parameters(remove_duplicate=False):
        if name in tensors:
            names.setdefault(storage(tensors[name]), name)
    scope.append("")
    counter = SymbolicCounter(names, scope)
    for tensor in inputs:
        counter.note_input(tensor)
    with ExitStack() as stack:
        for path, module in model.named_modules():
            entering = _entering(counter, path, path in held)  # before hooks of the module's own
            hooked = module.register_forward_pre_hook(entering, with_kwargs=True, prepend=True)
            stack.callback(hooked.remove)
            if any(name.endswith("_orig") for name in module._parameters):
                stack.callback(module.register_forward_pre_hook(_derived_by_hooks(counter, path)).remove)
            stack.callback(module.register_forward_hook(_leaving(counter, path)).remove)
        stack.enter_context(_Contractions(counter, operators))
        stack.enter_context(_Functions(counter))
        yield counter


def _entering(counter: SymbolicCounter, path: str, held: bool) -> Callable[..., Any]:
    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        counter.scope.append(path)
        return tree_map(partial(_plain, counter), (args, kwargs)) if held else None

    return enter


def _derived_by_hooks(counter: SymbolicCounter, path: str) -> Callable[..., None]:
    """Functions of torch.nn.utils compute a weight from its original before each forward pass."""

    def note(module: nn.Module, _: object) -> None:
        for name in module._parameters:
            weight = getattr(module, name.removesuffix("_orig"), None)
            if name.endswith("_orig") and isinstance(weight, torch.Tensor):
                counter.derive(weight, _join(path, name))

    return note


def _leaving(counter: SymbolicCounter, path: str) -> Callable[..., None]:
    def leave(module: nn.Module, args: object, output: object) -> None:
        counter.scope.pop()
        if not isinstance(module, ParametrizationList) or not isinstance(output, torch.Tensor):
            return
        for name, original in module._parameters.items():
            if original is not None and _dense(original) == _dense(output):
                counter.derive(output, _join(path, name))
                return

    return leave


def _dense(tensor: torch.Tensor) -> list[int]:
    """The sizes in the dense model, without asking for them."""
    return [n.node.hint if isinstance(n, torch.SymInt) else n for n in tensor.shape]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _plain(counter: SymbolicCounter, value: Any) -> Any:
    """A tensor or a size with plain numbers; asking for them is what fixes the sizes."""
    if isinstance(value, torch.SymInt):
        return int(value)
    if not isinstance(value, torch.Tensor) or not any(isinstance(n, torch.SymInt) for n in value.shape):
        return value
    sizes = [int(n) for n in value.shape]
    if counter.weight_of(value) is not None:
        return value
    plain = value.new_empty(sizes)
    if storage(value) in counter.inputs:
        counter.note_input(plain)
    return plain


def _shape(tensor: torch.Tensor) -> Shape:
    return tuple(map(expression, tensor.shape))


class _Functions(TorchFunctionMode):
    """Names what the user called, and answers attention."""

    def __init__(self, counter: SymbolicCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for used in (*args, *(kwargs or {}).values()):
            if isinstance(used, NamedScale):
                self.counter.scales[used.name] = (self.counter.scope[-1], float(used))
        if func is nn.functional.scaled_dot_product_attention:
            return _attention(self.counter, *args, **(kwargs or {}))
        if func is nn.functional.group_norm and isinstance(args[1], torch.SymInt):
            return _norm_by_channel(*args, **(kwargs or {}))
        if func is nn.functional.batch_norm and not _in_training(*args[5:6], **(kwargs or {})):
            return _batch_norm(self.counter, *args, **(kwargs or {}))
        if func is nn.functional.bilinear and not kwargs:
            return _bilinear(self.counter, *args)
        if func in RECURRENT and not kwargs:
            return _recurrent(self.counter, RECURRENT[func], args)
        outer, self.counter.function = self.counter.function, CALLERS.get(func, "")
        try:
            result = func(*args, **(kwargs or {}))
        finally:
            self.counter.function = outer
        if (whole := summed_products(func, args, kwargs or {}, result)) is not None:
            name, macs, _ = whole
            self.counter.calls.append(
                SymbolicContraction(self.counter.scope[-1], name, expression(macs), None)
            )
        return result


def _norm_by_channel(
    input: torch.Tensor,
    num_groups: Any,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """The shape rule of a group norm with as many groups as channels, which torch itself takes as a plain number only."""
    if input.shape[1] != num_groups:
        raise ValueError("the groups of a norm do not fit its channels")
    for own in (weight, bias):
        if own is not None:
            input = input + own.view(-1, *(1,) * (input.dim() - 2))
    return input


def _in_training(training: bool = False, **_: Any) -> bool:
    return training


def _batch_norm(
    counter: SymbolicCounter,
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *_: Any,
    **__: Any,
) -> torch.Tensor:
    """The shape rule of a batch norm in evaluation: what belongs to a channel is there for every channel."""
    for own in (running_mean, running_var, weight, bias):
        if own is not None:
            _require(own.shape[0] == input.shape[1])
            if (name := counter.weight_of(own)) is not None:
                counter.seen.add(name)
    return torch.empty_like(input)


def _bilinear(
    counter: SymbolicCounter,
    first: torch.Tensor,
    second: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """`(…, D_1), (…, D_2), (O, D_1, D_2) → (…, O)`: the weight with the first operand, then with the second."""
    outputs, one, other = weight.shape
    _require(first.shape[-1] == one, second.shape[-1] == other)
    _require(bias is None or bias.shape[0] == outputs)
    rows = sympy.prod(_shape(first)[:-1])
    o, d1, d2 = _shape(weight)
    name = counter.weight_of(weight)
    counter.seen.update(n for t in (weight, bias) if t is not None and (n := counter.weight_of(t)))
    if any(storage(t) in counter.inputs for t in (first, second)):
        counter.readers.add(counter.scope[-1])
    counter.calls.append(SymbolicContraction(counter.scope[-1], "bilinear", rows * o * (d1 * d2 + d2), name))
    return first.new_empty((*first.shape[:-1], outputs))


def _recurrent(counter: SymbolicCounter, name: str, args: tuple[Any, ...]) -> Any:
    """One layer or several of LSTM, GRU or RNN over all steps, or a cell over one: every matrix meets every position once."""
    call = RecurrentCall.of(args)
    _require(*call.agreements())
    positions = sympy.prod(_shape(call.input)[:-1])
    if storage(call.input) in counter.inputs:
        counter.readers.add(counter.scope[-1])
    for weight in call.weights:
        parameter = counter.weight_of(weight)
        if parameter is not None:
            counter.seen.add(parameter)
        if weight.dim() == 2:
            macs = positions * sympy.prod(_shape(weight))
            counter.calls.append(SymbolicContraction(counter.scope[-1], name, macs, parameter))
    made = call.empty()
    return made if len(made) > 1 else made[0]


def _attention(
    counter: SymbolicCounter,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """The shape rule of `scaled_dot_product_attention`: `(…, H, L, E) → (…, H, L, E_v)`."""
    leading: tuple[Any, ...] = tuple(query.shape[:-2])
    if enable_gqa:
        _require(query.shape[-3] % key.shape[-3] == 0)
        _require(key.shape[-3] == value.shape[-3])
    else:
        for other in (key, value):
            leading = _broadcast(leading, tuple(other.shape[:-2]))
    _require(key.shape[-2] == value.shape[-2], query.shape[-1] == key.shape[-1])
    if attn_mask is not None:
        torch.broadcast_to(attn_mask, (*leading, query.shape[-2], key.shape[-2]))
    q, k, v = map(_shape, (query, key, value))
    q = (*map(expression, leading), *q[-2:])
    counter.product("attention", _attention_macs(q, k, v), q, v)
    return query.new_empty((*leading, query.shape[-2], value.shape[-1]))


def _broadcast(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
    """Leading dimensions together: one head of keys serves all heads of queries, as one of a mask would."""
    longest = max(len(a), len(b))
    a, b = ((1,) * (longest - len(shape)) + shape for shape in (a, b))
    for m, n in zip(a, b, strict=True):
        _require(_is_one(m) or _is_one(n) or m == n)
    return tuple(n if _is_one(m) else m for m, n in zip(a, b, strict=True))


def _is_one(size: Any) -> bool:
    return type(size) is int and size == 1


def _attention_macs(query: Shape, key: Shape, value: Shape) -> sympy.Expr:
    return sympy.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _require(*conditions: bool | torch.SymBool) -> None:
    """Refuse, as the operator would; asking is what writes the equation down."""
    if not all(conditions):
        raise ValueError("the shapes of query, key and value do not fit together")


_UNPRICED: Final = Operator("unpriced", lambda arguments, output: 0, ())


# Operators whose result says which of several it was → the place of the argument that says along which dimension.
_CHOICES: Final = MappingProxyType(
    {
        "aten::topk": 2,
        "aten::argmax": 1,
        "aten::argmin": 1,
        "aten::sort": 1,
        "aten::argsort": 1,
        "aten::multinomial": 9,
    }
)


def _chosen_from(args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int) -> Shape:
    """The size along which something is chosen."""
    dimension = kwargs.get("dim", args[place] if place < len(args) else -1)
    if not args[0].dim():
        return ()
    return _shape(args[0]) if type(dimension) is not int else (expression(args[0].shape[dimension]),)


def _grouped_mm(
    rows: torch.Tensor, stack: torch.Tensor, offs: torch.Tensor | None = None, *_: Any, **__: Any
) -> torch.Tensor:
    """The shape rule of a mixture's product: `(S, K) · (E, K, N) → (S, N)`, one group of rows for every matrix."""
    if rows.dim() != 2 or stack.dim() != 3 or offs is None:
        raise ValueError(
            "a grouped product that is widened takes rows, a stack of matrices and the ends of its groups"
        )
    if not (rows.shape[-1] == stack.shape[-2] and offs.shape[0] == stack.shape[0]):
        raise ValueError("the rows of a grouped product do not fit its matrices, or its groups their number")
    return rows.new_empty((rows.shape[0], stack.shape[-1]))


_VIEWS: Final = frozenset({"aten::view", "aten::_unsafe_view"})


def _without_ones(tensor: torch.Tensor, shape: list[Any]) -> torch.Tensor | None:
    """The view of a shape that has the same sizes but for ones; None for any other shape.

    After pooling that is what flattens; torch's own rule loads its distributed tensors for it.
    """
    own = [d for d, size in enumerate(tensor.shape) if not _is_one(size)]
    kept = [d for d, size in enumerate(shape) if not _is_one(size)]
    if [expression(tensor.shape[d]) for d in own] != [expression(shape[d]) for d in kept]:
        return None
    view = tensor.squeeze(tuple(d for d in range(tensor.dim()) if d not in own))
    for d in range(len(shape)):
        if d not in kept:
            view = view.unsqueeze(d)
    return view


class _Contractions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is carried out."""

    def __init__(self, counter: SymbolicCounter, operators: Operators | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counter = counter
        self.operators = operators

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name
        if name == "aten::_local_scalar_dense" and getattr(args[0], "constant", None) is None:
            return args[0].dtype is torch.bool or 1  # as the engine that counts answers
        attention = name in OPERATORS and OPERATORS[name].name == "attention"
        opaque = name not in _COSTS and not attention and (name in OPERATORS or may_contract(name))
        vouched = self.operators.get(name) if self.operators is not None else _UNPRICED if opaque else None
        if opaque and vouched is None and not _all_plain(args):
            # before it runs: what an operator says of symbolic sizes is seldom why it cannot take them
            raise NotRunError(self.counter.scope[-1], f"the widths of operator {name} are not known")
        ask_for_agreement(name, args)
        if name in GROUPED:
            output = _grouped_mm(*args, **(kwargs or {}))
        elif name in _VIEWS and (same := _without_ones(*args)) is not None:
            output = same
        else:
            output = func(*args, **(kwargs or {}))
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        self.counter.seen.update(w for t in tensors if (w := self.counter.weight_of(t)))
        if (
            tensors
            and isinstance(output, torch.Tensor)
            and all(storage(t) in self.counter.inputs for t in tensors)
        ):
            self.counter.note_input(output)
        if name in _CHOICES:
            self.counter.choices += _chosen_from(args, kwargs or {}, _CHOICES[name])
        if vouched is not None:
            self._vouched(vouched, args, output)
        elif (cost := _COSTS.get(name)) is not None:
            self._count(name, cost, args, tensors, output)
        elif name == "iftplan::block_attention":
            q, k, v = map(_shape, tensors[:3])
            per_map = sympy.Integer(args[3]) / args[4]
            self.counter.product("attention", per_map * sympy.prod(q[:-2]) * (q[-1] + v[-1]), q, v)
        elif attention:
            q, k, v = map(_shape, tensors[:3])
            # Here, below a function of torch's own, the counting engines see its two products.
            self.counter.product("bmm", _attention_macs(q, k, v), q, v)
        return output

    def _vouched(self, operator: Operator, args: tuple[Any, ...], output: Any) -> None:
        first = output[0] if isinstance(output, list | tuple) else output
        shapes = [_shape(a) if isinstance(a, torch.Tensor) else a for a in args]
        macs = sympy.sympify(operator.macs(shapes, _shape(first)))
        if macs:
            self.counter.calls.append(SymbolicContraction(self.counter.scope[-1], operator.name, macs, None))

    def _count(
        self, name: str, cost: Any, args: tuple[Any, ...], tensors: list[torch.Tensor], output: torch.Tensor
    ) -> None:
        counter = self.counter
        factors = tensors[1:] if name in _ADDEND else tensors[:2]
        shapes = [_shape(t) for t in factors]
        if name == "aten::convolution":
            for size in factors[1].shape[2:]:
                int(size)  # a kernel is no width
            cost = _transposed if args[6] else cost
        macs = cost(shapes, _shape(output))
        weight = next((w for t in reversed(factors) if (w := counter.weight_of(t))), None)
        if weight is not None:
            if any(storage(t) in counter.inputs for t in factors):
                counter.readers.add(counter.scope[-1])
            counter.calls.append(SymbolicContraction(counter.scope[-1], name, macs, weight))
            is_stack = name != "aten::convolution" and len(shapes[1]) == 3
            if is_stack and counter.weight_of(factors[1]):
                counter.stacks.append((shapes[1][0], name))
            return
        operator = counter.function or OPERATORS[name].name
        if name == "aten::convolution":  # with a computed weight; it has no heads
            counter.calls.append(SymbolicContraction(counter.scope[-1], operator, macs, None))
        else:
            counter.product(operator, macs, shapes[0], shapes[1])


def _all_plain(arguments: Any) -> bool:
    """Whether no tensor among the arguments has a symbolic size."""
    tensors = (t for t in tree_leaves(arguments) if isinstance(t, torch.Tensor))
    return not any(isinstance(n, torch.SymInt) for t in tensors for n in t.shape)
