"""Set up a training loop from a run's settings, and turn a finished loop into its result."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from iftplan.base.documents import Document, dumps, with_digest, write_text
from iftplan.base.errors import InputError, one_line
from iftplan.base.units import fraction
from iftplan.masks import MaskStructure, Unstructured, parse_mask
from iftplan.masks.spectra import MEASURES
from iftplan.nn.execution.turns import Turns
from iftplan.nn.masking.algorithms.base import Algorithm, LatentAlgorithm
from iftplan.nn.masking.algorithms.static import Static
from iftplan.nn.masking.cautions import algorithm_cautions, weights_left
from iftplan.nn.masking.masking import Masking
from iftplan.nn.masking.optimizer.recycling import Recycling
from iftplan.nn.masking.processes import shard_masks_, spare_broadcasts_
from iftplan.nn.masks.masked_weights import masked_names, masked_weights
from iftplan.nn.training.data.opening import open_data
from iftplan.nn.training.data.samples import Task
from iftplan.nn.training.execution import run_sparse_
from iftplan.nn.training.from_checkpoint import begin_from_
from iftplan.nn.training.loop import Length, Loop
from iftplan.nn.training.measures.dormant import NeuronRecord
from iftplan.nn.training.methods import algorithm_of
from iftplan.nn.training.network import network_of
from iftplan.nn.training.optimization.averaging import Averaging
from iftplan.nn.training.optimization.distillation import Teacher, teacher_of
from iftplan.nn.training.optimization.folded_decay import FoldedDecay, folded_decay
from iftplan.nn.training.optimization.growing import GrowingWidths
from iftplan.nn.training.optimization.optimizers import optimizer_of
from iftplan.nn.training.parallel.engine import engine_for
from iftplan.nn.training.parallel.recomputation import recompute_
from iftplan.nn.training.records import best
from iftplan.nn.training.records.ledger import Spending
from iftplan.nn.training.records.memory import held_bytes
from iftplan.nn.training.records.metrics import COLUMNS, DORMANT, Metrics, last_row
from iftplan.nn.training.records.spectra import SpectralRecord
from iftplan.nn.training.records.states import model_state, tensors_digest
from iftplan.nn.warmstart.adapters import adapter_macs, add_adapters_
from iftplan.plans.plan import Plan, Scope
from iftplan.runs.document import run_digest, run_object
from iftplan.runs.methods import METHODS
from iftplan.runs.settings import RunConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def start(
    config: RunConfig,
    plan: Plan,
    plan_document: Document,
    directory: Path,
    *,
    source: str,
    say: Callable[[str], None],
    loggers: list[Any] | None = None,
) -> Loop:
    """A loop at its first step.

    Args:
        config: the run.
        plan: what is trained.
        plan_document: the same, as it is written.
        directory: of the records; made where it is missing.
        source: of the dense model.
        say: takes a sentence on progress.
        loggers: of the engine.

    Raises:
        InputError: the data do not fit the model, or settings cannot be combined.
    """
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    fabric = engine_for(config.training, loggers)
    share = _share(config, fabric)
    task = open_data(config.data, say)
    length = Length.of(config, task)
    _check_shares(config, share[1])
    _check_patience(config)
    _check_masked(config, plan)
    growing = GrowingWidths.of(config, plan, source, length.steps)
    network = network_of(config, plan, source, growing.narrow_ if growing is not None else None)
    if growing is not None:
        _rehearse(growing, network, task, config.training.batch_size)
    identity = {"plan": plan_document["digest"], "run": run_digest(config)}
    if config.start.checkpoint:
        identity["start"] = begin_from_(network, config, plan, plan_document["digest"], source, say)
    _check_arrangement(config)
    if config.adapters.rank:
        _add_adapters_(network, config)
    teacher = teacher_of(config.distillation, plan, source, say)
    if teacher is not None:
        identity["teacher"] = teacher.identity
    if config.training.execution != "dense":
        run_sparse_(network, config, fabric)
    if config.training.recompute:
        recompute_(network)
    model = fabric.setup_module(spare_broadcasts_(network))
    # after sharding, which makes other parameters
    folded = _folded(config, network, fabric.world_size)
    bare = optimizer_of(
        config.optimizer,
        plan,
        network,
        dense=config.method.name == "dense",
        scaled=config.training.precision == "16-mixed",
        folded=folded.factors if folded is not None else (),
    )
    optimizer = fabric.setup_optimizers(bare)
    structure = parse_mask(plan.mask)
    algorithm = algorithm_of(config.method, length.steps, structure, _classifier(plan, network))
    masks = None
    if algorithm is not None:
        if fabric.world_size > 1 and config.training.strategy == "fsdp":
            _shard_masks_(network, algorithm, structure)
        masks = Masking(
            model, bare, algorithm, structure=structure, seed=config.seed, frozen=config.start.freeze
        )
    neurons = _neurons(config, masks, length, fabric)
    _check_output(model, task)
    if teacher is not None:
        _check_teacher(teacher.to_(fabric.device), model, network, plan, task)
    _check_counted(plan, task)
    spectra = _spectra(config, directory) if masks is not None else None
    average = Averaging(network, config.training.ema) if config.training.ema else None
    return Loop(
        fabric=fabric,
        config=config,
        task=task,
        network=network,
        model=model,
        optimizer=optimizer,
        masks=masks,
        spending=Spending(
            plan,
            network,
            masks,
            opened=config.method.name == "densified",
            input_gradient=config.method.input_gradient,
            teacher_macs=teacher.forward_macs if teacher is not None else 0,
            adapter_macs=adapter_macs(plan, network),
            narrow=growing.forward_macs(0) if growing is not None else None,
        ),
        length=length,
        directory=directory,
        identity=identity,
        metrics=Metrics(directory / "metrics.csv", _columns(config, task, spectra, neurons)),
        spectra=spectra,
        folded=folded,
        turns=Turns(network, bare) if config.training.execution == "compact" else None,
        neurons=neurons,
        bare_optimizer=bare,
        share=share,
        average=average,
        teacher=teacher,
        growing=growing,
    )


def _add_adapters_(network: torch.nn.Module, config: RunConfig) -> None:
    """Put adapters beside frozen sparse weights.

    Raises:
        InputError: the method would move the masks of frozen weights, or their layers are not plain ones.
    """
    asked, training = config.adapters, config.training
    if config.method.name != "static":
        raise InputError(
            f"adapters.rank is {asked.rank}, but {config.method.name} changes masks or has none, and adapters are trained beside frozen weights; use the method static."
        )
    if training.strategy == "fsdp" or training.execution != "dense":
        raise InputError(
            "adapters are parts of layers, which fsdp would shard and sparse kernels would pass over; use training.strategy=ddp and training.execution=dense."
        )
    add_adapters_(network, asked.rank, layers=asked.layers, scale=asked.scale, seed=config.seed)


def _rehearse(growing: GrowingWidths, network: torch.nn.Module, task: Task, size: int) -> None:
    """Grow a copy on a few samples."""
    inputs, targets = task.test.batch(torch.arange(min(size, 32, len(task.test))), None)
    growing.rehearse(network, task.normalised(inputs), targets)


def _share(config: RunConfig, fabric: Fabric) -> tuple[int, int]:
    """Number of this process among those that see samples of their own, and how many those are."""
    together = config.training.tensor_parallel if fabric.world_size > 1 else 1
    return fabric.global_rank // together, fabric.world_size // together


def _shard_masks_(network: torch.nn.Module, algorithm: Algorithm, structure: MaskStructure) -> None:
    """Shard masks where the method and the structure can choose from parts; others stay whole on every process."""
    flat = isinstance(structure, Unstructured) and all(w.experts == 1 for w in masked_weights(network))
    if getattr(algorithm, "in_parts", False) and (flat or isinstance(algorithm, Static)):
        shard_masks_(network)


def _folded(config: RunConfig, network: torch.nn.Module, world: int) -> FoldedDecay | None:
    optimizer = config.optimizer
    if optimizer.decay == "weights" or config.method.name == "dense":
        return None
    if optimizer.name not in ("sgd", "adam"):
        raise InputError(
            f"optimizer.decay=product is a term of the loss, and {optimizer.name} decays weights beside the loss; use sgd "
            "or adam."
        )
    if world > 1:
        raise InputError(
            f"optimizer.decay=product is for one process, and this run has {world}; use optimizer.decay=weights."
        )
    return folded_decay(network, optimizer.weight_decay)


def _neurons(config: RunConfig, masks: Masking | None, length: Length, fabric: Fabric) -> NeuronRecord | None:
    """Record of dormant neurons, if they are asked for.

    Raises:
        InputError: neurons cannot be recycled under the method or the strategy.
    """
    asked = config.recycling
    if not asked.observes:
        return None
    if asked.interval and masks is not None and isinstance(masks.algorithm, LatentAlgorithm):
        raise InputError(
            f"recycling.interval is {asked.interval}, but {config.method.name} trains dense weights behind the masked ones, "
            "which recycling does not reach; use recycling.interval=0 with recycling.measure=true, or a method such as rigl."
        )
    spread = config.training.strategy == "fsdp" or config.training.tensor_parallel > 1
    if fabric.world_size > 1 and spread:
        raise InputError(
            "the neurons of a model whose weights are spread over processes cannot be counted or recycled; use "
            "training.strategy=ddp, and training.tensor_parallel=1."
        )
    recycling = (
        Recycling(asked.interval, asked.threshold, floor(asked.end * length.steps))
        if asked.interval
        else None
    )
    return NeuronRecord(fabric, asked.threshold, recycling, config.seed)


def _columns(
    config: RunConfig, task: Task, spectra: SpectralRecord | None, neurons: NeuronRecord | None
) -> tuple[str, ...]:
    return (
        *COLUMNS,
        *((best.GROWN,) if config.growth.how != "none" else ()),
        *(best.COLUMNS if task.validation is not None else ()),
        *(MEASURES if spectra is not None else ()),
        *(DORMANT if neurons is not None else ()),
    )


def _spectra(config: RunConfig, directory: Path) -> SpectralRecord | None:
    when = config.training.spectra
    return None if when == "none" else SpectralRecord(directory / "spectra.csv", when)


def _classifier(plan: Plan, network: torch.nn.Module) -> tuple[str, ...]:
    """The masked weights of the model's last layer: none where it is kept dense."""
    last = [layer for layer in plan.layers if layer.weight][-1]
    return masked_names(dict(network.named_modules()).get(last.name), last) if last.maskable else ()


