"""The sections that only some plans' documents have: what weights start and train at, and what layers are estimated to take."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from iftplan.base.documents import Document
from iftplan.base.units import fraction
from iftplan.plans.plan import (
    Execution,
    LayerTime,
    MaskUpdates,
    Optimizer,
    Parametrization,
    Pass,
    Scheme,
    TensorRole,
    TensorScale,
    WallClock,
)

_STRICT = ConfigDict(extra="forbid")
_Seconds = Annotated[float, Field(ge=0)]


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
        **{f"{key}_exact": fraction(value) for key, value in fractions.items()},
    }


@with_config(_STRICT)
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
    role: TensorRole
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


@with_config(_STRICT)
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
    scheme: Scheme
    optimizer: Optimizer
    mask_updates: MaskUpdates
    scales: list[ScaleObject]
    notes: list[str]


def wallclock_object(value: WallClock) -> Document:
    """Estimates as a JSON object: the machine they were priced for, totals, and every layer's seconds."""
    return {
        "profile": value.profile,
        "machine": value.machine,
        "instructions": value.instructions,
        "threads": value.threads,
        "pass": value.passes,
        "batch": value.batch,
        "dense_seconds": value.dense,
        "flops_seconds": value.flops,
        "seconds": value.seconds,
        "layers": [_layer_object(layer) for layer in value.layers],
        "unpriced": dict(value.unpriced),
        "notes": list(value.notes),
    }


def parse_wallclock(parsed: WallClockObject) -> WallClock:
    """Estimates from their JSON object; totals are added up again from the layers."""
    return WallClock(
        parsed["profile"],
        parsed["machine"],
        parsed["instructions"],
        parsed["threads"],
        parsed["pass"],
        parsed["batch"],
        tuple(
            LayerTime(
                layer["name"],
                layer["execution"],
                layer["dense_seconds"],
                layer["flops_seconds"],
                layer["seconds"],
                layer["extrapolated"],
            )
            for layer in parsed["layers"]
        ),
        tuple(parsed["unpriced"].items()),
        tuple(parsed["notes"]),
    )


def _layer_object(layer: LayerTime) -> dict[str, Any]:
    return {
        "name": layer.name,
        "execution": layer.execution,
        "dense_seconds": layer.dense,
        "flops_seconds": layer.flops,
        "seconds": layer.seconds,
        "extrapolated": layer.extrapolated,
    }


@with_config(_STRICT)
class LayerTimeObject(TypedDict):
    """Estimated time of a layer in seconds, the whole batch together.

    Attributes:
        name: as in the plan's `layers`.
        execution: what computes it: dense operators, or sparse kernels.
        dense_seconds: of the layer in the dense model.
        flops_seconds: of the layer in the plan with the objective `flops`.
        seconds: of the layer in this plan.
        extrapolated: whether it lies outside of what the profile measured; its time was scaled with its MACs.
    """

    name: str
    execution: Execution
    dense_seconds: _Seconds
    flops_seconds: _Seconds
    seconds: _Seconds
    extrapolated: bool


_Passed = TypedDict("_Passed", {"pass": Pass})  # no name that a class could have


@with_config(_STRICT)
class WallClockObject(_Passed):
    """The section as it is written; totals are those of the layers that could be priced.

    Attributes:
        profile: digest of the machine's profile.
        machine: the processor that was profiled.
        instructions: what its sparse kernels were made of.
        threads: of the processor.
        pass: what is timed: a forward pass, or a step, forward and backward.
        batch: how many of the plan's input are computed together.
        dense_seconds: of the dense model.
        flops_seconds: of the plan with the objective `flops`.
        seconds: of this plan.
        layers: one object for each layer that was priced.
        unpriced: layer → why the profile says nothing of it.
        notes: sentences that a reader has to know.
    """

    profile: str
    machine: str
    instructions: str
    threads: int
    batch: Annotated[int, Field(ge=1)]
    dense_seconds: _Seconds
    flops_seconds: _Seconds
    seconds: _Seconds
    layers: list[LayerTimeObject]
    unpriced: dict[str, str]
    notes: list[str]
