"""An average of a run's weights (EMA), zero off the masks as the weights are; off unless a decay is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from iftplan.nn.masking.averages import follow_


class Averaging:
    """Exponential moving averages of weights and of batch statistics.

    Args:
        network: what is trained.
        decay: how much of the average stays at each step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(network, multi_avg_fn=average, use_buffers=True)

    @property
    def model(self) -> nn.Module:
        """Averaged network, which is evaluated."""
        averaged: nn.Module = self._average.module
        return averaged

    def step(self) -> None:
        """Take the weights in, after the optimizer's step."""
        self._average.update_parameters(self._network)
        follow_(self._average, self._network)

    def state_dict(self) -> dict[str, Any]:
        """Averages for a checkpoint."""
        return self._average.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the averages of a checkpoint."""
        self._average.load_state_dict(state)
