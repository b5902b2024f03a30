"""What surrounds the integers: attribution, unknown operators, assumptions, and the model left as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from iftplan.base.errors import IftplanError, InputError, MeasureError
from iftplan.models.allowances import VouchedCost, parse_vouched
from iftplan.models.counting import Contraction, CountTable, cross_check
from iftplan.models.spec import InputSpec
from iftplan.nn.counting.measure import measure
from iftplan.nn.counting.operators.allowed import vouched_operators
from iftplan.nn.counting.operators.einsum import einsum_macs
from iftplan.nn.counting.operators.registry import Operator
from iftplan.nn.masks.nonzeros import nonzeros
from iftplan.nn.meta.inputs import make_inputs
from tests.support.models.traps import Run

ENGINES = ("meta", "flop_counter", "fvcore")
ROW = (InputSpec((2, 4)),)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        self.head = nn.Linear(4, 3, bias=False)
        self.tied = nn.Linear(4, 3, bias=False)
        self.tied.weight = self.head.weight
        self.idle = nn.Linear(4, 99)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x) * self.scale
        return self.head(y) + self.tied(y) + (y @ y.t()).sum()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_each_contraction_has_its_module_and_weight(device: str) -> None:
    with torch.device(device):  # Module.to() would untie the weights
        model = Branches()
    table = measure(model, ROW)
    assert set(table.contractions) == {
        Contraction("body.0", "linear", 64, "body.0.weight"),
        Contraction("body.2", "linear", 64, "body.2.weight"),
        Contraction("head", "linear", 24, "head.weight"),
        Contraction("tied", "linear", 24, "head.weight"),
        Contraction("", "matmul", 16, None),
    }
    assert table.elementwise["relu"] == 16
    assert table.uncalled == ("idle",)


class Joint(nn.Module):
    """One parameter seen in parts, transposed, and read by an operator that is no contraction."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(12, 4))
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.weight.chunk(3)
        y = F.linear(x, q) + x @ k.t() + torch.mm(x, v.transpose(0, 1))
        return F.layer_norm(y, (4,), self.norm.weight, self.norm.bias)


@pytest.mark.parametrize("engine", ENGINES)
def test_views_of_a_parameter_carry_its_name(engine: str) -> None:
    table = measure(Joint(), ROW, engine=engine)
    assert table.by_weight() == {"weight": 3 * 32}
    assert table.uncalled == ()


@pytest.mark.parametrize("engine", ["meta", "flop_counter"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_pruned_and_parametrized_weights_carry_their_parameters_names(device: str, engine: str) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3))
    prune.l1_unstructured(model[0], "weight", amount=10)
    parametrizations.weight_norm(model[2])
    table = measure(model.to(device), ROW, engine=engine)
    original = "2.parametrizations.weight.original1"
    assert table.by_weight() == {"0.weight_orig": 48, "1.weight": 60, original: 30}


def test_nonzeros_are_those_of_masks_or_of_values() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 5))
    prune.l1_unstructured(model[0], "weight", amount=100)
    with torch.no_grad():
        model[2].weight.zero_()[:, :7] = 1
    masked, every = nonzeros(model), nonzeros(model, from_values=True)
    assert masked == {"0.weight_orig": 216 - 100}
    assert every == masked | {"2.weight": 35}
    with pytest.raises(MeasureError, match="no values"):
        nonzeros(model.to("meta"))


@torch.library.custom_op("iftplan_test::secret", mutates_args=())
def secret(x: Tensor) -> Tensor:
    return x.clone()


@secret.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (secret, "iftplan_test::secret"),
        (lambda x: torch.linalg.qr(x)[0], "aten::linalg_qr"),
        (lambda x: torch.linalg.solve(torch.eye(2, device=x.device), x), "linalg_solve"),
        (lambda x: torch.fft.fft(x), "fft"),
    ],
)
def test_what_may_contract_without_a_formula_is_unknown(function: Any, operator: str, engine: str) -> None:
    unknown = measure(Run(function), ROW, engine=engine).unknown
    assert sum(unknown.values()) >= 1
    if engine == "meta":
        assert any(operator in name for name in unknown)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_formula_may_be_given_for_an_unknown_operator(engine: str) -> None:
    given = {"iftplan_test::secret": Operator("secret", lambda arguments, output: 5 * output[0], ())}
    table = measure(Run(secret), ROW, engine=engine, operators=given)
    assert (table.by_operator(), table.unknown) == ({"secret": 10}, {})
    assert any("iftplan_test::secret" in sentence for sentence in table.assumptions)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.interpolate(x[None, None], scale_factor=2, mode="bilinear"),
        lambda x: torch.hamming_window(4, device=x.device) * x,
        lambda x: F.grid_sample(x[None, None], torch.zeros(1, 2, 2, 2, device=x.device), align_corners=False),
        lambda x: torch.linspace(0, 1, 4, device=x.device) + x.cumsum(0),
    ],
)
def test_what_only_sounds_like_a_contraction_is_known(function: Any) -> None:
    table = measure(Run(function), ROW)
    assert (table.unknown, table.macs) == ({}, 0)


