"""The structure of a plan: a JAX model at the plan's widths, with members in the place of layers and without masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iftplan.base.errors import InfeasibleError, MeasureError, StaleError
from iftplan.jaxnn.application.members import FAMILIES, Inside, MemberPlan
from iftplan.jaxnn.sources.configuration import Configurable, Made
from iftplan.jaxnn.sources.models import fingerprint, is_linen, is_nnx, traceable
from iftplan.jaxnn.sources.sources import configured
from iftplan.plans.plan import Plan

_BUILT = ("none", "wide", "nm", *FAMILIES)


def planned_members(plan: Plan) -> dict[str, MemberPlan]:
    """Path of each layer that is replaced → what stands in its place.

    Raises:
        MeasureError: the plan is in a family without members for JAX.
    """
    for family in plan.families:
        if family not in _BUILT:
            raise MeasureError(
                f"the plan uses the family {family!r}, and for JAX iftplan can only build {', '.join(_BUILT[1:])}. Plan with one of these."
            )
    return {
        layer.name: MemberPlan(layer.transform or plan.transform, size)
        for layer in plan.layers
        if (size := layer.member_size) is not None
    }


def dense_model(
    plan: Plan, model: object, arguments: Sequence[object] = (), *, values: bool = False
) -> Configurable:
    """The model that a plan was made for, with the inputs that it was made for unless others are given.

    Args:
        plan: the plan.
        model: a module, the function that builds it, or its source.
        arguments: that it is called with.
        values: whether what a factory builds has values, rather than shapes.

    Raises:
        InputError: the model cannot be built.
    """
    found = configured(model, arguments, otherwise=plan.inputs, values=values)
    if not arguments and traceable(*found.made({})).inputs != plan.inputs:
        return configured(model, plan.inputs, values=values)
    return found


def structured(
    plan: Plan, dense: Configurable, inside: Inside | None = None, seed: int = 0, source: str = ""
) -> Made:
    """The model with the structure of a plan, and the arguments that it is called with.

    Args:
        plan: what to build.
        dense: the model that the plan was made for.
        inside: what stands inside members; None for nothing, which costs the same MACs.
        seed: of initial weights.
        source: how messages name the model.

    Raises:
        InfeasibleError: the model cannot be built at other widths, or a layer cannot be replaced.
        MeasureError: the plan is in a family without members for JAX.
        StaleError: the plan was made for another model.
    """
    members = planned_members(plan)
    model, arguments = dense.made({})
    name = source or f"the {type(model).__name__}"
    whole = traceable(model, arguments)
    if (found := fingerprint(whole)) != plan.fingerprint:
        raise StaleError(
            f"{name} is not the model that the plan was made for (fingerprint {found[:12]}…, planned {plan.fingerprint[:12]}…): its weights differ. Make the plan again."
        )
    for layer in members:
        if whole.classes.get(layer) != "":
            raise InfeasibleError(
                f"{layer} is no linear layer or convolution of Flax or Equinox, so nothing can stand in its place. Keep it dense with `keep_dense`."
            )
    if changed := {width: size for width, size in plan.widths.items() if dense.sizes.get(width) != size}:
        model, arguments = _at_sizes(dense, changed, name)
    return (with_members(model, members, inside, seed) if members else model), arguments


def _at_sizes(dense: Configurable, sizes: Mapping[str, int], name: str) -> Made:
    if missing := [width for width in sizes if width not in dense.sizes]:
        raise InfeasibleError(
            f"{name} has no {' and no '.join(missing)} to set, since it is built already. Give the function that builds it, with {missing[0]} as an argument."
        )
    return dense.made(sizes)


def with_members(
    model: Any, members: Mapping[str, MemberPlan], inside: Inside | None = None, seed: int = 0
) -> Any:
    """The model with members in the place of layers; the model itself is not changed.

    Args:
        model: a module of Flax or Equinox.
        members: path of a layer → what stands in its place.
        inside: what stands inside members; None for nothing.
        seed: of initial weights.

    Raises:
        InfeasibleError: a layer cannot be replaced.
        StaleError: the model has no such layer.
    """
    if is_linen(model):
        from iftplan.jaxnn.application.linen_members import (
            Applied,
        )  # each library is imported for its own models

        return Applied(model, dict(members), inside)
    if is_nnx(model):
        from iftplan.jaxnn.application.nnx_members import with_nnx_members

        return with_nnx_members(model, members, inside, seed)
    from iftplan.jaxnn.application.equinox_members import with_equinox_members

    return with_equinox_members(model, members, inside, seed)
