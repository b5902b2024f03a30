"""How often a `while` loop runs, where its jaxprs say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jax.extend.core import Literal

from iftplan.jaxnn.counting.known import NOTHING, Known, literal


def trip_count(eqn: Any, values: Sequence[Known]) -> int | None:
    """Runs of a loop that counts an integer up to a bound, as `fori_loop` does; None where that is not known.

    Args:
        eqn: the `while`.
        values: its operands.
    """
    condition, body = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]
    first, second = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    carry = values[first + second :]
    if len(condition.jaxpr.eqns) != 1 or condition.jaxpr.eqns[0].primitive.name not in (
        "lt",
        "le",
        "gt",
        "ge",
    ):
        return None
    test = condition.jaxpr.eqns[0]
    if test.outvars[0] is not condition.jaxpr.outvars[0]:
        return None
    begins = dict(zip(condition.jaxpr.invars, [*values[:first], *carry], strict=True))
    places = {var: place for place, var in enumerate(condition.jaxpr.invars[first:])}
    low, high = test.invars if test.primitive.name in ("lt", "le") else reversed(test.invars)
    start, end = _number(low, begins), _number(high, begins)
    step, rest = (
        _step(body.jaxpr, second, places.get(_key(low))),
        _step(body.jaxpr, second, places.get(_key(high))),
    )
    if start is None or end is None or step is None or step < 1 or (_key(high) in places and rest != 0):
        return None
    distance = end - start + (test.primitive.name in ("le", "ge"))
    return max(0, -(-distance // step))


def _key(atom: Any) -> Any:
    return None if isinstance(atom, Literal) else atom


def _number(atom: Any, begins: Mapping[Any, Known]) -> int | None:
    return literal(atom.val).number if isinstance(atom, Literal) else begins.get(atom, NOTHING).number


def _step(body: Any, constants: int, place: int | None) -> int | None:
    """By how much a run changes the carried value at this place; None where that is not a known number."""
    if place is None:
        return None
    variable, result = body.invars[constants + place], body.outvars[place]
    if result is variable:
        return 0
    made = next((eqn for eqn in body.eqns if result in eqn.outvars), None)
    if made is None or made.primitive.name != "add" or variable not in made.invars:
        return None
    other = next((atom for atom in made.invars if atom is not variable), None)
    return literal(other.val).number if isinstance(other, Literal) else None