def _check_shares(config: RunConfig, world: int) -> None:
    parts = world * config.training.accumulate
    if config.training.batch_size % parts:
        raise InputError(
            f"training.batch_size {config.training.batch_size} cannot be divided among {world} processes in "
            f"{config.training.accumulate} parts each; use a multiple of {parts}."
        )
    if config.training.ema and config.training.strategy == "fsdp":
        raise InputError(
            "training.ema keeps a second whole model on each process, which defeats the purpose of fsdp; use "
            "training.strategy=ddp, or no average."
        )


def _check_patience(config: RunConfig) -> None:
    if config.training.patience and not config.data.validation_fraction:
        raise InputError(
            f"training.patience {config.training.patience} stops a run by the loss on validation data, but none are "
            "kept aside; set data.validation_fraction=0.1, say."
        )


def _check_masked(config: RunConfig, plan: Plan) -> None:
    if METHODS[config.method.name].masked and not plan.cardinality.maskable_weights:
        raise InputError(
            f"the plan ({plan.transform}) masks no weights, so there are no masks for the method "
            f"{config.method.name}; train all weights with --method densified."
        )


def _check_counted(plan: Plan, task: Task) -> None:
    """Refuse data of another sample size than the plan counts, which would make the ledger wrong."""
    inputs, _ = task.test.batch(torch.tensor([0]), None)
    counted, given = plan.inputs[0].shape, tuple(inputs.shape)
    if counted != given:
        shape, context = "x".join(map(str, given)), len(given) == 2 and len(counted) == 2
        shorter = f"set data.context={counted[1]}, or " if context and counted[0] == 1 else ""
        raise InputError(
            f"the plan counts MACs for an input of {'x'.join(map(str, counted))}, and one sample of {task.name} is {shape}; {shorter}make the plan with --input {shape}{':int64' if context else ''}."
        )


