"""How values show themselves: as text when printed, as HTML in a notebook.

What a value looks like is the report's business (`iftplan.report.values`); here is only where Python and notebooks
ask for it.
"""

from __future__ import annotations

from typing import Any


class Shown:
    """A value that prints as the command line shows it, and as tables in a notebook."""

    __slots__ = ()

    def __str__(self) -> str:
        """The tables as plain text."""
        from iftplan.report.values import text  # values show themselves; nothing else looks up

        return text(self)

    def _repr_html_(self) -> str:
        """The tables as HTML; Jupyter, VS Code and other notebooks ask for this."""
        from iftplan.report.values import html

        return html(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Both, for IPython, which would otherwise write the whole repr beside the HTML."""
        return {"text/plain": str(self), "text/html": self._repr_html_()}
