"""Weight decay of factors by their product: its value and gradient by hand, what it is refused for, and a resumed run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from iftplan.base.errors import InputError
from iftplan.nn.layers.branches import Doped, Factorized
from iftplan.nn.training.optimization.folded_decay import folded_decay
from tests.support.runs.executed import StoppedRunError, executed, small_run


@pytest.mark.parametrize("member", [Factorized, Doped])
@pytest.mark.parametrize("layer", [nn.Linear(6, 5), nn.Conv2d(4, 5, 3, bias=False)])
def test_the_term_is_the_norm_of_the_folded_matrix(member: Any, layer: nn.Module) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(member(layer, 3)).double()
    decay = folded_decay(network, 0.2)
    u, v = network[0].U.weight, network[0].V.weight
    folded = v.reshape(5, 3) @ u.reshape(3, -1)
    torch.testing.assert_close(decay.loss(), 0.1 * folded.square().sum())
    decay.loss().backward()
    # ∂(λ/2·‖VU‖²)/∂U = λ·Vᵀ·V·U, ∂/∂V = λ·V·U·Uᵀ
    torch.testing.assert_close(u.grad.reshape(3, -1), 0.2 * v.reshape(5, 3).T @ folded)
    torch.testing.assert_close(v.grad.reshape(5, 3), 0.2 * folded @ u.reshape(3, -1).T)
    assert decay.factors == {u, v}


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (nn.Sequential(nn.Linear(3, 2)), "this network has none"),
        (nn.Sequential(Factorized(nn.Linear(3, 2), 2, lambda n: nn.ReLU())), "0 has a non-linearity between"),
        (nn.Sequential(Factorized(nn.Conv2d(4, 4, 3, groups=2), 2)), "is a convolution in groups"),
        (nn.Sequential(Factorized(nn.ConvTranspose2d(4, 4, 3), 2)), "is a transposed convolution"),
    ],
)
def test_what_is_no_product_is_refused(network: nn.Module, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        folded_decay(network, 0.1)


LINEAR = {
    "plan": {"transform": "factorized", "sparsity": "1/2", "nonlinear": False},
    "optimizer": {"decay": "product", "weight_decay": 0.05},
    "training": {"checkpoint_interval": 4},
}


def test_a_decoupled_optimizer_is_refused(tmp_path: Path) -> None:
    settings = {**LINEAR, "optimizer": {"name": "adamw", "decay": "product"}}
    with pytest.raises(InputError, match="adamw decays weights beside the loss"):
        executed(small_run(settings), tmp_path)


@pytest.mark.slow
def test_a_run_decays_products_and_resumes_to_the_bit(tmp_path: Path) -> None:
    run = small_run(LINEAR)
    result = executed(run, tmp_path / "whole")
    with pytest.raises(StoppedRunError):
        executed(run, tmp_path / "half", stop=6)
    assert executed(run, tmp_path / "half", resume=True) == result
    other = small_run({**LINEAR, "optimizer": {"decay": "weights", "weight_decay": 0.05}})
    assert executed(other, tmp_path / "other")["weights_digest"] != result["weights_digest"]
