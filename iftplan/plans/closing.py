"""Closing a plan's budget: how many weights, or ranks, every row keeps so that the scope's MACs come out equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import gcd

from iftplan.base.errors import InfeasibleError
from iftplan.base.units import count, decimal, decimal_text
from iftplan.families.integers import rank_unit
from iftplan.masks.distributions import DensityLayer, Distribution, densities
from iftplan.plans.budget import Account, Curve, close, close_curves
from iftplan.plans.plan import PlannedLayer, Role, Scope
from iftplan.plans.policy import Policy
from iftplan.plans.rows import PlanRow, with_unknown


@dataclass(frozen=True, slots=True)
class Books:
    """MACs of one scope: the budget, the cost that no density changes, and the cost of masked weights at density 1."""

    budget: int
    fixed: int
    maskable: int

    @staticmethod
    def of(rows: Sequence[PlanRow], scope: Scope, policy: Policy) -> Books:
        """Add up the rows that count in a scope, and give them the policy's budget.

        Args:
            rows: of the whole model.
            scope: whose MACs are held.
            policy: whose budget it is.
        """
        inside = [row for row in rows if row.counts_in(scope)]
        return Books(
            policy.budget_of(sum(row.dense_macs for row in inside)),
            sum(row.fixed_macs for row in inside),
            sum(row.maskable_macs for row in inside),
        )

    @property
    def closing_density(self) -> Fraction | None:
        """Density d* = (B - F0)/F1 that closes the budget; None where nothing can be masked."""
        return Fraction(self.budget - self.fixed, self.maskable) if self.maskable else None


def close_budget(rows: Sequence[PlanRow], policy: Policy) -> tuple[tuple[PlannedLayer, ...], tuple[str, ...]]:
    """Planned layers whose numbers of weights meet the budget of the scope, and notes on MACs that are left.

    Raises:
        InfeasibleError: no densities close it; says why, or which layer would be left without a weight.
    """
    open_rows = [row for row in rows if row.maskable_macs]
    ledger = Books.of(rows, policy.scope, policy)
    if not open_rows:
        return _closed_by_rank(rows, ledger, policy)
    left = ledger.budget - ledger.fixed
    if left <= 0 and not policy.budget:
        raise _overspent(rows, policy, ledger)
    choices = [row.counts(policy.mask) for row in open_rows]
    if policy.budget:
        fewest = (allowed.start or allowed.step for allowed in choices)
        _check_range(
            rows,
            policy,
            ledger.budget,
            ledger.fixed + sum(row.macs_of(n) for row, n in zip(open_rows, fewest, strict=True)),
            ledger.fixed
            + sum(row.macs_of(allowed[-1]) for row, allowed in zip(open_rows, choices, strict=True)),
        )
    targets = _targets(open_rows, policy, left)
    for row, allowed in zip(open_rows, choices, strict=True):
        left -= row.macs_of(allowed.start)
    if left < 0:
        raise _too_thin(policy, left)
    accounts = [
        _weight_account(row, allowed, target, policy)
        for row, allowed, target in zip(open_rows, choices, targets, strict=True)
    ]
    steps, residual = close(accounts, left)
    chosen = {row.name: allowed[n] for row, allowed, n in zip(open_rows, choices, steps, strict=True)}
    notes = _residual_note(residual, gcd(*(account.positions for account in accounts))) if residual else ()
    empty = [name for name, n in chosen.items() if not n]
    if empty:
        raise InfeasibleError(
            f"at sparsity {decimal_text(policy.sparsity)} the budget of scope {policy.scope_name} leaves no weights "
            f"for {empty[0]}."
        )
    notes += _short_note(open_rows, chosen, policy, ledger)
    return tuple(row.planned(chosen.get(row.name, 0), policy.mask) for row in rows), notes


def _weight_account(row: PlanRow, allowed: range, target: Fraction, policy: Policy) -> Account:
    """A layer's weights as something to spend on, in the steps of its masks; one that should have a weight keeps one.

    At a budget of its own, every layer keeps one: how small such a budget may be follows from that.
    """
    steps = max((target - allowed.start) / allowed.step, Fraction(0))
    least = 1 if not allowed.start and (steps >= 1 or policy.budget) else 0
    most = (allowed[-1] - allowed.start) // allowed.step  # a range's own length must fit a machine's word
    return Account(most, row.macs_of(allowed.step), steps, least)


def _short_note(
    rows: Sequence[PlanRow], chosen: Mapping[str, int], policy: Policy, ledger: Books
) -> tuple[str, ...]:
    """What hardware for whole patterns would make of groups that are short."""
    mask = policy.mask
    shortage = mask.shortage((row.matrices, chosen[row.name]) for row in rows)
    if not shortage:
        return ()
    whole = sum(row.macs_of(row.counts(mask)[-1]) for row in rows) + ledger.fixed
    than = "the budget" if policy.budget else "the dense model's"
    return (
        f"{shortage} to meet the budget; hardware that runs all of them as {mask} performs {count(whole)} "
        f"MACs, {decimal(Fraction(whole, ledger.budget))} times {than}",
    )


def _targets(rows: Sequence[PlanRow], policy: Policy, budget: int) -> list[Fraction]:
    """How many weights each layer should keep, before rounding."""
    uniform = policy.distribution is Distribution.UNIFORM
    if uniform and policy.families and not policy.widens and all(row.structure for row in rows):
        own = [Fraction((row.dense_macs - row.fixed_macs) * row.experts, row.positions) for row in rows]
        if sum(t * row.positions / row.experts for t, row in zip(own, rows, strict=True)) == budget:
            return own  # each layer closes by itself: its structure is its own
    shares = [DensityLayer(row.name, row.shape, row.maskable_macs) for row in rows]
    try:
        spread = densities(shares, Fraction(budget), policy.distribution, policy.power)
    except InfeasibleError as error:
        raise InfeasibleError(f"scope {policy.scope_name}: {error}") from error
    return [density * row.capacity for density, row in zip(spread, rows, strict=True)]


def _closed_by_rank(
    rows: Sequence[PlanRow], ledger: Books, policy: Policy
) -> tuple[tuple[PlannedLayer, ...], tuple[str, ...]]:
    """Nothing is masked: ranks are what can be spent, one whole rank at a time, and a residual may stay."""
    ranked = [row for row in rows if row.role is Role.TRANSFORMED and _has_free_rank(row, policy)]
    if not ranked:
        if policy.budget and not any(row.role is Role.TRANSFORMED for row in rows):
            _check_range(rows, policy, ledger.budget, ledger.fixed, ledger.fixed)
        if ledger.fixed > ledger.budget and not any(row.role is Role.TRANSFORMED for row in rows):
            raise _overspent(rows, policy, ledger)
        return tuple(row.planned(0, policy.mask) for row in rows), _pattern_note(ledger, policy)
    # A family without masks has no single weights to take away. Where its cost is linear in the rank, one factor
    # on all ranks meets the budget in real numbers, and `close` makes whole ranks of them as it makes whole
    # weights elsewhere: a rank is an account's unit, at the price of a column of U and a row of V. Where it is
    # not, as with more than two factors, that factor is searched for.
    # Convolutions with groups take ranks in steps of their groups, and every layer keeps one, for at rank 0
    # it would pass nothing on.
    spent = sum(row.macs_of(row.dense_uses) for row in ranked)
    left = ledger.budget - (ledger.fixed - spent)
    if left <= 0 and not policy.budget:
        raise _overspent([row for row in rows if row not in ranked], policy, ledger)
    accounts = [_rank_account(row, Fraction(left, spent)) for row in ranked]
    curves = [_curve(row, account) for row, account in zip(ranked, accounts, strict=True)]
    if policy.budget:
        _check_range(
            rows,
            policy,
            ledger.budget,
            ledger.budget - left + sum(curve.cost(1) for curve in curves),
            ledger.budget - left + sum(curve.cost(curve.capacity) for curve in curves),
        )
    steps, residual = _close_ranks(accounts, curves, left)
    if residual < 0:
        smallest = min(zip(steps, ranked, strict=True), key=lambda pair: pair[0])[1]
        raise InfeasibleError(
            f"sparsity {decimal_text(policy.sparsity)} cannot meet the budget of scope {policy.scope_name} with whole "
            f"ranks: {smallest.name} would have rank 0."
        )
    chosen = {row.name: _at_rank(row, step) for row, step in zip(ranked, steps, strict=True)}
    names = " and ".join(dict.fromkeys(row.family.name for row in ranked if row.family))
    note = (
        f"{count(residual)} MACs of scope {policy.scope_name} stay unspent, because {names} has whole ranks "
        "and no masks to spend them on"
    )
    return tuple(chosen.get(row.name, row).planned(0, policy.mask) for row in rows), (
        note,
    ) if residual else ()


def _rank_account(row: PlanRow, scale: Fraction) -> Account:
    """A layer's ranks as something to spend on, in steps of its groups."""
    assert row.layer is not None and row.family is not None
    rank, unit = row.structure[row.family.definition.structure], rank_unit(row.layer, row.family)
    assert isinstance(rank, int)
    most = min(row.layer.fan_in, row.layer.fan_out) // unit
    price = row.macs_of(row.dense_uses) // rank * unit
    return Account(max(most, 1), price, max(scale * rank / unit, Fraction(1)), 1)


