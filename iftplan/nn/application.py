"""A plan made real: any model becomes its sparse iso-FLOP variant."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from iftplan.errors import InputError, StaleError
from iftplan.nn.fingerprint import fingerprint
from iftplan.nn.host import host_of
from iftplan.nn.initialise import Deviation, fans_of, initialise_, scheme_named
from iftplan.nn.masks import SUFFIX, draw_masks_, enforce_, has_mask, masked_weights, stream
from iftplan.nn.members import Member
from iftplan.nn.skeleton import check_buildable, none, replaced_by, skeleton_
from iftplan.plans import Plan, PlannedLayer

Model = TypeVar("Model", bound=nn.Module)


def apply(
    plan: Plan,
    model: Model,
    *,
    seed: int = 0,
    nonlinear: bool = True,
    init: str | None = "kaiming",
    dense_start: bool = False,
) -> Model:
    """A new model with the plan's widths, branches, factors and masks; `model` is not changed.

    Weights whose shape the plan keeps are kept. Everything works on the meta device, where nothing has
    values. Global random number generators are left as they are.

    Args:
        plan: what to build.
        model: the dense model that the plan was made for.
        seed: of the masks and of the new weights.
        nonlinear: whether members have a norm and an activation inside, as in arXiv 2303.11525, section 3.1.
        init: of new and resized weights: "kaiming" (fan-out), "density" (its correction for the mask), or None
            to leave them as their modules' constructors, or `widen_`, make them.
        dense_start: leave weights off the masks as they are, for training that starts dense and arrives at the
            plan's counts (`Gradual`, `Saliency`); until then `enforce_` is what makes the model sparse.

    Raises:
        StaleError: the model is not the one planned for.
        InputError: the model is masked already, a mask's structure does not fit, or there is no such `init`.
        MeasureError: the plan is in a family of the user's own.
        InfeasibleError: a layer cannot be replaced or widened.
    """
    check_applicable(plan, model, init)
    return apply_(
        plan, copy.deepcopy(model), seed=seed, nonlinear=nonlinear, init=init, dense_start=dense_start
    )


def apply_(
    plan: Plan,
    model: Model,
    *,
    seed: int = 0,
    nonlinear: bool = True,
    init: str | None = "kaiming",
    dense_start: bool = False,
) -> Model:
    """As `apply`, in place; the model itself is returned."""
    check_applicable(plan, model, init)
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        skeleton_(plan, model, host_of(model).nonlinearity if nonlinear else none)
    draw_masks_(model, plan, seed)
    if init is not None:
        new = {name for name, p in model.named_parameters() if before.get(name) != id(p)}
        _initialise_(plan, model, new, scheme_named(init), seed)
    if not dense_start:
        enforce_(model)
    return model


def check_applicable(plan: Plan, model: nn.Module, init: str | None = None) -> None:
    """Refuse by name, before anything is built, what cannot be applied.

    Raises:
        StaleError: the model is not the one planned for.
        InputError: the model is masked already, or there is no such `init`.
        MeasureError: the plan is in a family of the user's own.
    """
    check_buildable(plan)
    if init is not None:
        scheme_named(init)
    masked = next(masked_weights(model), None)
    if masked is not None:
        raise InputError(f"{masked.name} is masked already; finalize or densify the model first.")
    found = fingerprint(model)
    if plan.fingerprint and found != plan.fingerprint:
        raise StaleError(
            f"the {type(model).__name__} is not the model that was planned for (fingerprint {found[:12]}…, planned {plan.fingerprint[:12]}…): its modules or shapes differ. Make the plan again."
        )
    parameters = dict(model.named_parameters())
    for layer in plan.layers:
        if layer.maskable or replaced_by(layer) is not None:
            _check_layer(model, layer, parameters)


def _check_layer(model: nn.Module, layer: PlannedLayer, parameters: dict[str, nn.Parameter]) -> None:
    if layer.weight not in parameters:
        raise StaleError(
            f"the plan masks {layer.weight!r}, which the model does not have; make the plan again."
        )
    path, _, name = layer.weight.rpartition(".")
    if "parametrizations" in path.split(".") or name.endswith("_orig"):
        raise InputError(
            f"{layer.name}: its weight is computed from {layer.weight!r}, and a mask on that would not make it sparse; remove the parametrization or make the pruning permanent first."
        )
    if hasattr(model.get_submodule(path), name + SUFFIX):
        raise InputError(f"{path or 'the model'} has {name + SUFFIX!r} already, where its mask belongs.")


def _initialise_(plan: Plan, model: nn.Module, new: set[str], deviation: Deviation, seed: int) -> None:
    """Weights and biases of planned layers, where they are new; other resized tensors stay as `widen_` left them."""
    modules = dict(model.named_modules())
    for layer in plan.layers:
        if not layer.weight:
            continue
        member = modules.get(layer.name)
        parts = [f"{layer.name}.{part}" for part in member.parts()] if isinstance(member, Member) else []
        weights = [f"{part}.weight" for part in parts] or ([layer.weight] if layer.positions else [])
        for weight in weights:
            path, _, name = weight.rpartition(".")
            if weight in new and not isinstance(
                modules[path], nn.Embedding
            ):  # also where a head is tied to it
                _initialise_weight_(modules[path], name, deviation, seed, weight)
            _zero_bias_(modules[path], name, new, path)


def _initialise_weight_(module: nn.Module, name: str, deviation: Deviation, seed: int, weight: str) -> None:
    parameter = module._parameters[name]
    assert parameter is not None
    mask = module._buffers[name + SUFFIX] if has_mask(module, name) else None
    real = mask is not None and not mask.is_meta
    density = int(mask.count_nonzero()) / mask.numel() if real and isinstance(mask, Tensor) else 1.0
    spread = deviation(fans_of(module, parameter), density)
    initialise_(parameter, None, spread, stream(seed, f"{weight} values"))


def _zero_bias_(module: nn.Module, weight: str, new: set[str], path: str) -> None:
    name = weight.replace("weight", "bias")
    bias = module._parameters.get(name)
    if bias is not None and f"{path}.{name}" in new:
        nn.init.zeros_(bias)
