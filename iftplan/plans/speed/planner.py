"""Plans for time: layers stay dense where sparse kernels take longer than dense operators, at equal MACs all the same.

The start is the plan that only MACs decide. Layers that dense operators compute faster than sparse kernels are then
kept dense, those that save most time for each MAC that they cost the others first; what does not close the budget,
leaves the others too thin, or takes longer as a whole, is left as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.models.spec import Heads, ModelSpec
from iftplan.plans.plan import KeptFor, LayerTime, Pass, Plan, PlannedLayer, Role, Scope, WallClock
from iftplan.plans.planner import close_prepared, plan, prepare
from iftplan.plans.policy import Policy
from iftplan.plans.speed.layer_times import Time, Times
from iftplan.plans.speed.machine import processor
from iftplan.plans.speed.pricing import NotMeasuredError, Prices
from iftplan.plans.speed.profiles import Profile

THINNEST: Final = Fraction(1, 2)
"""What masked layers keep at least of their density, however much time others would save at their expense."""


def plan_for_time(
    spec: ModelSpec,
    policy: Policy,
    profile: Profile,
    *,
    passes: Pass = "forward",
    batch: int = 1,
    heads: Heads = "number",
) -> Plan:
    """Plan at equal MACs that leaves layers dense if this makes the model faster on a profiled machine.

    Args:
        spec: the model.
        policy: as for any plan.
        profile: of the machine.
        passes: "forward", or "step" for forward and backward.
        batch: how many of the model's input are computed together.
        heads: what attention keeps where it widens.

    Raises:
        InfeasibleError: no plan closes, whatever the time.
        InputError: the profile has nothing of that pass, or what stays dense would be outside of the scope.
    """
    if policy.scope is Scope.MATRICES and policy.widens:
        raise InputError(
            "`scope='matrices'` does not count layers that are kept dense, so the plan could exceed the budget "
            f"where {policy.transform} widens them. Use `scope='layers'` or `scope='model'` to plan for time."
        )
    try:
        prices = Prices.of(profile, passes, batch)
    except NotMeasuredError as error:
        raise InputError(f"{error}; measure it with `iftplan bench --profile --pass {passes}`.") from error
    ordinary = plan(spec, policy, heads=heads)
    found = Times.of(ordinary, prices)
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
    heads: Heads,
) -> tuple[Plan, Policy, dict[str, str]]:
    """The plan with more layers kept dense, as many of those named as may be; and why not the others."""
    before, why = Times.of(best, prices).seconds, ""
    for size in _halves(len(names)):
        wanted = replace(policy, keep_dense=policy.keep_dense | set(names[:size]))
        try:
            made = close_prepared(spec, wanted, prepare(spec, wanted), heads=heads)
        except InfeasibleError:
            why = "keeping it dense would leave the others no budget"
            continue
        if any(layer.maskable and layer.density < least.get(layer.name, 0) for layer in made.layers):
            why = "keeping it dense would leave the others less than half of their weights"
        elif Times.of(made, prices).seconds >= before:
            why = "keeping it dense would make the model slower"
        else:
            return made, wanted, dict.fromkeys(names[size:], why)
    return best, policy, dict.fromkeys(names, why)


def _halves(size: int) -> Iterator[int]:
    while size:
        yield size
        size //= 2


# --- which layers may stay dense -------------------------------------------------------------------------


def _candidates(plan: Plan, times: Times) -> list[tuple[str, ...]]:
    """Layers that dense operators compute faster, those of one shape together; the greatest saving for a MAC first."""
    groups: dict[tuple[object, ...], list[PlannedLayer]] = {}
    for layer in plan.layers:
        time = times.layers.get(layer.name)
        if time and time.execution == "sparse" and time.planned.seconds > time.operators.seconds:
            alike = (layer.before, layer.after, *layer.structure.items())
            groups.setdefault(alike, []).append(layer)

    def saving(group: Sequence[PlannedLayer]) -> float:
        gain = sum(_seconds_saved(layer, times.layers[layer.name]) for layer in group)
        return gain / max(1, sum(_macs_more(layer) for layer in group))

    ordered = sorted(groups.values(), key=lambda group: (-saving(group), group[0].name))
    return [tuple(layer.name for layer in group) for group in ordered]


def _seconds_saved(layer: PlannedLayer, time: Time) -> float:
    dense = time.operators if _widened(layer) else time.dense
    return time.planned.seconds - dense.seconds


def _macs_more(layer: PlannedLayer) -> int:
    """What a layer costs more when it is dense: without widths of its own it is then what it was."""
    return layer.macs_of(layer.capacity) - layer.macs if _widened(layer) else 0


def _widened(layer: PlannedLayer) -> bool:
    return "in_channels" in layer.structure


# --- what is said of it ----------------------------------------------------------------------------------


def _finished(
    best: Plan,
    ordinary: Plan,
    found: Times,
    prices: Prices,
    given_up: Mapping[str, str],
    profile: Profile,
    passes: Pass,
) -> Plan:
    now, dense_before = Times.of(best, prices), set(ordinary.keep_dense)
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
        prices.batch,
        estimates,
        tuple(now.unpriced.items()),
        tuple(_notes(estimates, profile)),
    )
    return replace(best, layers=layers, wallclock=clock)


def _told(layer: PlannedLayer, found: Times, now: Times, given_up: str, kept: bool) -> PlannedLayer:
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
    if kept:
        return replace(layer, reason=KeptFor.TIME.value + figures, kept_for=KeptFor.TIME)
    return replace(layer, reason=f"{layer.reason}; {figures}, but {given_up}")


def _notes(estimates: Sequence[LayerTime], profile: Profile) -> Iterator[str]:
    outside = sum(layer.extrapolated for layer in estimates)
    if outside:
        yield (
            f"{outside} of {len(estimates)} layers are outside the range of the profile; their times are "
            "extrapolated in proportion to their MACs"
        )
    if profile.machine != (here := processor()):
        yield f"the profile was measured on another machine ({profile.machine}; this one is {here})"
