"""Blocks of a model with the same structure, such as the layers of a transformer."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from torch import nn

# Integers of a module that are no size of anything, whatever their value.
NO_SIZES: Final = frozenset(
    {"training", "layer_idx", "layer_index", "layer_id", "padding_idx", "call_super_init"}
)


def alike(model: nn.Module, at_least: int) -> dict[str, str]:
    """Module path → path of the first module that is built like it.

    Siblings count as alike when their classes, their parameters' shapes and their integer attributes are
    equal all the way down. Only siblings with parts of their own count: two linear layers of one size are
    a coincidence, two transformer blocks are not.

    Args:
        model: the model.
        at_least: how many alike siblings make a repetition.
    """
    found: dict[str, str] = {}
    for path, parent in model.named_modules():
        groups: dict[Hashable, list[str]] = {}
        for name, child in parent.named_children():
            if any(grandchild is not child for grandchild in child.modules()):
                groups.setdefault(_build(child), []).append(f"{path}.{name}" if path else name)
        for first, *others in (group for group in groups.values() if len(group) >= at_least):
            parts = [name for name, _ in model.get_submodule(first).named_modules()]
            for other in others:
                found.update({_join(other, part): _join(first, part) for part in parts})
    return _to_the_first(found)


def _join(path: str, part: str) -> str:
    return f"{path}.{part}" if part else path


def _to_the_first(found: dict[str, str]) -> dict[str, str]:
    """Repetitions inside repetitions lead to the first of the first."""
    first = dict(found)
    for path in first:
        while first[path] in found:
            first[path] = found[first[path]]
    return first


def _build(module: nn.Module) -> Hashable:
    return tuple(
        (
            name,
            type(part),
            tuple((n, tuple(p.shape)) for n, p in part.named_parameters(recurse=False)),
            tuple((n, tuple(b.shape)) for n, b in part.named_buffers(recurse=False)),
            tuple((n, v) for n, v in vars(part).items() if type(v) is int and n not in NO_SIZES),
        )
        for name, part in module.named_modules()
    )