def test_values_that_do_not_exist_are_assumed_and_logged_once() -> None:
    def asks(x: Tensor) -> Tensor:
        assert bool((x > 0).all()) is True
        return x * x.sum().item() if x.sum() > 0 else x @ x.t()

    table = measure(Run(asks), ROW)
    assert len(table.assumptions) == 1
    assert "so iftplan assumed True or 1" in table.assumptions[0]
    assert measure(nn.Linear(4, 4), ROW).assumptions == ()


class Marked(torch.Tensor):
    """A tensor subclass: what it does is its own affair, but what it runs is counted."""


def test_subclasses_are_counted_by_the_net() -> None:
    def function(x: Tensor) -> Tensor:
        return F.linear(x.as_subclass(Marked), torch.ones(6, 4, device=x.device)) + 1

    table = measure(Run(function), ROW)
    assert table.by_operator() == {"linear": 48}


class Strict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(4))
        self.inner[0].eval()

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        if x.shape[0] == 3:
            raise ValueError("three rows\nare too many")
        return self.inner(x)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rows", [2, 3])
def test_the_model_is_left_as_it_was(engine: str, rows: int) -> None:
    model = Strict()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    call, fastpath = nn.Module.__call__, torch.backends.mha.get_fastpath_enabled()
    try:
        measure(model, (InputSpec((rows, 4)),), engine=engine)
        assert rows == 2
    except MeasureError as error:
        assert rows == 3
        assert "three rows are too many" in str(error)
        assert "\n" not in str(error)
        assert isinstance(error.__cause__, ValueError)
    assert [module.training for module in model.modules()] == flags
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert nn.Module.__call__ is call
    assert torch.backends.mha.get_fastpath_enabled() == fastpath
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("engine", ENGINES)
def test_operands_of_several_dtypes_are_refused(engine: str) -> None:
    with pytest.raises(MeasureError, match="dtype"):
        measure(nn.Linear(4, 4), (InputSpec((2, 4), "int64"),), engine=engine)


def test_a_scripted_module_is_counted_by_the_net() -> None:
    scripted = torch.jit.script(nn.Linear(4, 6))
    with pytest.raises(MeasureError, match="scripted"):
        measure(scripted, ROW)
    assert measure(scripted.to("meta"), ROW).macs == 48


def test_inputs_are_safe_on_real_devices() -> None:
    specs = (InputSpec((2,), "int64"), InputSpec((3,), "bool", "mask"), InputSpec((1,), "bfloat16"))
    args, kwargs = make_inputs(specs, "cpu")
    assert [a.dtype for a in args] == [torch.int64, torch.bfloat16]
    assert args[0].tolist() == [0, 0]
    assert kwargs["mask"].all()
    assert all(t.is_meta for t in make_inputs(specs)[0])


@pytest.mark.parametrize(
    ("specs", "text"),
    [
        ((InputSpec((1,), "flaot32"),), "float32"),
        ((InputSpec((1,), name="x"), InputSpec((2,), name="x")), "given 2 times"),
        ((InputSpec((-1, 2)),), "cannot be made"),
    ],
)
def test_bad_inputs_are_refused(specs: tuple[InputSpec, ...], text: str) -> None:
    with pytest.raises(InputError, match=text):
        make_inputs(specs)


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(InputError, match="Did you mean 'fvcore'"):
        measure(nn.Linear(4, 4), ROW, engine="fvcor")


def test_cross_check_names_the_operator_that_differs() -> None:
    a = CountTable("meta", (Contraction("l", "linear", 8, "l.weight"), Contraction("a", "attention", 5)))
    b = CountTable("fvcore", (Contraction("l", "linear", 8, "l.weight"),), unknown={"aten::sdpa": 1})
    assert cross_check([a, a]) == ()
    (sentence,) = cross_check([a, b])
    assert "products in a: 5 by attention against 0 by no operator" in sentence
    assert "aten::sdpa" in sentence
    assert "l.weight" not in sentence


