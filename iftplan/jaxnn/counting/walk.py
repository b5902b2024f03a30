"""A walk over a jaxpr without data: every equation's cost, times how often it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Final

from jax.extend.core import Literal

from iftplan.jaxnn.counting.formulas import FORMULAS, weight_shape
from iftplan.jaxnn.counting.known import INPUT, NOTHING, Known, literal, origins, result
from iftplan.jaxnn.counting.loops import trip_count
from iftplan.jaxnn.counting.primitives import CALLS, ELEMENTWISE, FREE
from iftplan.jaxnn.counting.tally import Site, Tally, Use, WeightShape, total
from iftplan.models.allowances import VouchedCost
from iftplan.models.spec import Kind

Knowledge = list[Known]


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk through a jaxpr and all jaxprs inside it.

    Attributes:
        vouched: primitive → cost that the user gives, of primitives that would be unknown.
        scopes: names that the equations around were traced under.
        formulas: primitive → MACs of a call.
        loops_once: whether each loop counts as if it ran once, as other tools have it.
    """

    vouched: Mapping[str, VouchedCost] = field(default_factory=dict)
    scopes: tuple[str, ...] = ()
    formulas: Mapping[str, Callable[[Any], int]] = field(default_factory=lambda: FORMULAS)
    loops_once: bool = False

    def jaxpr(self, jaxpr: Any, values: Sequence[Known]) -> tuple[Knowledge, Tally]:
        """Knowledge of a jaxpr's results, and the cost of one run.

        Args:
            jaxpr: open or closed.
            values: its arguments; what is not given is not known.
        """
        opened = getattr(jaxpr, "jaxpr", jaxpr)
        known = dict(zip(opened.constvars, map(literal, getattr(jaxpr, "consts", ())), strict=False))
        if len(values) == len(opened.invars):
            known |= dict(zip(opened.invars, values, strict=True))
        else:
            known |= dict.fromkeys(opened.invars, Known(origins=origins(values)))

        def value(atom: Any) -> Known:
            return literal(atom.val) if isinstance(atom, Literal) else known.get(atom, NOTHING)

        tallies = []
        for eqn in opened.eqns:
            results, tally = self._equation(eqn, [value(atom) for atom in eqn.invars])
            known |= dict(zip(eqn.outvars, results, strict=True))
            tallies.append(tally)
        return [value(atom) for atom in opened.outvars], total(tallies)

    def _equation(self, eqn: Any, values: Knowledge) -> tuple[Knowledge, Tally]:
        name = eqn.primitive.name
        inside = replace(self, scopes=(*self.scopes, *_scopes(eqn)))
        if name in self.vouched:
            cost = self.vouched[name].macs(sum(map(_size, eqn.outvars)))
            return _same(eqn, values), Tally({Site(inside.module, name): Use(cost)})
        if name in self.formulas:
            return inside._product(eqn, values)
        if name in CALLS and CALLS[name] in eqn.params:
            return inside._fitted(eqn, *inside.jaxpr(eqn.params[CALLS[name]], values))
        if name in _CONTROL:
            return inside._fitted(eqn, *_CONTROL[name](inside, eqn, values))
        results = _same(eqn, values)
        if name == "gather" and values[0].weight and len(eqn.invars[0].aval.shape) == 2:
            return _looked_up(eqn, values)
        if name in ELEMENTWISE or (name in _REDUCERS and not inside._inner(eqn).macs):
            return results, Tally(elementwise={name: sum(map(_size, eqn.outvars))})
        return results, Tally() if name in FREE else Tally(unknown={name: 1})

    @property
    def module(self) -> str:
        """Dotted names that the equations are traced under."""
        return ".".join(self.scopes)

    def _fitted(self, eqn: Any, results: Knowledge, tally: Tally) -> tuple[Knowledge, Tally]:
        """Results, one for each of the equation's: kernels write theirs into references."""
        if len(results) == len(eqn.outvars):
            return results, tally
        return [Known(origins=origins(results))] * len(eqn.outvars), tally

    def _inner(self, eqn: Any) -> Tally:
        """Cost of the function that combines two elements of a reduction."""
        inner = eqn.params.get("jaxpr")
        return Tally() if inner is None else self.jaxpr(inner, ())[1]

    def _product(self, eqn: Any, values: Knowledge) -> tuple[Knowledge, Tally]:
        name = eqn.primitive.name
        macs = self.formulas[name](eqn)
        if not macs:
            results = [Known(origins=origins(values))] * len(eqn.outvars)
            return results, Tally(elementwise={name: sum(map(_size, eqn.outvars))})
        operands = [place for place, value in enumerate(values[:2]) if value.weight]
        layers = [(place, found) for place in operands if (found := weight_shape(eqn, place))]
        if not layers:
            made = Known(origins=origins(values))
            return [made], Tally({Site(self.module, name): Use(macs)})
        operand, shape = layers[-1]
        weight, other = values[operand].weight, values[1 - operand]
        site = Site(weight.rpartition(".")[0], name, weight)
        use = Use(macs, shape=shape, first=INPUT in other.origins)
        return [Known(origins=frozenset({weight}))], Tally({site: use})

    def _runs(self, number: int) -> int:
        return min(1, number) if self.loops_once else number

    # --- control flow ---------------------------------------------------------------------------------------

    def _scan(self, eqn: Any, values: Knowledge) -> tuple[Knowledge, Tally]:
        params = eqn.params
        consts, carried = params["num_consts"], params["num_carry"]
        kept, carry, rows = values[:consts], values[consts : consts + carried], values[consts + carried :]
        rows = [replace(value, number=None) for value in rows]

        def run(carry: Knowledge) -> tuple[Knowledge, Tally]:
            return self.jaxpr(params["jaxpr"], [*kept, *carry, *rows])

        carry, results, tally = _settled(run, carry, carried)
        ends = results if params["length"] else [*carry, *results[carried:]]
        return ends, tally.times(self._runs(params["length"]))

    def _while(self, eqn: Any, values: Knowledge) -> tuple[Knowledge, Tally]:
        params = eqn.params
        first, second = params["cond_nconsts"], params["body_nconsts"]
        trips = trip_count(eqn, values)
        begin = values[first + second :]
        constants, kept = values[:first], values[first : first + second]
        carry, ends, body = _settled(
            lambda c: self.jaxpr(params["body_jaxpr"], [*kept, *c]), begin, len(begin)
        )
        _, test = self.jaxpr(params["cond_jaxpr"], [*constants, *carry])
        if trips is not None:
            return ends if trips else begin, total(
                [test.times(self._runs(trips + 1)), body.times(self._runs(trips))]
            )
        once = total([test, body])
        if once.uses or once.unknown:
            return carry, Tally(unknown={"while": 1, **once.unknown}, assumptions=once.assumptions)
        said = f"A while loop{_in(self.module)} runs an unknown number of times. It has no products, so it costs no MACs, and its elementwise work is counted once."
        return carry, replace(once, assumptions=(*once.assumptions, said))

    def _cond(self, eqn: Any, values: Knowledge) -> tuple[Knowledge, Tally]:
        branches = eqn.params["branches"]
        index, arguments = values[0].number, values[1:]
        if index is not None:
            branches = branches[min(max(index, 0), len(branches) - 1) :][:1]
        found = [self.jaxpr(branch, arguments) for branch in branches]
        results = [_joined(values) for values in zip(*(results for results, _ in found), strict=True)]
        tallies = [tally for _, tally in found]
        largest = max(tallies, key=lambda tally: tally.macs)
        unknown = {name: n for tally in tallies for name, n in tally.unknown.items()}
        assumed = [sentence for tally in tallies for sentence in tally.assumptions]
        if len({tally.macs for tally in tallies}) > 1:
            costs = " or ".join(str(tally.macs) for tally in tallies)
            assumed.append(
                f"A cond{_in(self.module)} takes one of {len(tallies)} branches of {costs} MACs, depending on data; the most expensive one is counted."
            )
        return results, replace(largest, unknown=unknown, assumptions=tuple(dict.fromkeys(assumed)))

    def _kernel(self, eqn: Any, values: Knowledge) -> tuple[Knowledge, Tally]:
        grid = eqn.params["grid_mapping"].grid
        _, body = self.jaxpr(eqn.params["jaxpr"], ())
        made = [Known(origins=origins(values))] * len(eqn.outvars)
        if not all(isinstance(size, int) for size in grid):
            return made, Tally(unknown={"pallas_call": 1, **body.unknown})
        return made, body.times(self._runs(prod(grid)))

    def _sharded(self, eqn: Any, values: Knowledge) -> tuple[Knowledge, Tally]:
        mesh = eqn.params["mesh"]
        axes = eqn.params.get("manual_axes") or mesh.axis_names
        results, tally = self.jaxpr(eqn.params["jaxpr"], values)
        return results, tally.times(prod(mesh.shape[axis] for axis in axes))

    def _linear_solve(self, eqn: Any, values: Knowledge) -> tuple[Knowledge, Tally]:
        """The solver runs once, whatever it runs inside."""
        _, tally = self.jaxpr(eqn.params["jaxprs"].solve, ())
        return [Known(origins=origins(values))] * len(eqn.outvars), tally