def _has_free_rank(row: PlanRow, policy: Policy) -> bool:
    """Whether a row's rank can meet the budget: it has no masks, or its masks leave no choice."""
    if row.family is None or (row.nnz is not None and not policy.mask.rigid):
        return False
    return isinstance(row.structure.get(row.family.definition.structure), int)


def _at_rank(row: PlanRow, steps: int) -> PlanRow:
    """The row at another rank, with the masks that it has."""
    assert row.layer is not None and row.family is not None
    made = with_unknown(row, row.family, steps * rank_unit(row.layer, row.family))
    return replace(made, nnz=row.nnz)


def share_budget(rows: Sequence[PlanRow], policy: Policy) -> Sequence[PlanRow]:
    """Rows of a plan with several families, where ranks without masks share the budget with the masks of others.

    Both take the same part of what they cost at the sparsity asked for; masks then close what whole ranks leave.
    """
    ranked = [row for row in rows if row.role is Role.TRANSFORMED and row.nnz is None and not row.capacity]
    masked = [row for row in rows if row.maskable_macs]
    if not policy.assignment or not ranked or not masked:
        return rows
    ledger = Books.of(rows, policy.scope, policy)
    spent, full = sum(row.fixed_macs for row in ranked), ledger.maskable
    left = ledger.budget - (ledger.fixed - spent)
    scale = max(Fraction(left) / (spent + policy.density * full), Fraction(0))
    fewest = 0
    for row in masked:
        allowed = row.counts(policy.mask)
        fewest += row.macs_of(allowed.start or allowed.step)
    accounts = [_rank_account(row, scale) for row in ranked]
    share = min(max(int(scale * spent), left - full), left - fewest)
    curves = [_curve(row, account) for row, account in zip(ranked, accounts, strict=True)]
    steps, _ = _close_ranks(accounts, curves, share)
    chosen = {row.name: _at_rank(row, step) for row, step in zip(ranked, steps, strict=True)}
    return [chosen.get(row.name, row) for row in rows]


