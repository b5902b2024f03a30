"""Initial weights of a run, drawn alike in the dense control and in every plan, so that they differ in nothing else.

`iftplan.nn.apply` draws new and resized weights; what keeps its shape, and the control, would start as the model's
own constructors make it. Layers that are kept dense begin at the scale of their model in both: the reference code of
arXiv 2303.11525 leaves its classifier to PyTorch, U(±1/√fan_in), and the first loss is that of guessing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from iftplan.base.errors import InputError
from iftplan.nn.application.apply import apply
from iftplan.nn.application.scales import planned_scales
from iftplan.nn.layers.initial_weights import fans_of, initialise_, scheme_named
from iftplan.nn.layers.nonlinearity import Inside
from iftplan.nn.layers.stacks import planned_stack
from iftplan.nn.masks.masked_weights import enforce_, stream
from iftplan.plans.plan import Plan, PlannedLayer, Role

Scheme = Literal["kaiming", "density", "model"]


def dense_network(plan: Plan, dense: nn.Module, scheme: Scheme, seed: int) -> nn.Module:
    """The plan's dense model, in place: planned weights drawn by the scheme, or left to the model's own.

    Args:
        plan: whose layers are drawn.
        dense: the network, changed.
        scheme: "kaiming", "density", or "model" for the values that it has.
        seed: of the values.
    """
    if scheme != "model":
        for layer in _drawn(plan, dense):
            module, name = _place(dense, layer.weight)
            parameter = module._parameters[name]
            assert parameter is not None
            stacked = layer.before is not None and layer.before.experts > 1
            stack = planned_stack(layer, module, parameter) if stacked else None
            spread = scheme_named(scheme)(fans_of(module, parameter, stack), 1.0)
            initialise_(parameter, None, spread, stream(seed, f"{layer.weight} values"))
            _zero_bias_(module, name)
    return dense


def sparse_network(
    plan: Plan, dense: nn.Module, scheme: Scheme, seed: int, *, dense_start: bool, nonlinear: Inside = True
) -> nn.Module:
    """The plan's network with weights drawn by the scheme; "model" takes its own deviation of each tensor.

    Args:
        plan: to apply.
        dense: the network at its dense widths.
        scheme: "kaiming", "density" or "model".
        seed: of masks and values.
        dense_start: whether training begins with every weight.
        nonlinear: norm and activation inside branches and factors, as `apply` takes it.

    Raises:
        InputError: the scheme is "model", and the plan has initial scales of its own.
    """
    if scheme != "model":
        base = dense_network(plan, dense, scheme, seed)
        return apply(plan, base, seed=seed, init=scheme, dense_start=dense_start, nonlinear=nonlinear)
    if planned_scales(plan):
        raise InputError(
            'plan.init "model" draws weights as the dense model does, but this plan has scales of its own; use plan.init "kaiming" or "density".'
        )
    network = apply(plan, dense, seed=seed, init=None, dense_start=dense_start, nonlinear=nonlinear)
    before, after = dict(dense.named_parameters()), dict(network.named_parameters())
    with torch.no_grad():
        for name in before.keys() & after.keys():
            if before[name].shape != after[name].shape and before[name].dim() > 1:
                spread = float(before[name].detach().std())
                initialise_(after[name], None, spread, stream(seed, f"{name} values"))
    return network if dense_start else enforce_(network)


def _drawn(plan: Plan, model: nn.Module) -> list[PlannedLayer]:
    """Layers whose weights are drawn: those with products that are not kept dense, without embeddings and heads tied to them."""
    left = (Role.KEPT_DENSE, Role.ADDED)
    found = [x for x in plan.layers if x.weight and x.positions and x.role not in left]
    return [x for x in found if not isinstance(_place(model, x.weight)[0], nn.Embedding)]


def _place(model: nn.Module, weight: str) -> tuple[nn.Module, str]:
    path, _, name = weight.rpartition(".")
    return model.get_submodule(path), name


def _zero_bias_(module: nn.Module, weight: str) -> None:
    bias = module._parameters.get(weight.replace("weight", "bias"))
    if bias is not None:
        nn.init.zeros_(bias)
