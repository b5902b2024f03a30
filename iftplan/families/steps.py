"""Closed forms of a layer with symbolic channels, and the derivation step by step, by SymPy."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import sympy

from iftplan.families import symbols as t
from iftplan.families.derivation import derive, positive_root
from iftplan.families.family import Family
from iftplan.families.layer_costs import layer_cost
from iftplan.families.solution import Outcome, Solution, Step
from iftplan.families.symbolic.special import Special
from iftplan.families.symbols import text
from iftplan.models.spec import LayerSpec

Expr = Any


def specialise(layer: LayerSpec, family: Family, density: Fraction) -> Special:
    """The family's solution for this layer kind at this density.

    Args:
        layer: of the kind to solve for; its kernel and groups count, its channels may be symbolic.
        family: whose solution is taken.
        density: the fraction of weights to keep, in (0, 1].
    """
    unknown, solution, masked = _solution(layer, family)
    at = {t.d: sympy.Rational(density.numerator, density.denominator), t.k: 1 / sympy.sqrt(t.d)}
    if unknown == t.k:
        at.pop(t.k)
    value = _tidy(solution.subs(at).subs(at))
    space = _tidy(masked.subs(unknown, value))
    number = None if value.free_symbols else int(value) if value.is_Integer else float(value)
    return Special(f"{unknown} = {text(value)}", f"{unknown} = {sympy.latex(value)}", text(space), number)


def _solution(layer: LayerSpec, family: Family) -> tuple[Expr, Expr, Expr]:
    """The unknown, its solution and the maskable weights, in the layer's own symbols."""
    cost, derivation = layer_cost(layer, t), derive(family.definition)
    own = {t.m: cost.fan_in, t.n: cost.fan_out, t.e: cost.degree}
    solution = derivation.solution.subs(own)
    if cost.products and family.definition.widens:
        equation = cost.copies * derivation.cost.subs(own) + t.k * cost.products - cost.dense
        solution = positive_root(equation, derivation.unknown, layer.name)
    return derivation.unknown, solution, cost.copies * derivation.masked.subs(own)


def _tidy(expression: Expr) -> Expr:
    return sympy.factor(sympy.simplify(expression))


def steps(layer: LayerSpec, family: Family, density: Fraction) -> tuple[Step, ...]:
    """The derivation of the family's structure for this layer kind, one equation a line.

    Args:
        layer: of the kind to solve for; its kernel and groups count, its channels may be symbolic.
        family: whose equation is derived.
        density: the fraction of weights to keep, in (0, 1].

    Example:
        >>> from iftplan.families.builtin import FAMILIES
        >>> from iftplan.models.notation import parse_layer
        >>> for step in steps(parse_layer("linear"), FAMILIES["parallel"], Fraction(1, 4)):
        ...     print(step.equation)
        dense = D_in·D_out
        cost = D_in·D_out·b·d
        D_in·D_out·b·d = D_in·D_out
        b = 1/d
        b = 4
    """
    cost, derivation = layer_cost(layer, t), derive(family.definition)
    if not cost.dense:
        return (_step("this kind contracts nothing: there is no budget to close", "dense", sympy.Integer(0)),)
    own = {t.m: cost.fan_in, t.n: cost.fan_out, t.e: cost.degree}
    unknown, solution, _ = _solution(layer, family)
    total = cost.copies * derivation.cost.subs(own)
    total += cost.products * (t.k if derivation.definition.widens else 1)
    special = specialise(layer, family, density)
    lines = [
        _step("dense MACs per position", "dense", cost.dense),
        _step(f"{family.definition.title}: MACs per position", "cost", total),
        Step(
            "iso-FLOP: the same MACs",
            f"{text(total)} = {text(cost.dense)}",
            f"{sympy.latex(total)} = {sympy.latex(cost.dense)}",
        ),
        _step(f"solved for {unknown}", str(unknown), solution),
    ]
    if solution.has(t.k):
        lines.append(_step("the width of Sparse Wide", "k", 1 / sympy.sqrt(t.d)))
    value = f"at d = {density}"
    return (*lines, Step(value, special.text, special.latex))


def _step(what: str, left: str, right: Expr) -> Step:
    return Step(what, f"{left} = {text(right)}", f"\\mathrm{{{left}}} = {sympy.latex(right)}")


def explain(solution: Solution, family: Family) -> Solution:
    """The solution with the derivation of its structure, down to whole numbers; without one for layers that stay unchanged."""
    if solution.outcome in (Outcome.LEFT_ALONE, Outcome.GROUPED):
        return solution
    symbolic = steps(solution.layer, family, 1 - solution.sparsity)
    return replace(solution, steps=(*symbolic, *_integer_steps(solution, family)))


def _integer_steps(s: Solution, family: Family) -> tuple[Step, ...]:
    """From the real-valued structure to whole numbers; nothing while channels are symbolic."""
    if s.macs is None or s.nnz is None or not s.structure:
        return ()
    sizes = {key: value for key, value in s.structure.items() if key != "multiplier"}
    chosen = "; ".join(f"{key} = {value}" for key, value in (*sizes.items(), ("capacity", s.capacity)))
    covers = family.form.covers and not s.residual_macs
    how = "the smallest integers whose capacity covers" if covers else "the largest integers that stay within"
    beside = str(s.dense_weights) if s.reuse == 1 else f"{_factor(s.reuse)}·{s.dense_weights}"
    kept = f"({beside}+{s.nnz})" if s.dense_weights else str(s.nnz)
    experts = s.layer.experts
    products = s.macs - s.layer.positions * (s.nnz + s.dense_uses) // experts
    dense = "dense weights" if s.reuse == 1 else "reuse·dense weights"
    words = "positions·" + (f"({dense}+nnz)" if s.dense_weights else "nnz")
    kept, words = (f"{kept}/{experts}", f"{words}/experts") if experts > 1 else (kept, words)
    terms = [
        (f"{s.layer.positions}·{kept}", words),
        (str(products), "products"),
        (str(s.residual_macs), "residual"),
    ]
    present = [term for term in terms if term[0] != "0"]
    done = "what is left is the residual" if s.residual_macs else "nnz closes the budget"
    return (
        _plain_step(f"{how} the budget", chosen),
        _plain_step(
            f"{done}: dense MACs = {'+'.join(word for _, word in present)}",
            f"{s.dense_macs} = {'+'.join(value for value, _ in present)}",
        ),
    )


def _factor(number: Fraction) -> str:
    return str(number) if number.denominator == 1 else f"({number})"


def _plain_step(what: str, equation: str) -> Step:
    escaped = equation.replace("_", r"\_").replace("·", r"\cdot ")
    return Step(what, equation, f"\\mathrm{{{escaped}}}")
