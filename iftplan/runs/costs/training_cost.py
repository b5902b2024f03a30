"""What training a plan costs, in MACs per sample: exact, from the plan's costs and an algorithm's own rule.

A step's backward pass costs as much as two forward passes: one for the gradients of inputs, one for those of
weights (the convention of RigL, arXiv 1911.11134, appendix G; first layers are not excepted).

    sparse step           3·f_S
    dense-gradient step   2·f_S + f_D      f_D: the same network with every masked weight present
    with a margin         2·f_S + f_B      f_B: the same network with the weights present that Top-KAST trains
    step with Hg          9·f_D            GraSP's first: gradients are differentiated, two products for each of three

The gradient of a layer's inputs multiplies by the transposed weight. Where the transposed mask has not the structure
that the mask has, as in N:M along the inputs alone, that product is dense (arXiv 2102.08124); 2·f_S + f_D is then a
sparse step, and f_S + 2·f_D one with the dense gradient. Which it is for a kernel of your own is a switch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING, Self

from iftplan.masks import parse_mask
from iftplan.plans.plan import Plan, PlannedLayer, Role, Scope
from iftplan.report.display import Displayed
from iftplan.runs.settings import InputGradient

if TYPE_CHECKING:
    from iftplan.report.table import Table


@dataclass(frozen=True, slots=True)
class TrainingCost(Displayed):
    """MACs of one sample's training step.

    Attributes:
        fixed: MACs of a forward pass that no mask touches.
        positions: masked weight matrices' layer name → how often each of its weights is applied; of a stack of
            experts on average, positions over experts, as each of them keeps equally many weights.
        nnz: layer name → weights that the plan keeps.
        capacity: layer name → weights under its mask.
        dense: MACs of a forward pass of the dense model that was planned for.
        dense_inputs: names of layers whose inputs' gradients are dense products.
    """

    fixed: int
    positions: Mapping[str, int | Fraction]
    nnz: Mapping[str, int]
    capacity: Mapping[str, int]
    dense: int
    dense_inputs: frozenset[str] = frozenset()

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        from iftplan.runs.costs.tables import cost_table

        return (cost_table(self),)

    @classmethod
    def of(cls, plan: Plan, input_gradient: InputGradient = "structure") -> Self:
        """Cost of training a plan, by the whole forward pass, every query with every key.

        Args:
            plan: whose layers are masked.
            input_gradient: "sparse" where kernels multiply by the transposed mask as fast as by the mask; "dense"
                where they do not skip anything; "structure" where they do what the plan's structure is made for.
        """
        masked = [layer for layer in plan.layers if layer.maskable]
        kept = sum(layer.macs_of(layer.nnz) for layer in masked)
        return cls(
            fixed=plan.full_macs(Scope.MODEL) - kept,
            positions={layer.name: _positions(layer) for layer in masked},
            nnz={layer.name: layer.nnz for layer in masked},
            capacity={layer.name: layer.capacity for layer in masked},
            dense=plan.dense_full_macs(Scope.MODEL),
            dense_inputs=frozenset(x.name for x in masked if _is_dense(x, plan, input_gradient)),
        )

    def forward(self, nnz: Mapping[str, int] | None = None) -> int:
        """MACs f_S of a forward pass with so many weights kept by layer; with the plan's where not given."""
        kept = self.nnz if nnz is None else nnz
        return self.fixed + sum(int(positions * kept[name]) for name, positions in self.positions.items())

    @property
    def opened(self) -> int:
        """MACs f_D of a forward pass with every masked weight present."""
        return self.forward(self.capacity)

    def step(
        self,
        nnz: Mapping[str, int] | None = None,
        *,
        dense_gradient: bool = False,
        reached: Mapping[str, int] | None = None,
        curvature: bool = False,
    ) -> int:
        """MACs of one sample's forward and backward pass.

        Args:
            nnz: weights kept by layer; the plan's where not given.
            dense_gradient: whether the gradients of all weights are computed.
            reached: weights whose gradients are computed, by layer, where these are neither all nor those kept.
            curvature: whether a second backward pass differentiates the gradients, with two products for each product
                of the step.
        """
        sparse = self.forward(nnz)
        trained = sparse if reached is None else self.forward(reached)
        once = sparse + self.input_gradient(nnz) + (self.opened if dense_gradient else trained)
        return 3 * once if curvature else once

    def input_gradient(self, nnz: Mapping[str, int] | None = None) -> int:
        """MACs of the gradients of all layers' inputs: those of a forward pass, dense where the mask saves nothing."""
        kept = self.nnz if nnz is None else nnz
        return self.forward(
            {x: self.capacity[x] if x in self.dense_inputs else kept[x] for x in self.positions}
        )

    def around(self, margin: float) -> dict[str, int]:
        """Weights by layer that are the plan's and a part of all weights more, as Top-KAST trains them.

        Args:
            margin: the part, of each layer.
        """
        more = {x: floor(round(margin * size, 6)) for x, size in self.capacity.items()}
        return {x: min(size, self.nnz[x] + more[x]) for x, size in self.capacity.items()}

    @property
    def dense_step(self) -> int:
        """MACs of one sample's forward and backward pass of the dense model."""
        return 3 * self.dense


def _positions(layer: PlannedLayer) -> int | Fraction:
    return Fraction(layer.positions, layer.experts) if layer.experts > 1 else layer.positions


def _is_dense(layer: PlannedLayer, plan: Plan, input_gradient: InputGradient) -> bool:
    if input_gradient != "structure":
        return input_gradient == "dense"
    # depthwise layers are masked without structure
    return layer.role is Role.TRANSFORMED and not parse_mask(plan.mask).keeps_transposed


def rigl_average(sparse: Fraction, dense: Fraction, interval: int) -> Fraction:
    """Average cost of RigL's steps, (3·f_S·ΔT + 2·f_S + f_D)/(ΔT + 1) (arXiv 1911.11134, appendix G).

    Args:
        sparse: f_S, MACs of a sparse forward pass, or its part of f_D.
        dense: f_D, MACs of a dense forward pass, or 1.
        interval: ΔT, steps from one update of the masks to the next.
    """
    return (3 * sparse * interval + 2 * sparse + dense) / (interval + 1)
