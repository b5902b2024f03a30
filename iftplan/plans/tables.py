"""Plans for people: a row per layer, totals per scope."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import comb

from iftplan.base.units import Convention, abbreviate, bits, count, decimal, percent
from iftplan.families.builtin import FAMILIES
from iftplan.families.transforms.experts import Mixture
from iftplan.masks import parse_mask
from iftplan.plans.document.layers import after_notation, before_notation
from iftplan.plans.document.plan import plan_document
from iftplan.plans.experts import size_of
from iftplan.plans.plan import WIDTHS, KeptFor, Plan, PlannedLayer, Role, Scope, TensorScale
from iftplan.plans.scaling import NAMES
from iftplan.report.display import Record
from iftplan.report.table import Table

_DEARER = Fraction(1005, 1000)
"""Ratio of the whole model's cost to the dense one's above which a plan in another scope says so."""


def plan_records(plan: Plan) -> Sequence[Record]:
    """A row for each weight and each product of activations, as in the plan's document."""
    layers: Sequence[Record] = plan_document(plan)["layers"]
    return layers


def plan_table(plan: Plan, convention: Convention = Convention.MAC) -> Table:
    """Table of all layers before and after, with the weights that are kept and their cost."""
    per, unit = convention.per_mac, convention.unit
    several = any(layer.transform for layer in plan.layers)
    rows = tuple(
        (
            layer.name,
            before_notation(layer),
            after_notation(layer, plan.transform),
            *((layer.transform,) if several else ()),
            count(layer.nnz) if layer.positions else "",
            f"{float(layer.density):.4f}" if layer.positions else "",
            count(layer.dense_macs * per),
            count(layer.macs * per),
            layer.role.value if layer.role is Role.TRANSFORMED else f"{layer.role.value}: {layer.reason}",
        )
        for layer in plan.layers
    )
    columns = (
        *("layer", "before", "after", *(("family",) if several else ())),
        *(">nnz", ">density", f">dense {unit}", f">planned {unit}", "role"),
    )
    pattern = f", attention {plan.attention} by pairs" if plan.attention else ""
    title = f"{plan.model or 'the model'}: {plan.transform} at {plan.asked}{pattern}, input {', '.join(map(str, plan.inputs))}"
    return Table(columns, rows, title)


def scope_table(plan: Plan, convention: Convention = Convention.MAC) -> Table:
    """Table of the three scopes: dense and planned cost, their ratio, and the sparsity that closes each."""
    per, unit = convention.per_mac, convention.unit
    rows = tuple(
        (
            plan.scope_name(scope) + (f" ({_closed(plan)})" if scope is plan.scope else ""),
            count(plan.dense_macs(scope) * per),
            count(plan.macs(scope) * per),
            decimal(plan.ratio(scope)),
            _closing(plan, scope),
        )
        for scope in plan.scopes
    )
    columns = ("scope", f">dense {unit}", f">planned {unit}", ">ratio", ">closing sparsity, same structure")
    cardinality = plan.cardinality
    notes = [
        f"search space: {abbreviate(cardinality.maskable_weights or 0)} maskable weights, {bits(cardinality.log2_masks or 0.0)} to name a mask"
        if plan.mixture is None
        else _choices(plan, plan.mixture)
    ]
    if not any(layer.role is Role.TRANSFORMED for layer in plan.layers):
        notes.append("note: no layer is transformed; the role of each says why")
    elif plan.sparsity and _keeps_widths(plan):
        notes.append("note: no width of this model can move, so every layer is what it was")
    if plan.widths:
        notes.append(f"width multiplier k = {plan.multiplier:.6g}{_rounding(plan)}")
    notes += _full_counts(plan, convention)
    notes += _beside_module(plan)
    notes += _left_out(plan)
    scaled = plan.parametrization.notes if plan.parametrization else ()
    return Table(columns, rows, notes=(*notes, *(f"note: {n}" for n in (*plan.notes, *scaled))))


def _choices(plan: Plan, mixture: Mixture) -> str:
    """What a token can choose in a plan of experts, and how many weights it meets."""
    size = size_of(plan.layers, mixture)
    ways = f"C({mixture.experts}, {mixture.top_k})"
    if mixture.router == "relu":
        ways = f"2^{mixture.experts}"
    elif mixture.log2_choices < _LONG:
        ways += f" = {count(comb(mixture.experts, mixture.top_k))}"
    blocks = f"{size.blocks} block{'s' * (size.blocks != 1)}"
    return f"search space: {ways} choices for a token in each of {blocks}, {bits(size.log2_choices)}; {abbreviate(size.total)} weights, of which a token meets {abbreviate(size.active)}"


