"""A shape rule answers what torch answers: same shape, same dtype, same strides, same count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from iftplan.nn.counting.passes.ledger import Ledger, Names
from iftplan.nn.counting.passes.operator_shapes import operator_shape
from iftplan.nn.counting.shape_rules.registry import CALLERS, RULES

DTYPES = (torch.float32, torch.float16, torch.int64, torch.bool)
BINARY = (
    *(torch.add, torch.sub, torch.mul, torch.div, Tensor.__truediv__, Tensor.__radd__),
    *(torch.lt, torch.eq, Tensor.__ge__, Tensor.ne, Tensor.masked_fill),
)
UNARY = (
    *(F.relu, F.gelu, F.silu, F.hardswish, torch.sigmoid, torch.exp, torch.neg, torch.rsqrt, Tensor.cos),
    lambda x: F.softmax(x, -1),
    lambda x: F.softmax(x, 0, dtype=torch.float64),
    lambda x: x.mean(-1, keepdim=True),
    lambda x: x.sum((0, -1)),
    lambda x: torch.mean(x, 0),
    lambda x: F.layer_norm(x, x.shape[-1:]),
    lambda x: F.dropout(x, 0.5, False),
    lambda x: F.adaptive_avg_pool2d(x, 1),
    lambda x: F.adaptive_avg_pool2d(x, (1, 2)),
    lambda x: F.adaptive_avg_pool3d(x, (1, 1, 1)),
    lambda x: torch.cat([x, x], -1),
    lambda x: torch.cat((torch.empty(0, dtype=x.dtype, device="meta"), x), 0),
    lambda x: torch.roll(x, (1,), (0,)),
    lambda x: torch.arange(x.shape[0], device=x.device),
    lambda x: torch.arange(1, 7, device=x.device, dtype=x.dtype),
    lambda x: torch.where(x > 0, x, 0.0),
    lambda x: x * 2,
    lambda x: x + 0.5,
    lambda x: x - True,
    lambda x: x**2,
    lambda x: x / 2,
)


@st.composite
def tensors(draw: st.DrawFn, shape: tuple[int, ...] | None = None) -> Tensor:
    """A meta tensor of any layout: permuted, sliced, or repeated."""
    if shape is None:
        shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)))
    order = draw(st.permutations(range(len(shape))))
    dtype = draw(st.sampled_from(DTYPES))
    x = torch.empty([shape[d] for d in order], dtype=dtype, device="meta")
    x = x.permute([order.index(d) for d in range(len(shape))])
    match draw(st.sampled_from(("plain", "sliced", "repeated"))):
        case "sliced":
            return torch.cat([x, x], -1)[..., : shape[-1]]
        case "repeated":
            return x[:1].expand(shape)
    return x


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    x = draw(tensors())
    shape = tuple(size if draw(st.integers(0, 2)) else 1 for size in x.shape)
    y = draw(tensors(shape[draw(st.integers(0, len(shape) - 1)) :]))
    return (x, y) if draw(st.booleans()) else (y, x)


def ledger() -> Ledger:
    return Ledger(Names(nn.Module()))


def described(x: Any) -> Any:
    """What later operators can see of a result; strides of dimensions of size 1 mean nothing."""
    if isinstance(x, Tensor):
        layout = [(size, stride) for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1]
        return x.dtype, tuple(x.shape), layout
    return x


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return described(call())
    except (RuntimeError, IndexError, TypeError, ValueError, NotImplementedError):
        return "raises"


class OnlyRules(torch.overrides.TorchFunctionMode):
    """The rules without the net."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in RULES:
            result = RULES[func](ledger(), *args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        return func(*args, **(kwargs or {}))


def ruled(call: Callable[[], Any]) -> Any:
    with OnlyRules():
        return outcome(call)


@pytest.mark.parametrize("function", UNARY)
@settings(deadline=None, max_examples=60)
@given(x=tensors())
def test_unary_rules(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    assert ruled(lambda: function(x)) == outcome(lambda: function(x))


@pytest.mark.parametrize("function", BINARY)
@settings(deadline=None, max_examples=100)
@given(both=pairs())
def test_binary_rules(function: Callable[..., Tensor], both: tuple[Tensor, Tensor]) -> None:
    x, y = both
    more = (1.0,) if function is Tensor.masked_fill else ()
    assert ruled(lambda: function(x, y, *more)) == outcome(lambda: function(x, y, *more))


@settings(deadline=None, max_examples=100)
@given(both=pairs())
def test_matmul_rule(both: tuple[Tensor, Tensor]) -> None:
    x, y = both
    assert ruled(lambda: x @ y) == outcome(lambda: x @ y)
    assert ruled(lambda: F.linear(x, y)) == outcome(lambda: F.linear(x, y))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_convolution_rule(data: st.DataObject) -> None:
    dims, groups = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    sizes = st.tuples(*[st.integers(1, 7)] * dims)
    x = torch.empty(2, 2 * groups, *data.draw(sizes), device="meta")
    w = torch.empty(
        groups * data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2)), *data.draw(sizes), device="meta"
    )
    options = {
        "stride": data.draw(st.integers(1, 3)),
        "padding": data.draw(st.sampled_from((0, 1, "same", "valid", (1,) * dims))),
        "dilation": data.draw(st.integers(1, 2)),
        "groups": groups,
    }
    conv: Any = (torch.conv1d, torch.conv2d, torch.conv3d)[dims - 1]
    assert ruled(lambda: conv(x, w, **options)) == outcome(lambda: conv(x, w, **options))


