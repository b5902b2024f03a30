"""Dormant neurons of a network on data: those whose activation is small beside the mean of their layer (ReDo, arXiv 2302.12902)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from iftplan.base.units import fraction
from iftplan.report.display import Displayed, Framed, Record

if TYPE_CHECKING:
    from iftplan.report.table import Table


@dataclass(frozen=True, slots=True)
class LayerNeurons:
    """Scores of the neurons of one hidden layer.

    Attributes:
        name: module that computes the neurons: outputs of a linear layer, feature maps of a convolution.
        readers: modules that read them.
        scores: score of each neuron, mean|h_i|/(mean_j mean|h_j| + 1e-9); the mean is over samples and positions.
        threshold: τ; a neuron whose score is at most τ is dormant.
    """

    name: str
    readers: tuple[str, ...]
    scores: tuple[float, ...]
    threshold: float

    @property
    def dormant(self) -> tuple[int, ...]:
        """Numbers of the dormant neurons, from 0."""
        return tuple(i for i, score in enumerate(self.scores) if score <= self.threshold)

    @property
    def share(self) -> Fraction:
        """Dormant neurons over all neurons of the layer."""
        return Fraction(len(self.dormant), len(self.scores))


@dataclass(frozen=True, slots=True)
class DormantNeurons(Displayed, Framed):
    """Dormant neurons of a network, measured on one batch (ReDo, arXiv 2302.12902, definition 3.1).

    Attributes:
        threshold: τ; a neuron whose score is at most τ is dormant.
        samples: of the batch.
        layers: one for each hidden layer whose neurons no other layer writes.
        unobserved: modules with outputs that are no neurons of their own: they are added to those of others, mixed with
            one another, or are the network's outputs.
        passes: samples that went through the network in all, with those that found which layer reads which.
    """

    threshold: float
    samples: int
    layers: tuple[LayerNeurons, ...]
    unobserved: tuple[str, ...] = ()
    passes: int = 0

    @property
    def neurons(self) -> int:
        """Number of neurons that were observed."""
        return sum(len(layer.scores) for layer in self.layers)

    @property
    def dormant(self) -> int:
        """Number of dormant neurons."""
        return sum(len(layer.dormant) for layer in self.layers)

    @property
    def share(self) -> Fraction | None:
        """Dormant neurons over all that were observed; None where there are none."""
        return Fraction(self.dormant, self.neurons) if self.neurons else None

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        from iftplan.models.dynamic.tables import dormant_table

        return (dormant_table(self),)

    def records(self) -> Sequence[Record]:
        """A row for each layer."""
        return [
            {
                "name": layer.name,
                "readers": " ".join(layer.readers),
                "neurons": len(layer.scores),
                "dormant": len(layer.dormant),
                "dormant_share": float(layer.share),
                "dormant_share_exact": fraction(layer.share),
                "lowest_score": min(layer.scores),
            }
            for layer in self.layers
        ]
