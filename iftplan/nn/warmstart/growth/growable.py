"""Which widths of a network can grow between two layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from iftplan.base.errors import InfeasibleError
from iftplan.models.spec import Couplings, InputSpec
from iftplan.nn.meta.copies import without_data
from iftplan.nn.meta.inputs import make_inputs, matching
from iftplan.nn.warmstart.growth.pair import pair_of


def growable_widths(model: nn.Module, couplings: Couplings, inputs: Sequence[InputSpec]) -> dict[str, str]:
    """Layer that writes each width that one layer writes and the next one reads, place by place: layer → symbol.

    These are the widths that GradMax can grow. Found by one forward pass without data.

    Args:
        model: the network that was traced.
        couplings: what was found of it.
        inputs: what one forward pass takes.
    """
    pairs = {}
    for width, found in couplings.widths.items():
        if not found.fixed:
            try:
                pairs[width] = pair_of(model, couplings, width)
            except InfeasibleError:
                continue
    double = without_data(model)
    wrote: dict[str, list[torch.Size]] = {}
    read: dict[str, list[torch.Size]] = {}
    for pair in pairs.values():
        double.get_submodule(pair.incoming).register_forward_hook(partial(_note_output, wrote, pair.incoming))
        double.get_submodule(pair.outgoing).register_forward_pre_hook(
            partial(_note_input, read, pair.outgoing)
        )
    args, keywords = make_inputs(matching(inputs, model))
    with torch.no_grad():
        double(*args, **keywords)
    return {
        pair.incoming: width
        for width, pair in pairs.items()
        if wrote.get(pair.incoming) and wrote[pair.incoming] == read.get(pair.outgoing)
    }


def _note_output(seen: dict[str, list[torch.Size]], name: str, _: nn.Module, __: Any, output: Tensor) -> None:
    seen.setdefault(name, []).append(output.shape)


def _note_input(seen: dict[str, list[torch.Size]], name: str, _: nn.Module, args: tuple[Tensor, ...]) -> None:
    seen.setdefault(name, []).append(args[0].shape)
