"""Soups: one network with the mean weights of runs that share their masks (Sparse Model Soups, arXiv 2306.16788).

A uniform soup averages all runs. A greedy one (arXiv 2203.05482, recipe 1) begins with the run that is best on the
validation data and adds the others in that order, each if the average does not get worse. Batch norms saw the
activations of single runs, so their statistics are computed anew, over one epoch of training batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from iftplan.base.documents import Document, digest, dumps, loads, read_text, with_digest, write_text
from iftplan.base.errors import InputError, StaleError
from iftplan.base.units import fraction
from iftplan.nn.masking.averages import soup
from iftplan.nn.masking.loading import load_masked_
from iftplan.nn.training.data.batches import TrainingBatches, batches, watching_workers
from iftplan.nn.training.data.opening import open_data
from iftplan.nn.training.data.samples import Samples, Task
from iftplan.nn.training.from_checkpoint import checkpoint_at, evaluated_weights
from iftplan.nn.training.loop import Length
from iftplan.nn.training.measures.evaluation import Score, evaluate
from iftplan.nn.training.network import network_of
from iftplan.nn.training.parallel.engine import engine_for
from iftplan.nn.training.records import checkpoints
from iftplan.nn.training.records.claims import claim
from iftplan.nn.training.records.states import model_state, tensors_digest
from iftplan.nn.training.setup import versions
from iftplan.nn.warmstart.adapters import merged
from iftplan.plans.document.plan import parse_plan
from iftplan.runs.document import parse_run, run_digest
from iftplan.runs.records import check_together, parse_record, parse_result
from iftplan.runs.results.observations import metric_named
from iftplan.runs.results.pareto import Sense
from iftplan.runs.settings import DataConfig, RunConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Kind = Literal["uniform", "greedy"]
_NORMS = (nn.modules.batchnorm._BatchNorm,)
_LEFT_OUT = (
    "digest", "loss", "best_step", "gradient_bytes", "optimizer_bytes", "activation_bytes", "validation_loss", "validation_metric", "itop", "degree_of_constraint", "mask_updates",
)  # fmt: skip
"""Keys of a run's result that say nothing of an average."""


@dataclass(frozen=True, slots=True, eq=False)
class Ingredient:
    """Finished run, as a soup takes it.

    Attributes:
        name: its directory, as it was given.
        config: its settings.
        plan: its plan, as it is written.
        record: its `run.json`.
        result: its `result.json`.
        step: of the checkpoint that it stands for: the best, or the last.
        weights: state dict of the network that was evaluated there.
    """

    name: str
    config: RunConfig
    plan: Document
    record: Document
    result: Document
    step: int
    weights: dict[str, Tensor]


def ingredients_of(directories: Sequence[str], say: Callable[[str], None]) -> tuple[Ingredient, ...]:
    """Runs that can be averaged: of one plan, on the same data, with the same masks.

    Args:
        directories: of the runs.
        say: takes a sentence on each checkpoint that is refused.

    Raises:
        InputError: one is no finished run, or they share no data or no masks; names it.
        StaleError: they are of different plans.
    """
    if len({Path(name).resolve() for name in directories}) < max(2, len(directories)):
        raise InputError(
            f"a soup is an average of different runs, and {', '.join(directories) or 'none'} {'was' if len(directories) < 2 else 'were'} given; name two or more, each once."
        )
    found = tuple(_ingredient(name, say) for name in directories)
    first = found[0]
    for other in found[1:]:
        if other.plan["digest"] != first.plan["digest"]:
            raise StaleError(
                f"{other.name} was trained for another plan (digest {other.plan['digest'][:12]}…) than {first.name} "
                f"({first.plan['digest'][:12]}…); average runs of one plan."
            )
        if (
            _learnt(other.config.data) != _learnt(first.config.data)
            or other.result["data"] != first.result["data"]
        ):
            raise InputError(
                f"{other.name} was trained on other data, or kept other parts aside, than {first.name} (see [data] in their "
                "run.json); average runs that learn and are tested on the same samples."
            )
    soup(
        [one.weights for one in found], [one.name for one in found]
    )  # refuses other masks before data are read
    return found


