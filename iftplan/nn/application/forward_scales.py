"""Changes that a parametrization makes in the forward pass: logits times 1/μ, attention scores over the head size.

Logits are scaled where a plain linear layer gives them out, whether its weight is tied or not. Attention is scaled
where the width trace found the float by which a module multiplies its scores. All else is named, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.units import fraction
from iftplan.models.spec import Couplings
from iftplan.nn.application.structure import planned_couplings
from iftplan.nn.counting.measure import measure
from iftplan.nn.meta.inputs import matching
from iftplan.plans.plan import Plan, Role


class ScaledLinear(nn.Linear):
    """`(x·multiplier)·Wᵀ + b`: a linear layer whose parameters are those of the layer it stands for.

    The multiplier is a persistent buffer, so that a state dict carries it, and a model without it refuses that.
    """

    output_multiplier: Tensor

    def __init__(self, layer: nn.Linear, multiplier: Fraction) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._parameters.update(layer._parameters)
        value = torch.tensor(float(multiplier), device=layer.weight.device)
        self.register_buffer("output_multiplier", value)
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """The scaled logits, in the input's dtype."""
        return nn.functional.linear(input * self.output_multiplier.to(input.dtype), self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class ForwardScales:
    """Factors that a plan's parametrization puts into the forward pass of a model.

    Attributes:
        logits: name of a linear layer → what its input is multiplied with.
        attention: "module.path.attribute" → its value in the planned model.
        by_hand: sentences, one for each factor that has to be applied by hand in this model.
    """

    logits: Mapping[str, Fraction] = field(default_factory=dict)
    attention: Mapping[str, float] = field(default_factory=dict)
    by_hand: tuple[str, ...] = ()


@check_arguments
def forward_scales(plan: Plan, model: nn.Module, couplings: Couplings | None = None) -> ForwardScales:
    """Factors that the plan's parametrization puts into the forward pass of `model`, and those that it cannot put there.

    Args:
        plan: with or without a parametrization.
        model: the dense model; it is not changed.
        couplings: of the model's widths, if they are known already.
    """
    scales = plan.parametrization
    if scales is None or scales.scheme == "standard":
        return ForwardScales()
    logits, bypassed = _logits(plan, model)
    attention, unscaled = _attention(plan, couplings or planned_couplings(plan, model))
    return ForwardScales(logits, attention, (*bypassed, *unscaled))


def scale_forward_(model: nn.Module, scales: ForwardScales) -> nn.Module:
    """Apply forward scales in place to a model of the plan's structure; every name of a head is replaced."""
    modules = dict(model.named_modules(remove_duplicate=False))
    made: dict[nn.Module, nn.Module] = {}
    for name, multiplier in scales.logits.items():
        head = modules[name]
        assert isinstance(head, nn.Linear)
        made[head] = ScaledLinear(head, multiplier)
    for path, module in modules.items():
        if module in made:
            parent, _, name = path.rpartition(".")
            setattr(modules[parent], name, made[module])
    for place, value in scales.attention.items():
        path, _, attribute = place.rpartition(".")
        model.get_submodule(path).__dict__[attribute] = value
    return model


def _logits(plan: Plan, model: nn.Module) -> tuple[dict[str, Fraction], list[str]]:
    """The heads that can be scaled, and sentences about those that cannot."""
    assert plan.parametrization is not None
    heads = {
        layer.name: (layer.weight, multiplier)
        for layer in plan.layers
        if layer.positions
        for scale in [plan.parametrization.scales.get(layer.weight)]
        if scale is not None and (multiplier := scale.output_multiplier) != 1
    }
    parts = {
        name: scale.output_multiplier
        for name, scale in plan.parametrization.scales.items()
        if scale.output_multiplier != 1 and name not in {weight for weight, _ in heads.values()}
    }
    callers = _callers(plan, model) if heads else {}
    modules = dict(model.named_modules())
    found, missing = {}, [_unscaled(name, multiplier) for name, multiplier in parts.items()]
    for name, (weight, multiplier) in heads.items():
        if callers.get(weight) == {name} and type(modules.get(name)) is nn.Linear:
            found[name] = multiplier
        else:
            missing.append(_unscaled(weight, multiplier))
    return found, missing


def _unscaled(weight: str, multiplier: Fraction) -> str:
    return (
        f"the logits of {weight} are not multiplied by {fraction(multiplier)}, because no plain linear layer "
        "computes them; multiply them in the model's forward pass."
    )


def _callers(plan: Plan, model: nn.Module) -> dict[str, set[str]]:
    """Weight → the modules that compute with it, whoever holds it."""
    table = measure(model, matching(plan.inputs, model))
    found: dict[str, set[str]] = {}
    for contraction in table.contractions:
        if contraction.weight is not None:
            found.setdefault(contraction.weight, set()).add(contraction.module)
    return found


def _attention(plan: Plan, couplings: Couplings | None) -> tuple[dict[str, float], list[str]]:
    """Scale attributes at √(dense size)/(new size), and sentences about attention that has none."""
    if couplings is None:
        return {}, []
    dense = {name: width.size for name, width in couplings.widths.items()}
    new = {**dense, **plan.widths}
    sizes = {name: (size.at(dense), size.at(new)) for name, size in couplings.scales.items()}
    found = {name: before**0.5 / after for name, (before, after) in sizes.items() if before != after}
    covered = tuple({name.rpartition(".")[0] for name in couplings.scales})
    missing = [
        f"the products of {module} keep their scale, because the module has no attribute that sets it. If "
        "they are attention scores over widened heads, divide them by the size of a head instead of its "
        "square root."
        for module in dict.fromkeys(_grown_products(plan))
        if module not in covered
    ]
    return found, missing


def _grown_products(plan: Plan) -> Iterator[str]:
    """Modules with products of activations that cost more where heads keep their number."""
    for layer in plan.layers:
        if (
            layer.role is Role.ACTIVATION
            and plan.heads == "number"
            and layer.full_macs != layer.dense_full_macs
        ):
            yield layer.name.rpartition(":")[0]
