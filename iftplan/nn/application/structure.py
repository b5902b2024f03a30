"""The structure of a plan: widths, branches and factors. On the meta device a model of any size can be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from iftplan.base.errors import MeasureError, StaleError
from iftplan.families.builtin import FAMILIES
from iftplan.families.transforms.experts import NAME
from iftplan.models.spec import Couplings
from iftplan.models.zoo.specs import zoo_spec
from iftplan.nn.application.experts import place_experts_
from iftplan.nn.layers.blocks import product
from iftplan.nn.layers.branches import Doped, Factorized, Member, Nonlinearity, Parallel, identity
from iftplan.nn.layers.experts import (
    RoutedExperts,
    StackedDoped,
    StackedFactorized,
    StackedParallel,
    routable,
)
from iftplan.nn.layers.widen import widen_
from iftplan.nn.meta.fingerprint import fingerprint
from iftplan.nn.meta.inputs import matching
from iftplan.nn.meta.origins import also_changed
from iftplan.plans.plan import Plan, PlannedLayer

_MEMBERS: Mapping[str, Callable[[nn.Module, int, Nonlinearity], Member]] = MappingProxyType(
    {"parallel": Parallel, "factorized": Factorized, "lowrank": Factorized, "doped": Doped}
)
_BLOCKS = tuple(name for name, family in FAMILIES.items() if family.definition.grid is not None)
_STACKED_MEMBERS: Mapping[str, Callable[[nn.Module, int, Nonlinearity], Member]] = MappingProxyType(
    {
        "parallel": StackedParallel,
        "factorized": StackedFactorized,
        "lowrank": StackedFactorized,
        "doped": StackedDoped,
    }
)
NonlinearityFor = Callable[[nn.Module], Nonlinearity]
"""A layer → the non-linearity of the member that stands in its place."""

_BUILT = ("none", "wide", "nm", *_MEMBERS, *_BLOCKS, NAME)


def none(layer: nn.Module) -> Nonlinearity:
    """Factory of members without non-linearities."""
    return identity


def planned_couplings(plan: Plan, model: nn.Module) -> Couplings | None:
    """The couplings of the dense model, where the plan sets widths.

    Raises:
        StaleError: the model has other widths than the plan.
    """
    if not plan.widths:
        return None
    couplings = _bundled(plan, model)
    if couplings is None:
        from iftplan.nn.reading.widths.trace import trace_widths

        couplings = trace_widths(model, matching(plan.inputs, model), heads=plan.heads, operators=None)
    if set(couplings.widths) != set(plan.widths):
        raise StaleError(
            f"the plan has widths {_some(set(plan.widths) - set(couplings.widths))} that the model does not have; "
            "make the plan again."
        )
    return couplings


def _bundled(plan: Plan, model: nn.Module) -> Couplings | None:
    """The couplings that the package keeps of a bundled model, if this is it."""
    kept = zoo_spec(plan.model, plan.inputs, heads=plan.heads)
    return kept.couplings if kept is not None and kept.fingerprint == fingerprint(model) else None


def skeleton_(
    plan: Plan,
    model: nn.Module,
    nonlinearity: NonlinearityFor = none,
    couplings: Couplings | None = None,
) -> nn.Module:
    """Give `model`, in place, the structure of the plan: widths, branches and factors, without masks.

    Layers that the plan leaves as they are (one branch, rank 0) are not touched.

    Args:
        plan: what to build.
        model: the dense model that it was made for.
        nonlinearity: what stands inside the members; nothing by default, which costs the same MACs.
        couplings: what `planned_couplings` says of it, if that is known already.

    Raises:
        MeasureError: the plan is in a family of the user's own, for which there are no modules.
        StaleError: the plan was made for a model with other widths or layers.
    """
    check_buildable(plan)
    known = couplings or planned_couplings(plan, model)
    if known is not None:
        widen_(model, known, plan.widths)
    if plan.mixture is not None:
        place_experts_(plan, plan.mixture, model)
    for layer in plan.layers:
        size = layer.member_size
        if size is not None:
            _replace_(model, layer.transform or plan.transform, layer, size, nonlinearity)
    also_changed(model, lambda dense: skeleton_(plan, dense, nonlinearity))
    return model


def check_buildable(plan: Plan) -> None:
    """Refuse a family without modules.

    Raises:
        MeasureError: says what can be done instead.
    """
    for family in plan.families:
        if family in _BUILT:
            continue
        raise MeasureError(
            f"the plan uses the family {family!r}, but iftplan can only build networks for "
            f"{', '.join(_BUILT[1:])}: the equation of your own family gives its cost, not its modules. Build the "
            "network yourself and compare it with the plan: `iftplan audit path/file.py:factory --against PLAN`."
        )


def _replace_(
    model: nn.Module, transform: str, layer: PlannedLayer, size: int, nonlinearity: NonlinearityFor
) -> None:
    """Put the layer's member in its place, wherever the module is used; where its weight alone is, a twin."""
    modules = dict(model.named_modules(remove_duplicate=False))
    if layer.experts > 1:
        _replace_in_experts_(modules, transform, layer, size, nonlinearity)
        return
    if layer.name not in modules:
        raise StaleError(
            f"the plan transforms {layer.name!r}, which the model does not have; make the plan again."
        )
    old = modules[layer.name]
    member = _member(transform, old, layer, size, nonlinearity)
    made = {old: member}
    for path, module in modules.items():
        if module is not old and getattr(module, "weight", None) is not old.weight:
            continue
        if module not in made:
            made[module] = _member(transform, module, layer, size, nonlinearity).sharing_(member)
        made[module].path = made[module].path or path
        parent, _, name = path.rpartition(".")
        setattr(modules[parent], name, made[module])


def _member(
    transform: str, module: nn.Module, layer: PlannedLayer, size: int, nonlinearity: NonlinearityFor
) -> Member:
    """What stands in a layer's place; structured matrices have no non-linearity inside."""
    if transform not in _BLOCKS:
        return _MEMBERS[transform](module, size, nonlinearity(module))
    grid, after = FAMILIES[transform].definition.grid, layer.after
    assert grid is not None and after is not None and after.in_channels and after.out_channels
    return product(module, size, grid(after.in_channels, after.out_channels))


def _replace_in_experts_(
    modules: Mapping[str, nn.Module],
    transform: str,
    layer: PlannedLayer,
    size: int,
    nonlinearity: NonlinearityFor,
) -> None:
    """Put a member in the place of one product of a mixture's experts, wherever their module is used."""
    path, _, name = layer.weight.rpartition(".")
    host = modules.get(path)
    if host is None or not (isinstance(host, RoutedExperts) or routable(host)):
        raise StaleError(
            f"the plan transforms the experts {layer.name!r}, but the model has no such experts of transformers; "
            "make the plan again."
        )
    routed = host if isinstance(host, RoutedExperts) else RoutedExperts(host)
    for place, module in modules.items():
        if module is host and routed is not host:
            parent, _, own = place.rpartition(".")
            setattr(modules[parent], own, routed)
    old = routed.layer(name)
    routed.replace_(name, _STACKED_MEMBERS[transform](old, size, nonlinearity(old)))


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) or "(none)"