_CONTROL: Final[Mapping[str, Callable[[Walk, Any, Knowledge], tuple[Knowledge, Tally]]]] = {
    "scan": Walk._scan,
    "while": Walk._while,
    "cond": Walk._cond,
    "pallas_call": Walk._kernel,
    "shard_map": Walk._sharded,
    "custom_linear_solve": Walk._linear_solve,
}
"""Primitive that runs jaxprs more than once, less than once, or on several devices → how."""

_REDUCERS: Final = frozenset({"reduce", "reduce_window", "select_and_scatter"})
"""Primitives that combine elements by a function of the user's."""


def _settled(
    run: Callable[[Knowledge], tuple[Knowledge, Tally]], carry: Knowledge, carried: int
) -> tuple[Knowledge, Knowledge, Tally]:
    """What holds of carried values in every run, and the results and the cost of one.

    Args:
        run: one run, from carried values to all results and the cost.
        carry: before the first run.
        carried: how many of the results are carried.
    """
    while True:
        results, tally = run(carry)
        joined = [a.joined(b) for a, b in zip(carry, results[:carried], strict=True)]
        if joined == carry:
            return carry, results, tally
        carry = joined


def _looked_up(eqn: Any, values: Knowledge) -> tuple[Knowledge, Tally]:
    """Rows of an embedding: a layer without products."""
    weight = values[0].weight
    site = Site(weight.rpartition(".")[0], eqn.primitive.name, weight)
    shape = WeightShape(Kind.EMBEDDING, *eqn.invars[0].aval.shape)
    use = Use(0, shape=shape, first=INPUT in values[1].origins)
    return [Known(origins=frozenset({weight}))], Tally({site: use})


def _joined(values: Iterable[Known]) -> Known:
    first, *others = values
    for other in others:
        first = first.joined(other)
    return first


def _same(eqn: Any, values: Knowledge) -> Knowledge:
    made = result(eqn.primitive.name, values)
    if len(eqn.outvars) != 1:
        made = Known(origins=made.origins)
    return [made] * len(eqn.outvars)


def _size(var: Any) -> int:
    return prod(getattr(var.aval, "shape", ()))


def _in(module: str) -> str:
    return f" in {module}" if module else ""


def _scopes(eqn: Any) -> list[str]:
    """Names that an equation was traced under, in the jaxpr that holds it; einsum's notations and transforms left out."""
    stack = getattr(eqn.source_info.name_stack, "stack", ())
    names = [getattr(scope, "name", "") for scope in stack if type(scope).__name__ == "Scope"]
    return [part for name in names if "->" not in name for part in name.split("/") if part]
