"""A matrix cut into cells of one size, and put together again."""

from __future__ import annotations

from torch import Tensor


def cut(matrix: Tensor, height: int, width: int) -> Tensor:
    """Cells of a matrix that they divide: (cells, height, width).

    Args:
        matrix: (rows, columns).
        height: of a cell, which divides the rows.
        width: of a cell, which divides the columns.
    """
    rows, columns = matrix.shape
    return (
        matrix.reshape(rows // height, height, columns // width, width)
        .transpose(1, 2)
        .reshape(-1, height, width)
    )


def glue(cells: Tensor, like: Tensor) -> Tensor:
    """The matrix, of `like`'s shape, that was cut."""
    (rows, columns), (_, height, width) = like.shape, cells.shape
    return cells.view(rows // height, columns // width, height, width).transpose(1, 2).reshape(rows, columns)
