"""ModelSpec × Policy → Plan: roles, structures, and one budget closed over the whole model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd, lcm

from iftplan.budget import Account, close
from iftplan.distributions import Distribution, Share, densities
from iftplan.errors import InfeasibleError, InputError
from iftplan.plans import Plan, PlannedLayer, Role, Scope
from iftplan.policy import Policy
from iftplan.realise import rank_unit
from iftplan.rows import Row, rows_of, with_unknown
from iftplan.spec import Couplings, ModelSpec
from iftplan.units import count, plain
from iftplan.widening import Multiplier


def plan(spec: ModelSpec, policy: Policy, *, heads: str = "number") -> Plan:
    """Plan a whole model so that its budget closes in the policy's scope.

    Raises:
        InfeasibleError: says which layer is in the way and the nearest feasible sparsity.
        InputError: a layer named in `keep_dense` does not exist.
    """
    _check_names(spec, policy)
    try:
        return _plan(spec, policy, heads)
    except InfeasibleError as error:
        raise InfeasibleError(f"{error} {_nearest(spec, policy, heads)}".strip()) from error


def _plan(spec: ModelSpec, policy: Policy, heads: str) -> Plan:
    multiplier, sizes = _widths(spec, policy)
    rows = rows_of(spec, policy, sizes)
    if policy.family is None:
        layers = _sparsified(rows, policy)
        notes: tuple[str, ...] = ("nothing is closed: plain sparsity at the same width",)
    else:
        layers, notes = _closed(rows, policy)
    scope = policy.scope if policy.family else None
    return Plan(
        spec.source,
        spec.inputs,
        spec.fingerprint,
        policy.family.name if policy.family else "none",
        policy.sparsity,
        scope,
        policy.distribution.value,
        policy.close_by,
        tuple(sorted(policy.keep_dense)),
        policy.round_to,
        heads,
        layers,
        sizes,
        float(multiplier),
        _closing_sparsities(rows) if scope else {},
        notes + spec.assumptions,
    )


# --- widths ---------------------------------------------------------------------------------------


def _widths(spec: ModelSpec, policy: Policy) -> tuple[Multiplier, dict[str, int]]:
    """The width multiplier and the new size of every free width; nothing for families that keep the width."""
    if not (policy.family and policy.family.definition.widens):
        return Multiplier(Fraction(1)), {}
    if spec.couplings is None:
        raise InfeasibleError(
            f"{spec.source} cannot be widened: {spec.refusal or 'its spec holds no width couplings'}. Parallel, factorized and doped keep every outer shape and need none."
        )
    multiplier = Multiplier.closing(policy.density)
    if policy.close_by == "width":
        multiplier = _closing_multiplier(spec, policy, multiplier)
    return multiplier, _scaled(spec.couplings, multiplier, policy.round_to)


def _scaled(couplings: Couplings, multiplier: Multiplier, round_to: int) -> dict[str, int]:
    return {
        name: width.size if width.fixed else multiplier.scale(width.size, _unit(width.multiple_of, round_to))
        for name, width in couplings.widths.items()
    }


def _unit(multiple_of: int, round_to: int) -> int:
    return lcm(multiple_of, round_to)


def _closing_multiplier(spec: ModelSpec, policy: Policy, at_most: Multiplier) -> Multiplier:
    """The smallest multiplier whose widths cover the budget at the density asked for, to a part in 2**32."""
    assert spec.couplings is not None

    def covers(squared: Fraction) -> bool:
        assert spec.couplings is not None
        sizes = _scaled(spec.couplings, Multiplier(squared), policy.round_to)
        ledger = _Ledger.of(rows_of(spec, policy, sizes), policy.scope)
        return ledger.fixed + policy.density * ledger.maskable >= ledger.budget

    low, high = Fraction(1), at_most.squared
    if not covers(high):
        return at_most
    for _ in range(32):
        middle = (low + high) / 2
        low, high = (low, middle) if covers(middle) else (middle, high)
    return Multiplier(high)


# --- closing --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ledger:
    """One scope's books: what may be spent, what is spent whatever the density, what full density would cost."""

    budget: int
    fixed: int
    maskable: int

    @staticmethod
    def of(rows: Sequence[Row], scope: Scope) -> _Ledger:
        inside = [row for row in rows if row.role.within(scope)]
        return _Ledger(
            sum(row.dense_macs for row in inside),
            sum(row.fixed_macs for row in inside),
            sum(row.maskable_macs for row in inside),
        )

    @property
    def closing_density(self) -> Fraction | None:
        """d* = (B - F0)/F1, if there is anything to mask."""
        return Fraction(self.budget - self.fixed, self.maskable) if self.maskable else None


