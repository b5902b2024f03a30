"""Dormant neurons of a run: counted at evaluations, and recycled between steps (ReDo, arXiv 2302.12902)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from iftplan.nn.counting.activations.dormant import observed_neurons
from iftplan.nn.masking.optimizer.recycling import Recycling, recycle_
from iftplan.nn.training.data.batches import EvaluationBatches
from iftplan.nn.training.data.samples import Task

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(slots=True)
class NeuronRecord:
    """Dormant neurons of a run.

    Attributes:
        fabric: the engine, whose processes share every batch.
        threshold: τ; a neuron is dormant if its score is at most τ.
        recycling: when neurons are recycled; None for never.
        seed: of fresh weights.
        recycled: neurons that were recycled so far; one counts each time.
    """

    fabric: Fabric
    threshold: float
    recycling: Recycling | None
    seed: int
    recycled: int = 0

    def step_(self, network: nn.Module, optimizer: Any, inputs: Tensor, step: int) -> int:
        """Recycle neurons in place if it is time to; returns samples that went through the network for it, in all processes.

        Args:
            network: in training.
            optimizer: of its weights.
            inputs: of the step, in this process.
            step: steps taken.
        """
        if self.recycling is None or not self.recycling.due(step):
            return 0
        done = recycle_(
            network,
            optimizer,
            inputs,
            threshold=self.threshold,
            step=step,
            seed=self.seed,
            average=self._average,
        )
        self.recycled += done.neurons
        return done.found.passes * self.fabric.world_size

    def metrics(self, network: nn.Module, task: Task, size: int) -> dict[str, float]:
        """Share of dormant neurons on the first batch of the test data, NaN where no layer has any; and those recycled so far.

        Args:
            network: in training.
            task: the data.
            size: samples of the batch, over all processes.
        """
        make = EvaluationBatches(task.test, size, self.fabric.global_rank, self.fabric.world_size)
        inputs = task.normalised(self.fabric.to_device(make(0)[0]))
        found, _ = observed_neurons(network, inputs, self.threshold, self._average)
        share = float("nan") if found.share is None else float(found.share)
        return {"dormant": share, "recycled": self.recycled}

    def _average(self, sizes: Tensor) -> Tensor:
        mean = self.fabric.all_reduce(sizes.to(self.fabric.device), reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean.cpu()
