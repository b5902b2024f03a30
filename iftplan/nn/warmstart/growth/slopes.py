"""ReLU with slope 1 at 0, so that neurons whose incoming weights are zero can learn (arXiv 2201.05125, section 3)."""

from __future__ import annotations

from torch import Tensor, nn

from iftplan.base.arguments import check_arguments


class UnitSlopeReLU(nn.ReLU):
    """ReLU whose derivative at 0 is 1, where torch's is 0; every value and every other derivative is the same."""

    def forward(self, x: Tensor) -> Tensor:
        """The positive part of a tensor, never in place."""
        return x.masked_fill(x < 0, 0)


@check_arguments
def unit_slopes_(model: nn.Module) -> int:
    """Give every `torch.nn.ReLU` of a model slope 1 at 0, in place; returns how many were changed.

    State dictionaries stay the same. A ReLU that is called as a function is not found.

    Example:
        >>> unit_slopes_(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
        1
    """
    found = [module for module in model.modules() if type(module) is nn.ReLU]
    for module in found:
        module.__class__ = UnitSlopeReLU
    return len(found)
