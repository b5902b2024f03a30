"""What training a plan holds in memory: weights, gradients, the optimizer's state and masks, in bytes, and indices in bits.

    weights      w·P         P: every weight that the plan has, those under masks too
    gradients    w·P
    optimizer    s·w·P       s: tensors of a weight's size that the optimizer keeps, 2 for Adam's two moments
    masks        1·M         M: weights under masks, a byte each, as torch holds booleans
    indices                  bits that name the kept weights, where only these are stored (`MaskStructure.index_bits`)

Biases, norms and activations are not in a plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, cast

from iftplan.base.arguments import one_of
from iftplan.families.builtin import FAMILIES
from iftplan.families.integers import at_structure
from iftplan.masks import Matrices, Unstructured, parse_mask
from iftplan.plans.plan import WIDTHS, Plan, PlannedLayer, Role
from iftplan.report.display import Displayed

if TYPE_CHECKING:
    from iftplan.report.table import Table

OptimizerName = Literal["sgd", "adam", "adamw", "lamb", "adams"]

STATES: Final[Mapping[OptimizerName, int]] = MappingProxyType(
    {"sgd": 1, "adam": 2, "adamw": 2, "lamb": 2, "adams": 2}
)
"""Tensors of a weight's size that an optimizer keeps; SGD's is its momentum, and without one there is none."""

MASK_BYTES: Final = 1
"""Bytes of a boolean."""


def optimizer_states(optimizer: OptimizerName, momentum: float = 0.9) -> int:
    """Number of tensors of a weight's size that an optimizer keeps beside it.

    Args:
        optimizer: its name.
        momentum: of SGD; at 0 it keeps nothing.

    Raises:
        InputError: an optimizer that is not known here.

    Example:
        >>> optimizer_states("adamw"), optimizer_states("sgd", momentum=0)
        (2, 0)
    """
    name = one_of("optimizer", optimizer, STATES)
    return 0 if name == "sgd" and not momentum else STATES[cast("OptimizerName", name)]


@dataclass(frozen=True, slots=True)
class TrainingMemory(Displayed):
    """Bytes that training holds for a plan's weights, beside those of the dense model.

    Attributes:
        weights: number of weights, those under masks too.
        dense_weights: number of weights of the dense model.
        maskable: weights under masks.
        kept: weights that masks keep, and weights without masks.
        states: tensors of a weight's size that the optimizer keeps.
        element: bytes of a weight, of its gradient and of each of those.
        index_bits: bits that name the kept weights under masks.
    """

    weights: int
    dense_weights: int
    maskable: int
    kept: int
    states: int = 2
    element: int = 4
    index_bits: int = 0

    @classmethod
    def of(
        cls, plan: Plan, optimizer: OptimizerName = "adam", *, momentum: float = 0.9, element: int = 4
    ) -> TrainingMemory:
        """Memory of training a plan.

        Args:
            plan: whose weights count, each once, however many layers share it.
            optimizer: whose state counts.
            momentum: of SGD; at 0 it keeps nothing.
            element: bytes of a weight: 4, or 2 where all is held in 16 bits.
        """
        held = {layer.weight: layer for layer in reversed(plan.layers) if layer.weight}.values()
        masked = [layer for layer in plan.layers if layer.maskable]
        return cls(
            weights=sum(_weights(layer) for layer in held),
            dense_weights=sum(layer.before.weights for layer in held if layer.before),
            maskable=sum(layer.capacity for layer in masked),
            kept=sum(layer.nnz + layer.dense_weights for layer in held),
            states=optimizer_states(optimizer, momentum),
            element=element,
            index_bits=index_bits(plan),
        )

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all weights."""
        return self.element * self.weights

    @property
    def gradient_bytes(self) -> int:
        """Bytes of all gradients, those of absent weights too."""
        return self.element * self.weights

    @property
    def optimizer_bytes(self) -> int:
        """Bytes of the optimizer's state."""
        return self.states * self.element * self.weights

    @property
    def mask_bytes(self) -> int:
        """Bytes of the masks in training, a byte for each weight under one."""
        return MASK_BYTES * self.maskable

    @property
    def training_bytes(self) -> int:
        """Bytes of weights, gradients, optimizer state and masks."""
        return self.parameter_bytes + self.gradient_bytes + self.optimizer_bytes + self.mask_bytes

    @property
    def dense_training_bytes(self) -> int:
        """Bytes of the dense model's weights, gradients and optimizer state."""
        return (2 + self.states) * self.element * self.dense_weights

    @property
    def stored_bytes(self) -> int:
        """Bytes of the kept weights and of the indices that name them, where nothing else is stored."""
        return self.element * self.kept + -(-self.index_bits // 8)

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        from iftplan.runs.costs.tables import memory_table

        return (memory_table(self),)


def index_bits(plan: Plan, nnz: Mapping[str, int] | None = None) -> int:
    """Bits that name the weights which a plan's masks keep, in the storage that suits their structure.

    Args:
        plan: whose masks.
        nnz: layer → weights kept; the plan's where not given.
    """
    mask = parse_mask(plan.mask)
    total = 0
    for layer in plan.layers:
        if layer.maskable:
            kept = layer.nnz if nnz is None else nnz[layer.name]
            structure = mask if layer.role is Role.TRANSFORMED else Unstructured()
            matrices = masked_matrices(layer, plan.transform)
            one = matrices[: len(matrices) // layer.experts]
            total += layer.experts * structure.index_bits(one, kept // layer.experts)
    return total


def masked_matrices(layer: PlannedLayer, transform: str) -> Matrices:
    """Shapes (inputs, outputs) of the masked matrices of a planned layer; one column of weights where they are not known.

    Args:
        layer: of a plan.
        transform: the plan's family.
    """
    after, others = layer.after, [key for key in layer.structure if key not in WIDTHS]
    if after is None or after.weights == 1:
        return ((layer.capacity, 1),)
    if not others:
        return ((after.fan_in, after.weights // after.experts // after.fan_in),) * after.experts
    family, unknown = FAMILIES.get(layer.transform or transform), layer.structure[others[0]]
    if family is None or not isinstance(unknown, int):
        return ((layer.capacity, 1),)
    return at_structure(after, family, unknown, {}).matrices


def _weights(layer: PlannedLayer) -> int:
    return layer.capacity + layer.dense_weights
