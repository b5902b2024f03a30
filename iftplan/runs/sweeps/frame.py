"""The table of a sweep as a pandas frame and as Parquet, every count exact."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import astuple
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from iftplan.base.documents import write_bytes
from iftplan.base.errors import InputError
from iftplan.runs.sweeps.grid import COLUMNS, GridPoint

if TYPE_CHECKING:
    import pandas as pd

_COUNTS = (
    "seed", "dense_macs", "macs", "nnz", "capacity", "maskable_weights", "train_macs", "dense_train_macs",
)  # fmt: skip
_NUMBERS = ("sparsity", "ratio", "log2_masks", "value")
_INT64 = 2**63


def frame(rows: Iterable[GridPoint]) -> pd.DataFrame:
    """A frame with the columns of `Row`.

    Counts are whole numbers where they are missing too (`Int64`), and Python's own where 64 bits do not hold
    them: no count ever becomes a float.
    """
    import pandas as pd

    columns = list(zip(*map(astuple, rows), strict=True)) or [()] * len(COLUMNS)
    found = dict(zip(COLUMNS, columns, strict=True))
    return pd.DataFrame(
        {name: pd.Series(values, dtype=_dtype(name, values)) for name, values in found.items()}
    )


def _dtype(name: str, values: tuple[Any, ...]) -> str:
    if name in _NUMBERS:
        return "float64"
    if name not in _COUNTS:
        return "object"
    return "Int64" if all(v is None or abs(v) < _INT64 for v in values) else "object"


def write_parquet(table: pd.DataFrame, path: str) -> None:
    """Write Parquet in one step.

    Counts beyond 64 bits are decimals of 38 digits there, for Parquet holds no larger whole numbers.

    Raises:
        InputError: no pyarrow, or a place that cannot be written.
    """
    write_bytes(_parquet(table), path)


def _parquet(table: pd.DataFrame) -> bytes:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise InputError(
            "Parquet is written with pyarrow, which is not installed; install it with: pip install 'iftplan[sweep]', or name a .csv."
        ) from error
    large = [name for name in _COUNTS if table[name].dtype == object]
    decimals = {name: [None if v is None else Decimal(v) for v in table[name]] for name in large}
    file = io.BytesIO()
    table.assign(**decimals).to_parquet(file, engine="pyarrow", index=False)
    return file.getvalue()
