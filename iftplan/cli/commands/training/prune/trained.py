"""The trained network that `iftplan prune` starts from, and the data that it is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from iftplan.base.errors import InputError
from iftplan.cli.commands.training.prune.choices import Choices
from iftplan.cli.kept_answers import made_here
from iftplan.cli.output import say

if TYPE_CHECKING:
    from iftplan.models.spec import InputSpec, ModelSpec
    from iftplan.nn.training.measures.pruning.one_shot import Judge
    from iftplan.nn.training.measures.pruning.trained import Trained


def trained_network(
    model: str,
    source: str | None,
    weights: str,
    inputs: Sequence[InputSpec],
    trust: bool,
    no_cache: bool,
) -> tuple[Trained, ModelSpec]:
    """The trained network, and its layers.

    Args:
        model: a run's directory, one of its checkpoints, or a model.
        source: of a run's model, where its plan does not suffice.
        weights: file of a model's weights; empty for its own.
        inputs: that the network takes; empty for those of the run or the model.
        trust: whether a plan may name Python.
        no_cache: whether kept answers are left alone.

    Raises:
        InputError: options that do not go together, or a directory without a run.
    """
    from iftplan.cli.arguments import document_in, plan_in, spec_of
    from iftplan.nn.training.measures.pruning.trained import trained_run, trained_source

    path = Path(model)
    beside = (path if path.is_dir() else path.parent) / "plan.json"
    is_run = path.is_dir() or (path.is_file() and path.name.startswith("checkpoint-"))
    if not is_run:
        if source:
            raise InputError(f"--model belongs to a run, and {model} is a model. Leave it out.")
        spec = spec_of(model, inputs, no_cache=no_cache, watched=False)
        return trained_source(model, inputs, weights), spec
    if weights:
        raise InputError(
            f"--weights belongs to a model, and {model} is a run with weights of its own. Leave it out."
        )
    if not beside.is_file():
        raise InputError(
            f"{path} is no run: there is no {beside}. Name the directory of an iftplan train --method dense, or a model."
        )
    from iftplan.nn.application.dense_model import dense_model

    document = document_in(str(beside))
    assert document is not None
    plan = plan_in(document, str(beside))
    trusted = trust or (not source and made_here(document, no_cache))
    dense_model(plan, source, trust=trusted)
    named = source or plan.model
    spec = spec_of(named, tuple(inputs) or plan.inputs, no_cache=no_cache, watched=False)
    return trained_run(path, named, say), spec


def judge_of(trained: Trained, chosen: Choices) -> Judge | None:
    """Data and measure that a network is calibrated and scored with; None without data.

    Args:
        trained: the network, whose run may name data.
        chosen: how to prune.

    Raises:
        InputError: data are needed, and there are none.
    """
    from iftplan.nn.training.measures.pruning.one_shot import Judge
    from iftplan.runs.settings import DataConfig

    settings = trained.data
    if chosen.data:
        settings = replace(settings or DataConfig(), path=chosen.data, kind="auto")
    if settings is None:
        needing = [f"--method {name}" for name in chosen.methods if name != "magnitude"]
        for what in (*needing, *(["--curve"] if chosen.curve else [])):
            raise InputError(f"{what} needs data. Name them with --data.")
        return None
    try:
        return Judge.of(settings, chosen.samples, chosen.seed, say)
    except InputError as error:
        if chosen.data or chosen.curve or set(chosen.methods) != {"magnitude"}:
            raise
        say(f"note: quality is not measured: {error}")  # magnitudes need no data
        return None