@st.composite
def contractions(draw: st.DrawFn) -> tuple[str, list[tuple[int, ...]]]:
    sizes = dict(zip("abcde", draw(st.lists(st.integers(1, 4), min_size=5, max_size=5)), strict=True))
    terms = draw(
        st.lists(
            st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True), min_size=2, max_size=3
        )
    )
    used = sorted({x for term in terms for x in term})
    output = draw(st.lists(st.sampled_from(used), max_size=3, unique=True))
    equation = ",".join("".join(term) for term in terms) + "->" + "".join(output)
    return equation, [tuple(sizes[x] for x in term) for term in terms]


@settings(deadline=None, max_examples=150)
@given(contractions())
def test_einsum_costs_the_products_that_torch_performs(case: tuple[str, list[tuple[int, ...]]]) -> None:
    equation, shapes = case

    class Einsum(nn.Module):
        def forward(self, *operands: Tensor) -> Tensor:
            return torch.einsum(equation, *operands)

    specs = [InputSpec(shape) for shape in shapes]
    performed = measure(Einsum(), specs, engine="flop_counter").macs
    assert measure(Einsum(), specs, engine="fvcore").macs == performed
    assert measure(Einsum(), specs).macs == performed
    if not torch.backends.opt_einsum.is_available() or len(shapes) == 2:
        assert einsum_macs(equation, shapes) == performed


class Spare(nn.Module):
    """A module that nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_tells_of_modules_that_the_pass_does_not_use(engine: str) -> None:
    assert measure(Spare(), [InputSpec((2, 4))], engine=engine).uncalled == ("spare",)


@torch.library.custom_op("counted::fill", mutates_args=("out",))
def fill(x: Tensor, out: Tensor) -> None:
    out.copy_(x)


@fill.register_fake
def _(x: Tensor, out: Tensor) -> None:
    return None


class Filling(nn.Module):
    """An operator that returns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        torch.ops.counted.fill(x, out)
        return self.linear(out)


@pytest.mark.parametrize("engine", ["meta", "flop_counter"])
def test_an_operator_without_a_result_has_the_cost_that_is_given(engine: str) -> None:
    specs = [InputSpec((2, 4))]
    for macs in (0, 7):
        allowed = vouched_operators({"counted::fill": VouchedCost(macs), "no::such": VouchedCost(1)})
        table = measure(Filling(), specs, engine=engine, operators=allowed)
        assert (table.macs, table.unknown) == (2 * 16 + macs, {})
        assert "counted::fill was counted with the cost that you gave." in table.assumptions
        assert "no::such, whose cost you gave, was not called." in table.assumptions
    per_element = vouched_operators({"counted::fill": VouchedCost(0, 64)})
    with pytest.raises(IftplanError, match="returns no tensor"):
        measure(Filling(), specs, engine=engine, operators=per_element)


def test_one_operator_has_one_cost() -> None:
    assert parse_vouched(["my::op=5", "my::op=5"]) == {"my::op": VouchedCost(5)}
    with pytest.raises(InputError, match="my::op has two costs"):
        parse_vouched(["my::op=0", "my::op=5"])


class SparseAndData(nn.Module):
    """Messages along the edges of a graph, of which those that are positive are read."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("edges", torch.eye(6).to_sparse())
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.get_buffer("edges") @ x
        return self.linear(h[h.sum(1) > 0])


def test_sparse_products_are_counted_in_a_pass_on_values_too() -> None:
    table = measure(SparseAndData(), [InputSpec((6, 8))])
    rows = table.macs - 6 * 8
    assert rows % 64 == 0 and 0 < rows <= 6 * 64
    assert table.unknown == {}


class StackOfGraphs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        there = x.sum(1).gt(0).nonzero()  # which needs values
        edges = torch.stack([torch.eye(6)] * 3).to_sparse()
        return torch.bmm(edges, x) * len(there)


def test_a_stack_of_sparse_matrices_costs_each_value_once_for_each_column() -> None:
    assert measure(StackOfGraphs(), [InputSpec((3, 6, 5))]).macs == 3 * 6 * 5


def test_a_weight_in_int8_may_meet_an_input_in_bfloat16() -> None:
    class Packed(nn.Module):
        def forward(self, x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
            return torch.ops.aten._weight_int8pack_mm(x, weight, scales)

    specs = [InputSpec((4, 32), "bfloat16"), InputSpec((16, 32), "int8"), InputSpec((16,), "bfloat16")]
    assert measure(Packed(), specs).macs == 4 * 16 * 32