def _ingredient(name: str, say: Callable[[str], None]) -> Ingredient:
    directory = Path(name)
    texts = {kind: directory / f"{kind}.json" for kind in ("run", "result", "plan")}
    for kind, path in texts.items():
        if not path.is_file():
            told = (
                "has not ended; finish it first"
                if kind == "result" and texts["run"].is_file()
                else "is no run"
            )
            raise InputError(f"{name} {told}: it holds no {path.name}. A soup is made of finished runs.")
    run, result, plan = (loads(read_text(str(path)), str(path)) for path in texts.values())
    record = parse_record(run, str(texts["run"]))
    parse_result(result, str(texts["result"]))
    check_together(result, record, name)
    missing = [key for key in ("steps", "samples", "dense_train_macs", "run_digest") if key not in result]
    if missing:
        raise InputError(f"{texts['result']} has no key {missing[0]!r}, so the cost of {name} is not known.")
    if "soup" in record:
        raise InputError(f"{name} is a soup itself; name the runs that it was made of.")
    step, state = checkpoint_at(directory, say)
    return Ingredient(
        name, parse_run(record["config"], name), plan, record, result, step, merged(evaluated_weights(state))
    )


def _learnt(data: DataConfig) -> DataConfig:
    """What the samples of a run follow from: not where they lie, nor how they are augmented."""
    same = DataConfig()
    free = (
        "path",
        "workers",
        "crop",
        "flip",
        "cutout",
        "mixup",
        "color_jitter",
        "shorter_side",
        "random_resized_crop",
    )
    return replace(data, **{name: getattr(same, name) for name in free})


