"""SymPy expressions as text that reads like the paper: `36·C_in·C_out/(9·C_in+C_out)`."""

from __future__ import annotations

from typing import Any

import sympy


def text(expression: Any) -> str:
    """An expression in one line, products with a dot, powers with a caret.

    Example:
        >>> from iftplan.families.symbols import d, m, n
        >>> text(m * n / (d * (m + n)))
        'm·n/(d·(m+n))'
    """
    plain: str = sympy.sstr(expression, order="lex")
    return plain.replace("**", "^").replace("*", "·").replace(" + ", "+").replace(" - ", "-")
