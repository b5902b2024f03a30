"""What weights start and train at, relative to the dense model: values of one tensor and of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Literal

Optimizer = Literal["adam", "sgd"]
MaskUpdates = Literal["static", "dynamic", "gradual"]
Scheme = Literal["standard", "mup", "supar"]
Asked = Literal["auto", "standard", "mup", "supar"]


class TensorRole(StrEnum):
    """Role of a tensor, by which its scales follow the width."""

    EMBEDDING = "embedding"
    HIDDEN = "hidden"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class TensorScale:
    """Factors of a tensor's initial scale and learning rate, relative to the dense model.

    Attributes:
        role: what it does in the model.
        width_multiplier: m_d, its fan-in at the plan's structure over the dense one.
        density_multiplier: m_ρ, the share of its weights that is kept.
        fan_in_ratio: active over dense fan-in; all that is summed up at one output counts together.
        init_std_scale: of the standard deviation.
        learning_rate_multiplier: of the learning rate.
        output_multiplier: of what the tensor gives out (logits), in the forward pass.
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
    """Scales of every planned weight, relative to the dense model.

    Attributes:
        asked: the scheme asked for; "auto" leaves the choice to the evidence.
        scheme: what the scales are.
        optimizer: the family of optimizers that the learning rates are for.
        mask_updates: whether masks stay ("static"), move ("dynamic") or grow ("gradual") in training.
        scales: parameter name in the applied model → its scales.
        notes: why this scheme, and what belongs to it that is in no tensor.
    """

    asked: Asked
    scheme: Scheme
    optimizer: Optimizer
    mask_updates: MaskUpdates
    scales: Mapping[str, TensorScale] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
