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
    """This call of an operator does work that no formula here describes."""


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
    """`x (…, D_in) · weightᵀ (D_out, D_in)`; a weight of one dimension gives one output."""
    return prod(x) * (weight[0] if len(weight) > 1 else 1)


def matmul(a: Shape, b: Shape) -> int:
    """`a (…, M, K) · b (…, K, N)` with leading dimensions broadcast; vectors as torch.matmul has them.

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
            "a product of two sparse tensors costs what their values' places make of it, which no shape tells; make one of them dense."
        )
    return a.nnz * prod(b[1:]) if isinstance(a, SparseShape) else prod(a[:-1]) * getattr(b, "nnz", 0)


def convolution(x: Shape, weight: Shape, output: Shape, *, transposed: bool = False) -> int:
    """Every weight meets every position once: `batch · positions · numel(weight)`.

    Positions are those of the output, for a transposed convolution those of the input. Groups need no
    term: the weight `(C_out, C_in/groups, …)` has them already.
    """
    swept = x if transposed else output
    dims = len(weight) - 2
    return prod(swept[: -dims - 1]) * prod(swept[-dims:]) * prod(weight)


def attention(query: Shape, key: Shape, value: Shape) -> int:
    """Scores and weighted values: `q (…, H, L, E)`, `k (…, H_kv, S, E)`, `v (…, H_kv, S, E_v)`.

    With grouped queries (H a multiple of H_kv) each key head serves several query heads, and the cost
    is that of the query heads.
    """
    leading: list[tuple[int, ...]] = [
        (1,) * (len(query) - len(s)) + tuple(s[:-2]) for s in (query, key, value)
    ]
    heads: list[int] = [max(sizes) for sizes in zip(*leading, strict=True)]
    return prod(heads) * query[-2] * key[-2] * (query[-1] + value[-1])


def recurrent(positions: int, weights: Sequence[Shape]) -> int:
    """LSTM, GRU, RNN: every weight matrix meets every position (time · batch) once; biases are free."""
    return positions * sum(prod(weight) for weight in weights if len(weight) == 2)


def multi_head_attention(query: Shape, key: Shape, embed: int) -> int:
    """Four `embed × embed` projections and the attention: `query (B, L, E)`, `key (B, S, E)`."""
    batch, targets, _ = query
    sources = key[1]
    projections = 2 * batch * (targets + sources) * embed * embed
    return projections + 2 * batch * targets * sources * embed


def encoder_layer(source: Shape, embed: int, feedforward: int) -> int:
    """A transformer encoder layer: self-attention and two feed-forward matrices; `source (B, L, E)`."""
    return multi_head_attention(source, source, embed) + 2 * prod(source[:-1]) * embed * feedforward


def tensordot(a: Shape, b: Shape, dims_a: Sequence[int], dims_b: Sequence[int]) -> int:
    """`a` and `b` summed over the paired dimensions; a paired size of 1 is summed away first."""
    summed = prod(min(a[i], b[j]) for i, j in zip(dims_a, dims_b, strict=True))
    left = prod(a) // prod(a[i] for i in dims_a)
    return left * summed * (prod(b) // prod(b[j] for j in dims_b))


def grouped_mm(a: Shape, b: Shape) -> int:
    """Mixture-of-experts product: each row (or column, or slice of K) meets one expert's matrix.

    `(S, K)·(E, K, N)`, `(E, M, K)·(K, N)`, `(M, K)·(K, N)` with K cut into groups, `(E, M, K)·(E, K, N)`.
    """
    rows = a[1:] if len(a) > len(b) else a
    return prod(rows) * b[-1]


def distances(a: Shape, b: Shape) -> int:
    """All distances between the rows of `a (…, M, K)` and of `b (…, N, K)`: one multiply-add for each of K differences.

    The same for every norm and in both of torch's ways to compute it.
    """
    return prod(broadcast(a[:-2], b[:-2])) * a[-2] * b[-2] * a[-1]


def own_distances(a: Shape) -> int:
    """The distances between every two rows of `a (N, K)`, each once."""
    return a[0] * (a[0] - 1) // 2 * a[1]


def inner(a: Shape, b: Shape) -> int:
    """`a (…, K) · b (…, K)`, every row with every row; with a scalar it is no contraction."""
    return prod(a) * prod(b[:-1]) if len(a) and len(b) else 0


def vecdot(a: Shape, b: Shape) -> int:
    """One scalar product for each pair of vectors along the last dimension."""
    return prod(broadcast(a, b))


def multi_dot(shapes: Sequence[Shape]) -> int:
    """A chain of matrices in the cheapest order, which is the one that torch takes; its ends may be vectors."""
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
    """Repeated squaring, as torch does it.

    Raises:
        UnknownCost: a negative exponent, which inverts the matrix.
    """
    if exponent < 0:
        raise UnknownCost
    products = exponent.bit_length() + exponent.bit_count() - 2 if exponent else 0
    return products * prod(a) * a[-1]


def covariance(a: Shape) -> int:
    """`a (V, N)` times its transpose; a vector is one variable."""
    return prod(a) * (a[0] if len(a) > 1 else 1)


def cell(x: Shape, *weights: Shape) -> int:
    """One step of a recurrent layer: every weight meets every row of the batch once."""
    return prod(x[:-1]) * sum(map(prod, weights))


def trilinear(shapes: Sequence[Shape], expanded: Sequence[Sequence[int]], summed: Sequence[int]) -> int:
    """`aten::_trilinear`: the first two operands are contracted, then what comes of them with the third.

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
    return prod(both) * bool(early) + prod(broadcast(left, third)) * bool(late)


def _expand(shape: Shape, at: Sequence[int]) -> tuple[int, ...]:
    sizes = list(shape)
    for dim in sorted(at):
        sizes.insert(dim, 1)
    return tuple(sizes)


def bilinear(a: Shape, b: Shape, weight: Shape) -> int:
    """`x₁ᵀ W x₂` for each output: `W (O, D₁, D₂)` meets every row once, and then x₂ does."""
    outputs, _, second = weight
    return prod(a[:-1]) * (prod(weight) + outputs * second)


def block_attention(query: Shape, key: Shape, value: Shape, scores: int, maps: int) -> int:
    """Attention under a block mask that keeps `scores` pairs of a query and a key over `maps` batches times heads."""
    return scores * (prod(query[:-2]) // maps) * (query[-1] + value[-1])


def packed_attention(query: Shape, key: Shape, value: Shape) -> int:
    """Attention of kernels that take `(B, L, H, E)`.

    Raises:
        UnknownCost: sequences of several lengths in one tensor, `(tokens, H, E)`.
    """
    if len(query) != 4:
        raise UnknownCost
    return attention(*(tuple(s[k] for k in (0, 2, 1, 3)) for s in (query, key, value)))
