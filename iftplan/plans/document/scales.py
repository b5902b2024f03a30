"""The section of a plan's document that holds what its weights start and train at."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from iftplan.base.documents import Document
from iftplan.base.units import exact
from iftplan.plans.plan import Parametrization, TensorScale


def parametrization_object(value: Parametrization) -> Document:
    """Parametrization as a JSON object: what was asked for, what was chosen, and every tensor's scales."""
    return {
        "asked": value.asked,
        "scheme": value.scheme,
        "optimizer": value.optimizer,
        "mask_updates": value.mask_updates,
        "scales": [_scale_object(name, scale) for name, scale in value.scales.items()],
        "notes": list(value.notes),
    }


def _scale_object(tensor: str, scale: TensorScale) -> dict[str, Any]:
    fractions = {
        "width_multiplier": scale.width_multiplier,
        "density_multiplier": scale.density_multiplier,
        "fan_in_ratio": scale.fan_in_ratio,
        "learning_rate_multiplier": scale.learning_rate_multiplier,
        "output_multiplier": scale.output_multiplier,
    }
    return {
        "tensor": tensor,
        "role": scale.role.value,
        "init_std_scale": scale.init_std_scale,
        "reason": scale.reason,
        **{key: float(value) for key, value in fractions.items()},
        **{f"{key}_exact": exact(value) for key, value in fractions.items()},
    }


@with_config(ConfigDict(extra="forbid"))
class ScaleObject(TypedDict):
    """Scales of one tensor, as they are written.

    Attributes:
        tensor: the parameter's name in the applied model.
        role: its place in the network.
        init_std_scale: what the standard deviation of its initial values is multiplied with.
        reason: why it has these scales.
        width_multiplier: m_d: width to the base model's.
        density_multiplier: m_ρ: density to the base model's.
        fan_in_ratio: active fan-in to the base model's.
        learning_rate_multiplier: what its learning rate is multiplied with.
        output_multiplier: what it gives out is multiplied with.
    """

    tensor: str
    role: Literal["embedding", "hidden", "output"]
    init_std_scale: float
    reason: str
    width_multiplier: float
    width_multiplier_exact: str
    density_multiplier: float
    density_multiplier_exact: str
    fan_in_ratio: float
    fan_in_ratio_exact: str
    learning_rate_multiplier: float
    learning_rate_multiplier_exact: str
    output_multiplier: float
    output_multiplier_exact: str


@with_config(ConfigDict(extra="forbid"))
class ParametrizationObject(TypedDict):
    """The section as it is written; what reads it derives the scales from the plan again and compares.

    Attributes:
        asked: the scheme that was asked for.
        scheme: the scheme that was taken.
        optimizer: the family of optimizers that learning rates are for.
        mask_updates: how masks change in training.
        scales: one object for each tensor.
        notes: sentences that a reader has to know.
    """

    asked: Literal["auto", "mup", "supar"]
    scheme: Literal["standard", "mup", "supar"]
    optimizer: Literal["adam", "sgd"]
    mask_updates: Literal["static", "dynamic", "gradual"]
    scales: list[ScaleObject]
    notes: list[str]
