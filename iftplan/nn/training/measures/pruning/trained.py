"""Networks with trained weights: of a run, of a file, or as their factory makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from iftplan.base.documents import loads, read_text
from iftplan.base.errors import InputError, StaleError
from iftplan.models.spec import InputSpec
from iftplan.nn.export.finalize import densify_
from iftplan.nn.export.weights import weights_in
from iftplan.nn.masking.loading import load_masked_
from iftplan.nn.sources import build
from iftplan.nn.training.from_checkpoint import checkpoint_at, evaluated_weights
from iftplan.nn.training.measures.activity import network_with_values
from iftplan.nn.training.records.state_check import loading
from iftplan.nn.warmstart.adapters import merged
from iftplan.nn.warmstart.transfer import load_
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
            densify_(load_masked_(network, merged(evaluated_weights(state))))
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
        weights: a file or folder with a state dict (`iftplan.nn.export.weights`); empty for the factory's own.

    Raises:
        InputError: the network cannot be built, or the file not be read or is of another network.
    """
    network, _ = network_with_values(source, inputs)
    if not weights:
        return Trained(network, source)
    try:
        load_(network, weights_in(Path(weights)))
    except StaleError as error:
        raise InputError(f"{weights} is not of {source}: {error}") from error
    return Trained(densify_(network), weights)
