"""Trained weights for the module that replaces one layer: plain, branches or factors.

A kernel is a matrix (C_in/groups·Πkernel) × (C_out/groups) for every group, a transposed one
(C_in/groups) × (C_out/groups·Πkernel); these are stacked as `blocks`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from iftplan.nn.layers.blocks import BlockProduct
from iftplan.nn.layers.branches import Doped, Factorized, Member, Parallel, is_conv1d
from iftplan.nn.layers.stacks import stack_of
from iftplan.nn.masks.masked_weights import SUFFIX, has_mask
from iftplan.nn.warmstart.blocks import project_
from iftplan.nn.warmstart.truncation import truncated

MaskChoice = Literal["keep", "draw"]
"""Masks as they are, or others of the same counts for the weights that are to be kept."""


def start_member_(
    module: Member,
    replaced: nn.Module | None,
    weight: Tensor,
    masks: MaskChoice,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Set the values of a member's tensors; what they make together, and what they should.

    Args:
        module: the member, linear inside.
        replaced: the dense layer in whose place it stands.
        weight: that layer's trained weight, at the member's widths.
        masks: whether those of the member stay.
        generator: of drawn masks.
    """
    if replaced is not None and is_conv1d(replaced):  # members are linear layers in its place
        weight = weight.T
    if isinstance(module, Parallel):
        return _parallel_(list(module.branches), weight, masks, generator), weight
    groups = replaced.groups if isinstance(replaced, nn.modules.conv._ConvNd) else 1
    blocks = _blocks(weight, groups, _transposed(replaced))
    if isinstance(module, BlockProduct):
        return project_(module, blocks[0]), blocks[0]
    if isinstance(module, Factorized):
        return _factorized_(module, blocks, masks), blocks
    assert isinstance(module, Doped)
    return _doped_(module, blocks, masks), blocks


def start_plain_(module: nn.Module, name: str, weight: Tensor, masks: MaskChoice) -> Tensor:
    """Set a weight under its mask and return the values that it has then.

    Kept at random they are scaled by 1/density, so that sums are what they were on average.

    Args:
        module: the owner of the weight.
        name: of the parameter.
        weight: trained values, in the parameter's shape.
        masks: "draw" keeps the largest of them, else the mask stays as it is.
    """
    own = module._parameters[name]
    assert own is not None
    if not has_mask(module, name):
        return own.copy_(weight)
    mask = module._buffers[name + SUFFIX]
    assert mask is not None
    if masks == "draw":
        whole = [(weight, mask)] if stack_of(module, name) is None else list(zip(weight, mask, strict=True))
        for values, kept in whole:  # experts keep as many weights each as they did
            kept.copy_(_largest(values, int(kept.count_nonzero())))
        return own.copy_(weight * mask)
    return own.copy_(weight * mask / _density(mask))


def _parallel_(
    branches: list[nn.Module], weight: Tensor, masks: MaskChoice, generator: torch.Generator
) -> Tensor:
    own = [_mask(branch) for branch in branches]
    if masks == "draw":
        for mask, drawn in zip(
            own, _covering([int(m.count_nonzero()) for m in own], weight.shape, generator), strict=True
        ):
            mask.copy_(drawn)
        share = 1 / torch.stack(own).sum(0).clamp(min=1).to(weight.dtype)
    else:
        share = torch.full_like(weight, 1 / sum(_density(mask) for mask in own))
    total = torch.zeros_like(weight)
    for branch, mask in zip(branches, own, strict=True):
        value = weight * share * mask
        _weight(branch).copy_(value)
        total += value
    return total


def _covering(counts: list[int], shape: torch.Size, generator: torch.Generator) -> list[Tensor]:
    """Masks of these counts that cover every weight as evenly as can be: slices of one cyclic permutation."""
    size = shape.numel()
    order = torch.randperm(size, generator=generator)
    drawn, start = [], 0
    for count in counts:
        mask = torch.zeros(size, dtype=torch.bool)
        mask[order[(start + torch.arange(count)) % size]] = True
        drawn.append(mask.view(shape))
        start += count
    return drawn


