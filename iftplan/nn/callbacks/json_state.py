"""The state of masks as JSON: eight weights to a byte, for trainers whose checkpoints hold nothing else."""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def pack(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state of numbers, texts, boolean tensors and mappings of these as a JSON object."""
    return {key: _packed(value) for key, value in state.items()}


def unpack(document: Mapping[str, Any]) -> dict[str, Any]:
    """The state that was packed; tensors are on the CPU.

    Raises:
        ValueError: it was not made by `pack`.
    """
    return {key: _unpacked(value) for key, value in document.items()}


def _packed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return pack(value)
    if isinstance(value, Tensor):
        bits = np.packbits(value.cpu().numpy().reshape(-1))
        return {"shape": list(value.shape), "bits": b64encode(zlib.compress(bits.tobytes(), 1)).decode()}
    return value


def _unpacked(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if value.keys() != {"shape", "bits"}:
        return unpack(value)
    try:
        shape = torch.Size(value["shape"])
        bits = np.frombuffer(zlib.decompress(b64decode(value["bits"], validate=True)), np.uint8)
        return torch.from_numpy(np.unpackbits(bits, count=shape.numel()).astype(bool)).view(shape)
    except (zlib.error, TypeError, RuntimeError) as error:
        raise ValueError(f"not a packed tensor: {error}") from error
