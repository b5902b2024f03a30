"""The contraction formulas: shapes in, exact multiply-accumulates out.

A contraction multiplies and sums over a shared index. Additions of a bias, pure sums and elementwise
products are no contractions and cost nothing here. Causal or masked attention costs what the full
product costs, as in fvcore and in torch's FlopCounterMode.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from iftplan.base.errors import MeasureError
from iftplan.nn.meta.tensors import SparseShape

Shape = Sequence[int]


class UnknownCost(Exception):  # noqa: N818 - an answer, not an error
    """A call of an operator does work that no formula here describes."""


def broadcast(*shapes: Shape) -> tuple[int, ...]:
    """The shape that all `shapes` broadcast to.

    Raises:
        ValueError: they do not broadcast together.
    """
    rank = max(map(len, shapes), default=0)
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    sizes = [{size for size in column if size != 1} or {1} for column in zip(*padded, strict=True)]
    if any(len(size) > 1 for size in sizes):
        raise ValueError(f"shapes {', '.join(str(tuple(s)) for s in shapes)} do not broadcast together")
    return tuple(size.pop() for size in sizes)


def linear(x: Shape, weight: Shape) -> int:
    """MACs of `x (…, D_in) · weightᵀ (D_out, D_in)`; a weight of one dimension gives one output."""
    return prod(x) * (weight[0] if len(weight) > 1 else 1)


def matmul(a: Shape, b: Shape) -> int:
    """MACs of `a (…, M, K) · b (…, K, N)`, leading dimensions broadcast; vectors as torch.matmul has them.

    Each stored value of a sparse operand meets every column (or row) of the other once.

    Raises:
        MeasureError: both are sparse; then the cost depends on where their values are.
    """
    if isinstance(a, SparseShape) or isinstance(b, SparseShape):
        return _sparse_product(a, b)
    rows = tuple(a[-2:-1])
    columns = tuple(b[-1:]) if len(b) > 1 else ()
    return prod(broadcast(a[:-2], b[:-2])) * prod(rows) * prod(columns) * a[-1]


def _sparse_product(a: Shape, b: Shape) -> int:
    if isinstance(a, SparseShape) and isinstance(b, SparseShape):
        raise MeasureError(
            "the cost of a product of two sparse tensors depends on where their values are, not on shapes alone; "
            "make one of them dense."
        )
    if isinstance(a, SparseShape):  # each of its values meets every column, in the sample that it is of
        return a.nnz * prod(b[1:] if len(a) == 2 else b[-1:])
    return prod(a[:-1] if len(b) == 2 else a[-2:-1]) * getattr(b, "nnz", 0)


def convolution(x: Shape, weight: Shape, output: Shape, *, transposed: bool = False) -> int:
    """MACs of a convolution: every weight meets every position once, `batch · positions · numel(weight)`.

    Positions are those of the output, for a transposed convolution those of the input. Groups need no
    term: the weight `(C_out, C_in/groups, …)` has them already.

    Args:
        x: input, `(B, C_in, …)` or without the batch.
        weight: `(C_out, C_in/groups, …)`; of a transposed convolution `(C_in, C_out/groups, …)`.
        output: `(B, C_out, …)` or without the batch.
        transposed: whether positions are counted in the input.
    """
    swept = x if transposed else output
    dims = len(weight) - 2
    return prod(swept[: -dims - 1]) * prod(swept[-dims:]) * prod(weight)


def attention(query: Shape, key: Shape, value: Shape) -> int:
    """MACs of attention scores and of the values that they weight.

    With grouped queries (H a multiple of H_kv) each key head serves several query heads, and the cost
    is that of the query heads.

    Args:
        query: `(…, H, L, E)`.
        key: `(…, H_kv, S, E)`.
        value: `(…, H_kv, S, E_v)`.
    """
    leading: list[tuple[int, ...]] = [
        (1,) * (len(query) - len(s)) + tuple(s[:-2]) for s in (query, key, value)
    ]
    heads: list[int] = [max(sizes) for sizes in zip(*leading, strict=True)]
    return prod(heads) * query[-2] * key[-2] * (query[-1] + value[-1])


def recurrent(positions: int, weights: Sequence[Shape]) -> int:
    """MACs of an LSTM, GRU or RNN: every weight matrix meets every position (time · batch) once.

    Biases are free.
    """
    return positions * sum(prod(weight) for weight in weights if len(weight) == 2)


def multi_head_attention(query: Shape, key: Shape, embed: int) -> int:
    """MACs of four `embed × embed` projections and of the attention between them.

    Args:
        query: `(B, L, E)`.
        key: `(B, S, E)`; values have the same shape.
        embed: E, the width of the queries and of every projection.
    """
    batch, targets, _ = query
    sources = key[1]
    projections = 2 * batch * (targets + sources) * embed * embed
    return projections + 2 * batch * targets * sources * embed


def encoder_layer(source: Shape, embed: int, feedforward: int) -> int:
    """MACs of a transformer encoder layer: self-attention and two feed-forward matrices.

    Args:
        source: `(B, L, E)`.
        embed: E, the width of the layer.
        feedforward: width between the two feed-forward matrices.
    """
    return multi_head_attention(source, source, embed) + 2 * prod(source[:-1]) * embed * feedforward


def tensordot(a: Shape, b: Shape, dims_a: Sequence[int], dims_b: Sequence[int]) -> int:
    """MACs of `a` and `b` summed over the paired dimensions; a paired size of 1 is summed away first.

    Args:
        a: shape of the first operand.
        b: shape of the second operand.
        dims_a: dimensions of `a` that are summed over.
        dims_b: dimensions of `b`, each the partner of the one at the same place in `dims_a`.
    """
    summed = prod(min(a[i], b[j]) for i, j in zip(dims_a, dims_b, strict=True))
    left = prod(a) // prod(a[i] for i in dims_a)
    return left * summed * (prod(b) // prod(b[j] for j in dims_b))


def grouped_mm(a: Shape, b: Shape) -> int:
    """MACs of a mixture-of-experts product: each row (or column, or slice of K) meets one expert's matrix.

    `(S, K)·(E, K, N)`, `(E, M, K)·(K, N)`, `(M, K)·(K, N)` with K cut into groups, `(E, M, K)·(E, K, N)`.
    """
    rows = a[1:] if len(a) > len(b) else a
    return prod(rows) * b[-1]


def distances(a: Shape, b: Shape) -> int:
    """MACs of all distances between the rows of `a (…, M, K)` and `b (…, N, K)`, one for each of K numbers.

    The same for every norm and in both of torch's ways to compute it.
    """
    return prod(broadcast(a[:-2], b[:-2])) * a[-2] * b[-2] * a[-1]


def own_distances(a: Shape) -> int:
    """MACs of the distances between every two rows of `a (N, K)`, each pair once."""
    return a[0] * (a[0] - 1) // 2 * a[1]


def inner(a: Shape, b: Shape) -> int:
    """MACs of `a (…, K) · b (…, K)`, every row with every row; with a scalar it is no contraction."""
    return prod(a) * prod(b[:-1]) if len(a) and len(b) else 0


def vecdot(a: Shape, b: Shape) -> int:
    """MACs of one scalar product for each pair of vectors along the last dimension."""
    return prod(broadcast(a, b))


def multi_dot(shapes: Sequence[Shape]) -> int:
    """MACs of a chain of matrices in the cheapest order, which torch takes; its ends may be vectors."""
    if len(shapes) < 2:
        return 0
    sizes = [shapes[0][0] if len(shapes[0]) > 1 else 1, *(s[0] for s in shapes[1:])]
    sizes.append(shapes[-1][-1] if len(shapes[-1]) > 1 else 1)
    best: dict[tuple[int, int], int] = {(k, k): 0 for k in range(len(shapes))}
    for length in range(1, len(shapes)):
        for first in range(len(shapes) - length):
            last = first + length
            best[first, last] = min(
                best[first, cut] + best[cut + 1, last] + sizes[first] * sizes[cut + 1] * sizes[last + 1]
                for cut in range(first, last)
            )
    return best[0, len(shapes) - 1]


def matrix_power(a: Shape, exponent: int) -> int:
    """MACs of a power of a square matrix by repeated squaring, as torch computes it.

    Raises:
        UnknownCost: a negative exponent, which inverts the matrix.
    """
    if exponent < 0:
        raise UnknownCost
    products = exponent.bit_length() + exponent.bit_count() - 2 if exponent else 0
    return products * prod(a) * a[-1]


def covariance(a: Shape) -> int:
    """MACs of `a (V, N)` times its transpose; a vector is one variable."""
    return prod(a) * (a[0] if len(a) > 1 else 1)


def cell(x: Shape, *weights: Shape) -> int:
    """MACs of one step of a recurrent layer: every weight meets every row of the batch once."""
    return prod(x[:-1]) * sum(map(prod, weights))


def trilinear(
    shapes: Sequence[Shape], expanded: Sequence[Sequence[int]], summed: Sequence[int]
) -> tuple[int, int]:
    """MACs of `aten::_trilinear`: of the first two operands' contraction, and of its result's with the third.

    Args:
        shapes: of the three operands.
        expanded: for each, the dimensions of the result's index space that it lacks.
        summed: the dimensions that are summed over.
    """
    first, second, third = map(_expand, shapes, expanded)
    both = broadcast(first, second)
    early = {d for d in summed if d in expanded[2]}
    left = [1 if d in early else size for d, size in enumerate(both)]
    late = set(summed) - early
    return prod(both) * bool(early), prod(broadcast(left, third)) * bool(late)


def _expand(shape: Shape, at: Sequence[int]) -> tuple[int, ...]:
    sizes = list(shape)
    for dim in sorted(at):
        sizes.insert(dim, 1)
    return tuple(sizes)


def bilinear(a: Shape, b: Shape, weight: Shape) -> int:
    """MACs of `x₁ᵀ W x₂` for each output: W meets every row once, and then x₂ does.

    Args:
        a: x₁, `(…, D₁)`.
        b: x₂, `(…, D₂)`.
        weight: W, `(O, D₁, D₂)`.
    """
    outputs, _, second = weight
    return prod(a[:-1]) * (prod(weight) + outputs * second)


def block_attention(query: Shape, key: Shape, value: Shape, scores: int, maps: int) -> int:
    """MACs of attention under a block mask, whose pairs of a query and a key are counted beforehand.

    Args:
        query: `(…, L, E)`, batches and heads before.
        key: `(…, S, E)`; of no influence on the cost, which is that of the scores.
        value: `(…, S, E_v)`.
        scores: pairs of a query and a key that the mask keeps, summed over its maps.
        maps: batches times heads that the mask has a map of its own for.
    """
    return scores * (prod(query[:-2]) // maps) * (query[-1] + value[-1])


def packed_attention(query: Shape, key: Shape, value: Shape) -> int:
    """MACs of attention in kernels that take the heads behind the sequence.

    Args:
        query: `(B, L, H, E)`.
        key: `(B, S, H_kv, E)`.
        value: `(B, S, H_kv, E_v)`.

    Raises:
        UnknownCost: sequences of several lengths in one tensor, `(tokens, H, E)`.
    """
    if len(query) != 4:
        raise UnknownCost
    return attention(*(tuple(s[k] for k in (0, 2, 1, 3)) for s in (query, key, value)))
