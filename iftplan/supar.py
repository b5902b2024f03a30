"""Initial scales and learning rates that carry a dense model's hyperparameters over to its plan.

SμPar (Dey, Bergsma, Hestness; arXiv 2405.15743): with the width multiplier m_d and the density multiplier m_ρ of
a weight, relative to the dense model, and μ = m_d·m_ρ, its active over its dense fan-in:

                 initial variance   Adam rate   SGD rate   logits
    embedding    σ²                 η           η
    hidden       σ²/μ               η/μ         η/m_ρ
    output       σ²                 η           η          x·Wᵀ/μ
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from math import sqrt
from types import MappingProxyType
from typing import Final, Literal

from iftplan.documents import Document, sealed
from iftplan.errors import InputError
from iftplan.notation import parse_layer
from iftplan.plans import Plan, PlannedLayer, Role
from iftplan.spec import Kind, LayerSpec
from iftplan.units import exact

Optimizer = Literal["adam", "sgd"]
Masks = Literal["static", "dynamic", "gradual"]
Scheme = Literal["auto", "supar", "standard"]

_OPTIMIZERS, _MASKS, _SCHEMES = (
    ("adam", "sgd"),
    ("static", "dynamic", "gradual"),
    ("auto", "supar", "standard"),
)
_PLAIN = ("none", "wide", "nm")
_GIVES_OUTPUT = "gives the model's output"
_ATTENTION = "attention scores: SμPar divides them by the size of a head, where the standard is its square root; the plan widens heads, so multiply its scores by the root of dense size/new size."


class TensorRole(StrEnum):
    """How a tensor's scales follow the width."""

    EMBEDDING = "embedding"
    HIDDEN = "hidden"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class TensorScale:
    """What a tensor's initial scale and learning rate are multiplied with, relative to the dense model.

    Attributes:
        role: what it does in the model.
        width_multiplier: m_d, its fan-in at the plan's structure over the dense one.
        density_multiplier: m_ρ, the share of its weights that is kept.
        fan_in_ratio: μ, active over dense fan-in; all that is summed up at one output counts together.
        init_std_scale: of the standard deviation.
        learning_rate_multiplier: of the learning rate.
        output_multiplier: of what the tensor gives out (logits).
        reason: where the numbers come from, in words.
    """

    role: TensorRole
    width_multiplier: Fraction = Fraction(1)
    density_multiplier: Fraction = Fraction(1)
    fan_in_ratio: Fraction = Fraction(1)
    init_std_scale: float = 1.0
    learning_rate_multiplier: Fraction = Fraction(1)
    output_multiplier: Fraction = Fraction(1)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Parametrization:
    """The scales of every planned weight.

    Attributes:
        scheme: "supar" or "standard": what the scales are.
        optimizer: the family of optimizers that the learning rates are for.
        scales: parameter name in the applied model → its scales.
        notes: why this scheme, and what no scale of a tensor can say.
    """

    scheme: Literal["supar", "standard"]
    optimizer: Optimizer
    scales: Mapping[str, TensorScale] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def parametrization(
    plan: Plan, optimizer: Optimizer = "adam", *, masks: Masks = "static", scheme: Scheme = "auto"
) -> Parametrization:
    """The scales of a plan's weights, relative to the dense model.

    Args:
        plan: says every weight's fan-in and density; nothing else is needed.
        optimizer: "adam" (Adam, AdamW, and others whose steps do not grow with the gradient) or "sgd".
        masks: how masks come about: "static" random ones, "dynamic" (SET, RigL) or "gradual" (GMP).
        scheme: "auto" takes SμPar where there is evidence for it and the standard elsewhere, and says which;
            "supar" and "standard" insist.

    Raises:
        InputError: there is no such optimizer, kind of masks or scheme.
    """
    for value, known in ((optimizer, _OPTIMIZERS), (masks, _MASKS), (scheme, _SCHEMES)):
        if value not in known:
            raise InputError(f"{value!r} is none of {', '.join(known)}.")
    doubts = tuple(_doubts(plan, optimizer, masks))
    if scheme == "standard" or (scheme == "auto" and doubts):
        notes = tuple(f"standard parametrization: {doubt}" for doubt in doubts) if scheme == "auto" else ()
        return Parametrization("standard", optimizer, dict(_scales(plan, None)), notes)
    notes = tuple(f"SμPar as asked for, though {doubt}" for doubt in doubts)
    scales = dict(_scales(plan, optimizer))
    return Parametrization("supar", optimizer, scales, (*notes, *_by_hand(plan, scales)))


def parametrization_document(value: Parametrization) -> Document:
    """The scales as a JSON object, sealed with its digest; exact numbers as fractions."""
    return sealed(
        {
            "schema": "iftplan.parametrization/1",
            "scheme": value.scheme,
            "optimizer": value.optimizer,
            "scales": {name: _scale_object(scale) for name, scale in value.scales.items()},
            "notes": list(value.notes),
        }
    )


def _scale_object(scale: TensorScale) -> Document:
    return {
        "role": scale.role.value,
        "width_multiplier_exact": exact(scale.width_multiplier),
        "density_multiplier_exact": exact(scale.density_multiplier),
        "fan_in_ratio_exact": exact(scale.fan_in_ratio),
        "init_std_scale": scale.init_std_scale,
        "learning_rate_multiplier_exact": exact(scale.learning_rate_multiplier),
        "output_multiplier_exact": exact(scale.output_multiplier),
        "reason": scale.reason,
    }


