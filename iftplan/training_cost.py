"""What training a plan costs, in MACs per sample: exact, from the plan's costs and an algorithm's own rule.

A step's backward pass costs as much as two forward passes: one for the gradients of inputs, one for those of
weights (the convention of RigL, arXiv 1911.11134, appendix G; first layers are not excepted).

    sparse step           3·f_S
    dense-gradient step   2·f_S + f_D      f_D: the same network with every masked weight present
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from iftplan.plans import Plan, Scope
from iftplan.shown import Shown


@dataclass(frozen=True, slots=True)
class TrainingCost(Shown):
    """MACs of one sample's training step.

    Attributes:
        fixed: MACs of a forward pass that no mask touches.
        positions: masked weight matrices' layer name → how often each of its weights is applied.
        nnz: layer name → weights that the plan keeps.
        capacity: layer name → weights under its mask.
        dense: MACs of a forward pass of the dense model that was planned for.
    """

    fixed: int
    positions: Mapping[str, int]
    nnz: Mapping[str, int]
    capacity: Mapping[str, int]
    dense: int

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """Of a plan, the whole forward pass."""
        masked = [layer for layer in plan.layers if layer.maskable]
        kept = sum(layer.positions * layer.nnz for layer in masked)
        return cls(
            fixed=plan.macs(Scope.MODEL) - kept,
            positions={layer.name: layer.positions for layer in masked},
            nnz={layer.name: layer.nnz for layer in masked},
            capacity={layer.name: layer.capacity for layer in masked},
            dense=plan.dense_macs(Scope.MODEL),
        )

    def forward(self, nnz: Mapping[str, int] | None = None) -> int:
        """f_S: a forward pass with so many weights kept by layer; with the plan's where not given."""
        kept = self.nnz if nnz is None else nnz
        return self.fixed + sum(positions * kept[name] for name, positions in self.positions.items())

    @property
    def opened(self) -> int:
        """f_D: a forward pass with every masked weight present."""
        return self.forward(self.capacity)

    def step(self, nnz: Mapping[str, int] | None = None, *, dense_gradient: bool = False) -> int:
        """One sample's forward and backward pass."""
        sparse = self.forward(nnz)
        return 2 * sparse + self.opened if dense_gradient else 3 * sparse

    @property
    def dense_step(self) -> int:
        """One sample's forward and backward pass of the dense model."""
        return 3 * self.dense


def rigl_average(sparse: Fraction, dense: Fraction, interval: int) -> Fraction:
    """(3·f_S·ΔT + 2·f_S + f_D)/(ΔT + 1): the published average of RigL's steps (arXiv 1911.11134, appendix G)."""
    return (3 * sparse * interval + 2 * sparse + dense) / (interval + 1)
