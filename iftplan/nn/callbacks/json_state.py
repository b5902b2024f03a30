"""The state of masks as JSON: eight weights of a mask to a byte, for trainers whose checkpoints hold nothing else."""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

_DTYPES: Final = MappingProxyType(
    {str(x).removeprefix("torch."): x for x in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
)
"""Of what methods remember beside masks, such as averages of gradients."""


def pack(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state of numbers, texts, tensors and mappings of these as a JSON object."""
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
    if not isinstance(value, Tensor):
        return value
    flat, shape = value.detach().cpu().reshape(-1), list(value.shape)
    if value.dtype is torch.bool:
        return {"shape": shape, "bits": _text(np.packbits(flat.numpy()).tobytes())}
    kind = str(value.dtype).removeprefix("torch.")
    return {
        "shape": shape,
        "dtype": kind,
        "bytes": _text(flat.contiguous().view(torch.uint8).numpy().tobytes()),
    }


def _text(content: bytes) -> str:
    return b64encode(zlib.compress(content, 1)).decode()


def _unpacked(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if value.keys() not in ({"shape", "bits"}, {"shape", "dtype", "bytes"}):
        return unpack(value)
    try:
        shape = torch.Size(value["shape"])
        content = bytearray(zlib.decompress(b64decode(value.get("bits", value.get("bytes")), validate=True)))
        if "bits" in value:
            bits = np.unpackbits(np.frombuffer(content, np.uint8), count=shape.numel())
            return torch.from_numpy(bits.astype(bool)).view(shape)
        dtype = _DTYPES[value["dtype"]]
        return (
            torch.frombuffer(content, dtype=dtype).view(shape) if content else torch.empty(shape, dtype=dtype)
        )
    except (zlib.error, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"not a packed tensor: {error}") from error