def _closed(rows: Sequence[Row], policy: Policy) -> tuple[tuple[PlannedLayer, ...], tuple[str, ...]]:
    """Every row with the nnz that closes the budget of the scope."""
    open_rows = [row for row in rows if row.role is Role.TRANSFORMED and row.capacity]
    ledger = _Ledger.of(rows, policy.scope)
    if not open_rows:
        return _closed_by_rank(rows, ledger, policy)
    left = ledger.budget - ledger.fixed
    if left <= 0:
        raise _overspent(rows, policy, ledger)
    accounts = [
        Account(row.capacity, row.positions, target)
        for row, target in zip(open_rows, _targets(open_rows, policy, left), strict=True)
    ]
    nnz, residual = close(accounts, left)
    chosen = {row.name: n for row, n in zip(open_rows, nnz, strict=True)}
    notes = _residual_note(residual, open_rows) if residual else ()
    empty = [name for name, n in chosen.items() if not n]
    if empty:
        raise InfeasibleError(
            f"at sparsity {plain(policy.sparsity)} the budget of scope {policy.scope} leaves {empty[0]} no weight at all."
        )
    return tuple(row.planned(chosen.get(row.name, 0)) for row in rows), notes


def _targets(rows: Sequence[Row], policy: Policy, budget: int) -> list[Fraction]:
    """How many weights each layer should keep, before rounding."""
    uniform = policy.distribution is Distribution.UNIFORM
    if uniform and policy.family and not policy.family.definition.widens:
        own = [Fraction(row.dense_macs - row.fixed_macs, row.positions) for row in rows]
        if sum(t * row.positions for t, row in zip(own, rows, strict=True)) == budget:
            return own  # each layer closes by itself: its structure is its own
    shares = [Share(row.name, row.shape, row.maskable_macs) for row in rows]
    try:
        spread = densities(shares, Fraction(budget), policy.distribution, policy.power)
    except InfeasibleError as error:
        raise InfeasibleError(f"scope {policy.scope}: {error}") from error
    return [density * row.capacity for density, row in zip(spread, rows, strict=True)]


def _closed_by_rank(
    rows: Sequence[Row], ledger: _Ledger, policy: Policy
) -> tuple[tuple[PlannedLayer, ...], tuple[str, ...]]:
    """Nothing is masked: ranks are what can be spent, one whole rank at a time, and a residual may stay."""
    family = policy.family
    ranked = [row for row in rows if row.role is Role.TRANSFORMED]
    if family is None or not ranked:
        return tuple(row.planned(0) for row in rows), ()
    key = family.definition.structure
    spent = sum(row.fixed_macs for row in ranked)
    left = ledger.budget - (ledger.fixed - spent)
    if left <= 0:
        raise _overspent([row for row in rows if row not in ranked], policy, ledger)
    units = [rank_unit(row.layer, family) for row in ranked if row.layer]
    accounts = [
        _rank_account(row, key, unit, Fraction(left, spent)) for row, unit in zip(ranked, units, strict=True)
    ]
    steps, residual = close(accounts, left)
    if residual < 0 or not all(steps):
        raise _overspent(rows, policy, ledger)
    chosen = {
        row.name: with_unknown(row, family, step * unit)
        for row, step, unit in zip(ranked, steps, units, strict=True)
    }
    note = f"{family.name} masks nothing, so whole ranks leave {count(residual)} MACs of scope {policy.scope} unspent"
    return tuple(chosen.get(row.name, row).planned(0) for row in rows), (note,) if residual else ()


