"""Plans for time: layers stay dense where sparse kernels take longer than dense operators, at equal MACs all the same.

The start is the plan that only MACs decide. Layers that dense operators compute faster than sparse kernels are then
kept dense, those that save most time for each MAC that they cost the others first; what does not close the budget,
leaves the others too thin, or takes longer as a whole, is left as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from iftplan.errors import InfeasibleError, InputError
from iftplan.estimates import KEPT_FOR_TIME, Execution, LayerTime, WallClock
from iftplan.machine import processor
from iftplan.notation import parse_layer
from iftplan.planner import close_prepared, plan, prepare
from iftplan.plans import Plan, PlannedLayer, Role, Scope
from iftplan.policy import Policy
from iftplan.pricing import DENSE_ABOVE, NotMeasuredError, Price, Prices
from iftplan.profiles import Pass, Profile
from iftplan.spec import LayerSpec, ModelSpec

THINNEST: Final = Fraction(1, 2)
"""What masked layers keep at least of their density, however much time others would save at their expense."""


def plan_for_time(
    spec: ModelSpec, policy: Policy, profile: Profile, *, passes: Pass = "forward", heads: str = "number"
) -> Plan:
    """Plan a model for the time that it takes on a profiled machine, its budget closed as ever.

    Args:
        spec: the model; the samples of its input are the plan's batch.
        policy: as for any plan.
        profile: of the machine.
        passes: "forward", or "step" for forward and backward.
        heads: what attention keeps where it widens.

    Raises:
        InfeasibleError: no plan closes, whatever the time.
        InputError: the profile has nothing of that pass, or what stays dense would be outside of the scope.
    """
    if policy.scope is Scope.MATRICES and policy.family and policy.family.definition.widens:
        raise InputError(
            f"scope matrices leaves out what is kept dense, so nobody would pay for dense layers that {policy.family.name} widened; plan for time with --scope layers or model."
        )
    try:
        prices = Prices.of(profile, passes)
    except NotMeasuredError as error:
        raise InputError(f"{error}; measure it with iftplan bench --profile --pass {passes}.") from error
    ordinary = plan(spec, policy, heads=heads)
    found = _Times.of(ordinary, prices)
    least = {layer.name: THINNEST * layer.density for layer in ordinary.layers if layer.maskable}
    best, chosen, given_up = ordinary, policy, dict[str, str]()
    for names in _candidates(ordinary, found):
        best, chosen, why = _kept(spec, chosen, best, names, least, prices, heads)
        given_up |= why
    return _finished(best, ordinary, found, prices, given_up, profile, passes)


def _kept(
    spec: ModelSpec,
    policy: Policy,
    best: Plan,
    names: Sequence[str],
    least: Mapping[str, Fraction],
    prices: Prices,
    heads: str,
) -> tuple[Plan, Policy, dict[str, str]]:
    """The plan with more layers kept dense, as many of those named as may be; and why not the others."""
    before, why = _Times.of(best, prices).seconds, ""
    for size in _halves(len(names)):
        wanted = replace(policy, keep_dense=policy.keep_dense | set(names[:size]))
        try:
            made = close_prepared(spec, wanted, prepare(spec, wanted), heads=heads)
        except InfeasibleError:
            why = "dense it would leave the others no budget"
            continue
        if any(layer.maskable and layer.density < least[layer.name] for layer in made.layers):
            why = "dense it would leave the others less than half of their weights"
        elif _Times.of(made, prices).seconds >= before:
            why = "dense the whole would take longer"
        else:
            return made, wanted, dict.fromkeys(names[size:], why)
    return best, policy, dict.fromkeys(names, why)


def _halves(size: int) -> Iterator[int]:
    while size:
        yield size
        size //= 2


# --- what layers take ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Time:
    """A layer's price as it was, as it is planned, and in dense operators throughout."""

    execution: Execution
    dense: Price
    planned: Price
    operators: Price


@dataclass(frozen=True, slots=True)
class _Times:
    """Prices by layer, and why others have none."""

    layers: Mapping[str, _Time]
    unpriced: Mapping[str, str]

    @staticmethod
    def of(plan: Plan, prices: Prices) -> _Times:
        layers, unpriced = dict[str, _Time](), dict[str, str]()
        for layer in plan.layers:
            try:
                layers[layer.name] = _time(layer, plan.mask, prices)
            except NotMeasuredError as error:
                unpriced[layer.name] = str(error)
        return _Times(layers, unpriced)

    @property
    def seconds(self) -> float:
        return sum(time.planned.seconds for time in self.layers.values())


def _time(layer: PlannedLayer, mask: str, prices: Prices) -> _Time:
    if layer.role is Role.ACTIVATION:
        raise NotMeasuredError("a product of activations has no weight")
    before = parse_layer(layer.before)
    parts = _parts(layer, before)
    dense = prices.of_dense(before)
    operators = _sum(dense if shape == before else prices.of_operators(shape) for shape, _ in parts)
    if not layer.maskable or layer.density > DENSE_ABOVE:
        return _Time("dense", dense, operators, operators)
    planned = _sum(
        prices.of_operators(shape) if nnz is None else prices.of_sparse(shape, nnz, mask)
        for shape, nnz in parts
    )
    return _Time("sparse", dense, planned, operators)


def _sum(prices: Iterator[Price]) -> Price:
    first = next(prices)
    for price in prices:
        first += price
    return first


Part = tuple[LayerSpec, float | None]
"""A matrix that is computed by itself: its shape, and the weights that its mask keeps; None without a mask."""


