"""What one model costs, as a value: MACs and parameters by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ModelCost:
    """Cost of one model: MACs of a forward pass and parameters, layer by layer.

    Attributes:
        macs: layer → contraction MACs of one forward pass, `module:operator` for products of activations.
        parameters: module → its own parameters.
        elementwise: operator → output elements, for work that contracts nothing.
        unknown_ops: operator → calls, for operators without a formula that nobody allowed.
        uncalled_modules: modules with weights that the pass never used and nobody allowed.
        assumptions: what had to be assumed.
    """

    macs: Mapping[str, int]
    parameters: Mapping[str, int]
    elementwise: Mapping[str, int] = field(default_factory=dict)
    unknown_ops: Mapping[str, int] = field(default_factory=dict)
    uncalled_modules: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def total_macs(self) -> int:
        """All contraction MACs of one forward pass."""
        return sum(self.macs.values())

    @property
    def total_parameters(self) -> int:
        """Number of all parameters; a tied one counts once."""
        return sum(self.parameters.values())
