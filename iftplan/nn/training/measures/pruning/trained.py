"""Networks with trained weights: of a run, of a file, or as their factory makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from iftplan.base.documents import loads, read_text
from iftplan.base.errors import InputError, StaleError
from iftplan.models.spec import InputSpec
from iftplan.nn.export.finalize import densify_
from iftplan.nn.export.sparse_files.contents import is_sparse_file
from iftplan.nn.export.sparse_files.load import load_sparse
from iftplan.nn.masking.loading import load_masked_
from iftplan.nn.sources import build
from iftplan.nn.training.from_checkpoint import checkpoint_at
from iftplan.nn.training.measures.activity import network_with_values
from iftplan.nn.training.records.state_check import loading
from iftplan.runs.document import parse_run
from iftplan.runs.records import parse_record
from iftplan.runs.settings import DataConfig


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A dense network with trained weights.

    Attributes:
        network: on the CPU, without masks.
        weights: where its weights come from, for people.
        data: that it was trained on; None where that is not known.
    """

    network: nn.Module
    weights: str
    data: DataConfig | None = None


def trained_run(path: Path, source: str, say: Callable[[str], None]) -> Trained:
    """The dense network that a run trained; of a run with masks at dense widths, its zeros stay zero.

    Args:
        path: the run's directory, or one of its checkpoints.
        source: of the run's dense model.
        say: takes a sentence on each checkpoint that is refused.

    Raises:
        InputError: there is no checkpoint, or the run trained a network of other widths than its dense model.
    """
    step, state = checkpoint_at(path, say)
    network = build(source, device="cpu")
    try:
        with loading(str(path)):
            densify_(load_masked_(network, state["model"]))
    except StaleError as error:
        raise InputError(
            f"{path} holds another network than {source}, the dense model of its plan: it was trained at the plan's widths, branches or ranks. Prune a run of the method dense."
        ) from error
    record = (path if path.is_dir() else path.parent) / "run.json"
    data = None
    if record.is_file():
        settings = parse_record(loads(read_text(str(record)), str(record)), str(record)).get("config")
        data = parse_run(settings, str(record)).data if settings else None
    return Trained(network, f"{path}, step {step}", data)


def trained_source(source: str, inputs: Sequence[InputSpec], weights: str) -> Trained:
    """The network of a source, with the weights in a file or those that its factory gives.

    Args:
        source: a MODEL argument.
        inputs: that the user gave; empty for none.
        weights: a state dict in a .safetensors, .pt or .pth file, or what `save_sparse` wrote; empty for the factory's own.

    Raises:
        InputError: the network cannot be built, or the file not be read or is of another network.
    """
    network, _ = network_with_values(source, inputs)
    if not weights:
        return Trained(network, source)
    try:
        densify_(load_masked_(network, state_in(Path(weights))))
    except StaleError as error:
        raise InputError(f"{weights} is not of {source}: {error}") from error
    return Trained(network, weights)


def state_in(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a file; nothing in it is run.

    Raises:
        InputError: it cannot be read, or safetensors is not installed.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; name a state dict as .safetensors, .pt or .pth.")
    if path.suffix == ".safetensors" and is_sparse_file(path):
        return load_sparse(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise InputError(
            f"{path} needs safetensors, which is not installed; install it with: pip install safetensors."
        ) from error
    except Exception as error:  # whatever bytes make of an unpickler
        told = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be read as a state dict ({told}).") from error
    for key in ("state_dict", "model"):  # as timm and torchvision's scripts write them
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{path} holds no state dict: parameter names and their tensors.")
    return found