def _closed(plan: Plan) -> str:
    return f"closed at {plan.budget}" if plan.budget else "closed"


def _full_counts(plan: Plan, convention: Convention) -> Iterator[str]:
    """Note on the counts of every query with every key, beside those by pairs."""
    if plan.attention:
        per, scope = convention.per_mac, Scope.MODEL
        yield (
            f"note: with every query and every key, scope model costs {count(plan.dense_full_macs(scope) * per)} "
            f"{convention.unit} before and {count(plan.full_macs(scope) * per)} after"
        )


def _left_out(plan: Plan) -> Iterator[str]:
    """Notes on layers that cost something and are not transformed, and on a model that costs more as a whole."""
    reasons: dict[str, list[str]] = {}
    for layer in plan.layers:
        if layer.role is Role.UNMASKABLE and layer.dense_macs:
            reasons.setdefault(layer.reason, []).append(layer.name)
    for reason, names in reasons.items():
        verb = "layer is" if len(names) == 1 else "layers are"
        yield f"note: {len(names)} {verb} not transformed ({_some(names)}): {reason}"
    if (
        plan.budget is None
        and plan.scope in (Scope.MATRICES, Scope.LAYERS)
        and not plan.within
        and plan.ratio(Scope.MODEL) > _DEARER
    ):
        more = percent(plan.ratio(Scope.MODEL) - 1).lstrip("+")
        yield f"note: the whole model costs {more} more than the dense one; a plan in scope model spends exactly as much"


def _beside_module(plan: Plan) -> Iterator[str]:
    """Notes on what lies outside of the module that is planned: its share, and what it costs more."""
    if not plan.within:
        return
    names = {layer.name for layer in plan.rows_in(Scope.MODULE)}
    outside = [layer for layer in plan.layers if layer.name not in names]
    others: dict[str, int] = {}
    for layer in outside:
        part = layer.name.partition(":")[0].partition(".")[0]
        others[part] = others.get(part, 0) + layer.dense_macs
    whole = plan.dense_macs(Scope.MODEL) or 1
    shares = "".join(f", {name} {_share(macs, whole)}" for name, macs in others.items() if macs)
    module = plan.scope_name(Scope.MODULE)
    yield f"note: shares of the dense model's MACs: {module} {_share(plan.dense_macs(Scope.MODULE), whole)}{shares}"
    grown = [layer for layer in outside if layer.macs != layer.dense_macs]
    if grown:
        more = count(sum(layer.macs - layer.dense_macs for layer in grown))
        paid = (
            f"and {module} pays for that"
            if plan.scope in (Scope.LAYERS, Scope.MODEL)
            else "which scope layers would count"
        )
        verb = "layer follows" if len(grown) == 1 else "layers follow"
        yield (
            f"note: outside of {module}, {len(grown)} {verb} its widths for {more} MACs more, {paid}: "
            f"{_some([layer.name for layer in grown])}"
        )


def _share(macs: int, whole: int) -> str:
    return f"{100 * macs / whole:.1f} %"


_LONG = 40
"""Bits of a number of choices that is not written out."""

_NOTEWORTHY = 1.05
"""How far above k widths are, where the table says so."""


def _rounding(plan: Plan) -> str:
    """How widths grow where rounding them up to multiples takes them well above k."""
    growths = [
        Fraction(layer.after.out_channels, layer.before.out_channels)
        for layer in plan.layers
        if layer.before and layer.after and layer.before.out_channels and layer.after.out_channels
    ]
    grown = [float(growth) for growth in growths if growth != 1]
    if not grown or max(grown) <= _NOTEWORTHY * plan.multiplier:
        return ""
    low, high = f"{min(grown):.4g}", f"{max(grown):.4g}"
    much = low if low == high else f"{low} to {high}"
    what = (
        f"multiples of {plan.round_to}"
        if plan.round_to > 1
        else "multiples that heads, groups and masks need"
    )
    return f" before rounding; rounded up to {what}, widths grow by a factor of {much}"