@torch.no_grad()
def _check_output(model: torch.nn.Module, task: Task) -> None:
    """Run one sample, so that a model that does not fit the data is refused before anything is written."""
    from iftplan.nn.training.measures.evaluation import logits_of

    inputs, _ = task.test.batch(torch.tensor([0]), None)
    inputs = task.normalised(inputs)
    device = next(model.parameters()).device
    model.eval()
    try:
        outputs = logits_of(model(inputs.to(device))).shape[-1]
    except (RuntimeError, ValueError, IndexError) as error:
        told = one_line(error)
        raise InputError(
            f"the model cannot be run on samples of {task.name}, {'x'.join(map(str, inputs.shape))} ({told}); use "
            "data that fit the model's input, or another model."
        ) from error
    finally:
        model.train()
    if outputs < task.classes:
        raise InputError(
            f"{task.name} has {task.classes} classes, but the model has {outputs} outputs; use a model with at "
            f"least {task.classes} outputs."
        )


def _check_arrangement(config: RunConfig) -> None:
    if config.distillation.teacher and config.training.tensor_parallel > 1:
        raise InputError(
            "distillation compares whole outputs, and training.tensor_parallel divides them among processes; use "
            "training.strategy=ddp or fsdp with a teacher."
        )


def _check_teacher(
    teacher: Teacher, model: torch.nn.Module, network: torch.nn.Module, plan: Plan, task: Task
) -> None:
    """Choose what is compared with the teacher, on one sample."""
    inputs, _ = task.test.batch(torch.tensor([0]), None)
    device = next(model.parameters()).device
    layers = [layer.name for layer in plan.layers if layer.weight]
    teacher.check_(model, network, task.normalised(inputs).to(device), layers)


