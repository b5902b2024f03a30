"""A plan as a network of shapes: built on the meta device, so that it can be measured whatever its size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from iftplan.errors import MeasureError, StaleError
from iftplan.nn.members import Doped, Factorized, Parallel
from iftplan.nn.widen import widen_
from iftplan.nn.widths import trace_widths
from iftplan.plans import Plan, PlannedLayer, Role

_MEMBERS: Mapping[str, Callable[[nn.Module, int], nn.Module]] = MappingProxyType(
    {"parallel": Parallel, "factorized": Factorized, "lowrank": Factorized, "doped": Doped}
)
_STRUCTURES = ("branches", "rank")
_BUILT = ("none", "wide", "nm", *_MEMBERS)


def skeleton_(plan: Plan, model: nn.Module) -> nn.Module:
    """Give `model`, in place, the structure of the plan: widths, branches and factors, without masks.

    Raises:
        MeasureError: the plan is in a family of the user's own, for which there are no modules.
        StaleError: the model has other widths or layers than the plan.
    """
    if plan.transform not in _BUILT:
        raise MeasureError(
            f"the plan is in family {plan.transform!r}, and networks are built for {', '.join(_BUILT[1:])}; the equation of a family of your own says what it costs, not which modules it is made of. Build that network yourself and hold it against the plan: iftplan audit path/file.py:factory --against PLAN."
        )
    if plan.widths:
        couplings = trace_widths(model, plan.inputs, heads="size" if plan.heads == "size" else "number")
        if set(couplings.widths) != set(plan.widths):
            raise StaleError(
                f"the plan sets widths {_some(set(plan.widths) - set(couplings.widths))} that the model does not have; make the plan again."
            )
        widen_(model, couplings, plan.widths)
    for layer in plan.layers:
        if layer.role is Role.TRANSFORMED:
            _replace_(model, plan.transform, layer)
    return model


def _replace_(model: nn.Module, transform: str, layer: PlannedLayer) -> None:
    """Put the layer's member in its place, wherever the module is used."""
    sizes = [size for key in _STRUCTURES if isinstance(size := layer.structure.get(key), int)]
    if not sizes:
        return
    modules = dict(model.named_modules(remove_duplicate=False))
    if layer.name not in modules:
        raise StaleError(
            f"the plan transforms {layer.name!r}, which the model does not have; make the plan again."
        )
    old = modules[layer.name]
    member = _MEMBERS[transform](old, sizes[0])
    for path in [path for path, module in modules.items() if module is old]:
        parent, _, name = path.rpartition(".")
        setattr(modules[parent], name, member)


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) or "(none)"
