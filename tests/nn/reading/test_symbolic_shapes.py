"""Canaries: what `iftplan.nn.reading.symbolic.shapes` needs of torch's semi-private ShapeEnv, one by one.

If a new torch release fails here, the message says which assumption it broke; `symbolic/shapes.py` is
the only file to mend.
"""

from __future__ import annotations

import math

import pytest
import sympy
import torch
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.functions import FloorDiv

from iftplan.nn.reading.symbolic.shapes import SymbolicSizes, expression

BROKE = f"torch {torch.__version__} broke an assumption of iftplan/nn/reading/symbolic/shapes.py: "


def equations(sizes: SymbolicSizes) -> set[tuple[str, str]]:
    return {(str(e.left), str(e.right)) for e in sizes.equations}


@pytest.fixture
def sizes() -> SymbolicSizes:
    return SymbolicSizes()


@pytest.mark.parametrize(
    "name",
    [
        *("create_symbol", "create_symintnode", "evaluate_expr", "evaluate_sym_node", "replace"),
        *("_maybe_evaluate_static", "_update_version_counter"),
    ],
)
def test_the_methods_that_are_used_or_replaced_exist(name: str) -> None:
    assert callable(getattr(ShapeEnv, name, None)), BROKE + f"ShapeEnv has no method {name} any more"


@pytest.mark.parametrize("name", ["replacements", "_replacements_version_counter"])
def test_the_attributes_that_are_written_exist(sizes: SymbolicSizes, name: str) -> None:
    assert hasattr(ShapeEnv(), name), BROKE + f"ShapeEnv has no attribute {name} any more"


def test_equal_sizes_get_different_symbols(sizes: SymbolicSizes) -> None:
    a, b = expression(sizes.new(8)), expression(sizes.new(8))
    assert a != b, BROKE + "duck_shape=False no longer keeps equal sizes apart"
    assert sizes.dense == {a: 8, b: 8}


def test_sizes_of_one_stay_numbers(sizes: SymbolicSizes) -> None:
    assert sizes.new(1) == 1, BROKE + "create_symbol no longer specialises 1"
    assert sizes.dense == {}


def test_a_comparison_asks_evaluate_expr(sizes: SymbolicSizes) -> None:
    a, b = sizes.new(8), sizes.new(8)
    assert a == b
    left, right = str(expression(a)), str(expression(b))
    assert equations(sizes) & {(left, right), (right, left)}, (
        BROKE + "comparing symbolic sizes no longer goes through evaluate_expr"
    )


def test_what_does_not_hold_is_no_equation(sizes: SymbolicSizes) -> None:
    assert sizes.new(8) != sizes.new(9)
    assert sizes.new(8) > sizes.new(7)
    assert equations(sizes) == set()


def test_shape_functions_write_equations_down(sizes: SymbolicSizes) -> None:
    mode = sizes.fake_mode()
    n, k, m = sizes.new(8), sizes.new(6), sizes.new(6)
    with mode:
        weight, x = torch.empty(n, k), torch.empty(3, m)
    with sizes.tracing(mode):
        y = torch.nn.functional.linear(x, weight)
    assert expression(y.shape[1]) == expression(n), BROKE + "the output of linear lost its symbol"
    pair = {str(expression(k)), str(expression(m))}
    assert any({a, b} == pair for a, b in equations(sizes)), BROKE + "linear no longer compares its sizes"


def test_padding_does_not_pin(sizes: SymbolicSizes) -> None:
    mode = sizes.fake_mode()
    with mode:
        x = torch.empty(2, sizes.new(8), 5, 5)
    with sizes.tracing(mode):
        y = torch.nn.functional.pad(x, (1, 1, 1, 1))
    assert expression(y.shape[1]).is_Symbol, BROKE + "without or despite the Python dispatcher, F.pad pins"


def test_views_divide_with_floor_div(sizes: SymbolicSizes) -> None:
    mode = sizes.fake_mode()
    c = sizes.new(8)
    with mode:
        x = torch.empty(2, c, 5)
    with sizes.tracing(mode):
        y = x.view(2, 4, -1, 5)
    assert expression(y.shape[2]) == FloorDiv(expression(c), 4), BROKE + "views no longer use FloorDiv"


def test_a_size_as_a_float_supposes_nothing(sizes: SymbolicSizes) -> None:
    assert "__float__" not in vars(torch.SymInt), BROKE + "SymInt has a __float__ of its own now"
    with sizes.tracing(sizes.fake_mode()):
        assert math.sqrt(sizes.new(16)) == 4.0
    assert equations(sizes) == set(), BROKE + "math.sqrt of a size no longer asks for its float"
    assert "__float__" not in vars(torch.SymInt)


def test_a_size_as_an_integer_pins_it_and_says_where(sizes: SymbolicSizes) -> None:
    c = sizes.new(16)
    assert list(range(c))[-1] == 15
    (equation,) = sizes.equations
    assert (equation.left, equation.right) == (expression(c), sympy.Integer(16))
    assert "test_symbolic_shapes.py:" in equation.where


def test_an_attribute_that_divides_a_number_becomes_that_number(sizes: SymbolicSizes) -> None:
    patch = sizes.new(4, attribute=True)
    assert 32 // patch == 8
    assert expression(patch * 3) == 12, BROKE + "ShapeEnv.replacements no longer reach existing sizes"
