"""ModelSpec × Policy → Plan: roles, structures, and one budget closed over the whole model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.base.suggestions import did_you_mean
from iftplan.base.units import decimal, decimal_text
from iftplan.families.integer_search import Multiplier
from iftplan.families.transforms.experts import NAME, Mixture
from iftplan.masks.distributions import DensityLayer, densities
from iftplan.models.spec import Heads, ModelSpec
from iftplan.plans.closing import attention_notes, close_budget, closing_sparsities, share_budget
from iftplan.plans.experts import plan_experts
from iftplan.plans.plan import WHOLE, KeptFor, Plan, PlannedLayer, Role, Scope, lies_within
from iftplan.plans.policy import DENSE, Policy, check_reached
from iftplan.plans.rows import PlanRow, kept_for, rows_of
from iftplan.plans.widths import plan_widths


def plan(spec: ModelSpec, policy: Policy, *, heads: Heads = "number") -> Plan:
    """Plan of a whole model that meets the budget in the policy's scope.

    Args:
        spec: the dense model's layers, and its couplings for families that widen.
        policy: what is asked for.
        heads: what attention was asked to keep when the model was read, "number" or "size".

    Raises:
        InfeasibleError: says which layer is in the way and the nearest feasible sparsity.
        InputError: a layer named in `keep_dense` does not exist, or no layer lies in the modules named in `within` or
            matches the path of a family; or the spec was read for other heads.
    """
    if heads == "size" and spec.couplings is not None and spec.couplings.heads == "number":
        raise InputError(
            f"`heads='size'` was asked for, but this spec was read with the number of heads kept. Give the model itself, {spec.source or 'a network'}, instead of its spec."
        )
    try:
        made = _plan(spec, policy, heads)
    except InfeasibleError as error:
        told = (str(error), _way_out(spec, policy, heads), _nearest(spec, policy, heads))
        raise InfeasibleError(" ".join(filter(None, told))) from error
    crowded = _crowding_note(spec, policy, heads, made)
    return replace(made, notes=(crowded, *made.notes)) if crowded else made


@dataclass(frozen=True, slots=True)
class Prepared:
    """Widths and structures of a plan before densities are spread.

    Plans that differ in their distribution alone share them.

    Attributes:
        multiplier: the width multiplier.
        sizes: width symbol → new size.
        rows: every layer's role and structure.
    """

    multiplier: Multiplier
    sizes: Mapping[str, int]
    rows: tuple[PlanRow, ...]


def prepare(spec: ModelSpec, policy: Policy) -> Prepared:
    """Widths and structures, whatever the policy's distribution.

    Raises:
        InfeasibleError: says which layer is in the way.
        InputError: a layer named in `keep_dense` does not exist, or no layer lies in the modules named in `within`.
    """
    if policy.mixture is not None:
        raise InfeasibleError("experts have no densities, so no plans share their structure.")
    _check_names(spec, policy)
    _check_attention(spec, policy)
    multiplier, sizes = plan_widths(spec, policy)
    return Prepared(multiplier, sizes, tuple(share_budget(rows_of(spec, policy, sizes), policy)))


def _plan(spec: ModelSpec, policy: Policy, heads: Heads) -> Plan:
    if policy.mixture is not None:
        return _of_experts(spec, policy, policy.mixture, heads)
    return close_prepared(spec, policy, prepare(spec, policy), heads=heads)


def _of_experts(spec: ModelSpec, policy: Policy, mixture: Mixture, heads: Heads) -> Plan:
    """Plan of a mixture of experts, in which nothing is masked."""
    _check_names(spec, policy)
    found = plan_experts(spec, policy, mixture)
    return Plan(
        spec.source,
        spec.inputs,
        spec.fingerprint,
        NAME,
        Fraction(0),
        policy.scope,
        policy.distribution.value,
        policy.close_by,
        tuple(sorted(policy.keep_dense)),
        policy.round_to,
        str(policy.mask),
        heads,
        found.layers,
        closing_sparsity=dict.fromkeys((*WHOLE, Scope.MODULE) if policy.within else WHOLE),
        notes=found.notes + spec.assumptions,
        within=policy.within,
        budget=policy.budget,
        mixture=mixture,
    )


def close_prepared(spec: ModelSpec, policy: Policy, prepared: Prepared, *, heads: Heads = "number") -> Plan:
    """Plan from widths and structures that were prepared for this policy, or for one with another distribution.

    Args:
        spec: the dense model.
        policy: what is asked for.
        prepared: of a policy that is the same but for its distribution.
        heads: what attention was asked to keep when the model was read, "number" or "size".

    Raises:
        InfeasibleError: the budget does not close; looks for no sparsity that would.
    """
    multiplier, sizes, rows = prepared.multiplier, prepared.sizes, prepared.rows
    if not policy.closes:
        layers = _sparsified(rows, policy)
        notes: tuple[str, ...] = ("plain sparsity at the same width; the saved compute is not spent again",)
    else:
        layers, notes = close_budget(rows, policy)
    scope = policy.scope if policy.closes else None
    scopes = (*WHOLE, Scope.MODULE) if policy.within else WHOLE
    closing = closing_sparsities(rows, scopes, policy) if scope else dict.fromkeys(scopes)
    sparsity = policy.sparsity if policy.families or not scope else closing[scope] or Fraction(0)
    if sizes and policy.rounding == "floor":
        notes += ("widths are rounded down, so masks are a little denser than asked for",)
    if sizes and spec.couplings is not None:
        heads = spec.couplings.heads or heads
        notes += spec.couplings.notes
    notes += attention_notes(layers, policy)
    notes += tuple(_unused(rows, policy))
    return Plan(
        spec.source,
        spec.inputs,
        spec.fingerprint,
        policy.transform,
        sparsity,
        scope,
        policy.distribution.value,
        policy.close_by,
        tuple(sorted(policy.keep_dense)),
        policy.round_to,
        str(policy.mask),
        heads,
        layers,
        sizes,
        float(multiplier),
        closing,
        notes + spec.assumptions,
        policy.within,
        policy.budget,
        attention=str(policy.attention or ""),
        attention_before=str(policy.attention_before or ""),
    )


def _check_attention(spec: ModelSpec, policy: Policy) -> None:
    if policy.attention and not any(product.attention for product in spec.products):
        others = sum(product.operator == "attention" for product in spec.products)
        why = (
            "its document does not say how many queries and keys they have. Read the model again"
            if others
            else "only calls of scaled_dot_product_attention are known to be attention. Plan it without `attention`"
        )
        raise InputError(
            f"`attention='{policy.attention}'`: {spec.source or 'the model'} has {others or 'no'} attention products, and {why}."
        )


def _sparsified(rows: Sequence[PlanRow], policy: Policy) -> tuple[PlannedLayer, ...]:
    """The same network with masks at the sparsity asked for, counted in weights as the papers do."""
    masked = [row for row in rows if row.maskable_macs]
    shares = [DensityLayer(row.name, row.shape, row.capacity) for row in masked]
    budget = policy.density * sum(row.capacity for row in masked)
    spread = densities(shares, budget, policy.distribution, policy.power)
    chosen = {
        row.name: row.close(policy.mask, round(d * row.capacity))
        for row, d in zip(masked, spread, strict=True)
    }
    return tuple(row.planned(chosen.get(row.name, 0), policy.mask) for row in rows)


def _unused(rows: Sequence[PlanRow], policy: Policy) -> Iterator[str]:
    """Sentences on families that transform no layer, and on layers that are in none."""
    if policy.assignment is None:
        return
    for glob, family in policy.assignment.rules:
        inside = [row for row in rows if row.layer and lies_within(row.name, glob)]
        if family != DENSE and not any(row.role is Role.TRANSFORMED for row in inside):
            yield f"no layer that {glob!r} matches is transformed: the role of each says why"
    dense = [row.name for row in rows if row.kept_for is KeptFor.FAMILY]
    if dense:
        verb = "layer is" if len(dense) == 1 else "layers are"
        more = f" and {len(dense) - 3} more" if len(dense) > 3 else ""
        yield f"{len(dense)} {verb} in no family and stay{'s' * (len(dense) == 1)} dense: {', '.join(dense[:3])}{more}"


def _check_names(spec: ModelSpec, policy: Policy) -> None:
    names = [w.layer.name for w in spec.layers]
    if policy.assignment:
        check_reached(policy.assignment, names, spec.source or "the model")
    for name in sorted(policy.keep_dense - {"first", "last"} - set(names)):
        raise InputError(
            f"`keep_dense`: {name!r} is not a layer of {spec.source or 'the model'}."
            f"{did_you_mean(name, names, cutoff=0.3)} Give first, last, none or names of layers."
        )
    if policy.within and not any(map(policy.covers, names)):
        modules = list(
            dict.fromkeys(".".join(n.split(".")[: i + 1]) for n in names for i in range(n.count(".")))
        )
        meant = did_you_mean(policy.within, modules, cutoff=0.3)
        outer = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
        raise InputError(
            f"no layer of {spec.source or 'the model'} lies in a module {policy.within!r}.{meant} "
            f"Its outermost modules are {outer}."
        )


CROWDED: Final = Fraction(1, 4)
"""Part of the density that all layers could have together, below which those without a mask crowd out the others."""


@dataclass(frozen=True, slots=True)
class _Crowding:
    """What layers without a mask leave to the others in the closed scope, whose budget they are paid from first.

    Attributes:
        unmasked: layers and products without a mask, the most expensive first.
        part: of the budget that they take.
        left: density of the others: what is left of the budget over what they cost with all of their weights.
        shared: density of all together, if each had a mask.
    """

    unmasked: tuple[PlannedLayer, ...]
    part: Fraction
    left: Fraction
    shared: Fraction

    @staticmethod
    def of(plan: Plan) -> _Crowding | None:
        """What the plan's masks are left with; None where nothing is closed by masks."""
        if plan.scope is None or plan.closing_sparsity.get(plan.scope) is None:
            return None
        rows, budget = plan.rows_in(plan.scope), plan.budget_macs(plan.scope)
        unmasked = sorted((r for r in rows if r.macs and not r.maskable), key=lambda row: -row.macs)
        fixed = sum(row.macs for row in unmasked)
        full = sum(row.macs_of(row.capacity + row.dense_weights) for row in rows if row.maskable)
        return _Crowding(
            tuple(unmasked),
            Fraction(fixed, budget),
            Fraction(budget - fixed, full),
            Fraction(budget, fixed + full),
        )

    @property
    def bearable(self) -> bool:
        """Whether the others keep a part of their weights that is worth planning."""
        return self.left >= CROWDED * self.shared


