"""Trained weights on disk: a state dict in one file, what `save_sparse` wrote, or the folder of Hugging Face's libraries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from iftplan.base.errors import InputError, one_line
from iftplan.nn.export.sparse_files.contents import is_sparse_file
from iftplan.nn.export.sparse_files.load import load_sparse

_WHOLE: Final = ("model.safetensors", "pytorch_model.bin")
"""Files of a folder that hold all weights, in the order in which they are looked for."""


def weights_in(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a file or folder; nothing in it is run.

    A folder holds `model.safetensors` or `pytorch_model.bin`, or the shards that `model.safetensors.index.json` or
    `pytorch_model.bin.index.json` lists, as `save_pretrained` writes them.

    Args:
        path: of a .safetensors, .pt, .pth or .bin file, or of a folder.

    Raises:
        InputError: there are no weights, they cannot be read, or safetensors is not installed.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise InputError(
            f"there is nothing at {path}; name a state dict as .safetensors, .pt or .pth, or a folder with model.safetensors."
        )
    return _file(path)


def holds_weights(path: Path) -> bool:
    """Whether a folder has weights as Hugging Face's libraries write them."""
    return any((path / name).is_file() for whole in _WHOLE for name in (whole, f"{whole}.index.json"))


def _folder(path: Path) -> Mapping[str, Tensor]:
    for name in _WHOLE:
        if (path / name).is_file():
            return _file(path / name)
        index = path / f"{name}.index.json"
        if index.is_file():
            return _shards(index)
    raise InputError(
        f"the folder {path} has no weights: none of {', '.join(_WHOLE)} and their .index.json. Name a file with a state dict."
    )


def _shards(index: Path) -> Mapping[str, Tensor]:
    """The tensors of all shards, each where the index says."""
    places = _places(index)
    found: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        held = _file(index.parent / shard)
        found.update({name: tensor for name, tensor in held.items() if places.get(name) == shard})
    if missing := sorted(places.keys() - found.keys()):
        raise InputError(
            f"{index} lists {missing[0]}{' and others' if missing[1:] else ''}, which the shards beside it do not hold; download the folder again."
        )
    return found


def _places(index: Path) -> Mapping[str, str]:
    """Tensor name → file of an index."""
    try:
        places: Any = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        whole = isinstance(places, dict) and all(isinstance(x, str) for x in places.values())
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise InputError(f"{index} cannot be read as an index of weights ({error}).") from error
    if not whole or any(Path(file).name != file for file in places.values()):
        raise InputError(f"{index} names files that do not lie beside it; its weight_map must be file names.")
    return dict(places)


def _file(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise InputError(
            f"there is no file {path}, which an index beside it names; download the folder again."
        )
    if path.suffix == ".safetensors" and is_sparse_file(path):
        return load_sparse(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise InputError(
            f"{path} needs safetensors, which is not installed; install it with: pip install safetensors."
        ) from error
    except Exception as error:  # whatever bytes make of an unpickler
        told = one_line(error, 200)
        raise InputError(f"{path} cannot be read as a state dict ({told}).") from error
    for key in ("state_dict", "model"):  # as timm and torchvision's scripts write them
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{path} holds no state dict: parameter names and their tensors.")
    return found