def doubts(loop: Loop) -> list[str]:
    """Sentences about a run before it begins; none is an error."""
    if loop.masks is None:
        return []
    steps, schedule = loop.length.steps, loop.config.schedule
    rate = partial(schedule.factor, steps=steps)
    return [*algorithm_cautions(loop.masks.algorithm, steps, rate), *weights_left(loop.masks)]


def begin(loop: Loop, plan_document: Document, say: Callable[[str], None], *, resume: bool) -> None:
    """Write the run's records and say what is doubtful, or continue from the newest checkpoint.

    Args:
        loop: at its first step.
        plan_document: of its plan, sealed.
        say: takes a sentence for the user.
        resume: whether to continue instead.

    Raises:
        StaleError: the data changed since the run began, or the checkpoint is of another plan.
        InputError: a record cannot be read.
    """
    first, files = loop.fabric.is_global_zero, loop.task.files
    if resume:
        if files is not None:
            files.check(loop.directory)
        loop.resume(say if first else _silent)
        return
    sentences = doubts(loop)  # in all processes, which may each have a part of the masks
    if first:
        if files is not None:
            files.write(loop.directory)
        record_start(loop, plan_document)
        loop.metrics.write()
        for sentence in sentences:
            say(f"note: {sentence}")
    loop.fabric.barrier()


def _silent(text: str) -> None:
    """Say nothing: the first process speaks for all."""


def record_start(loop: Loop, plan_document: Document) -> None:
    """Write run.json and plan.json: the settings, the plan, and the machine and versions of the run."""
    write_text(dumps(plan_document), str(loop.directory / "plan.json"))
    document = {
        "schema": "iftplan.run/1",
        "config": run_object(loop.config),
        "seed": loop.config.seed,
        "plan_digest": plan_document["digest"],
        "steps": loop.length.steps,
        "precision": str(loop.fabric._precision.precision),
        "device": str(loop.fabric.device),
        "processes": loop.fabric.world_size,
        "versions": versions(),
    }
    write_text(dumps(with_digest(document)), str(loop.directory / "run.json"))


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a run's numbers depend on."""
    names = ("iftplan", "torch", "lightning-fabric", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def result(loop: Loop, plan: Plan) -> Document:
    """Result of a finished run, sealed; the same to the byte for every repetition on one machine."""
    rows = loop.metrics.rows
    if loop.turns is not None:
        loop.turns.compact_()  # what steps hold
    last: Mapping[str, Any] = last_row(rows)
    chosen = best.best_index(rows)
    told: Mapping[str, Any] = last if chosen is None else last_row(rows[: chosen + 1])
    spending = loop.spending
    document = {
        "schema": "iftplan.result/1",
        "convention": "mac",
        "scope": Scope.MODEL.value,
        "model": plan.model,
        "transform": plan.family_name if loop.config.method.name != "dense" else "none",
        "sparsity": 0.0 if _is_dense(loop, plan) else float(plan.sparsity),
        "distribution": plan.distribution,
        "method": loop.config.method.name,
        "data": loop.task.name,
        "seed": loop.config.seed,
        "plan_digest": loop.identity["plan"],
        "run_digest": loop.identity["run"],
        "steps": loop.step,
        "samples": loop.step * loop.config.training.batch_size,
        "metric_name": loop.task.metric,
        "metric": told["metric"],
        "loss": told["loss"],
        "test_loss": told["test_loss"],
        **(
            {}
            if chosen is None
            else {"best_step": told["step"], **{name: told[name] for name in best.COLUMNS}}
        ),
        "train_macs": spending.macs,
        "dense_train_macs": spending.dense_macs,
        "train_ratio": spending.macs / spending.dense_macs,
        "train_ratio_exact": exact_ratio(spending.macs, spending.dense_macs),
        "forward_macs": spending.forward_macs,
        "dense_forward_macs": plan.dense_full_macs(Scope.MODEL),
        "nnz": sum(spending.nnz.values()),
        "maskable_weights": plan.cardinality.maskable_weights if loop.masks is not None else 0,
        "density": last["density"],
        "itop": last["itop"],
        "degree_of_constraint": last["degree_of_constraint"],
        "mask_updates": loop.masks.exploration.updates if loop.masks is not None else 0,
        **held_bytes(plan, loop.network, loop.bare_optimizer, spending),
        "weights_digest": tensors_digest(model_state(loop.dense_network, parts=True)),
        **({} if loop.growing is None else {"growth": loop.growing.document(loop.step)}),
    }
    return with_digest(document)


def _is_dense(loop: Loop, plan: Plan) -> bool:
    """Whether what was trained is the dense model: without a plan's masks, and not at its widths either."""
    return loop.masks is None and (loop.config.method.name == "dense" or plan.transform == "none")


def exact_ratio(top: int, bottom: int) -> str:
    """Ratio of two counts in lowest terms, p/q."""
    from fractions import Fraction

    return fraction(Fraction(top, bottom))