def _crowding_note(spec: ModelSpec, policy: Policy, heads: Heads, made: Plan) -> str:
    """A sentence on layers that stay dense and leave the others hardly a weight; empty where they leave enough."""
    found = _Crowding.of(made)
    if found is None or found.bearable or policy.mask.density is not None:
        return ""
    names = ", ".join(row.name for row in found.unmasked[:3])
    more = f" and {len(found.unmasked) - 3} more" if len(found.unmasked) > 3 else ""
    return (
        f"{decimal(100 * found.part, 1)} % of the budget goes to layers that have no mask ({names}{more}), and the "
        f"others are left with density {_few_digits(found.left)}, where all together could have "
        f"{_few_digits(found.shared)}. "
        + (_way_out(spec, policy, heads) or "Choose a lower sparsity, or another scope.")
    )


def _few_digits(density: Fraction) -> str:
    return f"{float(density):.3g}"


def _way_out(spec: ModelSpec, policy: Policy, heads: Heads) -> str:
    """A sentence with fewer layers to keep dense that leave weights to all others; empty where none do."""
    for kept in _fewer_kept(spec, policy):
        try:
            found = _plan(spec, replace(policy, keep_dense=kept), heads)
        except InfeasibleError:
            continue
        crowding = _Crowding.of(found)
        if crowding is not None and crowding.bearable:
            names = sorted(kept) or ["none"]
            given = repr(names[0] if len(names) == 1 else names)
            return (
                f"`keep_dense={given}` makes sparsity {decimal_text(policy.sparsity)} feasible, at density "
                f"{_few_digits(crowding.left)}."
            )
    return ""