def _rank_account(row: Row, key: str, unit: int, scale: Fraction) -> Account:
    """A layer's ranks as something to spend on, in steps of `unit`."""
    rank = row.structure[key]
    assert isinstance(rank, int) and row.layer is not None
    most = min(row.layer.fan_in, row.layer.fan_out) // unit
    return Account(max(most, 1), row.fixed_macs // rank * unit, scale * rank / unit)


def _overspent(rows: Sequence[Row], policy: Policy, ledger: _Ledger) -> InfeasibleError:
    inside = [row for row in rows if row.role.within(policy.scope) and row.fixed_macs > row.dense_macs]
    worst = max(inside, key=lambda row: row.fixed_macs - row.dense_macs, default=None)
    who = (
        f"; the most is added by {worst.name} ({worst.reason}), {count(worst.dense_macs)} → {count(worst.fixed_macs)}"
        if worst
        else ""
    )
    return InfeasibleError(
        f"sparsity {plain(policy.sparsity)} cannot close scope {policy.scope}: what no mask can thin costs {count(ledger.fixed)} MACs of a budget of {count(ledger.budget)}{who}."
    )


def _residual_note(residual: int, rows: Sequence[Row]) -> tuple[str, ...]:
    step = gcd(*(row.positions for row in rows))
    return (
        f"{residual} MACs stay unspent: weights are applied at multiples of {step} positions, so {step} MACs is the smallest step",
    )


def _closing_sparsities(rows: Sequence[Row]) -> dict[Scope, Fraction | None]:
    found: dict[Scope, Fraction | None] = {}
    for scope in Scope:
        density = _Ledger.of(rows, scope).closing_density
        found[scope] = 1 - density if density is not None and 0 < density <= 1 else None
    return found


# --- plain sparsity -------------------------------------------------------------------------------


def _sparsified(rows: Sequence[Row], policy: Policy) -> tuple[PlannedLayer, ...]:
    """The same network with masks at the sparsity asked for, counted in weights as the papers do."""
    masked = [row for row in rows if row.role is Role.TRANSFORMED and row.capacity]
    shares = [Share(row.name, row.shape, row.capacity) for row in masked]
    budget = policy.density * sum(row.capacity for row in masked)
    spread = densities(shares, budget, policy.distribution, policy.power)
    chosen = {row.name: round(d * row.capacity) for row, d in zip(masked, spread, strict=True)}
    return tuple(row.planned(chosen.get(row.name, 0)) for row in rows)


# --- messages -------------------------------------------------------------------------------------


def _check_names(spec: ModelSpec, policy: Policy) -> None:
    names = [w.layer.name for w in spec.layers]
    for name in sorted(policy.keep_dense - {"first", "last"} - set(names)):
        near = difflib.get_close_matches(name, names, 1, 0.3)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"--keep-dense {name!r} is no layer of {spec.source}{hint} It takes first, last, none or layer names."
        )


def _nearest(spec: ModelSpec, policy: Policy, heads: str) -> str:
    """A sentence with the nearest sparsity, in hundredths, that is feasible."""
    if policy.family is None or (policy.family.definition.widens and spec.couplings is None):
        return ""
    start = round(policy.sparsity * 100)
    for step in range(1, 100):
        for candidate in (start - step, start + step):
            if 0 <= candidate < 100:
                try:
                    _plan(spec, replace(policy, sparsity=Fraction(candidate, 100)), heads)
                except InfeasibleError:
                    continue
                return f"The nearest feasible sparsity is {plain(Fraction(candidate, 100))}."
    return "No sparsity makes it feasible; keep fewer layers dense or close another scope."
