"""One model of a library: how it is built and what it is called with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import nn

from iftplan.models.notation import parse_input
from iftplan.models.spec import InputSpec


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        library: where it comes from.
        name: what the library calls it.
        build: makes it, on whatever device is the default.
        inputs: what its forward pass takes, in iftplan's notation.
        below: input name (or position) → integers of the real forward pass stay below this.
        quick: whether `--quick` takes it.
    """

    library: str
    name: str
    build: Callable[[], nn.Module]
    inputs: tuple[str, ...]
    below: Mapping[str | int, int] = field(default_factory=lambda: MappingProxyType({}))
    quick: bool = False

    @property
    def key(self) -> str:
        """What it is called in the journal."""
        return f"{self.library}:{self.name}"

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """The inputs as values."""
        return tuple(map(parse_input, self.inputs))

    def on_meta(self) -> nn.Module:
        """The model without weights, in eval mode."""
        with torch.device("meta"):
            return self.build().eval()

    def on_cpu(self) -> nn.Module:
        """The model with random weights, in eval mode."""
        torch.manual_seed(0)
        return self.build().eval()
