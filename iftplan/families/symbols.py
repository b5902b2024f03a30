"""The shared SymPy symbols of every cost expression, all positive, with the meaning they have everywhere; and their text.

| symbol | meaning |
|---|---|
| `m`, `n` | inputs and outputs of the weight seen as a matrix: `(C_in/g)·Πkernel` by `C_out` |
| `d`, `s` | density, the share of weights that are not zero; sparsity `s = 1 - d` |
| `k`, `b`, `r` | the structures: width multiplier, branches, rank |
| `e` | how fast a layer's weights grow with the width: 2, or 1 where only the outputs grow (depthwise) |
| `A` | MACs per position of products of activations (attention scores and values) |
| `C_in`, `C_out`, `D_in`, `D_out`, `V`, `T`, `g` | channels, features, vocabulary, tokens, groups |
"""

from __future__ import annotations

from typing import Any

import sympy

m, n, d, s, k, b, r, e, A = sympy.symbols("m n d s k b r e A", positive=True)
C_in, C_out, D_in, D_out, V, T, g = sympy.symbols("C_in C_out D_in D_out V T g", positive=True)


def text(expression: Any) -> str:
    """An expression in one line, products with a dot, powers with a caret.

    Example:
        >>> text(m * n / (d * (m + n)))
        'm·n/(d·(m+n))'
    """
    plain: str = sympy.sstr(expression, order="lex")
    return plain.replace("**", "^").replace("*", "·").replace(" + ", "+").replace(" - ", "-")