def test_every_contraction_with_a_rule_has_its_name_below_too() -> None:
    """If a rule gives up, the net must book the call under the same name."""
    names = {}
    for function, name in CALLERS.items():
        if function in RULES:
            names[function] = name
    assert {names[f] for f in (F.linear, torch.matmul, torch.conv2d)} == {"linear", "matmul", "conv2d"}
    assert torch.addmm not in CALLERS  # addmm is its own operator below


# --- operators below the functions ----------------------------------------------------------------------

ATEN = torch.ops.aten
OPERATORS_OF_ONE = (
    *(ATEN.relu.default, ATEN.gelu.default, ATEN.silu.default, ATEN.sigmoid.default, ATEN.relu_.default),
    *(ATEN.tanh.default, ATEN.hardswish.default, ATEN.leaky_relu.default),
)
OPERATORS_OF_TWO = (
    ATEN.add.Tensor,
    ATEN.sub.Tensor,
    ATEN.mul.Tensor,
    ATEN.div.Tensor,
    ATEN.add_.Tensor,
    ATEN.mul_.Tensor,
)


def _as_torch_does(func: Any, *args: Any) -> None:
    found = operator_shape(func, args, {})
    if found is not None:
        assert outcome(
            lambda: found if isinstance(found, Tensor) else tuple(map(described, found))
        ) == outcome(
            lambda: result if isinstance(result := func(*args), Tensor) else tuple(map(described, result))
        )


@pytest.mark.parametrize("func", OPERATORS_OF_ONE, ids=str)
@settings(deadline=None, max_examples=40)
@given(x=tensors())
def test_operators_of_one_tensor(func: Any, x: Tensor) -> None:
    _as_torch_does(func, x)


@pytest.mark.parametrize("func", OPERATORS_OF_TWO, ids=str)
@settings(deadline=None, max_examples=40)
@given(both=pairs())
def test_operators_of_two_tensors(func: Any, both: tuple[Tensor, Tensor]) -> None:
    _as_torch_does(func, *both)
    _as_torch_does(func, both[0], both[0])
    _as_torch_does(func, both[0], 2)
    _as_torch_does(func, both[0], 0.5)


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_operators_that_reduce_or_normalise(data: st.DataObject) -> None:
    x = data.draw(tensors())
    dims = data.draw(st.lists(st.integers(-5, 4), max_size=3))
    _as_torch_does(ATEN.mean.dim, x, dims, data.draw(st.booleans()))
    _as_torch_does(ATEN._softmax.default, x, data.draw(st.integers(-5, 4)), data.draw(st.booleans()))
    sizes = list(x.shape[-data.draw(st.integers(1, 2)) :])
    own = torch.empty(sizes, dtype=x.dtype, device="meta")
    _as_torch_does(
        ATEN.native_layer_norm.default, x, sizes, own, data.draw(st.sampled_from((own, None))), 1e-5
    )
    channels = torch.empty(data.draw(st.sampled_from((x.shape[-1], 3))), dtype=x.dtype, device="meta")
    for training in (False, True):
        norm = (ATEN.native_batch_norm.default, x, channels, None, channels, channels, training, 0.1, 1e-5)
        _as_torch_does(*norm)
    other = data.draw(tensors())
    _as_torch_does(ATEN.addmm.default, channels, x, other)


def test_the_operators_have_rules() -> None:
    x = torch.empty(2, 3, 4, device="meta")
    own = torch.empty(3, device="meta")
    for func, args in (
        *((func, (x.clone(),)) for func in OPERATORS_OF_ONE),
        *((func, (x.clone(), x)) for func in OPERATORS_OF_TWO),
        (ATEN.mean.dim, (x, [1], False)),
        (ATEN._softmax.default, (x, -1, False)),
        (ATEN.native_layer_norm.default, (x, [4], None, None, 1e-5)),
        (ATEN.native_batch_norm.default, (x, own, own, own, own, False, 0.1, 1e-5)),
        (ATEN.addmm.default, (own, torch.empty(2, 4, device="meta"), torch.empty(4, 3, device="meta"))),
    ):
        assert operator_shape(func, args, {}) is not None, func
        _as_torch_does(func, *args)
