"""The training loop: every step's batch, learning rate and random numbers follow from the seed and the step alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from iftplan.base.errors import InputError, StaleError
from iftplan.nn.counting.saved_tensors import SavedTensors
from iftplan.nn.execution.execute import dense_gradients_
from iftplan.nn.execution.turns import Turns
from iftplan.nn.layers.mixture import auxiliary_loss
from iftplan.nn.masking.masking import Masking
from iftplan.nn.masking.processes import spare_broadcasts_
from iftplan.nn.timing.peak import wait
from iftplan.nn.training.data.batches import TrainingBatches, batches, watching_workers
from iftplan.nn.training.data.mixing import mixed, mixing_weight
from iftplan.nn.training.data.samples import Batch, Task, generator_of
from iftplan.nn.training.measures.dormant import NeuronRecord
from iftplan.nn.training.measures.evaluation import Score, evaluate, logits_of, loss_of
from iftplan.nn.training.optimization.averaging import Averaging
from iftplan.nn.training.optimization.distillation import Teacher
from iftplan.nn.training.optimization.folded_decay import FoldedDecay
from iftplan.nn.training.optimization.growing import GrowingWidths
from iftplan.nn.training.optimization.optimizers import set_rate_
from iftplan.nn.training.parallel.clipping import clip_
from iftplan.nn.training.parallel.engine import differentiable
from iftplan.nn.training.records import checkpoints
from iftplan.nn.training.records.best import GROWN, best_step, has_waited
from iftplan.nn.training.records.ledger import Spending
from iftplan.nn.training.records.metrics import Metrics
from iftplan.nn.training.records.spectra import SpectralRecord
from iftplan.nn.training.records.state_check import check_state, loading
from iftplan.nn.training.records.states import (
    gather_numbers,
    load_model_state_,
    load_optimizer_state_,
    model_state,
    optimizer_state,
    own_number,
    parts_like,
    share_buffers_,
)
from iftplan.runs.settings import RunConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True, slots=True)
class Moment:
    """State of a run after a step, for progress displays.

    Attributes:
        step: steps taken.
        steps: of the whole run.
        loss: of this step's batch in this process.
        train_macs: training MACs so far.
        density: of the masked weights; 1 where there are none.
        score: of an evaluation after this step, if there was one.
    """

    step: int
    steps: int
    loss: Callable[[], float]
    train_macs: int
    density: float
    score: Score | None = None


Watcher = Callable[[Moment], None]


@dataclass(frozen=True, slots=True)
class Length:
    """Length of a run in steps.

    Attributes:
        per_epoch: steps of an epoch; samples that do not fill a batch are left out, other ones in every epoch.
        steps: of the run.
    """

    per_epoch: int
    steps: int

    @classmethod
    def of(cls, config: RunConfig, task: Task) -> Length:
        """Length of a run on a task's data.

        Raises:
            InputError: there is less than one batch.
        """
        size, count = config.training.batch_size, len(task.train)
        if count < size:
            raise InputError(
                f"training.batch_size is {size}, but {task.name} has only {count} training samples; use a batch of "
                f"{count} or fewer."
            )
        per_epoch = count // size
        return cls(per_epoch, config.training.steps or config.training.epochs * per_epoch)


@dataclass(eq=False, slots=True)
class Loop:
    """Training run in progress: network, optimizer, masks and data, step by step.

    Attributes:
        fabric: the engine.
        config: the run's settings.
        task: the data.
        network: the bare network.
        model: the network as the engine wraps it.
        optimizer: as the engine wraps it.
        masks: None for the dense control.
        spending: the ledger.
        length: of the run, in steps.
        directory: of the records.
        identity: digests that a checkpoint must have in common with the run.
        metrics: the rows of metrics.csv.
        bare_optimizer: torch's own.
        share: number of this process among those that see samples of their own, and how many those are; processes
            that split layers among them see the same.
        average: of the weights, which is then what is evaluated; None for none.
        spectra: of the masks; None where they are not measured.
        turns: of the masked layers, which are compact between updates of the masks; None where they stay dense.
        folded: decay of low-rank pairs by their product; None where weights decay.
        neurons: dormant ones; None where they are not counted.
        step: steps taken.
        loss_sum: training losses since the last evaluation, added up.
        loss_count: number of these losses.
        batches: of the steps to come; None until the first is taken.
        writing: the sharded checkpoint that is being written; None where none is.
        seconds: that the steps of this start took, evaluations and checkpoints left out.
        began: step and MACs that this start began with.
        teacher: network that the run learns from beside its labels; None for none.
        growing: widths of the network by step; None where it does not grow.
    """

    fabric: Fabric
    config: RunConfig
    task: Task
    network: nn.Module
    model: nn.Module
    optimizer: Any
    masks: Masking | None
    spending: Spending
    length: Length
    directory: Path
    identity: Mapping[str, str]
    metrics: Metrics
    bare_optimizer: Optimizer
    share: tuple[int, int] = (0, 1)
    average: Averaging | None = None
    spectra: SpectralRecord | None = None
    turns: Turns | None = None
    folded: FoldedDecay | None = None
    neurons: NeuronRecord | None = None
    step: int = 0
    loss_sum: Tensor | None = None
    loss_count: int = 0
    batches: Iterator[Batch] | None = None
    writing: Future[Path] | None = None
    seconds: float = 0.0
    began: tuple[int, int] = (0, 0)
    teacher: Teacher | None = None
    growing: GrowingWidths | None = None

    def run(self, watch: Watcher) -> None:
        """Train to the end, with evaluations and checkpoints on the way.

        Raises:
            InputError: training diverged, data cannot be read, or a process that reads them died.
        """
        try:
            with watching_workers():
                self._run(watch)
        finally:
            self._wait()

    def _run(self, watch: Watcher) -> None:
        training, every = self.config.training, self.length.per_epoch
        self.began = self.step, self.spending.macs
        if self.spectra is not None and self.step == 0:
            self.spectra.measure(self.dense_network, self.step)
        while not self.is_over:
            updates, before = self._mask_updates, perf_counter()
            loss = self._step()
            at_end = self.step == self.length.steps
            evaluated = at_end or self.step % (training.eval_interval or every) == 0
            if evaluated:
                wait(self.fabric.device)
            self.seconds += perf_counter() - before
            if at_end:
                self._finish()
            updated = self._mask_updates != updates
            if self.spectra is not None and self.spectra.is_due(
                updated=updated, evaluated=evaluated, at_end=at_end
            ):
                self.spectra.measure(self.dense_network, self.step)
            score = self._evaluate() if evaluated else None
            if self.is_over and not at_end:
                self._finish()
            best = evaluated and best_step(self.metrics.rows) == self.step
            if best or self.is_over or self.step % (training.checkpoint_interval or every) == 0:
                self.save()
            watch(self._moment(loss, score))

    @property
    def is_over(self) -> bool:
        """Whether all steps were taken, or the validation loss has not improved for `training.patience` evaluations.

        As long as masks keep and cost more than the plan's, nothing ends early, nor before they were evaluated.
        """
        if self.step == self.length.steps:
            return True
        waited = has_waited(self.metrics.rows, self.config.training.patience)
        return waited and self.spending.is_thinned and int(self.metrics.rows[-1]["step"]) == self.step

    @property
    def dense_network(self) -> nn.Module:
        """The bare network with weights and masks in all its layers, until the next step."""
        if self.turns is not None:
            self.turns.expand_()
        return self.network

    def _finish(self) -> None:
        """End training under the masks."""
        if self.masks is not None:
            if self.turns is not None:
                self.turns.expand_()
            self.masks.finish()

    def _execute(self) -> None:
        """Let masked layers compute what the step that begins now needs."""
        if self.masks is None or self.config.training.execution == "dense":
            return
        if self.turns is not None:
            (self.turns.expand_ if self.masks.changes_masks else self.turns.compact_)()
        dense_gradients_(self.network, self.masks.wants_dense_gradient)

    def _step(self) -> Tensor:
        """One optimizer step."""
        config, fabric = self.config, self.fabric
        set_rate_(self.bare_optimizer, self._rate())
        torch.manual_seed(generator_of("step", config.seed, self.step, self.share[0]).initial_seed())
        inputs, targets = self._batch()
        if self.growing is not None and self.growing.is_due(self.step):
            self._grow(self.growing, inputs, targets)
        parts = config.training.accumulate
        self._execute()
        twice = self.masks is not None and self.masks.wants_graph  # gradients are differentiated
        # an engine's wrapper guards its outputs against any other backward pass
        model, options = (
            (self.network if twice else self.model),
            dict[str, Any](create_graph=True) if twice else {},
        )
        total = torch.zeros((), device=fabric.device)
        for i, (x, y) in enumerate(zip(inputs.chunk(parts), targets.chunk(parts), strict=True)):
            sync = fabric.no_backward_sync(self.model, enabled=i < parts - 1)  # type: ignore[arg-type]
            with sync, differentiable(fabric) if twice else nullcontext():
                with nullcontext() if self.spending.activation_bytes else SavedTensors(self.network) as saved:
                    loss = (self._loss(model, x, y) + auxiliary_loss(self.network)) / parts
                if saved is not None:
                    self.spending.activation_bytes = saved.bytes
                fabric.backward(loss, **options)
            total += loss.detach()
        if self.folded is not None:
            fabric.backward(self.folded.loss())
        if self.masks is not None:
            # what methods add to gradients, and compare them with, is in their own scale
            fabric.strategy.precision.unscale_gradients(self.bare_optimizer)
            self.masks.step()
        if config.optimizer.clip:
            # an overflow is the scaler's to skip, and a divergence is told with the loss
            self._clip(config.optimizer.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.spending.step(config.training.batch_size)
        self.step += 1
        if self.neurons is not None:
            part = inputs.chunk(parts)[0]
            self.spending.measure(self.neurons.step_(self.network, self.bare_optimizer, part, self.step))
        if self.average is not None:
            self.average.step()
        # added up where it is: reading it would wait for the device at every step
        self.loss_sum = total.double() if self.loss_sum is None else self.loss_sum + total
        self.loss_count += 1
        return total

    def _grow(self, growing: GrowingWidths, inputs: Tensor, targets: Tensor) -> None:
        """Make the network wider before a step, by the gradients of its batch."""
        parts = self.config.training.accumulate

        def loss() -> Tensor:
            with self.fabric.autocast():
                losses = [
                    self._loss(self.network, x, y) + auxiliary_loss(self.network)
                    for x, y in zip(inputs.chunk(parts), targets.chunk(parts), strict=True)
                ]
            return torch.stack(losses).sum() / parts

        begun = growing.grow_(self.network, self.bare_optimizer, self.step, loss, self._average)
        self.spending.grow(begun.growth, growing.forward_macs(self.step + 1))
        self._wrap()

    def _average(self, tensor: Tensor) -> Tensor:
        mean = self.fabric.all_reduce(tensor, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean

    def _wrap(self) -> None:
        """Let the engine share the gradients of parameters that are new."""
        if self.fabric.world_size > 1:
            self.model = self.fabric.setup_module(spare_broadcasts_(self.network))

    def _clip(self, most: float) -> None:
        training = self.config.training
        unscaled = training.precision == "16-mixed" and self.masks is not None  # which works once a step
        if unscaled or (training.tensor_parallel > 1 and self.fabric.world_size > 1):
            clip_(self.network.parameters(), most)
            return
        self.fabric.clip_gradients(self.model, self.optimizer, max_norm=most, error_if_nonfinite=False)

    def _loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of a part of a batch by its labels, and by the teacher where there is one."""
        smoothing, teacher = self.config.training.label_smoothing, self.teacher
        if teacher is None:
            return loss_of(logits_of(model(inputs)), targets, smoothing)
        logits, taught = teacher.loss(inputs, targets, lambda x: logits_of(model(x)), self.network)
        return (1 - teacher.config.weight) * loss_of(logits, targets, smoothing) + taught

    @property
    def _mask_updates(self) -> int:
        return self.masks.exploration.updates if self.masks is not None else 0

    def _rate(self) -> float:
        return self.config.optimizer.lr * self.config.schedule.factor(self.step, self.length.steps)

    def _batch(self) -> Batch:
        fabric, config, task = self.fabric, self.config, self.task
        if self.batches is None:
            size, every = config.training.batch_size, self.length.per_epoch
            make = TrainingBatches(task.train, config.seed, size, every, *self.share)
            steps, pinned = range(self.step, self.length.steps), fabric.device.type == "cuda"
            self.batches = batches(make, steps, task.workers, pinned=pinned)
        inputs, targets = (fabric.to_device(part) for part in next(self.batches))
        inputs = task.normalised(inputs)
        if not task.mixup:
            return inputs, targets
        weight = mixing_weight(task.mixup, config.seed, self.step)
        return mixed((inputs, targets), task.classes, weight)

    def _evaluate(self) -> Score:
        self._share_buffers()
        model = self.model if self.average is None else self.average.model
        score = evaluate(self.fabric, model, self.task, self.task.test, self._at_once, self.share)
        assert self.loss_sum is not None
        loss = self.fabric.all_reduce(self.loss_sum / self.loss_count)
        seen = self.masks.metrics() if self.masks is not None else {}
        row = {
            "step": self.step,
            "epoch": self.step / self.length.per_epoch,
            "loss": float(loss),  # type: ignore[arg-type]
            "test_loss": score.loss,
            "metric": score.metric(self.task.metric),
            "train_macs": self.spending.macs,
            "density": seen.get("density", 1.0),
            "itop": seen.get("itop", 1.0),
            "degree_of_constraint": seen.get("degree_of_constraint", 1.0),
            "churn": seen.get("churn", 0.0),
            "lr": self.bare_optimizer.param_groups[0]["lr"],
            **({GROWN: self.spending.forward_macs} if self.growing is not None else {}),
            **self._validated(model),
            **(self.spectra.means() if self.spectra is not None else {}),
            **self._neurons_seen(),
        }
        self.loss_sum, self.loss_count = None, 0
        self.metrics.add(row)
        self._write_tables()
        self.fabric.log_dict(row, step=self.step)
        self._check_finite(row)
        return score

    @property
    def _at_once(self) -> int:
        """Samples that are evaluated together: no more than are trained together, for whose sake gradients are accumulated."""
        training = self.config.training
        return max(1, training.batch_size // training.accumulate)

    def _neurons_seen(self) -> dict[str, float]:
        if self.neurons is None:
            return {}
        return self.neurons.metrics(self.network, self.task, self.config.training.batch_size)

    def _validated(self, model: nn.Module) -> dict[str, float]:
        samples = self.task.validation
        if samples is None:
            return {}
        score = evaluate(self.fabric, model, self.task, samples, self._at_once, self.share)
        return {"validation_loss": score.loss, "validation_metric": score.metric(self.task.metric)}

    def _check_finite(self, row: Mapping[str, float]) -> None:
        """Stop a run that has diverged: it cannot recover, and JSON cannot hold NaN."""
        rate, clip = self.config.optimizer.lr, self.config.optimizer.clip
        other = "" if clip else ", or with optimizer.clip=1"
        for name in ("loss", "test_loss", "metric"):
            if not isfinite(row[name]):
                raise InputError(
                    f"training diverged: {name} is {row[name]} at step {self.step} of {self.length.steps}, with "
                    f"optimizer.lr {rate}; start again in another directory with a lower one{other}."
                )

    def _moment(self, loss: Tensor, score: Score | None) -> Moment:
        density = self.masks.density if self.masks is not None and score is not None else 1.0
        return Moment(self.step, self.length.steps, lambda: float(loss), self.spending.macs, density, score)

    def _share_buffers(self) -> None:
        """Give all processes the first one's batch statistics, which are those that checkpoints hold."""
        share_buffers_(self.network)
        if self.average is not None:
            share_buffers_(self.average.model)

    def state_dict(self) -> dict[str, Any]:
        """State that a resumed run needs; all processes have to call it.

        The first process has the whole state; with sharded checkpoints, each process has its own part.
        """
        keep, parts = self.fabric.is_global_zero, self._sharded
        network = self.dense_network
        return {
            "identity": dict(self.identity),
            "processes": self.fabric.world_size,
            "model": model_state(network, keep=keep, parts=parts),
            "optimizer": optimizer_state(network, self.bare_optimizer, keep=keep, parts=parts),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "masks": self.masks.state_dict(parts=parts) if self.masks is not None else None,
            "spending": self.spending.state_dict(),
            "metrics": [dict(row) for row in self.metrics.rows],
            "step": self.step,
            "average": self.average.state_dict() if self.average is not None else None,
            "loss_sums": gather_numbers(self.loss_sum),
            "loss_count": self.loss_count,
            **({} if self.neurons is None else {"recycled": self.neurons.recycled}),
        }

    def save(self) -> None:
        """Write a checkpoint, or begin to write a sharded one; all processes call it."""
        self._share_buffers()
        self._wait()
        state, best = self.state_dict(), best_step(self.metrics.rows)
        if self.fabric.is_global_zero:
            self._write_tables()  # before the checkpoint, whose rows must not be lost
        if self._sharded:
            self.writing = checkpoints.write_sharded(self.directory, self.step, state, best=best)
            return
        if self.fabric.is_global_zero:
            checkpoints.write(self.directory, self.step, state, best=best)
        self.fabric.barrier()

    @property
    def _sharded(self) -> bool:
        training = self.config.training
        parts = self.fabric.world_size > 1 and training.strategy == "fsdp"
        return training.checkpoints == "sharded" or (training.checkpoints == "auto" and parts)

    def _wait(self) -> None:
        """Wait until the previous checkpoint is on the disk."""
        if self.writing is not None:
            writing, self.writing = self.writing, None
            writing.result()

    def resume(self, warn: Callable[[str], None]) -> bool:
        """Continue from the newest whole checkpoint; returns whether there was one.

        Raises:
            StaleError: it is of another plan.
            InputError: it holds what no run wrote.
        """
        found = checkpoints.newest(self.directory, warn, parts_like(self.network))
        if found is not None:
            where = f"the checkpoint of step {found[0]} in {self.directory}"
            check_state(found[1], found[0], where)
            with loading(where):
                self.load_state_dict(found[1])
            wrote, here = found[1]["processes"], self.fabric.world_size
            if wrote != here:
                warn(
                    f"the run used {wrote} process(es) and continues on {here}. Batches, schedules and costs stay the "
                    "same, but batch norms see other parts of a batch and sums are rounded differently, so results are "
                    "not bit-identical."
                )
        if found is not None and self.spectra is not None:
            self.spectra.resume(self.step)
        self._write_tables()
        return found is not None

    def _write_tables(self) -> None:
        if self.fabric.is_global_zero:
            self.metrics.write()
            if self.spectra is not None:
                self.spectra.write()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` gave.

        Raises:
            StaleError: the state belongs to another plan or to other settings.
        """
        for key, value in self.identity.items():
            if state["identity"].get(key) != value:
                raise StaleError(
                    f"the checkpoint in {self.directory} has the {key} digest {str(state['identity'].get(key))[:12]}…, "
                    f"and this run has {value[:12]}…; resume with the settings that it was started with, or start again "
                    "in another directory."
                )
        if self.growing is not None and self.growing.catch_up_(
            self.network, self.bare_optimizer, int(state["step"])
        ):
            self._wrap()
        load_model_state_(self.network, state["model"])
        load_optimizer_state_(self.network, self.bare_optimizer, state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        if self.masks is not None:
            self.masks.load_state_dict(state["masks"])
        self.spending.load_state_dict(state["spending"])
        if self.growing is not None:
            self.spending.narrow = self.growing.forward_macs(int(state["step"]))
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.neurons is not None:
            self.neurons.recycled = int(state.get("recycled", 0))
        self.metrics.rows = list(state["metrics"])
        self.step, self.loss_count = int(state["step"]), int(state["loss_count"])
        self.loss_sum = own_number(state["loss_sums"], self.fabric.device)
