"""Weight decay of low-rank pairs on their product: λ/2·‖V·U‖² in the place of λ/2·(‖U‖² + ‖V‖²).

It is what the code of arXiv 2303.11525 does for members without a non-linearity inside, whose two factors are one matrix
(`compute_joint_wd`; appendix B.1 has the runs). The norm follows from two small Gram matrices:
‖V·U‖² = Σ (VᵀV)⊙(UUᵀ), each rank × rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iftplan.base.errors import InputError
from iftplan.nn.layers.branches import Doped, Factorized


@dataclass(frozen=True, slots=True, eq=False)
class FoldedDecay:
    """Decay of a network's low-rank pairs.

    Attributes:
        decay: λ.
        pairs: the weights U and V of each.
    """

    decay: float
    pairs: tuple[tuple[nn.Parameter, nn.Parameter], ...]

    @property
    def factors(self) -> frozenset[nn.Parameter]:
        """Weights that do not decay by themselves."""
        return frozenset(weight for pair in self.pairs for weight in pair)

    def loss(self) -> Tensor:
        """Term λ/2·Σ‖V·U‖², to be added to the loss."""
        return torch.stack([_square_of_product(*pair) for pair in self.pairs]).sum() * (self.decay / 2)


def folded_decay(network: nn.Module, decay: float) -> FoldedDecay:
    """Decay of the products of a network's linear low-rank pairs.

    Args:
        network: with members of the families factorized, lowrank or doped.
        decay: λ.

    Raises:
        InputError: there is no such pair, or one is not one matrix: it has a non-linearity inside, groups, or is transposed.
    """
    members = {name: m for name, m in network.named_modules() if isinstance(m, Factorized | Doped)}
    if not members:
        raise InputError(
            "optimizer.decay=product is for layers that are factors U and V, and this network has none; use the families "
            "factorized, lowrank or doped, or optimizer.decay=weights."
        )
    for name, member in members.items():
        if why := _refusal(member):
            raise InputError(
                f"optimizer.decay=product needs factors that are one matrix, and {name} {why}; use optimizer.decay=weights."
            )
    return FoldedDecay(
        decay, tuple((m.U.get_parameter("weight"), m.V.get_parameter("weight")) for m in members.values())
    )


def _refusal(member: Factorized | Doped) -> str:
    if not isinstance(member.nonlinearity, nn.Identity):
        return "has a non-linearity between them (plan.nonlinear)"
    if getattr(member.U, "groups", 1) != 1:
        return "is a convolution in groups"
    if getattr(member.V, "transposed", False):
        return "is a transposed convolution"
    first, second = (part.get_parameter("weight") for part in (member.U, member.V))
    return "" if first.shape[0] == second.shape[1] else "holds several matrices"


def _square_of_product(first: Tensor, second: Tensor) -> Tensor:
    rank = first.shape[0]
    u, v = first.reshape(rank, -1), second.reshape(-1, rank)
    return ((v.T @ v) * (u @ u.T)).sum()