def _factorized_(member: Factorized, blocks: Tensor, masks: MaskChoice) -> Tensor:
    """Truncated singular values under both masks, with the one scale that fits W best."""
    u, v = truncated(blocks, _rank(member) // len(blocks))
    _write_(member, u, v)
    for part in (member.U, member.V):
        if has_mask(part, "weight"):
            if masks == "draw":
                _mask(part).copy_(_largest(_weight(part), int(_mask(part).count_nonzero())))
            _weight(part).mul_(_mask(part))
    made = _read(member, blocks)
    square = made.square().sum()
    scale = (made * blocks).sum() / square if square > 0 else square
    _weight(member.V).mul_(scale)
    return made * scale


def _doped_(member: Doped, blocks: Tensor, masks: MaskChoice) -> Tensor:
    """Truncated singular values, and what remains of W where the mask lets it."""
    _write_(member, *truncated(blocks, _rank(member) // len(blocks)))
    low, sparse = _read(member, blocks), member.sparse
    rest = _from_blocks(blocks - low, _weight(sparse), _transposed(sparse))
    if has_mask(sparse, "weight"):
        mask = _mask(sparse)
        if masks == "draw":
            mask.copy_(_largest(rest, int(mask.count_nonzero())))
        rest = rest * mask
    _weight(sparse).copy_(rest)
    return low + _blocks(rest, len(blocks), _transposed(sparse))


# --- matrices and masks ---------------------------------------------------------------------------------


def _transposed(module: nn.Module | None) -> bool:
    return isinstance(module, nn.modules.conv._ConvTransposeNd)


def _blocks(weight: Tensor, groups: int, inputs_first: bool = False) -> Tensor:
    """(groups, m, n/groups) of a weight whose first dimension is its outputs, or its inputs where transposed."""
    stacked = weight.reshape(groups, weight.shape[0] // groups, -1)
    return stacked if inputs_first else stacked.transpose(1, 2)


def _from_blocks(blocks: Tensor, like: Tensor, inputs_first: bool = False) -> Tensor:
    return (blocks if inputs_first else blocks.transpose(1, 2)).reshape(like.shape)


def _write_(member: Factorized | Doped, u: Tensor, v: Tensor) -> None:
    """U reads its group's inputs; V is dense, and zero between groups."""
    first, second = _weight(member.U), _weight(member.V)
    first.copy_(_from_blocks(u, first))
    corners = v if _transposed(member.V) else v.transpose(1, 2)
    diagonal: Tensor = torch.block_diag(*corners)  # type: ignore[no-untyped-call]
    second.copy_(diagonal.reshape(second.shape))


def _read(member: Factorized | Doped, blocks: Tensor) -> Tensor:
    """What U and V make together, as blocks."""
    groups, _, outputs = blocks.shape
    u, second = _blocks(_weight(member.U), groups), _weight(member.V).flatten(1)
    second = second if _transposed(member.V) else second.T
    rank = u.shape[-1]
    corners = [second[g * rank : (g + 1) * rank, g * outputs : (g + 1) * outputs] for g in range(groups)]
    return u @ torch.stack(corners)


def _rank(member: Factorized | Doped) -> int:
    return _weight(member.U).shape[0]


def _weight(module: nn.Module) -> Tensor:
    weight = module._parameters["weight"]
    assert weight is not None
    return weight


def _mask(module: nn.Module) -> Tensor:
    """The mask of a part; all of it where there is none."""
    if not has_mask(module, "weight"):
        return torch.ones_like(_weight(module), dtype=torch.bool)
    mask = module._buffers["weight" + SUFFIX]
    assert mask is not None
    return mask


def _density(mask: Tensor) -> float:
    return int(mask.count_nonzero()) / mask.numel()


def _largest(weight: Tensor, count: int) -> Tensor:
    """The mask of so many entries of the largest magnitude."""
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[weight.abs().flatten().topk(count).indices] = True
    return mask.view(weight.shape)


def relative_error(made: Tensor, wanted: Tensor) -> float:
    """‖made - wanted‖/‖wanted‖; 0 where both are nothing."""
    off, norm = (x.double().norm().item() for x in (made - wanted, wanted))
    return float(off / norm if norm else off)
