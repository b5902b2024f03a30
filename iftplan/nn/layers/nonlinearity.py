"""Non-linearity inside branches and factors, chosen to suit the layer that they replace, as in the paper.

arXiv 2303.11525, section 3.1: per branch, between the factors, in the low-rank path. BatchNorm and ReLU behind
convolutions; behind linear layers the host's own norm and activation.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor, nn

from iftplan.nn.layers.branches import Nonlinearity, identity
from iftplan.nn.sources.zoo.activations import GELUActivation

Inside = bool | Literal["norm", "reference"]
"""What members have inside: a norm and an activation, neither, the norm alone, or what the paper's code has."""

_REFERENCE: Mapping[str, Inside] = MappingProxyType({"parallel": "norm", "doped": False})
"""Inside in the code of arXiv 2303.11525 where it is not the paper's: branches are summed before the ReLU that follows the
layer, and the low-rank path of the doped family is linear."""

_ACTIVATIONS = frozenset({nn.ReLU.__module__, GELUActivation.__module__, "transformers.activations"})


@dataclass(frozen=True, slots=True, eq=False)
class Host:
    """Norm and activation that a model uses between its linear layers.

    Attributes:
        norm: features and options → its norm.
        activation: its activation, without parameters.
    """

    norm: Callable[..., nn.Module]
    activation: nn.Module

    def inside(self, transform: str, asked: Inside) -> Callable[[nn.Module], Nonlinearity]:
        """Layer → what stands inside the member in its place, in a family and as asked."""
        wanted = _REFERENCE.get(transform, True) if asked == "reference" else asked
        if wanted == "norm":
            return self.norm_alone
        return self.nonlinearity if wanted else _nothing

    def nonlinearity(self, layer: nn.Module) -> Nonlinearity:
        """Norm and activation inside the module that replaces `layer`, on its device and in its dtype."""
        norm, activation = self.norm_alone(layer), nn.ReLU() if _is_convolution(layer) else self.activation
        return lambda channels: nn.Sequential(norm(channels), copy.deepcopy(activation))

    def norm_alone(self, layer: nn.Module) -> Nonlinearity:
        """Norm inside the module that replaces `layer`, on its device and in its dtype."""
        weight = layer.weight
        assert isinstance(weight, Tensor)
        options: Mapping[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        if isinstance(layer, nn.modules.conv._ConvNd):
            batch_norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[len(layer.kernel_size) - 1]
            return lambda channels: batch_norm(channels, **options)
        return lambda channels: self.norm(channels, **options)


def _is_convolution(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.conv._ConvNd)


def _nothing(layer: nn.Module) -> Nonlinearity:
    return identity


def host_of(model: nn.Module) -> Host:
    """Norm and activation that `model` uses most: LayerNorm or RMSNorm, and LayerNorm or ReLU if it has none."""
    return Host(_norm(model), _activation(model))


def _norm(model: nn.Module) -> Callable[..., nn.Module]:
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm) or _is_rms_norm(m)]
    common = _most_common(norms)
    if common is None:
        return nn.LayerNorm
    kind = nn.LayerNorm if isinstance(common, nn.LayerNorm) else nn.RMSNorm
    named = (getattr(common, name, None) for name in ("eps", "variance_epsilon"))
    eps: float = next((value for value in named if isinstance(value, float)), 1e-5)
    return lambda features, **options: kind(features, eps=eps, **options)


def _is_rms_norm(module: nn.Module) -> bool:
    """Libraries write their own classes of it; the name is all that they have in common."""
    return type(module).__name__.endswith("RMSNorm")


def _activation(model: nn.Module) -> nn.Module:
    common = _most_common([m for m in model.modules() if _is_activation(m)])
    return common or _named_in(getattr(model, "config", None)) or nn.ReLU()


def _is_activation(module: nn.Module) -> bool:
    """An elementwise function of torch's, of the bundled networks' or of transformers': without parameters and parts of its own."""
    home, name = type(module).__module__, type(module).__name__
    plain = not any(True for _ in module.parameters()) and not any(True for _ in module.children())
    return (
        home in _ACTIVATIONS
        and plain
        and "Softm" not in name
        and name not in ("Sigmoid", "GLU", "LogSigmoid")
    )


def _named_in(config: object) -> nn.Module | None:
    """The activation that a transformers configuration names, where it is called as a function."""
    for key in ("hidden_act", "activation_function", "hidden_activation"):
        name = getattr(config, key, None)
        if isinstance(name, str):
            from transformers.activations import ACT2FN

            found: nn.Module = ACT2FN[name]
            return found
    return None


def _most_common(modules: list[nn.Module]) -> nn.Module | None:
    """The first module of the commonest class."""
    if not modules:
        return None
    commonest = Counter(type(module) for module in modules).most_common(1)[0][0]
    return next(module for module in modules if type(module) is commonest)
