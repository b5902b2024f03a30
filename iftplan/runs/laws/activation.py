"""How many neurons of a feed-forward layer are active after training on so many tokens.

Luo et al., "Sparsing law: towards large language models with greater activation sparsity" (arXiv 2411.02335, table 2).
The ratio is measured at thresholds that raise perplexity by 1 % (CETT, PPL-1%).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from iftplan.runs.laws.law import Law, Variable


def _relu(k: Mapping[str, Any], v: Mapping[str, Any], m: Any) -> Any:
    return m.exp(-k["c"] * v["data"] ** k["alpha"] + k["b"]) + k["A_0"]


def _silu(k: Mapping[str, Any], v: Mapping[str, Any], _: Any) -> Any:
    return -k["c"] * v["data"] ** -k["alpha"] + k["A_0"]


_EQUATIONS = {
    "relu": ("A = exp(-c·D^α + b) + A_0", _relu, ("alpha", "b", "c", "A_0")),
    "silu": ("A = -c/D^α + A_0", _silu, ("alpha", "c", "A_0")),
}


def _fit(function: str, size: str, constants: tuple[float, ...]) -> Law:
    equation, formula, names = _EQUATIONS[function]
    high = 800e9 if (function, size) == ("relu", "2.4b") else None
    return Law(
        "activation",
        f"activation ratio of {size.upper()} models with {'ReLU' if function == 'relu' else 'SiLU'}",
        "arXiv 2411.02335, table 2",
        f"{equation}, D in 10⁹ tokens",
        (Variable("data", "D", "tokens", unit=1e9, high=high),),
        dict(zip(names, constants, strict=True)),
        formula,
        amplitudes=tuple(name for name in names if name not in ("alpha", "b")),
        result="activation ratio",
        definitions=("a neuron counts as active where leaving it out would raise perplexity (CETT, 1 %)",),
    )


_TABLE: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "relu": {
        "0.1b": (0.101, -0.0151, 3.20, 0.0614),
        "0.2b": (0.449, -3.05, 0.286, 0.0674),
        "0.4b": (0.683, -3.46, 0.0790, 0.0690),
        "0.8b": (1.01, -3.49, 0.00797, 0.0721),
        "1.2b": (1.33, -3.89, 9.03e-4, 0.0782),
        "2.4b": (1.53, -3.46, 1.56e-4, 0.0648),
    },
    "silu": {
        "0.1b": (0.479, 0.102, 0.409),
        "0.2b": (0.844, 0.208, 0.390),
        "0.4b": (1.03, 0.420, 0.385),
        "0.8b": (0.995, 0.562, 0.383),
        "1.2b": (0.967, 0.538, 0.382),
    },
}

ACTIVATION: Mapping[str, Law] = MappingProxyType(
    {f"{f}-{size}": _fit(f, size, constants) for f, row in _TABLE.items() for size, constants in row.items()}
)
"""The fits of arXiv 2411.02335 by activation function and size."""
