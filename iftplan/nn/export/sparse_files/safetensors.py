"""The safetensors format: a header of JSON, then the tensors' bytes; reading it runs nothing.

Written here so that no other library is needed and a damaged file is told from a stranger's. Other readers of the
format read these files too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from iftplan.base.documents import write_bytes
from iftplan.base.errors import InputError

_TYPES: Final[Mapping[str, torch.dtype]] = {
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F32": torch.float32,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES: Final = {dtype: name for name, dtype in _TYPES.items()}
_METADATA: Final = "__metadata__"
_LONGEST_HEADER: Final = 100_000_000  # bytes, as in other readers of the format


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as one safetensors file, in one step.

    Args:
        path: of the file, which is overwritten.
        tensors: by name, on any device.
        metadata: texts by name.

    Raises:
        InputError: the format has no such type of numbers, or the place cannot be written.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise InputError(
                f"{name} is of {tensor.dtype}, which safetensors files cannot hold; convert it first, such as to float32."
            )
    # the widest first, so that every tensor lies at a multiple of the size of its numbers
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    begin = 0
    for name in order:
        tensor = tensors[name]
        end = begin + tensor.numel() * tensor.itemsize
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(
        b"".join([len(text).to_bytes(8, "little"), text, *(_bytes(tensors[name]) for name in order)]),
        str(path),
    )


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, on the CPU.

    Raises:
        InputError: there is no such file, it is cut off, or it is another kind of file; says which.
    """
    try:
        content = bytearray(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); name a .safetensors file.") from error
    header, start = _header(content, path)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise InputError(f"{path} is not a safetensors file: its metadata are not texts by name.")
    places = {name: _place(name, entry, path) for name, entry in header.items()}
    at = 0
    for name, (_, _, begin, end) in sorted(places.items(), key=lambda item: item[1][2:]):
        if begin != at:
            raise InputError(
                f"{path} is damaged: {name} begins at byte {begin} of the tensors, and the one before ends at {at}."
            )
        at = end
    there = len(content) - start
    if there != at:
        raise InputError(
            f"{path} is {'cut off' if there < at else 'damaged'}: its header describes {at} bytes of tensors, and there are {there}; copy or save the file again."
        )
    return {
        name: _tensor(content, dtype, shape, start + begin)
        for name, (dtype, shape, begin, _) in places.items()
    }, metadata


def _header(content: bytearray, path: Path) -> tuple[dict[str, Any], int]:
    """The header, and the byte behind it."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or not 2 <= length <= _LONGEST_HEADER or content[8:9] != b"{":
        raise InputError(
            f"{path} is not a safetensors file: it does not begin with the length of a header and the header."
        )
    if len(content) < 8 + length:
        raise InputError(
            f"{path} is cut off: its header has {length} bytes, and {len(content) - 8} are there; copy or save the file again."
        )
    try:
        header = json.loads(content[8 : 8 + length].decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a safetensors file: its header is not JSON ({error}).") from error
    if not isinstance(header, dict):
        raise InputError(f"{path} is not a safetensors file: its header is not a table.")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _place(name: str, entry: Any, path: Path) -> tuple[torch.dtype, list[int], int, int]:
    """Type, shape, first byte and end of a tensor."""
    keys = {"dtype", "shape", "data_offsets"}
    if not isinstance(entry, dict) or set(entry) != keys:
        raise InputError(
            f"{path} is not a safetensors file: the header's {name} has not the keys {', '.join(sorted(keys))}."
        )
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not (_are_counts(shape) and _are_counts(offsets) and len(offsets) == 2):
        raise InputError(f"{path} is damaged: the shape or the place of {name} is not of whole numbers.")
    dtype = _TYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise InputError(
            f"{path}: {name} is of the type {entry['dtype']!r:.40}, which is not read; types are {', '.join(_TYPES)}."
        )
    size, (begin, end) = prod(shape) * dtype.itemsize, offsets
    if end - begin != size:
        raise InputError(
            f"{path} is damaged: {name} of shape {shape} takes {size} bytes, and its place has {end - begin}."
        )
    return dtype, shape, begin, end


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(count) is int and count >= 0 for count in value)


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return b"" if not flat.numel() else _swapped(flat).view(torch.uint8).numpy().tobytes()


def _tensor(content: bytearray, dtype: torch.dtype, shape: list[int], at: int) -> Tensor:
    if not prod(shape):
        return torch.empty(shape, dtype=dtype)
    # a copy, which is aligned and does not keep the whole file
    flat = torch.frombuffer(content, dtype=torch.uint8, count=prod(shape) * dtype.itemsize, offset=at).clone()
    return _swapped(flat.view(dtype)).reshape(shape)


def _swapped(flat: Tensor) -> Tensor:
    """Numbers in the order of bytes that the file has, or this machine."""
    if sys.byteorder == "little" or flat.itemsize == 1:
        return flat
    return flat.view(torch.uint8).view(-1, flat.itemsize).flip(1).reshape(-1).view(flat.dtype)
