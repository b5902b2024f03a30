"""Under which conditions every pass of this project runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from iftplan.base.errors import EndedError
from iftplan.nn.counting.passes.higher_order import plainly
from iftplan.nn.counting.passes.process_exit import no_exit
from iftplan.nn.counting.passes.threads import one_thread


@contextmanager
def counting_conditions(model: nn.Module) -> Iterator[list[str]]:
    """Eval mode, no gradients, nothing fused or compiled that would hide a layer's products, and one thread that returns.

    Yields what had to be assumed, complete when the pass is over.

    Raises:
        MeasureError: the pass ended the process, or computed in threads or processes of its own.
    """
    training = [module for module in model.modules() if module.training]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    for module in training:
        module.training = False
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.no_grad(),
            no_exit(partial(_ended, type(model).__name__)),
            one_thread(model),
            plainly() as assumed,
        ):
            yield assumed
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for module in training:
            module.training = True


def _ended(model: str, call: str) -> EndedError:
    return EndedError(
        f"{model} calls {call} in its forward pass, which would end the process, so the pass cannot be "
        "measured. Remove the call, or raise an error instead."
    )