def _parts(layer: PlannedLayer, before: LayerSpec) -> tuple[Part, ...]:
    """What a planned layer is made of: itself, branches, or factors with a masked layer beside them or not."""
    structure = layer.structure
    branches, rank = structure.get("branches"), structure.get("rank")
    inputs, outputs = structure.get("in_channels"), structure.get("out_channels")
    masked, plain = list[LayerSpec](), list[LayerSpec]()
    if isinstance(branches, int):
        masked = [before] * branches
    elif isinstance(rank, int):
        wide = before
        if isinstance(inputs, int) and isinstance(outputs, int):
            wide = replace(before, in_channels=inputs, out_channels=outputs)
        factors = _factors(wide, rank)
        if layer.capacity and layer.dense_weights:
            masked, plain = [wide], factors
        else:
            masked, plain = (factors, []) if layer.capacity else ([], factors)
    elif set(structure) <= {"in_channels", "out_channels"}:
        after = parse_layer(layer.after)
        masked = [before if layer.after == layer.before else after]
    weights = sum(part.weights for part in masked), sum(part.weights for part in plain)
    if weights != (layer.capacity, layer.dense_weights) or not masked + plain:
        raise NotMeasuredError("what it is made of was not measured")
    share = layer.nnz / layer.capacity if layer.capacity else 1
    kept = [(part, share * part.weights if layer.maskable else None) for part in masked]
    return (*kept, *((part, None) for part in plain))


def _factors(layer: LayerSpec, rank: int) -> list[LayerSpec]:
    """The first carries the kernel, the second is linear or 1×1."""
    point = (1,) * len(layer.kernel)
    return [replace(layer, out_channels=rank), replace(layer, in_channels=rank, kernel=point)]


# --- which layers may stay dense -------------------------------------------------------------------------


def _candidates(plan: Plan, times: _Times) -> list[tuple[str, ...]]:
    """Layers that dense operators compute faster, those of one shape together; the greatest saving for a MAC first."""
    groups: dict[tuple[str, str], list[PlannedLayer]] = {}
    for layer in plan.layers:
        time = times.layers.get(layer.name)
        if time and time.execution == "sparse" and time.planned.seconds > time.operators.seconds:
            groups.setdefault((layer.before, layer.after), []).append(layer)

    def saving(group: Sequence[PlannedLayer]) -> float:
        gain = sum(_seconds_saved(layer, times.layers[layer.name]) for layer in group)
        return gain / max(1, sum(_macs_more(layer) for layer in group))

    ordered = sorted(groups.values(), key=lambda group: (-saving(group), group[0].name))
    return [tuple(layer.name for layer in group) for group in ordered]


def _seconds_saved(layer: PlannedLayer, time: _Time) -> float:
    dense = time.operators if _widened(layer) else time.dense
    return time.planned.seconds - dense.seconds


def _macs_more(layer: PlannedLayer) -> int:
    """What a layer costs more when it is dense: without widths of its own it is then what it was."""
    return layer.positions * layer.capacity - layer.macs if _widened(layer) else 0


def _widened(layer: PlannedLayer) -> bool:
    return "in_channels" in layer.structure


# --- what is said of it ----------------------------------------------------------------------------------


def _finished(
    best: Plan,
    ordinary: Plan,
    found: _Times,
    prices: Prices,
    given_up: Mapping[str, str],
    profile: Profile,
    passes: Pass,
) -> Plan:
    now, dense_before = _Times.of(best, prices), set(ordinary.keep_dense)
    layers = tuple(
        _told(
            layer, found, now, given_up.get(layer.name, ""), layer.name in set(best.keep_dense) - dense_before
        )
        for layer in best.layers
    )
    estimates = tuple(
        LayerTime(
            name,
            time.execution,
            time.dense.seconds,
            found.layers[name].planned.seconds,
            time.planned.seconds,
            any(p.extrapolated for p in (time.dense, time.planned, found.layers[name].planned)),
        )
        for name, time in now.layers.items()
    )
    clock = WallClock(
        profile.digest,
        profile.machine,
        profile.instructions,
        profile.threads,
        passes,
        estimates,
        tuple(now.unpriced.items()),
        tuple(_notes(estimates, profile)),
    )
    return replace(best, layers=layers, wallclock=clock)


def _told(layer: PlannedLayer, found: _Times, now: _Times, given_up: str, kept: bool) -> PlannedLayer:
    """The layer with what time has to do with its role."""
    if layer.name in now.unpriced and layer.role is Role.TRANSFORMED:
        return replace(layer, reason=f"{layer.reason}; not priced: {now.unpriced[layer.name]}")
    if not kept and not given_up:
        return layer
    time = found.layers[layer.name]
    ratios = (price.seconds / time.dense.seconds for price in (time.planned, time.operators))
    figures = "sparse kernels take {:.1f} of the dense layer's time here, dense operators {:.1f}".format(
        *ratios
    )
    return replace(
        layer, reason=KEPT_FOR_TIME + figures if kept else f"{layer.reason}; {figures}, but {given_up}"
    )


def _notes(estimates: Sequence[LayerTime], profile: Profile) -> Iterator[str]:
    outside = sum(layer.extrapolated for layer in estimates)
    if outside:
        yield f"{outside} of {len(estimates)} layers lie outside of what the profile measured; their times are scaled with their MACs"
    if profile.machine != (here := processor()):
        yield f"the profile is of another machine ({profile.machine}; this one is {here})"
