"""Masks as bipartite graphs: how far a layer's spectrum is from that of the best expanders.

A layer is the graph whose left nodes are its m inputs, whose right nodes are its n outputs, and whose edges are the kept weights
(Hoang et al., "Don't just prune by magnitude! Your mask topology is a secret weapon", NeurIPS 2023; Sparse-IFT uses the measures
in arXiv 2303.11525, third version). The eigenvalues of such a graph are ± the singular values of the m×n mask, so the second
largest in size is the second *singular value*, not the second eigenvalue, which is minus the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

LEAST_DEGREE = 3
"""Average degree from which the bounds say something: below, graphs of this kind are mostly trees."""

MEASURES = ("delta_r", "delta_s", "imdb", "weighted_gap")
"""Names of a spectrum's measures, as tables have them."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Bipartite graph of a mask, or of a part of it, and the two largest singular values of its matrix.

    Attributes:
        left: degree of each input that is connected.
        right: degree of each output that is connected.
        first: largest singular value σ₁ of the 0/1 mask.
        second: second largest singular value σ₂; 0 where the mask has rank 1.
    """

    left: tuple[int, ...] = field(repr=False)
    right: tuple[int, ...] = field(repr=False)
    first: float
    second: float

    @property
    def left_degree(self) -> float:
        """Average degree of the connected inputs."""
        return sum(self.left) / len(self.left) if self.left else 0.0

    @property
    def right_degree(self) -> float:
        """Average degree of the connected outputs."""
        return sum(self.right) / len(self.right) if self.right else 0.0

    @property
    def is_dense_enough(self) -> bool:
        """Whether both average degrees are at least 3, which the bounds ask for."""
        return min(self.left_degree, self.right_degree) >= LEAST_DEGREE

    @property
    def ramanujan_bound(self) -> float:
        """Largest σ₂ of a Ramanujan graph of these average degrees, √(d_L-1) + √(d_R-1) (Feng and Li 1996)."""
        return sqrt(max(0.0, self.left_degree - 1)) + sqrt(max(0.0, self.right_degree - 1))

    @property
    def regular_bound(self) -> float:
        """Bound 2·√(σ₁-1), which needs no degrees."""
        return 2 * sqrt(max(0.0, self.first - 1))

    @property
    def delta_r(self) -> float:
        """Δr = √(d_L-1) + √(d_R-1) - σ₂: 0 and above for Ramanujan graphs, near 0 for random masks."""
        return self.ramanujan_bound - self.second

    @property
    def delta_s(self) -> float:
        """Δs = 2·√(σ₁-1) - σ₂."""
        return self.regular_bound - self.second


def mean_difference(parts: Sequence[Graph]) -> float | None:
    """Iterative mean difference of bounds (IMDB): the mean Δr over the left-regular parts of a mask.

    Args:
        parts: the subgraphs K_i of all inputs of one degree d_i with all outputs, of at least three inputs each.

    Returns:
        The mean of √(d_i-1) + √(d_R,i-1) - σ₂(K_i); None where there is no such part.
    """
    return sum(part.delta_r for part in parts) / len(parts) if parts else None


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Spectral measures of one layer's mask.

    Attributes:
        graph: of the whole mask.
        imdb: iterative mean difference of bounds; None where no three inputs have one degree.
        weighted_gap: σ₁ - σ₂ of |mask·weights|.
    """

    graph: Graph
    imdb: float | None
    weighted_gap: float

    @property
    def delta_r(self) -> float:
        """Δr of the whole mask."""
        return self.graph.delta_r

    @property
    def delta_s(self) -> float:
        """Δs of the whole mask."""
        return self.graph.delta_s

    def measures(self) -> dict[str, float | None]:
        """Δr, Δs, IMDB and the weighted gap, by the names of `MEASURES`."""
        return dict(zip(MEASURES, (self.delta_r, self.delta_s, self.imdb, self.weighted_gap), strict=True))
