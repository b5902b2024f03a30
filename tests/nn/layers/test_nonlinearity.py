"""What stands inside members: norm and activation, the norm alone, nothing, or what the paper's code has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from iftplan.nn.application.apply import apply
from iftplan.nn.layers.branches import Member
from iftplan.nn.layers.nonlinearity import Inside
from tests.support.models.applied import host, planned

FULL, NORM, NOTHING = ("BatchNorm2d", "ReLU"), ("BatchNorm2d",), ()


def inside(model: nn.Module) -> set[tuple[str, ...]]:
    """Classes of what stands inside each member, but for the convolutions."""
    members = [m for m in model.modules() if isinstance(m, Member)]
    assert members
    plain = (nn.Conv2d, nn.Sequential, nn.ModuleList, nn.Identity)
    found = set()
    for member in members:
        parts: Any = member.nonlinearities if hasattr(member, "nonlinearities") else [member.nonlinearity]
        for part in parts:
            found.add(tuple(type(m).__name__ for m in part.modules() if not isinstance(m, plain)))
    return found


@pytest.mark.parametrize("family", ["parallel", "factorized", "doped"])
@pytest.mark.parametrize(
    ("asked", "expected"), [(True, FULL), ("norm", NORM), (False, NOTHING), ("reference", None)]
)
def test_members_have_inside_what_was_asked_for(
    family: str, asked: Inside, expected: tuple[str, ...] | None
) -> None:
    """`BlockISOFlopParallel` sums normalised branches before its ReLU; `DopedConv3x3` is linear."""
    model = apply(planned("convolutions", family), host("convolutions"), nonlinear=asked)
    code: dict[str, Any] = {"parallel": NORM, "factorized": FULL, "doped": NOTHING}
    assert inside(model) == {code[family] if expected is None else expected}


def test_branches_with_norms_alone_are_summed_before_the_activation() -> None:
    torch.manual_seed(0)
    model = apply(planned("convolutions", "parallel"), host("convolutions"), nonlinear="norm")
    member: Any = next(m for m in model.modules() if isinstance(m, Member)).double().train()
    x = torch.randn(4, member.in_channels, 8, 8, dtype=torch.float64)
    parts = [norm(branch(x)) for branch, norm in zip(member.branches, member.nonlinearities, strict=True)]
    total = torch.stack(parts).sum(0)
    assert (total < 0).any()
    torch.testing.assert_close(member(x), total)
