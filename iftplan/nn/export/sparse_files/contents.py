"""Everything that a file of a sparse network holds, and the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import ConfigDict, with_config
from torch import Tensor
from typing_extensions import TypedDict

from iftplan.base.errors import InputError
from iftplan.base.validation import validate
from iftplan.nn.export.sparse_files.safetensors import read_tensors, write_tensors
from iftplan.nn.export.sparse_files.stored_weight import StoredWeight, WeightObject, decoded, encoded

SCHEMA: Final = "iftplan.sparse/1"
KEY: Final = "iftplan.sparse"
"""Name of the metadata under which a file says how its weights are stored."""
VALUES, MASK, SCALES = ".values", ".mask", ".scales"


@with_config(ConfigDict(extra="forbid"))
class ContentsObject(TypedDict):
    """Metadata of a file, as JSON under `iftplan.sparse`.

    Attributes:
        schema: kind and version.
        weights: the sparse ones by name; the tensors `NAME.values`, `NAME.mask` and, for 8-bit values, `NAME.scales` belong to each.
        shared: names of tensors that are the same as another one, and its name.
    """

    schema: Literal["iftplan.sparse/1"]
    weights: dict[str, WeightObject]
    shared: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """The state of a sparse network.

    Attributes:
        weights: sparse ones by name.
        others: all other tensors by name.
        shared: name of a tensor that is another one → that one's.
    """

    weights: Mapping[str, StoredWeight]
    others: Mapping[str, Tensor]
    shared: Mapping[str, str]

    def write(self, path: Path) -> None:
        """Write the file in one step.

        Raises:
            InputError: the place cannot be written, or a tensor is of a type that the format does not have.
        """
        tensors, entries = dict(self.others), dict[str, WeightObject]()
        for name, stored in self.weights.items():
            entries[name], tensors[name + MASK] = encoded(stored)
            tensors[name + VALUES] = stored.values
            if stored.scales is not None:
                tensors[name + SCALES] = stored.scales
        document: ContentsObject = {"schema": SCHEMA, "weights": entries, "shared": dict(self.shared)}
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        write_tensors(path, tensors, {"format": "pt", KEY: text})

    @classmethod
    def read(cls, path: Path) -> Contents:
        """The state in a file.

        Raises:
            InputError: there is none, or it is damaged or another kind of file; says which.
        """
        tensors, metadata = read_tensors(path)
        document = _document(metadata, path)
        weights = {name: _taken(name, entry, tensors, path) for name, entry in document["weights"].items()}
        shared = document["shared"]
        lost = next(
            (first for first in shared.values() if first not in weights and first not in tensors), None
        )
        if lost is not None or any(name in weights or name in tensors for name in shared):
            raise InputError(
                f"{path} is damaged: {lost or next(iter(shared))} should be a tensor once; save the file again."
            )
        return cls(weights, tensors, shared)


def is_sparse_file(path: Path) -> bool:
    """Whether a safetensors file says that it holds a sparse network."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return f'"{KEY}"'.encode() in file.read(min(length, 1 << 27))


def _document(metadata: Mapping[str, str], path: Path) -> ContentsObject:
    if KEY not in metadata:
        raise InputError(
            f"{path} holds plain tensors, not a sparse network; save one with iftplan.nn.save_sparse, or load the tensors with safetensors.torch.load_file."
        )
    try:
        document = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: its {KEY} is not JSON ({error}).") from error
    if isinstance(document, dict) and document.get("schema", SCHEMA) != SCHEMA:
        raise InputError(
            f"{path} is of the kind {document['schema']!r:.60}, and this version of iftplan reads {SCHEMA}; save it with this version, or load it with that one."
        )
    return validate(ContentsObject, document if isinstance(document, dict) else {}, str(path))


def _taken(name: str, entry: WeightObject, tensors: dict[str, Tensor], path: Path) -> StoredWeight:
    """A weight out of the tensors that belong to it."""
    for suffix in (VALUES, MASK):
        if name + suffix not in tensors:
            raise InputError(f"{path} is damaged: {name + suffix} is not there; save the file again.")
    content, values = tensors.pop(name + MASK), tensors.pop(name + VALUES)
    return decoded(entry, content, values, tensors.pop(name + SCALES, None), f"{path}: {name}")


def same_tensors(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of tensors that are another one before them, and that one's name."""
    first: dict[tuple[object, ...], str] = {}
    found: dict[str, str] = {}
    for name, tensor in state.items():
        if tensor.numel() == 0 or tensor.layout is not torch.strided:
            continue
        place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if (other := first.setdefault(place, name)) != name:
            found[name] = other
    return found