@torch.no_grad()
def recompute_norms_(network: nn.Module, inputs: Iterable[Tensor]) -> int:
    """Number of samples over which the running statistics of batch norms were computed anew, in place.

    Every batch counts alike; all other modules are in evaluation mode.

    Args:
        network: whose batch norms are changed; 0 where it has none, and no input is looked at.
        inputs: batches (n, …).
    """
    norms = [m for m in network.modules() if isinstance(m, _NORMS) and m.track_running_stats]
    if not norms:
        return 0
    modes, momenta, seen = network.training, [norm.momentum for norm in norms], 0
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    for batch in inputs:
        network(batch)
        seen += len(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(modes)
    return seen


class _Kitchen:
    """Network, engine and data in which averages are tried.

    Attributes:
        norm_samples: samples of all forward passes for batch statistics so far.
    """

    def __init__(
        self, runs: Sequence[Ingredient], source: str, path: str, say: Callable[[str], None]
    ) -> None:
        self.config = config = runs[0].config
        self.fabric: Fabric = engine_for(
            replace(config.training, strategy="auto", tensor_parallel=1, replicas=1)
        )
        data = replace(config.data, path=path, kind="auto") if path else config.data
        self.task: Task = open_data(data, say)
        for run in runs:
            if self.task.files is not None:
                self.task.files.check(Path(run.name))
        plan = parse_plan(runs[0].plan, runs[0].name)
        network = network_of(config, plan, source)
        self.network: nn.Module = self.fabric.to_device(load_masked_(network, runs[0].weights))
        self.norm_samples = 0

    def serve_(self, members: Sequence[Ingredient]) -> None:
        """Give the network the mean weights of some runs; statistics of its own to that of several."""
        load_masked_(self.network, soup([run.weights for run in members], [run.name for run in members]))
        if len(members) == 1:
            return
        size, per_epoch = self.config.training.batch_size, Length.of(self.config, self.task).per_epoch
        make = TrainingBatches(self.task.train, self.config.seed, size, per_epoch, 0, 1)
        inputs = (x for x, _ in batches(make, range(per_epoch), self.task.workers))
        self.norm_samples += recompute_norms_(
            self.network, (self.task.normalised(self.fabric.to_device(x)) for x in inputs)
        )

    def score(self, samples: Samples) -> Score:
        """Score of what was served."""
        return evaluate(
            self.fabric, self.network, self.task, samples, self.config.training.batch_size, (0, 1)
        )


def make_soup(
    runs: Sequence[Ingredient],
    out: Path,
    *,
    kind: Kind,
    source: str,
    data: str = "",
    say: Callable[[str], None],
) -> Document:
    """Result of averaging runs, whose directory is written as that of a run; `result.json` last.

    Args:
        runs: from `ingredients_of`.
        out: directory that is written.
        kind: "uniform" for the mean of all, "greedy" for that of those which help on the validation data.
        source: of the dense model.
        data: where the data lie, if elsewhere than the first run says.
        say: takes a sentence on progress.

    Raises:
        InputError: "greedy" without validation data, or the directory holds a run.
    """
    if kind == "greedy" and not runs[0].config.data.validation_fraction:
        raise InputError(
            f"a greedy soup is chosen on validation data, and {runs[0].name} kept none aside; train the runs with "
            "data.validation_fraction=0.1, say, or make a uniform soup."
        )
    with claim(out, fresh=True), watching_workers():
        kitchen = _Kitchen(runs, source, data, say)
        used = _chosen(kitchen, runs, say) if kind == "greedy" else tuple(runs)
        kitchen.serve_(used)
        found = _result(kitchen, runs, used, kind)
        _write(kitchen, used[0], found, out)
        return found


def _chosen(
    kitchen: _Kitchen, runs: Sequence[Ingredient], say: Callable[[str], None]
) -> tuple[Ingredient, ...]:
    """Runs of a greedy soup, in the order in which they came in."""
    samples, name = kitchen.task.validation, kitchen.task.metric
    assert samples is not None
    sign = 1 if metric_named(name).better is Sense.HIGHER else -1

    def quality(members: Sequence[Ingredient]) -> float:
        kitchen.serve_(members)
        return sign * kitchen.score(samples).metric(name)

    alone = {run.name: quality([run]) for run in runs}
    first, *others = sorted(runs, key=lambda run: -alone[run.name])
    used: tuple[Ingredient, ...] = (first,)
    best = alone[first.name]
    for run in others:
        tried = quality((*used, run))
        if tried >= best:
            used, best = (*used, run), tried
        else:
            say(
                f"{run.name} is left out: with it, {name} on the validation data is {sign * tried:.4f}, not {sign * best:.4f}"
            )
    return used


def _result(
    kitchen: _Kitchen, runs: Sequence[Ingredient], used: Sequence[Ingredient], kind: Kind
) -> Document:
    first, task = used[0], kitchen.task
    score = kitchen.score(task.test)
    norms = kitchen.norm_samples * first.result["forward_macs"]
    spent, dense = (sum(run.result[key] for run in runs) for key in ("train_macs", "dense_train_macs"))
    section = {
        "kind": kind,
        "runs": [_entry(run, used=run in used) for run in runs],
        "mean_metric": sum(run.result["metric"] for run in runs) / len(runs),
        "norm_samples": kitchen.norm_samples,
        "norm_macs": norms,
    }
    validated = {}
    if task.validation is not None:
        seen = kitchen.score(task.validation)
        validated = {"validation_loss": seen.loss, "validation_metric": seen.metric(task.metric)}
    kept = {key: value for key, value in first.result.items() if key not in _LEFT_OUT}
    return with_digest(
        {
            **kept,
            **validated,
            "run_digest": run_digest(first.config),
            "steps": sum(run.result["steps"] for run in runs),
            "samples": sum(run.result["samples"] for run in runs),
            "metric": score.metric(task.metric),
            "test_loss": score.loss,
            "train_macs": spent + norms,
            "dense_train_macs": dense,
            "train_ratio": (spent + norms) / dense,
            "train_ratio_exact": fraction(Fraction(spent + norms, dense)),
            "weights_digest": tensors_digest(model_state(kitchen.network, parts=True)),
            "soup": section,
        }
    )


def _entry(run: Ingredient, *, used: bool) -> dict[str, Any]:
    result = run.result
    return {
        "run": run.name,
        "used": used,
        "step": run.step,
        "seed": result["seed"],
        "metric": result["metric"],
        "train_macs": result["train_macs"],
        "run_digest": result["run_digest"],
        "weights_digest": result["weights_digest"],
    }


def _write(kitchen: _Kitchen, first: Ingredient, found: Document, out: Path) -> None:
    """Write what a run's directory holds: the plan, the record, a checkpoint to start from, and the result."""
    section, steps = found["soup"], found["steps"]
    record = {
        **{key: value for key, value in first.record.items() if key != "digest"},
        "steps": steps,
        "precision": str(kitchen.fabric._precision.precision),
        "device": str(kitchen.fabric.device),
        "processes": 1,
        "versions": versions(),
        "soup": section,
    }
    state = {
        "identity": {"plan": first.plan["digest"], "run": digest({"soup": section})},
        "processes": 1,
        "model": {name: value.detach().cpu() for name, value in kitchen.network.state_dict().items()},
        "optimizer": {},
        "scaler": {},
        "masks": None,
        "spending": {"macs": found["train_macs"], "dense_macs": found["dense_train_macs"]},
        "metrics": [],
        "step": steps,
        "average": None,
        "loss_sums": [None],
        "loss_count": 0,
    }
    write_text(dumps(first.plan), str(out / "plan.json"))
    checkpoints.write(out, steps, state)
    write_text(dumps(with_digest(record)), str(out / "run.json"))
    write_text(dumps(found), str(out / "result.json"))
