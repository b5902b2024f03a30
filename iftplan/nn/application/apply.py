"""Apply a plan: turn any model into its sparse iso-FLOP variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import TypeVar

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError, StaleError
from iftplan.base.user_warnings import warn_user
from iftplan.models.spec import Couplings
from iftplan.nn.application.called_layers import check_called
from iftplan.nn.application.dense_model import check_same
from iftplan.nn.application.forward_scales import ForwardScales, forward_scales, scale_forward_
from iftplan.nn.application.scales import check_scaled, dense_fans, planned_scales
from iftplan.nn.application.structure import check_buildable, planned_couplings, skeleton_
from iftplan.nn.layers.branches import Member
from iftplan.nn.layers.initial_weights import Deviation, Fans, fans_of, initialise_, scheme_named
from iftplan.nn.layers.nonlinearity import Inside, host_of
from iftplan.nn.layers.stacks import stack_of
from iftplan.nn.masks.masked_weights import (
    SUFFIX,
    MaskedWeight,
    draw_masks_,
    enforce_,
    has_mask,
    masked_weights,
    matrix_shape,
    stream,
)
from iftplan.nn.meta.copies import check_ties, deep_copy, without_data
from iftplan.nn.meta.inputs import matching
from iftplan.nn.meta.wrappers import bare, unwrap_, unwrapped
from iftplan.plans.experts import ROUTER, SHARED
from iftplan.plans.plan import Plan, PlannedLayer, Role

Model = TypeVar("Model", bound=nn.Module)


@check_arguments
def apply(
    plan: Plan,
    model: Model,
    *,
    seed: int = 0,
    nonlinear: Inside = True,
    init: str | Deviation | None = "kaiming",
    dense_start: bool = False,
) -> Model:
    """A new model with the plan's widths, branches, factors and masks; `model` is not changed.

    Weights keep their values where the plan keeps their shape. Dense weights that are resized are drawn anew at the
    standard deviation that the model has. On the meta device the result has shapes without values. Global random number
    generators are left as they are.

    If the plan carries a parametrization, new weights have the standard deviation of the *dense* layers times each
    tensor's scale, kept weights are multiplied by their scale, and logits and attention scores are scaled in the forward
    pass. A warning names what cannot be scaled in this model.

    Args:
        plan: what to build.
        model: the dense model that the plan was made for.
        seed: random seed of masks and new weights.
        nonlinear: whether branches and factors have a norm and an activation inside (arXiv 2303.11525, section 3.1); "norm"
            for the norm alone, so that branches are summed before the activation that follows the layer; "reference" for
            what the paper's code has: the norm alone in branches, nothing in the doped family.
        init: initialization of new and resized sparse weights: "kaiming" (fan-out), "density" (corrected for the mask), a
            function of fans and density, or None for that of the modules' constructors.
        dense_start: leave weights off the masks as they are, for training that starts dense and becomes as sparse as the
            plan (`Gradual`, `Saliency`); `enforce_` makes the model sparse at once.

    Raises:
        StaleError: the plan was made for another model.
        InputError: the model is masked already, a mask's structure does not fit, `init` is unknown, or it is given
            although the plan carries a parametrization.
        MeasureError: the plan is in a family of the user's own.
        InfeasibleError: a layer cannot be replaced or widened, or the model bypasses a layer that is replaced.
    """
    check_applicable(plan, unwrapped(model), init)
    return apply_(plan, deep_copy(model), seed=seed, nonlinear=nonlinear, init=init, dense_start=dense_start)


@check_arguments
def apply_(
    plan: Plan,
    model: Model,
    *,
    seed: int = 0,
    nonlinear: Inside = True,
    init: str | Deviation | None = "kaiming",
    dense_start: bool = False,
) -> Model:
    """The model itself with the plan's widths, branches, factors and masks, changed in place; see `apply`.

    If the plan is refused, the model stays as it was.

    Args:
        plan, seed, nonlinear, init, dense_start: see `apply`.
        model: the network that the plan was made for; changed.
    """
    _apply_to(plan, bare(model), seed, nonlinear, init, dense_start)
    return model


def _apply_to(
    plan: Plan,
    model: nn.Module,
    seed: int,
    nonlinear: Inside,
    init: str | Deviation | None,
    dense_start: bool,
) -> None:
    seen = unwrapped(model)
    check_applicable(plan, seen, init)
    with torch.random.fork_rng(devices=[]):
        shapes = without_data(seen)
        couplings = planned_couplings(plan, shapes)
        forward = forward_scales(plan, shapes, couplings)
        # a rehearsal without data: what is refused, is refused here
        _build_(plan, shapes, couplings, forward, nonlinear, seed)
        if plan.widths:
            # it brings SymPy, which takes longer than applying a small plan
            from iftplan.nn.reading.widths.outputs import check_outputs

            check_outputs(seen, shapes, matching(plan.inputs, seen))
        check_called(plan, shapes, seen)
        check_scaled(planned_scales(plan), shapes)
        unwrap_(model)
        before = {name: id(parameter) for name, parameter in model.named_parameters()}
        own = _own_spreads(plan, model)
        torch.default_generator.manual_seed(seed)
        _build_(plan, model, couplings, forward, nonlinear, seed)
    for sentence in (*forward.by_hand, *_attention_by_hand(plan)):
        warn_user(sentence)
    if init is not None:
        new = {name for name, p in model.named_parameters() if before.get(name) != id(p)}
        _initialise_(plan, model, new, scheme_named(init), own, seed)
    if not dense_start:
        enforce_(model)


def _build_(
    plan: Plan,
    model: nn.Module,
    couplings: Couplings | None,
    forward: ForwardScales,
    nonlinear: Inside,
    seed: int,
) -> None:
    skeleton_(plan, model, host_of(model).inside(plan.transform, nonlinear), couplings)
    scale_forward_(model, forward)
    draw_masks_(model, plan, seed)


def _attention_by_hand(plan: Plan) -> Iterator[str]:
    """Sentence on attention that the network has to compute otherwise, which no plan can make it do."""
    changed = [
        pairs.after for layer in plan.layers if (pairs := layer.attention) and pairs.before != pairs.after
    ]
    if changed:
        yield (
            f"the plan counts {len(changed)} attention module{'s' * (len(changed) != 1)} by the pairs of "
            f"{', '.join(dict.fromkeys(changed))}, and the network still computes its own; give "
            "scaled_dot_product_attention that mask, or use FlexAttention with a block mask."
        )


def check_applicable(plan: Plan, model: nn.Module, init: str | Deviation | None = None) -> None:
    """Refuse plans that cannot be applied before anything is built; the message names the layer.

    Args:
        plan: to be applied.
        model: the network that was planned for.
        init: the scheme of new and resized weights, if any.

    Raises:
        StaleError: the model is not the one planned for.
        InputError: the model is masked already, or there is no such `init`, or none beside a parametrization.
        MeasureError: the plan is in a family of the user's own.
    """
    check_buildable(plan)
    check_ties(model)
    if init is not None:
        scheme_named(init)
    if init == "density" and planned_scales(plan):
        raise InputError(
            "init='density' corrects for the masks, but the plan's parametrization already does; use "
            "init='kaiming', or a plan without `parametrization`."
        )
    masked = next(masked_weights(model), None)
    if masked is not None:
        raise InputError(f"{masked.name} is masked already; finalize or densify the model first.")
    if plan.fingerprint:
        check_same(plan, model)
    parameters = dict(model.named_parameters())
    for layer in plan.layers:
        if layer.maskable or layer.member_size is not None:
            _check_layer(model, layer, parameters)


def _check_layer(model: nn.Module, layer: PlannedLayer, parameters: dict[str, nn.Parameter]) -> None:
    if layer.weight not in parameters:
        raise StaleError(
            f"the plan masks {layer.weight!r}, which the model does not have; make the plan again."
        )
    path, _, name = layer.weight.rpartition(".")
    if "parametrizations" in path.split(".") or name.endswith("_orig"):
        raise InputError(
            f"{layer.name}: its weight is computed from {layer.weight!r}, so a mask on that would not make it "
            "sparse; remove the parametrization or make the pruning permanent first."
        )
    if hasattr(model.get_submodule(path), name + SUFFIX):
        raise InputError(f"{path or 'the model'} has {name + SUFFIX!r} already, where its mask belongs.")


@dataclass(frozen=True, slots=True)
class _Spread:
    """The deviation that a dense model gave a weight, at its fans."""

    deviation: float
    fan_in: int

    def at(self, fan_in: int) -> float:
        """The standard deviation that keeps the size of outputs when there are so many times more inputs."""
        return self.deviation * sqrt(self.fan_in / fan_in)


def _own_spreads(plan: Plan, model: nn.Module) -> dict[str, _Spread]:
    """Weights without a mask, kept dense or of experts, which keep the scale that their model has chosen for them."""
    modules, found = dict(model.named_modules(remove_duplicate=False)), {}
    for layer in plan.layers:
        path, _, name = layer.weight.rpartition(".")
        kept = layer.role is Role.KEPT_DENSE or (plan.mixture is not None and layer.role is Role.TRANSFORMED)
        if kept and layer.weight and path in modules:
            weight = modules[path]._parameters[name]
            if weight is not None and not weight.is_meta:
                spread = float(weight.detach().float().std(correction=0))
                found[layer.weight] = _Spread(spread, fans_of(modules[path], weight).fan_in)
    return found


@torch.no_grad()
def _initialise_(
    plan: Plan,
    model: nn.Module,
    new: set[str],
    deviation: Deviation,
    own: Mapping[str, _Spread],
    seed: int,
) -> None:
    """Weights and biases of planned layers: drawn where they are new, scaled as the plan says where they are kept.

    Other resized tensors stay as `widen_` left them.
    """
    modules, scales, fans = dict(model.named_modules()), planned_scales(plan), dense_fans(plan)
    for weight in dict.fromkeys(_contracting(plan, modules)):
        path, _, name = weight.rpartition(".")
        module, scale = modules[path], scales[weight].init_std_scale if weight in scales else 1.0
        parameter = module.get_parameter(name)
        if weight not in new:
            if scale != 1:
                parameter.mul_(scale)
        elif not isinstance(module, nn.Embedding):  # also where a head is tied to it
            if plan.mixture is not None and weight.endswith(f".{ROUTER}.weight"):
                continue  # which begins as a linear layer does, whose scores are small
            block = weight.replace(f".{SHARED}.", ".")  # of which shared experts are copies
            spread = _deviation(module, name, deviation, fans.get(weight), own.get(block)) * scale
            initialise_(parameter, None, spread, stream(seed, f"{weight} values"))
        _zero_bias_(module, name, new, path)


def _contracting(plan: Plan, modules: Mapping[str, nn.Module]) -> Iterator[str]:
    """The weights of planned layers, or of the members in their places; a tied one more than once."""
    for layer in plan.layers:
        member = modules.get(layer.name)
        if layer.weight and isinstance(member, Member):
            yield from (f"{layer.name}.{part}.weight" for part in member.parts())
        elif layer.weight and layer.positions:
            yield layer.weight


def _deviation(
    module: nn.Module, name: str, deviation: Deviation, dense: Fans | None, own: _Spread | None
) -> float:
    """Of a new weight: its dense model's where it is kept dense, else by its own fans and mask.

    Where a scale stands beside it, that begins from the dense layer.
    """
    if own is not None:
        fan_in = _fans(module, name).fan_in
        return own.deviation if dense is not None else own.at(fan_in)
    if dense is not None:
        return deviation(dense, 1.0)
    mask = module._buffers[name + SUFFIX] if has_mask(module, name) else None
    real = mask is not None and not mask.is_meta
    density = int(mask.count_nonzero()) / mask.numel() if real and isinstance(mask, Tensor) else 1.0
    return deviation(_fans(module, name), density)


def _fans(module: nn.Module, name: str) -> Fans:
    """Fans of a parameter, by what is known of how its matrix lies."""
    weight = MaskedWeight(name, module, name)
    if weight.inputs_first is not None:
        outputs, inputs = matrix_shape(weight)
        return Fans(inputs, outputs)
    return fans_of(module, weight.parameter, stack_of(module, name))


def _zero_bias_(module: nn.Module, weight: str, new: set[str], path: str) -> None:
    """The bias beside a weight of that name: `bias`, `in_proj_bias`; a weight called otherwise has none to find."""
    name = weight.replace("weight", "bias")
    bias = module._parameters.get(name)
    if name != weight and bias is not None and (f"{path}.{name}" if path else name) in new:
        nn.init.zeros_(bias)
