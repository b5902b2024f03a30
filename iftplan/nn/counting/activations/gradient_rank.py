"""How many directions the gradient of an adapter has, before there is an adapter: which placement may help (arXiv 2410.15858)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.base.suggestions import did_you_mean
from iftplan.nn.meta.called_input import called_input
from iftplan.plans.search.adapters import KINDS, Kind, Placement, placements


@check_arguments
def gradient_ranks(
    model: nn.Module,
    blocks: Sequence[str],
    loss: Callable[[], Tensor],
    *,
    kinds: Iterable[Kind] = KINDS,
    tolerance: float = 0.01,
) -> dict[Placement, int]:
    """Rank of the gradient that a linear map from one block's input to another's output would have, at zero.

    That gradient is Σ x⊗∂L/∂y over all places of a batch, with x what the first block reads and y what the second writes; an
    adapter of rank r has the first r of its directions. Singular values above `tolerance` times the largest count.
    It costs a forward and a backward pass, and for each placement as many MACs as a linear layer between the two.

    Args:
        model: whose parameters stay as they are; one of them needs a gradient before the first block.
        blocks: paths of modules of one width (channels last), in the order in which they run.
        loss: runs the model on a batch and returns its loss; called once.
        kinds: of connections.
        tolerance: of singular values, over the largest.

    Raises:
        InputError: a block does not run once, or blocks have other widths or places.
    """
    read: dict[str, list[Tensor]] = {}
    wrote: dict[str, list[Tensor]] = {}
    hooks = []
    modules = dict(model.named_modules())
    for path in blocks:
        if path not in modules:
            raise InputError(
                f"the {type(model).__name__} has no module {path!r}.{did_you_mean(path, modules, cutoff=0.4)}"
            )
    for path in blocks:
        block = modules[path]
        hooks.append(block.register_forward_pre_hook(partial(_note_input, read, path), with_kwargs=True))
        hooks.append(block.register_forward_hook(partial(_note_output, wrote, path)))
    try:
        with torch.enable_grad():
            value = loss()
    finally:
        for hook in hooks:
            hook.remove()
    _check(blocks, read, wrote)
    outputs = [wrote[path][0] for path in blocks]
    gradients = [g.detach().double().reshape(-1, g.shape[-1]) for g in torch.autograd.grad(value, outputs)]
    inputs = [read[path][0].detach().double().reshape(-1, read[path][0].shape[-1]) for path in blocks]
    return {
        one: int(torch.linalg.matrix_rank(inputs[one.reads].T @ gradients[one.writes], rtol=tolerance))
        for one in placements(len(blocks), kinds)
    }


def _check(blocks: Sequence[str], read: dict[str, list[Tensor]], wrote: dict[str, list[Tensor]]) -> None:
    for path in blocks:
        times = len(wrote.get(path, ()))
        if times != 1 or len(read.get(path, ())) != 1:
            raise InputError(
                f"{path} runs {times} times with a tensor in the loss, and a placement needs blocks that run once; name others."
            )
        if not wrote[path][0].requires_grad:
            raise InputError(f"the output of {path} has no gradient; let a parameter before it need one.")
    shapes = {tuple(x.shape) for path in blocks for x in (read[path][0], wrote[path][0])}
    if len(shapes) > 1:
        told = " and ".join("x".join(map(str, shape)) for shape in sorted(shapes)[:2])
        raise InputError(
            f"the blocks read and write {told}, and an adapter between any two needs one shape; name blocks of one stage."
        )


def _note_input(
    seen: dict[str, list[Tensor]],
    path: str,
    block: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> None:
    if isinstance(x := called_input(block, args, kwargs), Tensor):
        seen.setdefault(path, []).append(x)


def _note_output(seen: dict[str, list[Tensor]], path: str, _: nn.Module, __: Any, output: Any) -> None:
    first = output if isinstance(output, Tensor) else next((x for x in output if isinstance(x, Tensor)), None)
    if first is not None:
        seen.setdefault(path, []).append(first)
