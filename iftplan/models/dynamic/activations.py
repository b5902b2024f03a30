"""Activations of a network on data: how many are zero, and how many multiply-accumulates that leaves.

*Effective MACs* are those products of a forward pass whose activation is not zero. They are measured, hold for the data that they
were measured on, and are a lower bound that only kernels reach which skip zeros; static MACs stay what a network costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from iftplan.base.units import fraction
from iftplan.report.display import Displayed, Framed, Record

if TYPE_CHECKING:
    from iftplan.report.table import Table


@dataclass(frozen=True, slots=True)
class LayerActivity:
    """Activity of the inputs of one weight, summed over the data.

    Attributes:
        name: module that used the weight; "" is the model itself.
        weight: qualified name of the parameter.
        elements: activations that it was multiplied with.
        nonzeros: of them that are not zero.
        macs: multiply-accumulates on the data, as the static cost counts them.
        effective_macs: of them those whose activation is not zero. Padding of a convolution is part of the static cost and is
            never counted as skipped.
        cett: mean over tokens of ‖Σ_off W_:,j·x_j‖/‖W·x‖; None where nothing was left out on purpose.
    """

    name: str
    weight: str
    elements: int
    nonzeros: int
    macs: int
    effective_macs: int
    cett: float | None = None

    @property
    def activation_ratio(self) -> Fraction:
        """Share of the activations that are not zero; 1 where there are none."""
        return Fraction(self.nonzeros, self.elements) if self.elements else Fraction(1)

    @property
    def effective_share(self) -> Fraction:
        """Share of the static MACs that is left; 1 where there are none."""
        return Fraction(self.effective_macs, self.macs) if self.macs else Fraction(1)


@dataclass(frozen=True, slots=True)
class ActivationSparsity(Displayed, Framed):
    """Zeros among the activations of a network, measured on data.

    Attributes:
        selection: rule by which inputs were set to zero, as it is written.
        samples: of the data, of all batches.
        layers: one for each weight in each module.
        unobserved: module and operator → MACs of products that were not looked into; they count in full.
        unknown: operator → calls, for operators without a formula.
        loss: mean cross entropy in nats of the run; None where the data have no targets.
        thresholds: ε of each weight, where the rule has them.
    """

    selection: str
    samples: int
    layers: tuple[LayerActivity, ...]
    unobserved: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)
    loss: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        """Static MACs of the passes over the data."""
        return sum(layer.macs for layer in self.layers) + sum(self.unobserved.values())

    @property
    def effective_macs(self) -> int | None:
        """Effective MACs of the passes over the data, unobserved products in full; None with operators of unknown cost."""
        if self.unknown:
            return None
        return sum(layer.effective_macs for layer in self.layers) + sum(self.unobserved.values())

    @property
    def effective_share(self) -> Fraction | None:
        """Share of the static MACs that is effective; None with operators of unknown cost."""
        found = self.effective_macs
        return None if found is None else Fraction(found, self.macs) if self.macs else Fraction(1)

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        from iftplan.models.dynamic.tables import activation_table

        return (activation_table(self),)

    def records(self) -> Sequence[Record]:
        """A row for each weight in each module."""
        return [
            {
                "name": layer.name,
                "weight": layer.weight,
                "elements": layer.elements,
                "nonzeros": layer.nonzeros,
                "activation_ratio": float(layer.activation_ratio),
                "activation_ratio_exact": fraction(layer.activation_ratio),
                "macs": layer.macs,
                "effective_macs": layer.effective_macs,
                "cett": layer.cett,
            }
            for layer in self.layers
        ]

    def of_layer(self, name: str) -> tuple[LayerActivity, ...]:
        """Activity of a module's own weights, or of those inside it where it has none."""
        own = tuple(layer for layer in self.layers if name in (layer.name, layer.weight))
        return own or tuple(layer for layer in self.layers if layer.name.startswith(f"{name}."))