def _curve(row: PlanRow, account: Account) -> Curve:
    """A layer's MACs at so many steps of its rank."""
    return Curve(account.capacity, account.target, partial(_rank_macs, row))


def _rank_macs(row: PlanRow, steps: int) -> int:
    return row.macs_of(_at_rank(row, steps).dense_uses)


def _close_ranks(
    accounts: Sequence[Account], curves: Sequence[Curve], left: int
) -> tuple[tuple[int, ...], int]:
    """Steps of each rank, to the MAC where costs are linear, and by search where they are not."""
    straight = all(curve.cost(2) == 2 * curve.cost(1) for curve in curves)
    return close(accounts, left) if straight else close_curves(curves, left)


def _check_range(rows: Sequence[PlanRow], policy: Policy, budget: int, least: int, most: int) -> None:
    """Refuse a budget that these widths, branches or ranks cannot meet, with the nearest ones that they can."""
    if least <= budget <= most:
        return
    dense = sum(row.dense_macs for row in rows if row.counts_in(policy.scope))
    where = f"scope {policy.scope_name}" + (
        f" at sparsity {decimal_text(policy.sparsity)}" if policy.families else ""
    )
    nearest, way = (least, "small") if budget < least else (most, "large")
    raise InfeasibleError(
        f"budget {policy.budget} is too {way} for {where}: its layers can cost {_times(least, dense)} at least and "
        f"{_times(most, dense)} at most, and {count(budget)} MACs are asked for. The nearest feasible budget is "
        f"`budget='{nearest}'`."
    )