def _fewer_kept(spec: ModelSpec, policy: Policy) -> Iterator[frozenset[str]]:
    """What may stay dense instead: all but one entry, those of the largest layers first, and nothing at all."""
    if not policy.families or policy.mixture is not None or policy.mask.density is not None:
        return
    largest: dict[str, int] = {}
    for layer in spec.layers:
        entry = {KeptFor.INPUT: "first", KeptFor.OUTPUT: "last", KeptFor.NAME: layer.layer.name}
        if (name := entry.get(kept_for(layer, policy) or KeptFor.SIZE)) is not None:
            largest[name] = max(largest.get(name, 0), layer.layer.dense_macs)
    for name in sorted(largest, key=lambda name: -largest[name]):
        yield policy.keep_dense - {name}
    if len(largest) > 1:
        yield frozenset()


def _nearest(spec: ModelSpec, policy: Policy, heads: Heads) -> str:
    """A sentence with the nearest sparsity, in hundredths, that is feasible."""
    unreadable = not policy.families or (policy.widens and spec.couplings is None)
    if unreadable or policy.mask.density is not None:
        return ""
    start = round(policy.sparsity * 100)
    for step in range(100):
        for candidate in (start - step, start + step):
            if 0 <= candidate < 100 and Fraction(candidate, 100) != policy.sparsity:
                try:
                    _plan(spec, replace(policy, sparsity=Fraction(candidate, 100)), heads)
                except InfeasibleError:
                    continue
                return f"The nearest feasible sparsity is {decimal_text(Fraction(candidate, 100))}."
    return "No sparsity makes it feasible; keep fewer layers dense, or choose another scope."
