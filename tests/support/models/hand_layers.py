"""Layers as algorithms see them, from numbers that a test writes down."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from iftplan.nn.masking.layer import Layer


def layer(
    magnitude: list[float],
    mask: list[int],
    gradient: list[float] | None = None,
    *,
    rows: int = 1,
    target: int | None = None,
    saliency: list[float] | None = None,
    name: str = "weight",
) -> Layer:
    def shaped(values: list[float] | None) -> Tensor | None:
        return None if values is None else torch.tensor(values, dtype=torch.float32).view(rows, -1)

    kept = torch.tensor(mask).bool().view(rows, -1)
    size = int(kept[0].sum()) if target is None else target
    weights = shaped(magnitude)
    assert weights is not None
    return Layer(name, weights, shaped(gradient), shaped(saliency), kept, size, Generator().manual_seed(0))


def ones(mask: Tensor) -> list[int]:
    return mask.view(-1).nonzero().view(-1).tolist()
