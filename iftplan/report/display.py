"""How values show themselves: as text when printed, as HTML in a notebook.

A value names its tables itself, and asks for them only when it is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iftplan.report.table import Table


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


def text(value: Displayed) -> str:
    """A value as plain text, as the command line prints it into a pipe."""
    from iftplan.report.terminal import to_text

    return "".join(map(to_text, value.tables())).rstrip("\n")


def html(value: Displayed) -> str:
    """A value as a fragment of HTML: no colours, no scripts, long tables folded."""
    from iftplan.report.html_table import table_fragment

    return f"<div>{''.join(map(table_fragment, value.tables()))}</div>"
