"""A selective state-space model by scan (arXiv 2312.00752), and its twin as a loop."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import torch
from flax import linen
from torch import Tensor, nn


class StateSpace(linen.Module):
    """One layer of Mamba: the state is updated element by element and read by a product."""

    width: int = 16
    inner: int = 32
    state: int = 8
    rank: int = 4

    @linen.compact
    def __call__(self, x: Any) -> Any:
        u, gate = jnp.split(linen.Dense(2 * self.inner, use_bias=False)(x), 2, -1)
        u = linen.silu(linen.Conv(self.inner, (4,), padding=((3, 0),), feature_group_count=self.inner)(u))
        step, b, c = jnp.split(
            linen.Dense(self.rank + 2 * self.state, use_bias=False)(u),
            [self.rank, self.rank + self.state],
            -1,
        )
        step = linen.softplus(linen.Dense(self.inner)(step))
        decay = self.param("decay", linen.initializers.ones, (self.inner, self.state))

        def move(h: Any, now: Any) -> tuple[Any, Any]:
            u, step, b, c = now
            h = h * jnp.exp(-step[..., None] * decay) + (step * u)[..., None] * b[:, None]
            return h, jnp.einsum("bdn,bn->bd", h, c)

        rows = tuple(part.swapaxes(0, 1) for part in (u, step, b, c))
        _, y = jax.lax.scan(move, jnp.zeros((x.shape[0], self.inner, self.state)), rows)
        return linen.Dense(self.width, use_bias=False)(y.swapaxes(0, 1) * linen.silu(gate))


def state_space() -> tuple[Any, Any]:
    """The model and its input."""
    return StateSpace(), jax.ShapeDtypeStruct((2, 12, 16), jnp.float32)


class TorchStateSpace(nn.Module):
    """The same in PyTorch."""

    def __init__(self, width: int = 16, inner: int = 32, state: int = 8, rank: int = 4) -> None:
        super().__init__()
        self.sizes = (rank, state, state)
        self.enter = nn.Linear(width, 2 * inner, bias=False)
        self.near = nn.Conv1d(inner, inner, 4, groups=inner)
        self.select = nn.Linear(inner, rank + 2 * state, bias=False)
        self.step = nn.Linear(rank, inner)
        self.decay = nn.Parameter(torch.ones(inner, state))
        self.leave = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.enter(x).chunk(2, -1)
        u = nn.functional.silu(self.near(nn.functional.pad(u.mT, (3, 0))).mT)
        step, b, c = self.select(u).split(self.sizes, -1)
        step = nn.functional.softplus(self.step(step))
        h, outputs = torch.zeros(len(x), *self.decay.shape, device=x.device), []
        for t in range(x.shape[1]):
            h = h * torch.exp(-step[:, t, :, None] * self.decay) + (step * u)[:, t, :, None] * b[:, t, None]
            outputs.append(torch.einsum("bdn,bn->bd", h, c[:, t]))
        out: Tensor = self.leave(torch.stack(outputs, 1) * nn.functional.silu(gate))
        return out
