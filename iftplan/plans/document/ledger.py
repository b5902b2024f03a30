"""Whether the parts of a plan agree: each row with its own notation and structure, and the settings with the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import isclose, isfinite, prod

from iftplan.base.documents import duplicate_name
from iftplan.base.errors import InputError
from iftplan.base.units import decimal_text
from iftplan.families.builtin import FAMILIES
from iftplan.families.integers import at_structure
from iftplan.families.transforms.experts import NAME
from iftplan.masks import MaskStructure, Unstructured, parse_mask
from iftplan.masks.cardinality import log2_choose
from iftplan.models.spec import LayerSpec
from iftplan.plans.document.layers import after_notation, before_notation
from iftplan.plans.experts import problem_of
from iftplan.plans.plan import WIDTHS, Plan, PlannedLayer, Role, Scope, lies_within
from iftplan.plans.policy import DENSE, PLAIN, parse_assignment


def contradictions(plan: Plan) -> Iterator[str]:
    """Sentences on what one place of a plan says and another denies; each begins with the place."""
    try:
        mask = parse_mask(plan.mask)
    except InputError as error:
        yield f"mask: {error}"
        return
    if plan.scope is Scope.MODULE and not plan.within:
        yield "scope is 'module', and within names no module"
        return
    yield from _settings(plan, mask)
    yield from duplicate_name("layers", (layer.name for layer in plan.layers))
    for i, layer in enumerate(plan.layers):
        for problem in _row(plan, layer, mask):
            yield f"layers.{i}{problem}"
            return
    yield from _closing(plan, mask)


def _settings(plan: Plan, mask: MaskStructure) -> Iterator[str]:
    if not 0 <= plan.sparsity < 1:
        yield f"sparsity_exact is {decimal_text(plan.sparsity)}; a sparsity must be at least 0 and below 1"
    if mask.density is not None and mask.density != 1 - plan.sparsity:
        yield (
            f"sparsity_exact is {decimal_text(plan.sparsity)}, but {mask} masks have sparsity "
            f"{decimal_text(1 - mask.density)}"
        )
    if plan.round_to < 1:
        yield f"round_to is {plan.round_to}; it must be at least 1"
    if not isfinite(plan.multiplier) or plan.multiplier <= 0:
        yield f"multiplier is {plan.multiplier}; it must be above 0"
    for name, size in plan.widths.items():
        if size < 1:
            yield f"widths.{name} is {size}; it must be at least 1"
    try:
        assignment = parse_assignment(plan.transform)
    except InputError as error:
        yield f"transform: {error}"
        return
    names = set(assignment.families) - {DENSE}
    if (names <= {PLAIN} and plan.budget is None) != (plan.scope is None):
        yield (
            f"scope is {plan.scope and plan.scope.value!r}, and transform is {plan.transform!r}: a plan of a "
            "family has a scope, and plain sparsity has one only at a budget"
        )
    if plan.within:
        outside = (layer for layer in plan.layers if not lies_within(layer.name, plan.within))
        for layer in outside:
            if layer.role in (Role.TRANSFORMED, Role.DEPTHWISE):
                yield f"within is {plan.within!r}, but {layer.name} outside of it is {layer.role.value}"
                break
    for layer in plan.layers:
        several = bool(assignment.rules) and layer.role is Role.TRANSFORMED
        if layer.transform != (assignment.of(layer.name) if several else ""):
            yield f"transform is {plan.transform!r}, but {layer.name} has the family {layer.transform!r}"
            break
    kept = [
        name for name in names if name == PLAIN or (name in FAMILIES and not FAMILIES[name].definition.widens)
    ]
    if plan.widths and len(kept) == len(names):
        yield f"widths are given, but {plan.transform} keeps the width"
    known = {layer.name for layer in plan.layers} | {"first", "last"}
    for name in plan.keep_dense:
        if name not in known:
            yield f"keep_dense: {name!r} is not a layer of the plan"


def _row(plan: Plan, layer: PlannedLayer, mask: MaskStructure) -> Iterator[str]:
    counts: Mapping[str, float] = {
        "nnz": layer.nnz,
        "capacity": layer.capacity,
        "positions": layer.positions,
        "dense_weights": layer.dense_weights,
        "dense_macs": layer.dense_macs,
        "macs": layer.macs,
        "log2_masks": layer.log2_masks,
    }
    for key, value in counts.items():
        if value < 0:
            yield f".{key} has the count {value}; a count cannot be negative"
    if layer.nnz > layer.capacity:
        yield f".nnz is {layer.nnz}, more than the capacity {layer.capacity}"
    if layer.role is Role.ACTIVATION:
        if layer.positions or layer.capacity or layer.dense_weights or layer.weight or layer.maskable:
            yield " has weights, but a product of activations has none"
        yield from _attention(plan, layer)
        return
    stacked = (layer.nnz, layer.capacity, layer.dense_weights)
    if layer.experts < 1 or any(weights % layer.experts for weights in stacked):
        yield f".experts is {layer.experts}, but its number of weights cannot be divided by that"
        return
    if layer.reuse < 1 or layer.dense_weights % layer.reuse.denominator:
        yield f".reuse_exact is {layer.reuse}, but weights are used a whole number of times, each at least once"
        return
    kept = layer.macs_of(layer.nnz + layer.dense_uses)
    if layer.macs != kept:
        yield f".macs is {layer.macs}, but its weights and positions make {kept}"
    if not layer.weight:
        yield ".weight is empty; only products of activations have no weight"
    if (plan.mixture is None) != (plan.transform != NAME):
        yield f".experts of the plan do not go with transform {plan.transform!r}"
    elif plan.mixture is None and layer.role in (Role.ADDED, Role.REMOVED):
        yield f".role is {layer.role.value}, but only a plan of experts adds layers and removes some"
    elif plan.mixture is not None and (told := problem_of(layer, plan.mixture)):
        yield told
    yield from _masked(layer, mask if layer.role is Role.TRANSFORMED else Unstructured())
    if layer.before and layer.after:
        yield from _shapes(plan, layer, layer.before, layer.after)


def _attention(plan: Plan, layer: PlannedLayer) -> Iterator[str]:
    """What attention costs by its pairs against its sizes and patterns."""
    pairs = layer.attention
    if pairs is None:
        return
    if not plan.attention:
        yield ".attention is given, but the plan counts attention in full"
        return
    why = pairs.call.problem(pairs.dense_full_macs)
    try:
        made = None if why else (pairs.dense_macs, pairs.macs)
    except InputError as error:
        why, made = str(error), None
    if why:
        yield f".attention: {why}"
    elif made != (layer.dense_macs, layer.macs):
        yield f".dense_macs and macs are {layer.dense_macs} and {layer.macs}, but the pairs of its patterns make {made}"


def _masked(layer: PlannedLayer, mask: MaskStructure) -> Iterator[str]:
    """The mask's own numbers."""
    if layer.maskable and layer.role not in (Role.TRANSFORMED, Role.DEPTHWISE):
        yield f".maskable is true, but a layer of role {layer.role.value} has no mask"
    if layer.maskable and not layer.capacity:
        yield ".maskable is true, but its capacity is 0"
    if not layer.maskable and layer.nnz < layer.capacity:
        yield f".maskable is false, but nnz is {layer.nnz} of {layer.capacity}; without a mask every weight is kept"
    if not 0 <= layer.nnz <= layer.capacity:
        return
    of_one = log2_choose(layer.capacity // layer.experts, layer.nnz // layer.experts)
    most = of_one * layer.experts if layer.maskable else 0.0
    exact = not layer.maskable or isinstance(mask, Unstructured)
    if exact and not isclose(layer.log2_masks, most, rel_tol=1e-9, abs_tol=1e-9):
        yield f".log2_masks is {layer.log2_masks:g}, but {layer.nnz} of {layer.capacity} weights make {most:g} bits"
    if layer.log2_masks > most * (1 + 1e-9):
        yield f".log2_masks is {layer.log2_masks:g}, more than the {most:g} bits of any mask with {layer.nnz} of {layer.capacity} weights"


def _shapes(plan: Plan, layer: PlannedLayer, before: LayerSpec, after: LayerSpec) -> Iterator[str]:
    """What the layer was and is against the numbers beside it."""
    was, becomes = before_notation(layer), after_notation(layer, plan.transform)
    if before.symbolic or after.symbolic:
        yield f": {was if before.symbolic else becomes} has no channels"
        return
    if before.kind.value != layer.kind or after.kind is not before.kind:
        yield f".kind is {layer.kind!r}, but the layer is {was} before and {becomes} after"
        return
    dense = before.dense_macs if layer.positions else 0
    if layer.dense_macs != dense:
        yield f".dense_macs is {layer.dense_macs}, but {was} costs {dense}"
    if layer.experts != after.experts or (plan.mixture is None and after.experts != before.experts):
        yield f".experts is {layer.experts}, but the layer is {was} before and {becomes} after"
    if layer.positions not in (after.positions, 0):
        yield f".positions is {layer.positions}, but {becomes} has {after.positions}"
    yield from _structure(plan, layer, after, becomes)


def _structure(plan: Plan, layer: PlannedLayer, after: LayerSpec, becomes: str) -> Iterator[str]:
    """The integers of the structure against the weights that they make."""
    widths = dict(zip(WIDTHS, (after.in_channels, after.out_channels), strict=True))
    for key, value in widths.items():
        if layer.structure.get(key, value) != value:
            yield f".structure.{key} is {layer.structure[key]}, but {becomes} has {value}"
    others = [key for key in layer.structure if key not in widths]
    transform = layer.transform or plan.transform
    family = FAMILIES.get(transform)
    pointwise = after.kind.spatial_dims > 0 and prod(after.kernel) == 1  # which a plan may only mask
    if family and layer.role is Role.TRANSFORMED and not (family.solves_width or others or pointwise):
        yield f".structure has no {family.definition.structure}; a {transform} layer needs one"
    capacity, beside, reuse = after.weights, 0, Fraction(1)
    if others:
        if family is None and transform != PLAIN:
            return  # a family of somebody's own: what its structure holds is not known here
        key = family.definition.structure if family else ""
        unknown = layer.structure.get(key)
        if family is None or others != [key] or not isinstance(unknown, int) or unknown < 0:
            yield f".structure has {', '.join(others)}, which a {transform} layer does not have"
            return
        real = at_structure(after, family, unknown, {})
        capacity, beside, reuse = real.capacity, real.dense_weights, real.reuse
    if (layer.capacity, layer.dense_weights) != (capacity, beside):
        yield (
            f".capacity and dense_weights are {layer.capacity} and {layer.dense_weights}, but {becomes} has "
            f"{capacity} and {beside}"
        )
    if layer.reuse != reuse:
        yield f".reuse_exact is {layer.reuse}, but each weight of {becomes} is used {reuse} times on average"


def _closing(plan: Plan, mask: MaskStructure) -> Iterator[str]:
    """The sparsity that closes each scope, and whether the closed one is overspent."""
    whole = mask.rigid or (mask.density is not None and plan.close_by == "pattern")
    rows = [
        layer
        for layer in plan.layers
        if layer.role is Role.TRANSFORMED and layer.capacity and not whole and plan.scope
    ]
    for scope in plan.scopes:
        counted = {layer.name for layer in plan.rows_in(scope)}
        inside = [layer for layer in rows if layer.name in counted]
        full = sum(layer.macs_of(layer.capacity) for layer in inside)
        left = plan.budget_macs(scope) - plan.macs(scope) + sum(x.macs_of(x.nnz) for x in inside)
        density = Fraction(left, full) if full else None
        expected = 1 - density if density is not None and 0 < density <= 1 else None
        if plan.closing_sparsity.get(scope) != expected:
            yield (
                f"closing_sparsity_exact.{scope.value} does not follow from the layers, which make it "
                f"{expected and decimal_text(expected)}"
            )
    if rows and plan.residual_macs is not None and plan.residual_macs < 0:
        limit = f"its budget of {plan.budget}" if plan.budget else "the dense model"
        yield f"residual_macs is {plan.residual_macs}: in its scope, the plan costs more than {limit}"


def unpriceable(plan: Plan) -> Iterator[str]:
    """Sentences on estimates of layers that the plan does not have; each begins with the place."""
    if plan.wallclock is None:
        return
    if plan.wallclock.threads < 1:
        yield f"wallclock.threads is {plan.wallclock.threads}; it must be at least 1"
    names = {layer.name for layer in plan.layers}
    priced = [layer.name for layer in plan.wallclock.layers]
    yield from duplicate_name("wallclock.layers", priced)
    for name in (*priced, *dict(plan.wallclock.unpriced)):
        if name not in names:
            yield f"wallclock: {name!r} is not a layer of the plan"
