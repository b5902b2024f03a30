"""Experts in the place of a model's feed-forward blocks, as a plan has them."""

from __future__ import annotations

from torch import nn

from iftplan.base.errors import StaleError
from iftplan.families.transforms.experts import Mixture
from iftplan.nn.layers.mixture import MixtureOfExperts
from iftplan.plans.experts import ROUTER
from iftplan.plans.plan import Plan, PlannedLayer, Role


def place_experts_(plan: Plan, mixture: Mixture, model: nn.Module) -> None:
    """Put experts in the place of every block that the plan replaces, wherever its module is used.

    Args:
        plan: of a mixture of experts.
        mixture: its experts.
        model: the dense model, changed.

    Raises:
        StaleError: the model has no such block.
        InfeasibleError: a block has parts already that are named as the new ones.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for router in plan.layers:
        if router.role is not Role.ADDED or not router.name.endswith(f".{ROUTER}"):
            continue
        path = router.name.removesuffix(f".{ROUTER}")
        layers = [x for x in plan.layers if x.role is Role.TRANSFORMED and x.name.startswith(f"{path}.")]
        if any(layer.name not in modules for layer in (*layers,)) or path not in modules:
            raise StaleError(
                f"the plan replaces the block {path!r}, which the model does not have; make the plan again."
            )
        host = modules[path]
        widths = {layer.name.removeprefix(f"{path}."): _widths(layer) for layer in layers}
        gone = (x.name for x in plan.layers if x.role is Role.REMOVED and x.name.startswith(f"{path}."))
        removed = [name.removeprefix(f"{path}.") for name in gone]
        made = MixtureOfExperts(host, mixture, widths, _widths(router)[0], removed)
        made.train(host.training)
        for place, module in modules.items():
            if module is host:
                parent, _, name = place.rpartition(".")
                setattr(modules[parent], name, made)


def _widths(layer: PlannedLayer) -> tuple[int, int]:
    assert layer.after is not None and layer.after.in_channels and layer.after.out_channels
    return layer.after.in_channels, layer.after.out_channels