def _doubts(plan: Plan, optimizer: Optimizer, masks: Masks) -> Iterator[str]:
    """Where arXiv 2405.15743 has no evidence, or evidence against."""
    if masks != "static":
        yield "under masks that are moved or grown in training none of the standard, μP and SμPar transfers (arXiv 2405.15743); its evidence is for static random masks."
    if optimizer != "adam":
        yield "the evidence of arXiv 2405.15743 is for Adam-family optimizers."
    if any(layer.kind.startswith("conv") for layer in plan.layers):
        yield "there is no evidence for convolutions with BatchNorm."
    if plan.transform not in _PLAIN:
        yield f"there is no evidence for the members of the family {plan.transform!r}, which may have a norm inside."


def _by_hand(plan: Plan, scales: Mapping[str, TensorScale]) -> Iterator[str]:
    """What belongs to the parametrization and is in no tensor."""
    for name, scale in scales.items():
        if scale.role is TensorRole.EMBEDDING and scale.output_multiplier != 1:
            yield f"logits: {name} is an embedding and the head at once, so its values cannot take the head's multiplier; multiply the logits by {exact(scale.output_multiplier)} in the forward pass."
    products = any(layer.role is Role.ACTIVATION for layer in plan.layers)
    if products and plan.heads == "number" and plan.widths:
        yield _ATTENTION


def _scales(plan: Plan, optimizer: Optimizer | None) -> Iterator[tuple[str, TensorScale]]:
    """Every parameter once: a tied head is an embedding whose output is scaled."""
    weights = [layer for layer in plan.layers if layer.weight]
    embeddings = {layer.weight for layer in weights if layer.kind == Kind.EMBEDDING}
    contracting = [layer for layer in weights if layer.positions]
    last = contracting[-1].weight if contracting else ""
    found: dict[str, TensorScale] = {}
    for layer in weights:
        gives_output = layer.reason == _GIVES_OUTPUT or (layer.weight == last and _pinned(layer))
        role = TensorRole.OUTPUT if gives_output else TensorRole.HIDDEN
        role = TensorRole.EMBEDDING if layer.weight in embeddings else role
        found.update((fan[0], _scale(role, fan, optimizer)) for fan in _fans(layer))
    yield from found.items()


def _scale(role: TensorRole, fan: _Fan, optimizer: Optimizer | None) -> TensorScale:
    _, width, density, ratio = fan
    known = TensorScale(role, width, density, ratio, reason=_REASONS[role])
    if optimizer is None:
        return replace(known, reason="as in the dense model")
    if role is TensorRole.HIDDEN:
        rate = 1 / ratio if optimizer == "adam" else 1 / density
        return replace(known, init_std_scale=1 / sqrt(ratio), learning_rate_multiplier=rate)
    return replace(known, output_multiplier=1 / ratio)  # 1 for an embedding without a tied head


_REASONS: Final[Mapping[TensorRole, str]] = MappingProxyType(
    {
        TensorRole.EMBEDDING: "as in the dense model; the logits of a tied head by their fan-in",
        TensorRole.HIDDEN: "by its active fan-in",
        TensorRole.OUTPUT: "as in the dense model; its logits by its active fan-in",
    }
)

_Fan = tuple[str, Fraction, Fraction, Fraction]


def _fans(layer: PlannedLayer) -> Iterator[_Fan]:
    """(parameter, m_d, m_ρ, μ) of the tensors that a planned layer becomes."""
    dense, one, density = parse_layer(layer.before), Fraction(1), layer.density
    wide = one if _unknown(layer, dense) else _widening(layer, dense)
    branches, rank = layer.structure.get("branches"), layer.structure.get("rank")
    if isinstance(branches, int) and branches > 1:
        for i in range(branches):
            yield f"{layer.name}.branches.{i}.weight", wide * branches, density, wide * branches * density
    elif isinstance(rank, int) and rank:
        yield from _factors(layer, Fraction(rank, dense.fan_in), wide)
    else:
        yield layer.weight, wide, density, wide * density


def _factors(layer: PlannedLayer, rank: Fraction, wide: Fraction) -> Iterator[_Fan]:
    """U reads what the layer reads; V, and the sparse part beside it, sum up at the outputs."""
    one, density, name = Fraction(1), layer.density, layer.name
    if layer.dense_weights and layer.capacity:
        yield f"{name}.sparse.weight", wide, density, wide * density + rank
        yield f"{name}.U.weight", wide, one, wide
        yield f"{name}.V.weight", rank, one, wide * density + rank
    else:
        yield f"{name}.U.weight", wide, density, wide * density
        yield f"{name}.V.weight", rank, density, rank * density


def _widening(layer: PlannedLayer, dense: LayerSpec) -> Fraction:
    """Fan-in at the plan's widths over dense fan-in."""
    after = layer.structure.get("in_channels")
    if dense.depthwise or dense.in_channels is None or not isinstance(after, int):
        return Fraction(1)
    return Fraction(after, dense.in_channels)


def _unknown(layer: PlannedLayer, dense: LayerSpec) -> bool:
    """Whether the plan knows no more of a weight than how many there are of it."""
    return dense.kind is Kind.EMBEDDING or not layer.positions or dense.weights == 1


def _pinned(layer: PlannedLayer) -> bool:
    after = layer.structure.get("out_channels")
    return after is None or after == parse_layer(layer.before).out_channels
