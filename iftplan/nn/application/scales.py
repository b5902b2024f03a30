"""A plan's scales on real tensors: initial values, and optimizer parameter groups."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError, StaleError
from iftplan.nn.layers.initial_weights import Fans
from iftplan.plans.plan import Plan, TensorScale

_NOTHING: Mapping[str, TensorScale] = MappingProxyType({})


@check_arguments
def parameter_groups(plan: Plan, model: nn.Module, lr: float, **options: Any) -> list[dict[str, Any]]:
    """Parameter groups for a torch optimizer, one for each learning rate; every trained parameter is in exactly one.

    A plan without a parametrization gives one group. Torch's schedulers multiply the rate of every group; if your loop
    sets rates itself, multiply by the group's `lr_multiplier`. Weight decay is not rescaled: in AdamW it is the rate
    times the coefficient.

    Args:
        plan: the plan that was applied; its parametrization says which optimizers the rates are for.
        model: the model that `iftplan.nn.apply` returned.
        lr: learning rate of the dense model, also of biases, norms and unplanned tensors.
        **options: options of every group, such as `weight_decay`.

    Raises:
        InputError: the learning rate is not above 0.
        StaleError: a planned weight is not in the model.
    """
    if not lr > 0:
        raise InputError(f"the learning rate is {lr}; it must be above 0.")
    scales = planned_scales(plan)
    check_scaled(scales, model)
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = float(scales[name].learning_rate_multiplier) if name in scales else 1.0
            groups.setdefault(rate, []).append(parameter)
    return [
        {"params": ps, "lr": lr * rate, "lr_multiplier": rate, **options} for rate, ps in groups.items() if ps
    ]


def planned_scales(plan: Plan) -> Mapping[str, TensorScale]:
    """Parameter name → its scales; none under the standard parametrization."""
    scales = plan.parametrization
    return _NOTHING if scales is None or scales.scheme == "standard" else scales.scales


def check_scaled(scales: Mapping[str, TensorScale], model: nn.Module) -> None:
    """Refuse a model that lacks a weight which is scaled.

    Raises:
        StaleError: names the weight.
    """
    parameters: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    missing = next((name for name in scales if name not in parameters), None)
    if missing is not None:
        raise StaleError(
            f"the model has no parameter {missing!r}, which the plan has a scale for; pass the model that "
            "iftplan.nn.apply returned for this plan."
        )


def dense_fans(plan: Plan) -> dict[str, Fans]:
    """Name of a scaled parameter → fans of the dense layer that it is or stands in for."""
    scales = planned_scales(plan)
    fans: dict[str, Fans] = {}
    for layer in plan.layers:
        if dense := layer.before:
            window = dense.fan_in // max(1, (dense.in_channels or 1) // dense.groups)
            found = Fans(dense.fan_in, max(1, dense.fan_out // dense.groups) * window)
            for name in (layer.name, layer.weight):
                fans.setdefault(name, found)
    return {name: _fans_for(name, fans) for name in scales}


def _fans_for(name: str, fans: Mapping[str, Fans]) -> Fans:
    """The fans of a weight, or of the layer that its member stands for."""
    while name not in fans:
        name = name.rpartition(".")[0]
    return fans[name]
