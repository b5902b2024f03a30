"""Losses of distillation by hand."""

from __future__ import annotations

from collections import OrderedDict
from math import log
from typing import Any

import pytest
import torch
from torch import nn

from iftplan.base.errors import InputError
from iftplan.nn.training.optimization.distillation import Teacher, logit_loss, square_head
from iftplan.runs.settings import DistillationConfig


def test_logits_by_hand() -> None:
    """Teacher (3/4, 1/4) and student (1/2, 1/2): KL = 3/4·ln 3/2 + 1/4·ln 1/2."""
    teacher = torch.tensor([[2 * log(3.0), 0.0]])
    expected = 4 * (0.75 * log(1.5) + 0.25 * log(0.5))
    assert float(logit_loss(torch.zeros(1, 2), teacher, 2.0)) == pytest.approx(expected, rel=1e-6)
    assert float(logit_loss(teacher, teacher, 2.0)) == pytest.approx(0, abs=1e-7)
    twice = torch.cat([teacher, teacher])
    assert float(logit_loss(torch.zeros(2, 2), twice, 2.0)) == pytest.approx(expected, rel=1e-6)


def test_its_gradient_goes_to_that_of_squared_logits_at_high_temperature() -> None:
    """arXiv 1503.02531, eq. 4: T²·∂L/∂z → (z - v)/N for logits of mean zero."""
    student = torch.tensor([[1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[3.0, -3.0]], dtype=torch.float64)
    logit_loss(student, teacher, 1000.0).backward()
    assert student.grad is not None
    assert student.grad.tolist()[0] == pytest.approx([-1.0, 1.0], rel=1e-2)


def test_features_by_hand() -> None:
    student = [torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 2.0]])]
    teacher = [torch.tensor([[2.0, 0.0]]), torch.tensor([[2.0, 0.0]])]
    assert float(square_head(student, teacher)) == pytest.approx((1 / 4 + 4 / 4) / 2)


def test_ignored_targets_do_not_count() -> None:
    teacher, student = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    taught = Teacher(teacher, DistillationConfig("run", temperature=1.0, weight=1.0), 0, "")
    inputs, targets = torch.randn(4, 2), torch.tensor([0, -100, 2, -100])
    _, loss = taught.loss(inputs, targets, student, student)
    expected = logit_loss(student(inputs[::2]), teacher(inputs[::2]), 1.0)
    assert float(loss) == pytest.approx(float(expected))
    assert not any(p.requires_grad for p in teacher.parameters())


def taught(teacher: nn.Module, *names: str, **settings: Any) -> Teacher:
    student, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), torch.randn(1, 4)
    made = Teacher(teacher, DistillationConfig(teacher="t", features=1.0, **settings), 0, "")
    made.check_(student, student, x, names)
    return made


class Attended(nn.Module):
    """Attention, which reads the weight of its last layer and never calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.attention(x[:, None], x[:, None], x[:, None])[0][:, 0])


def test_features_that_cannot_be_compared_are_refused_or_left_out() -> None:
    with pytest.raises(InputError, match="no layer of one name"):
        taught(nn.Sequential(OrderedDict(a=nn.Linear(4, 4), b=nn.Linear(4, 3))), "0", "1")
    one, other, x = Attended(), Attended(), torch.randn(1, 4)
    names = ("attention.out_proj", "head")
    made = Teacher(other, DistillationConfig(teacher="t", features=1.0), 0, "")
    made.check_(one, one, x, names)
    assert made.layers == ("head",)
    for layer in ("attention", "attention.out_proj"):
        named = Teacher(other, DistillationConfig(teacher="t", features=1.0, layers=(layer,)), 0, "")
        with pytest.raises(InputError, match="not called by itself in both networks"):
            named.check_(one, one, x, names)
