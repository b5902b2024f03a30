"""The contraction formulas: shapes in, exact multiply-accumulates out.

A contraction multiplies and sums over a shared index. Additions of a bias, pure sums and elementwise
products are no contractions and cost nothing here. Causal or masked attention costs what the full
product costs, as in fvcore and in torch's FlopCounterMode.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from iftplan.errors import MeasureError

Shape = Sequence[int]


class SparseShape(tuple[int, ...]):
    """The shape of a sparse tensor, which also knows how many values are stored.

    Attributes:
        nnz: stored values.
    """

    nnz: int

    def __new__(cls, sizes: Iterable[int], nnz: int) -> SparseShape:
        """Sizes and the number of stored values."""
        shape = super().__new__(cls, sizes)
        shape.nnz = nnz
        return shape


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
