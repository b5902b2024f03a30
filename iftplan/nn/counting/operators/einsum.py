"""Cost of an einsum: the contractions that torch.einsum performs, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from iftplan.nn.counting.operators.formulas import Shape


def einsum_macs(equation: str, shapes: Sequence[Shape], path: Sequence[int] = ()) -> int:
    """Exact MACs of `torch.einsum(equation, …)` for any number of operands.

    Operands meet two at a time, from the left or along `path` (pairs of positions, the result goes to the
    end). An index that one operand of a pair alone has, and nobody needs later, is summed away first; a pair
    with no shared summed index is an elementwise product and costs nothing.

    Args:
        equation: as torch.einsum takes it; "..." and the implicit output are understood.
        shapes: the operands' shapes.
        path: flat list of positions, as torch hands it to its einsum operator.
    """
    terms, output = _terms(equation, shapes)
    operands = [dict(zip(term, shape, strict=True)) for term, shape in zip(terms, shapes, strict=True)]
    macs = 0
    steps = list(zip(path[::2], path[1::2], strict=True)) if path else []
    while len(operands) > 1:
        i, j = steps.pop(0) if steps else (0, 1)
        a, b = operands[i], operands[j]
        rest = [o for k, o in enumerate(operands) if k not in (i, j)]
        needed = set(output).union(*rest)
        macs += _pair_macs(a, b, needed)
        kept = {x: max(a.get(x, 1), b.get(x, 1)) for x in (*a, *b) if x in needed}
        operands = [*rest, kept] if path else [kept, *rest]
    return macs


def _pair_macs(a: dict[str, int], b: dict[str, int], needed: set[str]) -> int:
    summed = {x for x in a.keys() & b.keys() if x not in needed and a[x] > 1 and b[x] > 1}
    if not summed:
        return 0
    kept = {x for x in a.keys() | b.keys() if x in needed}
    return prod(max(a.get(x, 1), b.get(x, 1)) for x in kept | summed)


def _terms(equation: str, shapes: Sequence[Shape]) -> tuple[list[list[str]], list[str]]:
    left, arrow, right = equation.replace(" ", "").partition("->")
    rank = max(
        (
            len(s) - len(t.replace("...", ""))
            for t, s in zip(left.split(","), shapes, strict=True)
            if "." in t
        ),
        default=0,
    )
    terms = [
        _expand(t, len(s) - len(t.replace("...", "")), rank)
        for t, s in zip(left.split(","), shapes, strict=True)
    ]
    letters = [x for term in terms for x in term if not x.startswith(".")]
    implicit = ["..."] * (rank > 0) + sorted(x for x in set(letters) if letters.count(x) == 1)
    return terms, _expand(right if arrow else "".join(implicit), rank, rank)


def _expand(term: str, dots: int, rank: int) -> list[str]:
    """Letters of a term, with "..." written out as the last `dots` of `rank` numbered indices."""
    before, ellipsis, after = term.partition("...")
    named = [f".{k}" for k in range(rank - dots, rank)] if ellipsis else []
    return [*before, *named, *after]
