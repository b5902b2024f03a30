"""Initial scales and learning rates that carry a dense model's hyperparameters over to its plan.

μP and SμPar (Dey, Bergsma, Hestness; arXiv 2405.15743): with the width multiplier m_d and the density multiplier m_ρ
of a weight, relative to the dense model,

                 initial variance   Adam rate   SGD rate          logits    attention scores
    embedding    σ²                 η           η
    hidden       σ²/μ               η/μ         η (μP), η/m_ρ
    output       σ²                 η           η                 x·Wᵀ/μ
                                                                            /d_head

where μ = m_d under μP and m_d·m_ρ, the active over the dense fan-in, under SμPar.

Of the factors of structured matrices each is a hidden weight with the fan-in of one of its blocks; its deviation is also
multiplied by √(outputs/inputs) of a block where that is below 1 (Qiu et al., arXiv 2406.06248, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import sqrt
from types import MappingProxyType
from typing import Final, get_args

from iftplan.base.errors import InputError
from iftplan.base.units import fraction
from iftplan.families.builtin import FAMILIES
from iftplan.families.transforms.blocks import FactorGrid
from iftplan.models.spec import Kind, LayerSpec
from iftplan.plans.plan import (
    Asked,
    KeptFor,
    MaskUpdates,
    Optimizer,
    Parametrization,
    Plan,
    PlannedLayer,
    Role,
    Scheme,
    TensorRole,
    TensorScale,
)

_CHOICES: Final = (("optimizer", Optimizer), ("mask updates", MaskUpdates), ("parametrization", Asked))
NAMES: Final[Mapping[Scheme, str]] = MappingProxyType({"standard": "standard", "mup": "μP", "supar": "SμPar"})
_PLAIN = ("none", "wide", "nm")
_ATTENTION = "forward pass: attention scores are divided by the size of a head, where the standard is its root; relative to the dense model that is √(dense size)/(new size). iftplan.nn.apply sets it where a module has a scale of its own, and names the modules that have none."
_WIDTH_ALONE = "μP corrects for the width alone; the fan-in that masks take away is not made up for."


def parametrize(
    plan: Plan, asked: Asked = "auto", optimizer: Optimizer = "adam", mask_updates: MaskUpdates = "static"
) -> Plan:
    """The plan with the scales of its weights; "standard" leaves them out, as in a plan without a parametrization.

    Args:
        plan: says every weight's fan-in and density.
        asked: "auto", "supar", "mup" or "standard"; see `parametrization`.
        optimizer: "adam" or "sgd".
        mask_updates: "static", "dynamic" or "gradual".

    Raises:
        InputError: there is no such parametrization, optimizer or kind of mask updates.
    """
    found = parametrization(plan, asked, optimizer, mask_updates)
    return replace(plan, parametrization=None if asked == "standard" else found)


def parametrization(
    plan: Plan, asked: Asked = "auto", optimizer: Optimizer = "adam", mask_updates: MaskUpdates = "static"
) -> Parametrization:
    """The scales of a plan's weights, relative to the dense model.

    Args:
        plan: says every weight's fan-in and density; nothing else is needed.
        asked: "auto" takes SμPar where there is evidence for it and the standard elsewhere, and says why;
            "supar", "mup" and "standard" insist.
        optimizer: "adam" (Adam, AdamW, and others whose steps do not grow with the gradient) or "sgd".
        mask_updates: "static" random masks, "dynamic" ones (SET, RigL) or "gradual" pruning (GMP).

    Raises:
        InputError: there is no such parametrization, optimizer or kind of mask updates, or none for a plan of experts.
    """
    for (what, kind), value in zip(_CHOICES, (optimizer, mask_updates, asked), strict=True):
        if value not in (known := get_args(kind)):
            raise InputError(f"{what} {value!r} is not one of its choices: {', '.join(known)}.")
    if plan.mixture is not None:
        if asked != "standard":
            raise InputError(
                "initial scales of a mixture of experts are not known. Plan it with `parametrization='standard'`."
            )
        return Parametrization(asked, asked, optimizer, mask_updates)
    doubts = tuple(_doubts(plan, optimizer, mask_updates))
    scheme: Scheme = ("standard" if doubts else "supar") if asked == "auto" else asked
    scales = dict(_scales(plan, scheme, optimizer))
    if scheme == "standard":
        notes = tuple(f"standard parametrization: {doubt}" for doubt in doubts) if asked == "auto" else ()
        return Parametrization(asked, scheme, optimizer, mask_updates, scales, notes)
    notes = tuple(f"{NAMES[scheme]} as asked for, though {doubt}" for doubt in doubts)
    notes += (_WIDTH_ALONE,) if scheme == "mup" else ()
    notes += tuple(_forward(plan, scales))
    return Parametrization(asked, scheme, optimizer, mask_updates, scales, notes)


def _doubts(plan: Plan, optimizer: Optimizer, mask_updates: MaskUpdates) -> Iterator[str]:
    """Where arXiv 2405.15743 has no evidence, or evidence against."""
    if mask_updates != "static":
        yield "under masks that are moved or grown in training none of the standard, μP and SμPar transfers (arXiv 2405.15743); its evidence is for static random masks."
    if optimizer != "adam":
        yield "the evidence of arXiv 2405.15743 is for Adam-family optimizers."
    if any(layer.kind.startswith("conv") for layer in plan.layers):
        yield "there is no evidence for convolutions with BatchNorm."
    for family in plan.families:
        if family not in _PLAIN and _grid(family) is None:
            yield f"there is no evidence for the members of the family {family!r}, which may have a norm inside."


def _forward(plan: Plan, scales: Mapping[str, TensorScale]) -> Iterator[str]:
    """What belongs to the parametrization and is in no tensor."""
    for name, scale in scales.items():
        if scale.output_multiplier != 1:
            yield f"forward pass: the logits of {name} are multiplied by {fraction(scale.output_multiplier)}; iftplan.nn.apply does so where a plain linear layer gives them out."
    products = any(layer.role is Role.ACTIVATION for layer in plan.layers)
    if products and plan.heads == "number" and plan.widths:
        yield _ATTENTION


def _scales(plan: Plan, scheme: Scheme, optimizer: Optimizer) -> Iterator[tuple[str, TensorScale]]:
    """Every parameter once: a tied head is an embedding whose output is scaled."""
    # A look-up sums up nothing, so an embedding keeps the dense model's scale and rate at every width. The
    # output layer keeps them too, and its logits are divided by its fan-in instead. A tied tensor is both:
    # what the layer with the product finds has to replace what the look-up found, which is why look-ups come
    # first below.
    weights = [layer for layer in plan.layers if layer.weight]
    fans = {layer.name: tuple(_fans(layer, _grid(layer.transform or plan.transform))) for layer in weights}
    embeddings = {layer.weight for layer in weights if layer.kind == Kind.EMBEDDING}
    contracting = [layer for layer in weights if layer.positions]
    last = contracting[-1].weight if contracting else ""
    found: dict[str, TensorScale] = {}
    for layer in sorted(weights, key=lambda layer: layer.positions > 0):  # a look-up says nothing of a head
        gives_output = layer.kept_for is KeptFor.OUTPUT or (layer.weight == last and _pinned(layer))
        role = TensorRole.OUTPUT if gives_output else TensorRole.HIDDEN
        role = TensorRole.EMBEDDING if layer.weight in embeddings else role
        found.update((fan.name, _scale(role, fan, scheme, optimizer)) for fan in fans[layer.name])
    order = {name: None for layer in weights for name in (fan.name for fan in fans[layer.name])}
    yield from ((name, found[name]) for name in order)


def _scale(role: TensorRole, fan: _Fan, scheme: Scheme, optimizer: Optimizer) -> TensorScale:
    known = TensorScale(role, fan.width, fan.density, fan.active, reason=_REASONS[role])
    ratio, density = (fan.whole, Fraction(1)) if scheme == "mup" else (fan.active, fan.density)
    if scheme == "standard":
        return replace(known, reason="as in the dense model")
    if role is TensorRole.HIDDEN:
        rate = 1 / ratio if optimizer == "adam" else 1 / density
        return replace(known, init_std_scale=fan.narrowing / sqrt(ratio), learning_rate_multiplier=rate)
    return replace(known, output_multiplier=1 / ratio)  # 1 for an embedding without a tied head


_REASONS: Final[Mapping[TensorRole, str]] = MappingProxyType(
    {
        TensorRole.EMBEDDING: "as in the dense model; the logits of a tied head by their fan-in",
        TensorRole.HIDDEN: "by its fan-in",
        TensorRole.OUTPUT: "as in the dense model; its logits by its fan-in",
    }
)


@dataclass(frozen=True, slots=True)
class _Fan:
    """A tensor's m_d and m_ρ, and all that is summed up at one of its outputs, with masks and without.

    The narrowing is that of the blocks of structured matrices, over the dense layer's; 1 elsewhere.
    """

    name: str
    width: Fraction
    density: Fraction
    active: Fraction
    whole: Fraction
    narrowing: float = 1.0


GridOf = Callable[[int, int], FactorGrid]


def _grid(transform: str) -> GridOf | None:
    """How a family cuts layers into blocks, if it does."""
    family = FAMILIES.get(transform)
    return family.definition.grid if family else None


def _fans(layer: PlannedLayer, grid: GridOf | None) -> Iterator[_Fan]:
    """Of the tensors that a planned layer becomes."""
    dense, one, density = layer.before, Fraction(1), layer.density
    assert dense is not None
    wide = one if _unknown(layer, dense) else _widening(layer, dense)
    branches, rank = layer.structure.get("branches"), layer.structure.get("rank")
    if isinstance(branches, int) and branches > 1:
        width = wide * branches
        for i in range(branches):
            yield _Fan(f"{layer.name}.branches.{i}.weight", width, density, width * density, width)
    elif isinstance(rank, int) and rank and grid is not None:
        yield from _block_factors(layer, rank, grid)
    elif isinstance(rank, int) and rank:
        yield from _factors(layer, Fraction(rank, dense.fan_in), wide)
    else:
        yield _Fan(layer.weight, wide, density, wide * density, wide)


def _factors(layer: PlannedLayer, rank: Fraction, wide: Fraction) -> Iterator[_Fan]:
    """U reads what the layer reads; V, and the sparse part beside it, sum up at the outputs."""
    one, density, name = Fraction(1), layer.density, layer.name
    if layer.dense_weights and layer.capacity:
        active, whole = wide * density + rank, wide + rank
        yield _Fan(f"{name}.sparse.weight", wide, density, active, whole)
        yield _Fan(f"{name}.U.weight", wide, one, wide, wide)
        yield _Fan(f"{name}.V.weight", rank, one, active, whole)
    else:
        yield _Fan(f"{name}.U.weight", wide, density, wide * density, wide)
        yield _Fan(f"{name}.V.weight", rank, density, rank * density, rank)


def _block_factors(layer: PlannedLayer, rank: int, grid: GridOf) -> Iterator[_Fan]:
    """Inputs and outputs of one block of each."""
    dense, after = layer.before, layer.after
    assert dense is not None and after is not None and after.in_channels and after.out_channels
    usual = _narrowing(dense.fan_in, dense.fan_out)
    for factor in grid(after.in_channels, after.out_channels).factors(after, rank):
        ratio = Fraction(factor.inputs, dense.fan_in)
        narrowing = _narrowing(factor.inputs, factor.outputs) / usual
        yield _Fan(f"{layer.name}.{factor.path}.weight", ratio, Fraction(1), ratio, ratio, narrowing)


def _narrowing(inputs: int, outputs: int) -> float:
    return min(1.0, sqrt(outputs / inputs))


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
    return after is None or (layer.before is not None and after == layer.before.out_channels)
