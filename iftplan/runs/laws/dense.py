"""The law of dense language models.

Hoffmann et al., "Training compute-optimal large language models" (arXiv 2203.15556, equation 10).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iftplan.runs.laws.law import Law, Variable


def _loss(k: Mapping[str, Any], v: Mapping[str, Any], _: Any) -> Any:
    return k["A"] * v["params"] ** -k["alpha"] + k["B"] * v["data"] ** -k["beta"] + k["E"]


DENSE = Law(
    "dense",
    "dense language models (Chinchilla)",
    "arXiv 2203.15556, equation 10",
    "L = A/N^α + B/D^β + E",
    (
        Variable("params", "N", "parameters", low=70e6, high=16e9),
        Variable("data", "D", "tokens", low=5e9, high=500e9),
    ),
    {"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28},
    _loss,
    amplitudes=("A", "B", "E"),
)
"""Chinchilla's law with its printed, rounded constants."""
