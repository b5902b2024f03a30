"""How values show themselves: as text when printed, as HTML in a notebook, as a data frame when asked.

A value names its tables itself, and asks for them only when it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from iftplan.report.table import Table

Record = Mapping[str, Any]


class Displayed:
    """A value that prints as the command line shows it, and as tables in a notebook."""

    __slots__ = ()

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first.

        Raises:
            TypeError: a kind of value that nobody gave tables.
        """
        raise TypeError(f"{type(self).__name__} shows itself, and no tables are known for it")

    def __str__(self) -> str:
        """The tables as plain text."""
        return text(self)

    def _repr_html_(self) -> str:
        """The tables as HTML; Jupyter, VS Code and other notebooks ask for this."""
        return html(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Both, for IPython, which would otherwise write the whole repr beside the HTML."""
        return {"text/plain": str(self), "text/html": self._repr_html_()}


class Framed:
    """A value that is a list of things: a data frame has a row for each of them."""

    __slots__ = ()

    def records(self) -> Sequence[Record]:
        """The things as plain values, under the keys that the value's JSON document has for them.

        Raises:
            TypeError: a kind of value that nobody gave records.
        """
        raise TypeError(f"{type(self).__name__} is a list of things, and no records are known for it")

    def to_dataframe(self) -> pd.DataFrame:
        """The things as a pandas data frame: a column for each key of the JSON document, numbers as they are.

        Counts stay whole numbers where some are missing (`Int64`), and where 64 bits do not hold them. MACs are MACs,
        sparsities and densities fractions of 1.
        """
        return data_frame(self.records())


def data_frame(records: Iterable[Record]) -> pd.DataFrame:
    """A data frame with a row for each record, in the order of the records.

    Args:
        records: a mapping in one becomes columns of its own: those of a structure and a layer by their own names.
    """
    import pandas as pd

    rows = [dict(_flat(record)) for record in records]
    columns = dict.fromkeys(name for row in rows for name in row)
    values = {name: [row.get(name) for row in rows] for name in columns}
    return pd.DataFrame({name: pd.Series(found, dtype=_dtype(found)) for name, found in values.items()})


_OWN = ("structure", "cardinality", "layer")
"""Parts of a record whose keys say by themselves what they are of."""

_INT64 = 2**63


def _flat(record: Record, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, prefix if key in _OWN else f"{prefix}{key}_")
        else:
            yield f"{prefix}{key}", value


def _dtype(values: Sequence[Any]) -> str:
    given = [value for value in values if value is not None]
    if given and all(type(value) is int and abs(value) < _INT64 for value in given):
        return "int64" if len(given) == len(values) else "Int64"
    if given and all(type(value) is bool for value in given):
        return "bool" if len(given) == len(values) else "boolean"
    return "float64" if given and all(type(value) is float for value in given) else "object"


def text(value: Displayed) -> str:
    """A value as plain text, as the command line prints it into a pipe."""
    from iftplan.report.terminal import to_text

    return "".join(map(to_text, value.tables())).rstrip("\n")


def html(value: Displayed) -> str:
    """A value as a fragment of HTML: no colours, no scripts, long tables folded."""
    from iftplan.report.html_table import table_fragment

    return f"<div>{''.join(map(table_fragment, value.tables()))}</div>"
