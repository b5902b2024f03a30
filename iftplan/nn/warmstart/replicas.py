"""Which dense channel every wide one replicates: dimensions as products and concatenations of smaller ones.

A dimension is a `Channels`: so many in the dense model, so many in the wide one. What the forward pass does to it says
what it is made of: a view splits it into factors (heads × head size), a concatenation into a sum. Two that meet are
unified. What stays whole, a leaf, takes replicas of its own; everything made of leaves follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Literal

import torch
from torch import Tensor

Size = tuple[int, int]
"""(dense, wide)."""


class UnmatchedError(Exception):
    """Two dimensions that cannot be the same channels."""


@dataclass(eq=False, slots=True)
class Channels:
    """Dimension of a tensor with its size in both models.

    Attributes:
        size: dense and wide size; equal ones are the same channels in the same order.
        kind: a leaf, a "product" of `parts` (outermost first) or their "sum" (one after the other).
        same: what it was unified with.
    """

    size: Size
    kind: Literal["leaf", "product", "sum"] = "leaf"
    parts: tuple[Channels, ...] = ()
    same: Channels | None = None

    @property
    def root(self) -> Channels:
        """The dimension that stands for this one after all unifications."""
        return self if self.same is None else self.same.root

    @property
    def grows(self) -> bool:
        """Whether the wide model has more of them."""
        return self.size[0] != self.size[1]


def product(parts: Sequence[Channels]) -> Channels:
    """A dimension that runs through all its parts, the last one fastest."""
    flat = [
        p
        for part in map(_root, parts)
        for p in (part.parts if part.kind == "product" else (part,))
        if p.size != (1, 1)
    ]
    return _joined("product", flat, _total(flat))


def concatenation(parts: Sequence[Channels]) -> Channels:
    """A dimension that is its parts one after the other."""
    flat = [p for part in map(_root, parts) for p in (part.parts if part.kind == "sum" else (part,))]
    return _joined("sum", flat, (sum(p.size[0] for p in flat), sum(p.size[1] for p in flat)))


def factors(channels: Channels, sizes: Sequence[Size]) -> list[Channels]:
    """A dimension as a product of factors of these sizes, outermost first.

    Raises:
        UnmatchedError: it cannot be that.
    """
    node = channels.root
    if node.size != _product_of(sizes):
        raise UnmatchedError(f"{_text(node.size)} channels are not {' times '.join(map(_text, sizes))}")
    if not node.grows:
        return [_fixed(size) for size in sizes]
    real = [size for size in sizes if size != (1, 1)]
    made = iter([node] if len(real) == 1 else _factors(node, real))
    return [_fixed(size) if size == (1, 1) else next(made) for size in sizes]


def _factors(node: Channels, sizes: list[Size]) -> list[Channels]:
    if node.kind == "leaf":
        node.kind, node.parts = "product", tuple(Channels(size) for size in sizes)
        return list(node.parts)
    if node.kind == "product":
        return _grouped(list(node.parts), sizes)
    first, rest = sizes[0], _product_of(sizes[1:])
    if first[0] == first[1]:  # so many equal pieces, one after the other
        pieces = cut(node, [rest] * first[0])
        inner = reduce(unify, pieces)
        node.kind, node.parts = "product", (Channels(first), inner)
        return [node.parts[0], *factors(inner, sizes[1:])]
    split = [factors(part, [_quotient(part.size, rest), rest]) for part in node.parts]
    inner = reduce(unify, [tail for _, tail in split])
    return [concatenation([head for head, _ in split]), *factors(inner, sizes[1:])]


def _grouped(parts: list[Channels], sizes: list[Size]) -> list[Channels]:
    """The parts of a product in groups of these sizes; a part across a border is split."""
    made = []
    for size in sizes:
        taken: list[Channels] = []
        while _total(taken) != size:
            need, head = _quotient(size, _total(taken)), parts.pop(0).root
            if all(n % h == 0 for n, h in zip(need, head.size, strict=True)):
                taken.append(head)
            else:
                first, rest = factors(head, [need, _quotient(head.size, need)])
                taken.append(first)
                parts.insert(0, rest)
        made.append(product(taken))
    return made


def cut(channels: Channels, sizes: Sequence[Size]) -> list[Channels]:
    """A dimension in consecutive pieces of these sizes.

    Raises:
        UnmatchedError: it cannot be cut there.
    """
    node = channels.root
    if len(sizes) == 1:
        return [node]
    if not node.grows:
        return [_fixed(size) for size in sizes]
    if node.kind == "leaf":
        node.kind, node.parts = "sum", tuple(Channels(size) for size in sizes)
        return list(node.parts)
    if node.kind == "sum":
        return _pieces(list(node.parts), sizes)
    outer, inner = node.parts[0], product(node.parts[1:])
    if all(n % m == 0 for size in sizes for n, m in zip(size, inner.size, strict=True)):
        heads = cut(outer, [_quotient(size, inner.size) for size in sizes])
        return [product([head, inner]) for head in heads]
    if outer.root.grows:
        raise UnmatchedError(
            f"pieces of {' and '.join(map(_text, sizes))} break up one of its {_text(outer.size)} blocks of {_text(inner.size)}"
        )
    return _pieces([inner] * outer.size[0], sizes)


def _pieces(parts: list[Channels], sizes: Sequence[Size]) -> list[Channels]:
    made = []
    for size in sizes:
        taken: list[Channels] = []
        while (have := _sum_of(taken)) != size:
            need = (size[0] - have[0], size[1] - have[1])
            if not parts or min(need) < 1:
                raise UnmatchedError(f"a piece of {_text(size)} ends inside one of its parts")
            head = parts.pop(0).root
            if head.size[0] <= need[0] and head.size[1] <= need[1]:
                taken.append(head)
            else:
                first, rest = cut(head, [need, (head.size[0] - need[0], head.size[1] - need[1])])
                taken.append(first)
                parts.insert(0, rest)
        made.append(concatenation(taken))
    return made


def unify(one: Channels, other: Channels) -> Channels:
    """Make two dimensions the same channels.

    Raises:
        UnmatchedError: they are made of parts that do not fit.
    """
    a, b = one.root, other.root
    if a is b:
        return a
    if a.size != b.size:
        raise UnmatchedError(f"{_text(a.size)} channels meet {_text(b.size)}")
    if a.kind == "leaf" or not a.grows:
        a.same = b
        return b
    if b.kind == "leaf":
        b.same = a
        return a
    coarse, fine = (a, b) if _divides(a, b) else (b, a)
    split = factors if fine.kind == "product" else cut
    for x, y in zip(split(coarse, [p.size for p in fine.parts]), fine.parts, strict=True):
        unify(x, y)
    coarse.root.same = fine
    return fine


def _divides(coarse: Channels, fine: Channels) -> bool:
    """Whether the parts of `fine` are to be found in `coarse`, not the other way round."""
    if coarse.kind != fine.kind:
        return fine.kind == "sum" or fine.parts[0].root.grows
    return len(coarse.parts) <= len(fine.parts)


def replicate(channels: Channels, draw: Callable[[Channels], Tensor]) -> Tensor:
    """Index of the dense channel that each wide channel replicates; `draw` answers for leaves."""
    node = channels.root
    if not node.grows:
        return torch.arange(node.size[0])
    if node.kind == "leaf":
        return draw(node)
    found = [replicate(part, draw) for part in node.parts]
    sizes = [part.size[0] for part in node.parts]
    if node.kind == "sum":
        starts = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        return torch.cat([start + part for start, part in zip(starts, found, strict=True)])
    whole = torch.zeros(1, dtype=torch.long)
    for size, part in zip(sizes, found, strict=True):
        whole = (whole[:, None] * size + part).flatten()
    return whole


def copies(chosen: Tensor) -> Tensor:
    """Number of wide channels that replicate the same dense one, for every wide channel."""
    return torch.bincount(chosen)[chosen]


def _root(channels: Channels) -> Channels:
    return channels.root


def _fixed(size: Size) -> Channels:
    if size[0] != size[1]:
        raise UnmatchedError(f"{_text(size)} in a dimension that stays")
    return Channels(size)


def _joined(kind: Literal["product", "sum"], parts: list[Channels], size: Size) -> Channels:
    if len(parts) == 1:
        return parts[0]
    if size[0] == size[1]:
        return Channels(size)
    return Channels(size, kind, tuple(parts))


def _total(parts: Sequence[Channels]) -> Size:
    return _product_of([part.size for part in parts])


def _product_of(sizes: Sequence[Size]) -> Size:
    return prod(s[0] for s in sizes), prod(s[1] for s in sizes)


def _sum_of(parts: Sequence[Channels]) -> Size:
    return sum(p.size[0] for p in parts), sum(p.size[1] for p in parts)


def _quotient(size: Size, by: Size) -> Size:
    if size[0] % by[0] or size[1] % by[1]:
        raise UnmatchedError(f"{_text(size)} is no multiple of {_text(by)}")
    return size[0] // by[0], size[1] // by[1]


def _text(size: Size) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}→{size[1]}"
