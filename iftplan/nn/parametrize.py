"""SμPar on real tensors: initial values and optimizer parameter groups from a plan's scales.

The multiplier 1/μ of an output layer is folded into its weight: under Adam logits x·Wᵀ/μ with deviation σ and rate
η are x·W'ᵀ with deviation σ/μ and rate η/μ, under SGD with rate η/μ². So no forward pass changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from iftplan.errors import InputError, StaleError
from iftplan.nn.initialise import Deviation, Fans, initialise_, kaiming
from iftplan.nn.masks import SUFFIX, has_mask, stream
from iftplan.notation import parse_layer
from iftplan.plans import Plan
from iftplan.supar import Parametrization, TensorRole, TensorScale, parametrization


@torch.no_grad()
def init_(
    model: nn.Module,
    plan: Plan,
    scales: Parametrization | None = None,
    *,
    deviation: Deviation = kaiming,
    seed: int = 0,
) -> nn.Module:
    """Draw every planned weight anew, in place: the dense model's deviation times the tensor's scale.

    Args:
        model: what `iftplan.nn.apply` returned; biases, norms and unplanned tensors stay as they are.
        plan: what was applied.
        scales: from `iftplan.supar.parametrization`; by default what that takes for Adam.
        deviation: fans of the *dense* layer and density 1 → σ; for language models `lambda fans, density: 0.02`.
        seed: any integer; a weight's values depend on it and on the weight's name alone.

    Raises:
        StaleError: a planned weight is not in the model.
    """
    scales = scales or parametrization(plan)
    parameters = _planned(model, scales)
    fans = _dense_fans(plan)
    for name, scale in scales.scales.items():
        path, _, local = name.rpartition(".")
        module, weight = model.get_submodule(path), parameters[name]
        mask = module._buffers[local + SUFFIX] if has_mask(module, local) else None
        sigma = deviation(_fans_for(name, fans), 1.0) * scale.init_std_scale * _folded(scale)
        initialise_(weight, mask, sigma, stream(seed, f"{name} values"))
    return model


def parameter_groups(
    model: nn.Module, plan: Plan, lr: float, scales: Parametrization | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer, one for each learning rate; every trained parameter is in exactly one.

    Args:
        model: what `iftplan.nn.apply` returned.
        plan: what was applied.
        lr: the dense model's learning rate, at which biases, norms and unplanned tensors train.
        scales: from `iftplan.supar.parametrization`; by default what that takes for Adam.
        **options: put into every group, such as `weight_decay`.

    Raises:
        InputError: the learning rate is not above 0.
        StaleError: a planned weight is not in the model.
    """
    if not lr > 0:
        raise InputError(f"a learning rate of {lr} trains nothing; it has to be above 0.")
    scales = scales or parametrization(plan)
    _planned(model, scales)
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_rate(scales.scales.get(name), scales), []).append(parameter)
    return [{"params": ps, "lr": lr * rate, **options} for rate, ps in groups.items() if ps]


def _planned(model: nn.Module, scales: Parametrization) -> Mapping[str, Tensor]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    missing = next((name for name in scales.scales if name not in parameters), None)
    if missing is not None:
        raise StaleError(
            f"the model has no parameter {missing!r}, which the plan scales; give the model that iftplan.nn.apply returned for this plan."
        )
    return parameters


def _folded(scale: TensorScale) -> float:
    """The output multiplier as the weight can take it; an embedding's tied head cannot."""
    return float(scale.output_multiplier) if scale.role is TensorRole.OUTPUT else 1.0


def _rate(scale: TensorScale | None, scales: Parametrization) -> float:
    if scale is None:
        return 1.0
    power = 1 if scales.optimizer == "adam" else 2
    return float(scale.learning_rate_multiplier) * _folded(scale) ** power


def _dense_fans(plan: Plan) -> dict[str, Fans]:
    """Layer or weight name → fans of the dense layer."""
    fans: dict[str, Fans] = {}
    for layer in plan.layers:
        if layer.weight:
            dense = parse_layer(layer.before)
            window = dense.fan_in // max(1, (dense.in_channels or 1) // dense.groups)
            found = Fans(dense.fan_in, max(1, dense.fan_out // dense.groups) * window)
            for name in (layer.name, layer.weight):
                fans.setdefault(name, found)
    return fans


def _fans_for(name: str, fans: Mapping[str, Fans]) -> Fans:
    """The fans of a weight, or of the layer that its member stands for."""
    while name not in fans:
        name = name.rpartition(".")[0]
    return fans[name]
