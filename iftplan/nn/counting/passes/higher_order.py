"""PyTorch's higher-order operators, carried out by calling their functions.

`cond`, `scan`, `map`, `while_loop` and `flex_attention` compile what they are given and hand it to an operator that no
mode sees into. While a pass is counted they are carried out in plain Python, so that every engine meets the operators
inside, and compiled functions run as they were written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

import torch
from torch import Tensor, nn

from iftplan.base.errors import MeasureError
from iftplan.nn.counting.operators.block_attention import block_attention, kept_scores, masks_nothing
from iftplan.nn.torch_internals import (
    HigherOrderOperator,
    compiler_loaded,
    indexed_by_tensors,
    of_sizes,
    operator_name,
    pause_tracing,
    tracing,
    tree_leaves,
    tree_map,
    without_modes,
    without_torch_function,
)

FULL_PRODUCT = "The block mask of flex_attention depends on data, so its attention was counted in full, as without a mask."
KEPT_BLOCKS = "flex_attention was counted in whole blocks: those that its mask keeps."


@contextmanager
def plainly() -> Iterator[list[str]]:
    """Carry out higher-order operators and compiled functions in Python; yields what had to be assumed."""
    assumed: list[str] = []
    original: Any = HigherOrderOperator.__call__

    def call(operator: HigherOrderOperator, /, *args: Any, **kwargs: Any) -> Any:
        carried_out = _CARRIED_OUT.get(operator_name(operator))
        if carried_out is None:
            return original(operator, *args, **kwargs)
        return carried_out(assumed, *args, **kwargs)

    with ExitStack() as stack:
        flex = sys.modules.get("torch.nn.attention.flex_attention")
        for owner, name, value in (
            (HigherOrderOperator, "__call__", call),
            (torch, "compile", _uncompiled),
            (flex, "_validate_device", lambda *_: None),
            *((flex, name, _untraced(getattr(flex, name, None))) for name in _MAKES_BLOCKS),
        ):
            if hasattr(owner, name):
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, value)
        if compiler_loaded():  # something may be compiled already
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield assumed


_MAKES_BLOCKS: Final = (
    *("create_mask", "_convert_mask_to_block_mask", "_create_sparse_block_from_block_mask"),
    "_create_empty_block_mask",
)


def _untraced(function: Any) -> Any:
    """The same outside the tracer, which cannot follow vmap; what makes a mask of sizes is no work of the model's."""

    def run(*args: Any, **kwargs: Any) -> Any:
        if not tracing():
            return function(*args, **kwargs)
        with pause_tracing():
            args, kwargs = tree_map(_as_size, (args, kwargs))
            return function(*args, **kwargs)

    return run


def _as_size(value: Any) -> Any:
    """A size, which is a tensor while it is traced, as a number."""
    return int(value) if isinstance(value, Tensor) and value.dim() == 0 and not value.is_meta else value


def _uncompiled(model: Any = None, **options: Any) -> Any:
    return (lambda function: function) if model is None else model


def _cond(assumed: list[str], pred: Any, true: Any, false: Any, operands: Any = ()) -> Any:
    """The branch that is taken; where that is data, the dearer one."""
    if not isinstance(pred, Tensor):
        return (true if pred else false)(*operands)
    if type(pred) is Tensor and not pred.is_meta and (not tracing() or of_sizes(pred)):
        return (true if bool(pred) else false)(*operands)
    costs = [_macs(branch, operands) for branch in (true, false)]
    if costs[0] != costs[1]:
        assumed.append(
            f"torch.cond chooses by data, so its more expensive branch was counted ({max(costs)} MACs; the other costs {min(costs)})."
        )
    return (true if costs[0] >= costs[1] else false)(*operands)


@contextmanager
def _beside() -> Iterator[None]:
    """Out of sight of every mode, and of the tracer."""
    with pause_tracing(), without_modes(), without_torch_function(), torch.no_grad():
        yield


def _macs(branch: Callable[..., Any], operands: Sequence[Any]) -> int:
    """What a branch costs, run on the meta device beside the pass."""
    from iftplan.nn.counting.passes.dispatch import DispatchNet
    from iftplan.nn.counting.passes.ledger import Ledger, Names

    ledger = Ledger(Names(nn.Module()))
    with _beside(), DispatchNet(ledger):
        branch(*operands)
    if ledger.unknown:
        raise MeasureError(
            f"a branch of torch.cond uses {min(ledger.unknown)}, which iftplan has no cost formula for; what the branches cost cannot "
            "be compared."
        )
    return ledger.table("", ()).macs


def _while_loop(assumed: list[str], condition: Any, body: Any, carried: Any, additional: Any = ()) -> Any:
    while True:
        more = condition(*carried, *additional)
        if isinstance(more, Tensor) and (more.is_meta or type(more) is not Tensor):
            raise NotImplementedError("how often torch.while_loop runs is data")  # a pass on values tells
        if not bool(more):
            return carried
        carried = body(*carried, *additional)
        carried = carried if isinstance(carried, tuple) else tuple(carried)


def _scan(assumed: list[str], combine: Any, init: Any, xs: Any, additional: Any = ()) -> Any:
    carry, outputs = [*init], []
    for step in range(tree_leaves(xs)[0].shape[0]):
        result = combine(*carry, *(x[step] for x in xs), *additional)
        carry, output = [*result[: len(carry)]], result[len(carry) :]
        outputs.append(output)
    return (*carry, *(torch.stack(column) for column in zip(*outputs, strict=True)))


def _map(assumed: list[str], function: Any, xs: Any, additional: Any = (), **_: Any) -> Any:
    rows = [function(*(x[k] for x in xs), *additional) for k in range(xs[0].shape[0])]
    if isinstance(rows[0], Tensor):
        return torch.stack(rows)
    return tree_map(lambda *column: torch.stack(column), *rows)


def _flex_attention(
    assumed: list[str],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Any,
    block_mask: tuple[Any, ...],
    *_: Any,
    **__: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """The two products of attention; what changes single scores is elementwise."""
    _read_parameters(score_mod, query)
    kept = kept_scores(block_mask, query, key)
    if kept is None:
        if not masks_nothing(block_mask):
            assumed.append(FULL_PRODUCT)
        grouped = bool(query.shape[1] != key.shape[1])
        batch = query.shape[0]
        key, value = (t if t.shape[0] == batch else t.expand(batch, *t.shape[1:]) for t in (key, value))
        out = nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=grouped)
    else:
        assumed.append(KEPT_BLOCKS)
        out = block_attention(query, key, value, *kept)
    statistics = query.new_empty(query.shape[:-1])
    return out, statistics, statistics


def _read_parameters(score_mod: Any, query: Tensor) -> None:
    """Call what changes scores once, for the parameters that it reads; it is elementwise, and costs no contraction."""
    index = torch.zeros((), dtype=torch.int64, device=query.device)
    with suppress(Exception), indexed_by_tensors():
        score_mod(query.new_zeros(()), index, index, index, index)


_CARRIED_OUT: Final[dict[str, Callable[..., Any]]] = {
    "cond": _cond,
    "while_loop": _while_loop,
    "scan": _scan,
    "map_impl": _map,
    "flex_attention": _flex_attention,
}