def _keeps_widths(plan: Plan) -> bool:
    """Whether a family that widens has left every width as it was."""
    widens = plan.widths or FAMILIES.get(plan.transform, FAMILIES["parallel"]).solves_width
    return bool(widens) and not any(map(_restructured, plan.layers))


def _restructured(layer: PlannedLayer) -> bool:
    """Whether anything but a mask is new."""
    return layer.after != layer.before or not layer.structure.keys() <= set(WIDTHS)


def scale_tables(plan: Plan) -> tuple[Table, ...]:
    """Table of the scales that every weight starts and trains at, relative to the dense model.

    Empty for plans without a parametrization.
    """
    if plan.parametrization is None:
        return ()
    scales = plan.parametrization
    rows = tuple(
        (
            name,
            scale.role.value,
            *(f"{float(number):.4g}" for number in _numbers(scale)),
        )
        for name, scale in scales.scales.items()
    )
    columns = ("tensor", "role", ">m_d", ">m_ρ", ">fan-in", ">init std ×", ">learning rate ×", ">logits ×")
    title = f"{NAMES[scales.scheme]} parametrization for {scales.optimizer}, {scales.mask_updates} masks"
    return (Table(columns, rows, title),)


def time_tables(plan: Plan) -> tuple[Table, ...]:
    """Tables of every layer's estimated time in milliseconds, and of why it is computed as it is.

    Empty for plans that were not made for time.
    """
    if plan.wallclock is None:
        return ()
    reasons = {layer.name: layer.reason for layer in plan.layers}
    rows = [
        (
            time.name,
            time.execution,
            *(f"{seconds * 1e3:.3f}" for seconds in (time.dense, time.flops, time.seconds)),
            reasons[time.name] + (" (outside of what was measured)" if time.extrapolated else ""),
        )
        for time in plan.wallclock.layers
    ]
    rows += [(name, "", "", "", "", f"not priced: {why}") for name, why in plan.wallclock.unpriced]
    columns = ("layer", "computed", ">dense ms", ">by MACs ms", ">planned ms", "why")
    return (Table(columns, tuple(rows), "estimated times"), *total_time_tables(plan))


def total_time_tables(plan: Plan) -> tuple[Table, ...]:
    """Table of the estimated time of all priced layers together, in milliseconds.

    Empty for plans that were not made for time.
    """
    clock = plan.wallclock
    if clock is None:
        return ()
    totals = (("dense model", clock.dense), ("planned by MACs", clock.flops), ("this plan", clock.seconds))
    rows = tuple((name, f"{t * 1e3:.3f}", _over(t, clock.dense)) for name, t in totals)
    threads = f"{clock.threads} thread{'s' * (clock.threads > 1)}"
    title = f"estimated {clock.passes}, {clock.machine}, {clock.instructions}, {threads}, batch {clock.batch}"
    kept = [layer.name for layer in plan.layers if layer.kept_for is KeptFor.TIME]
    told = [f"kept dense to save time: {_some(kept)}"]
    for why in dict.fromkeys(why for _, why in clock.unpriced):
        told.append(f"not priced: {_some([name for name, w in clock.unpriced if w == why])}: {why}")
    return (Table(("", ">ms", ">ratio"), rows, title, (*told, *(f"note: {note}" for note in clock.notes))),)


def _some(names: Sequence[str], shown: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more or "no layer"


def _over(seconds: float, dense: float) -> str:
    return f"{seconds / dense:.2f}" if dense else ""


def _numbers(scale: TensorScale) -> tuple[float | Fraction, ...]:
    return (
        scale.width_multiplier,
        scale.density_multiplier,
        scale.fan_in_ratio,
        scale.init_std_scale,
        scale.learning_rate_multiplier,
        scale.output_multiplier,
    )


def _closing(plan: Plan, scope: Scope) -> str:
    closing = plan.closing_sparsity.get(scope)
    if closing is not None:
        return decimal(closing)
    if plan.scope is None:
        return ""
    if plan.mixture is not None:
        return "widths close it"
    transformed = [layer for layer in plan.layers if layer.role is Role.TRANSFORMED]
    rigid = parse_mask(plan.mask).rigid
    ranked = any("rank" in layer.structure and (rigid or not layer.capacity) for layer in transformed)
    return "ranks close it" if ranked else "no density closes it"
