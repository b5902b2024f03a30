"""How a mask structure sees a weight matrix (outputs, inputs): as rows of units, of which every row keeps equally many.

Unstructured masks are one row of weights, N:M masks a row per group of M, constant fan-in a row per neuron, blocks and
channels one row of whole units. Everything here reshapes and adds, so it takes arrays of NumPy and of JAX alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iftplan.base.errors import InputError
from iftplan.masks import NM, Block, Channel, ConstantFanIn, MaskStructure, Unstructured


@dataclass(frozen=True, slots=True)
class UnitRows:
    """Layout of one weight matrix, or of a stack of experts, one's outputs after the other's.

    Attributes:
        structure: of the masks.
        outputs: of one expert.
        inputs: of every output.
        experts: how many there are.

    Raises:
        InputError: masks of the structure are not chosen row by row, or patterns leave a remainder.
    """

    structure: MaskStructure
    outputs: int
    inputs: int
    experts: int = 1

    def __post_init__(self) -> None:
        structure = self.structure
        if not isinstance(structure, Unstructured | NM | Block | Channel | ConstantFanIn) or (
            isinstance(structure, NM) and structure.transposable
        ):
            raise InputError(
                f"{structure} masks are not trained in JAX yet; plan unstructured masks, N:M, blocks, channels or constant fan-in, or train them in PyTorch."
            )
        of_inputs, of_outputs = structure.pattern
        if self.inputs % of_inputs or self.outputs % of_outputs:
            raise InputError(
                f"with {self.inputs} inputs and {self.outputs} outputs, {structure} leaves a remainder, but masks move between whole patterns only in JAX; plan widths without a remainder, or train this plan in PyTorch."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers (rows, units)."""
        every = self.outputs * self.inputs
        match self.structure:
            case NM(of=size):
                return self.experts * every // size, size
            case Block() as block:
                return self.experts, every // block.area
            case Channel():
                return self.experts, self.outputs
            case ConstantFanIn():
                return self.experts * self.outputs, self.inputs
            case _:
                return self.experts, every

    def rows(self, matrix: Any) -> Any:
        """Scores of units, (rows, units): sums where a unit is more than one weight.

        Args:
            matrix: (experts · outputs, inputs).
        """
        match self.structure:
            case Block(height=height, width=width):
                tiles = matrix.reshape(-1, width, self.inputs // height, height)
                return tiles.sum((1, 3)).reshape(self.shape)
            case Channel():
                return matrix.sum(1).reshape(self.shape)
            case _:
                return matrix.reshape(self.shape)

    def matrix(self, rows: Any) -> Any:
        """The matrix (experts · outputs, inputs) in which every weight has the value of its unit."""
        match self.structure:
            case Block(height=height, width=width):
                tiles = rows.reshape(-1, self.inputs // height)
                return tiles.repeat(width, axis=0).repeat(height, axis=1)
            case Channel():
                return rows.reshape(-1, 1).repeat(self.inputs, axis=1)
            case _:
                return rows.reshape(-1, self.inputs)

    def kept(self, nnz: int) -> tuple[int, int]:
        """Units that each row keeps where `nnz` weights of all experts stay, and how many rows keep one fewer.

        Raises:
            InputError: no mask of the structure keeps so many; names the nearest number.
        """
        shape = ((self.inputs, self.outputs),)
        each, rest = divmod(nnz, self.experts)
        if rest or each not in self.structure.counts(shape):
            near = self.structure.close(shape, max(each, self.structure.counts(shape).start)) * self.experts
            raise InputError(
                f"{self.structure} masks of {self.inputs} inputs and {self.outputs} outputs cannot keep {nnz} weights, the nearest is {near}; a plan with this structure keeps whole patterns only."
            )
        rows, units = self.shape
        if isinstance(self.structure, NM):
            return self.structure.kept, self.structure.short(shape, each) * self.experts
        weights = self.experts * self.outputs * self.inputs // (rows * units)
        return nnz // weights // rows, 0
