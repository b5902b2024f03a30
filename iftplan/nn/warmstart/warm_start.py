"""Start an applied model from trained dense weights, and measure how far from the dense model it starts.

plain, wide   W at the plan's widths (`iftplan.nn.warmstart.net2wider`), kept weights times 1/density
parallel      kept weights of every branch times 1/(density·branches): the expected sum is W
factorized    W ≈ U·V by truncated singular values
doped         the same, and what remains of W under the mask

Kernels are matrices (C_in/groups·Πkernel) × (C_out/groups), one for each group. With `masks="draw"` masks are
chosen for the start: largest entries, and branches that cover every weight, which makes their sum exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError, StaleError
from iftplan.nn.application.scales import planned_scales
from iftplan.nn.layers.branches import Member
from iftplan.nn.masks.masked_weights import stream
from iftplan.nn.meta.inputs import matching, random_inputs
from iftplan.nn.torch_internals import tree_leaves
from iftplan.nn.warmstart.layers import MaskChoice, relative_error, start_member_, start_plain_
from iftplan.nn.warmstart.net2wider import Widened, net2wider
from iftplan.plans.plan import Plan


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Distance of an applied model from the dense one, in Frobenius norms over the dense ones.

    Attributes:
        layers: planned layer → error of the product or sum of its matrices, compared with the dense weight at the
            plan's widths.
        output: error of the model's output on the inputs.
        uneven: modules such as LayerNorm that average over channels of which some have more replicas than others, because
            the width multiplier is not a whole number. There even the wide model without masks differs from the dense one.
    """

    layers: Mapping[str, float]
    output: float
    uneven: tuple[str, ...] = ()


@check_arguments
@torch.no_grad()
def warm_start_(
    applied: nn.Module,
    dense: nn.Module,
    plan: Plan,
    *,
    masks: MaskChoice = "keep",
    inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> WarmStart:
    """Copy the weights of a trained dense model into an applied model, in place; returns the error that remains.

    Without masks (`iftplan.nn.densify`) a wide model computes the same as the dense one, except in the modules that
    `WarmStart.uneven` names.

    Args:
        applied: the model that `iftplan.nn.apply(plan, dense, nonlinear=False)` returned.
        dense: the trained model; it is not changed.
        plan: what was applied.
        masks: "keep" the masks that were drawn at random, or "draw" masks of the same size that suit these weights.
        inputs: positional or keyword arguments to measure the output error with; by default normally distributed floats
            and random integers of the plan's shapes.
        seed: random seed of replicated channels, drawn masks and inputs.

    Raises:
        InputError: a branch or factor has a non-linearity inside, so that its weights cannot be computed; the plan carries a
            parametrization; the model has no values; or structured masks are to be drawn.
        InfeasibleError: names a module that cannot be widened with its values.
    """
    _check(applied, plan, masks)
    started = _dense_state(dense, plan, seed)
    state = started.state
    _copy_(applied, state)
    modules, replaced = dict(applied.named_modules()), dict(dense.named_modules())
    errors = {}
    for layer in plan.layers:
        if layer.positions and layer.weight:
            weight, module = state[layer.weight], modules.get(layer.name)
            if isinstance(module, Member):
                generator = stream(seed, f"{layer.name} partition")
                made, wanted = start_member_(module, replaced[layer.name], weight, masks, generator)
            else:
                path, _, name = layer.weight.rpartition(".")
                made, wanted = start_plain_(modules[path], name, weight, masks), weight
            errors[layer.name] = relative_error(made, wanted)
    return WarmStart(errors, _output_error(applied, dense, plan, inputs, seed), started.uneven)


def _check(applied: nn.Module, plan: Plan, masks: MaskChoice) -> None:
    if plan.mixture is not None:
        raise InputError(
            f"{plan.mixture} has experts of another width than the dense blocks, and no way is known to give them trained "
            "dense weights. Train them from scratch."
        )
    if planned_scales(plan):
        raise InputError(
            "the plan's parametrization multiplies initial values and logits, which is meant for training from "
            "scratch and would change the function of trained weights. Use a plan without `parametrization`."
        )
    if masks not in ("keep", "draw"):
        raise InputError(f"masks={masks!r} is not one of its choices: 'keep', 'draw'.")
    if masks == "draw" and plan.mask != "unstructured":
        raise InputError(
            f"masks of structure {plan.mask!r} cannot be drawn for a warm start; keep the masks of the model with "
            "masks='keep'."
        )
    if any(parameter.is_meta for parameter in applied.parameters()):
        raise InputError(
            "the applied model is on the meta device and has no values; apply the plan to a model on the CPU or "
            "a GPU."
        )
    for name, module in applied.named_modules():
        if isinstance(module, Member) and not _linear(module):
            raise InputError(
                f"{name} has a non-linearity inside, so no weights make it equal to the dense layer; apply the plan "
                "with nonlinear=False."
            )


def _linear(member: Member) -> bool:
    inside = getattr(member, "nonlinearities", None) or [getattr(member, "nonlinearity", nn.Identity())]
    return all(isinstance(module, nn.Identity) for module in inside)


def _dense_state(dense: nn.Module, plan: Plan, seed: int) -> Widened:
    """The dense model's tensors at the plan's widths."""
    if not plan.widths:
        return Widened(dense.state_dict(), ())
    from iftplan.nn.reading.widths.trace import trace_widths

    inputs = matching(plan.inputs, dense)
    couplings = trace_widths(dense, inputs, heads=plan.heads, operators=None)
    return net2wider(dense, couplings, plan.widths, inputs, seed)


def _copy_(applied: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Everything under its own name; the bias of a layer goes to the part of its member that adds it."""
    own = applied.state_dict()
    for name, tensor in state.items():
        if name in own and own[name].shape != tensor.shape:
            raise StaleError(
                f"{name} has the shape {tuple(own[name].shape)} but the dense weights give {tuple(tensor.shape)}; "
                "pass the plan, the dense model, and the model that iftplan.nn.apply returned for both."
            )
        if name in own:
            own[name].copy_(tensor)
    for name, module in applied.named_modules():
        if isinstance(module, Member) and (bias := module.own_bias()) is not None:
            given = state[f"{name}.bias"]
            bias[: len(given)].copy_(given)  # padded blocks have more


# --- errors ---------------------------------------------------------------------------------------------


def _output_error(
    applied: nn.Module,
    dense: nn.Module,
    plan: Plan,
    inputs: Sequence[Any] | Mapping[str, Any] | None,
    seed: int,
) -> float:
    args: Sequence[Any] = () if isinstance(inputs, Mapping) else inputs or ()
    kwargs: Mapping[str, Any] = inputs if isinstance(inputs, Mapping) else {}
    if inputs is None:
        device, generator = next(dense.parameters()).device, stream(seed, "warm start inputs")
        args, kwargs = random_inputs(matching(plan.inputs, dense), dense, str(device), generator)
    return relative_error(_answer(applied, args, kwargs), _answer(dense, args, kwargs))


def _answer(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """The logits, or the first tensor of floats that comes out, in evaluation mode."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        output = model(*args, **kwargs)
    finally:
        for module in training:
            module.training = True
    leaves = tree_leaves(getattr(output, "logits", output))
    answer = next((x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()), None)
    if answer is None:
        raise InputError(
            "the model returns no floating-point tensor, so the error of its output cannot be measured."
        )
    return answer
