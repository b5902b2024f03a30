"""A forward pass without data through an applied model, which shows whether it calls the layers that were replaced."""

from __future__ import annotations

from torch import nn

from iftplan.base.errors import InfeasibleError, MeasureError
from iftplan.nn.counting.measure import measure
from iftplan.nn.meta.inputs import matching
from iftplan.plans.audit.audit import measured_layers, products
from iftplan.plans.plan import Plan, Role


def check_called(plan: Plan, built: nn.Module, dense: nn.Module) -> None:
    """Refuse a model that bypasses the modules that replace its layers.

    Args:
        plan: what was built.
        built: the model with the plan's structure, on the meta device or not.
        dense: the model that the plan was made for.

    Raises:
        InfeasibleError: names a layer that the forward pass goes round: its weight is read by another module, or the
            model keeps a reference to the old layer where modules are not looked for.
        MeasureError: the dense model runs and the built one does not.
    """
    replaced = [x for x in plan.layers if x.positions and (x.role is Role.ADDED or x.member_size is not None)]
    if not replaced or not plan.inputs:
        return
    inputs = matching(plan.inputs, built)
    try:
        table = measure(built, inputs)
    except MeasureError:
        try:
            measure(dense, inputs)
        except MeasureError:
            return  # it never ran without data, so nothing is known of it
        raise
    measured = measured_layers(plan, table)
    macs = dict(zip((layer.name for layer in plan.layers), measured, strict=True))
    silent = next((layer.name for layer in replaced if macs[layer.name] is None), None)
    if silent is not None:
        raise _kept_outside(
            f"the plan replaced {silent}, but the model does not call the replacement", dense, silent
        )
    planned = {layer.name: layer.full_macs for layer in plan.layers if layer.role is Role.ACTIVATION}
    stray = next((name for name, macs in products(table).items() if macs > planned.get(name, 0)), None)
    if stray is not None:
        first = replaced[0].name
        raise _kept_outside(f"a layer that the plan replaced is still used by {stray}", dense, first)


def _kept_outside(what: str, dense: nn.Module, layer: str) -> InfeasibleError:
    return InfeasibleError(
        f"{what}: {type(dense).__name__} keeps a layer outside of its modules, such as in a list, a "
        "dictionary or a closure, and uses that one. Register it as a module (torch.nn.ModuleList, "
        f"torch.nn.ModuleDict), or keep this layer dense (`keep_dense={layer!r}`)."
    )
