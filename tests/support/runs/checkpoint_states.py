"""States that tests write into checkpoints, and one that should never be loaded."""

from __future__ import annotations

import os
from typing import Any

import torch


def state(value: float = 1.0) -> dict[str, Any]:
    return {
        "weights": {"a": torch.full((5, 3), value), "mask": torch.tensor([True, False])},
        "steps": 7,
        "text": "plan",
        "nothing": None,
        "rng": torch.get_rng_state(),
        "tuple": (3, 0.5, b"x"),
        "list": [1, 2],
    }


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    return type(left) is type(right) and left == right


def silent(message: str) -> None:
    raise AssertionError(message)


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)