def _times(macs: int, dense: int) -> str:
    """MACs, and how many times the dense model's that is, where it has any."""
    return f"{count(macs)} MACs" + (f" ({decimal(Fraction(macs, dense), 4)}x)" if dense else "")


def _overspent(rows: Sequence[PlanRow], policy: Policy, ledger: Books) -> InfeasibleError:
    inside = [row for row in rows if row.counts_in(policy.scope) and row.fixed_macs > row.dense_macs]
    worst = max(inside, key=lambda row: row.fixed_macs - row.dense_macs, default=None)
    who = (
        f"; {worst.name} adds most, {count(worst.dense_macs)} → {count(worst.fixed_macs)} ({worst.reason})"
        if worst
        else ""
    )
    return InfeasibleError(
        f"sparsity {decimal_text(policy.sparsity)} cannot meet the budget of scope {policy.scope_name}: the parts "
        f"without a mask already cost {count(ledger.fixed)} MACs, and the budget is "
        f"{count(ledger.budget)}{who}."
    )


def _too_thin(policy: Policy, left: int) -> InfeasibleError:
    mask, hint = policy.mask, ""
    if mask.density is not None:
        free = f"allow any width with `mask={str(mask.filled)!r}`, or " if mask.filled else ""
        hint = f"; {free}keep patterns whole with `close='pattern'`, which leaves a few MACs unspent"
    return InfeasibleError(
        f"{mask} masks cannot meet the budget of scope {policy.scope_name}: even the fewest weights that they can "
        f"keep cost {count(-left)} MACs too many{hint}."
    )


def _residual_note(residual: int, step: int) -> tuple[str, ...]:
    why = f"a weight costs {count(step)} MACs or a multiple of that"
    if residual >= step:
        why = "the layers that could use them already keep all of their weights"
    unspent = "1 MAC stays" if residual == 1 else f"{count(residual)} MACs stay"
    return (f"{unspent} unspent: {why}",)


def _pattern_note(ledger: Books, policy: Policy) -> tuple[str, ...]:
    residual = ledger.budget - ledger.fixed
    if not residual:
        return ()
    return (
        f"{count(residual)} MACs of scope {policy.scope_name} stay unspent, because {policy.mask} masks fix the "
        "number of weights and widths are whole",
    )


def attention_notes(layers: Sequence[PlannedLayer], policy: Policy) -> tuple[str, ...]:
    """Notes on attention that is counted by pairs: what it saves, whether that is spent, and what is counted in full.

    Args:
        layers: of the plan.
        policy: what was asked for.
    """
    if policy.attention is None:
        return ()
    counted = [(layer, layer.attention) for layer in layers if layer.attention]
    changes = dict.fromkeys(f"{pairs.before} → {pairs.after}" for _, pairs in counted)
    saved = sum(pairs.at_planned_widths - layer.macs for layer, pairs in counted)
    notes = [
        f"attention is counted by pairs of a query and a key, before and after ({', '.join(changes)}); at the plan's "
        f"widths, the pattern saves {count(saved)} MACs"
    ]
    if policy.closes and policy.scope in (Scope.MATRICES, Scope.LAYERS):
        notes.append(
            f"scope {policy.scope_name} counts no attention, so what it saves is not spent; scope model spends it"
        )
    selecting = sum(pairs.selection_macs for _, pairs in counted)
    if selecting:
        notes.append(f"of its MACs, {count(selecting)} choose the keys that are kept")
    full = [layer.name for layer in layers if layer.role is Role.ACTIVATION and not layer.attention]
    if full:
        verb = "product of activations is" if len(full) == 1 else "products of activations are"
        notes.append(
            f"{len(full)} {verb} counted as without a pattern, because their pairs are not known: {full[0]}"
        )
    return tuple(notes)


def closing_sparsities(
    rows: Sequence[PlanRow], scopes: Sequence[Scope], policy: Policy
) -> dict[Scope, Fraction | None]:
    """Sparsity of the masked weights that closes each scope at the budget with these structures; None if none does.

    Args:
        rows: every layer's role and structure.
        scopes: the scopes of the plan.
        policy: what is asked for.
    """
    found: dict[Scope, Fraction | None] = {}
    for scope in scopes:
        density = Books.of(rows, scope, policy).closing_density
        found[scope] = 1 - density if density is not None and 0 < density <= 1 else None
    return found
