"""Weights that a model draws on the meta device are left as they are, and what torch refuses is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from iftplan.nn.meta.factories import WithoutDraws


def outcome(draw: Callable[[Tensor], object], weight: Tensor) -> object:
    try:
        draw(weight)
    except (RuntimeError, ValueError, TypeError) as error:
        return type(error)
    return weight.shape, weight.dtype, weight.is_meta, weight.requires_grad


DRAWS: dict[str, Callable[[Tensor], object]] = {
    "normal": lambda w: nn.init.normal_(w, std=0.02),
    "uniform": nn.init.uniform_,
    "zeros": nn.init.zeros_,
    "truncated": lambda w: nn.init.trunc_normal_(w, std=0.02),
    "kaiming": lambda w: nn.init.kaiming_normal_(w, mode="fan_out"),
    "xavier": nn.init.xavier_normal_,
    "orthogonal": nn.init.orthogonal_,
    "a method": lambda w: w.normal_(0.0, 0.02),
    "without gradients": lambda w: torch.no_grad()(w.normal_)(),
    "its data": lambda w: w.data.normal_(mean=0.0, std=0.02),
    "a generator": lambda w: w.data.normal_(generator=torch.Generator("cpu")),
    "a tensor": lambda w: w.data.mul_(torch.ones(3)),
    "another shape": lambda w: w.data.add_(torch.ones(7)),
    "a text": lambda w: w.data.add_("1"),  # type: ignore[arg-type]  # it is refused
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("shape", [(4, 3), (3,), (2, 3, 3)])
@pytest.mark.parametrize("parameter", [True, False])
def test_a_draw_comes_out_as_torch_has_it(name: str, shape: tuple[int, ...], parameter: bool) -> None:
    def weight() -> Tensor:
        empty = torch.empty(shape, device="meta")
        return nn.Parameter(empty) if parameter else empty

    expected = outcome(DRAWS[name], weight())
    with WithoutDraws():
        assert outcome(DRAWS[name], weight()) == expected


def test_weights_with_values_are_drawn() -> None:
    weight = torch.zeros(3)
    with WithoutDraws():
        nn.init.normal_(weight)
        assert weight.count_nonzero() == 3
        weight.fill_(2.0)
    assert weight.tolist() == [2.0, 2.0, 2.0]


def test_drawing_on_the_meta_device_is_left_out() -> None:
    seen: list[object] = []

    class Seen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, func: object, types: object, args: tuple[object, ...] = (), kwargs: object = None
        ) -> object:
            seen.append(func)
            return args[0]

    weight = nn.Parameter(torch.empty(3, 3, device="meta"))
    with Seen(), WithoutDraws():
        nn.init.normal_(weight)
        nn.init.kaiming_normal_(weight)
        nn.init.trunc_normal_(weight)
    assert not seen
