"""Mixtures of experts by their granularity, how often an expert is narrower than the layer it stands for.

Krajewski et al., "Scaling laws for fine-grained mixture of experts" (arXiv 2402.07871, table 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from iftplan.runs.laws.dense import DENSE
from iftplan.runs.laws.law import Law, Variable

EXPANSION = 64
"""Experts' weights over those of the dense layer, in all runs of the fit."""


def _loss(k: Mapping[str, Any], v: Mapping[str, Any], _: Any) -> Any:
    capacity = k["g"] * v["granularity"] ** -k["gamma"] + k["a"]
    return k["c"] + capacity * v["params"] ** -k["alpha"] + k["b"] * v["data"] ** -k["beta"]


_SIZES = (Variable("params", "N", "parameters in all, without embeddings"), Variable("data", "D", "tokens"))

FINE_GRAINED: Mapping[str, Law] = MappingProxyType(
    {
        "moe": Law(
            "fine-grained-moe",
            f"fine-grained mixtures of experts, {EXPANSION} times the dense layer's weights",
            "arXiv 2402.07871, table 1",
            "L = c + (g/G^γ + a)/N^α + b/D^β",
            (*_SIZES, Variable("granularity", "G", "experts for each dense layer's width", least=1)),
            {"a": 18.1, "alpha": 0.115, "b": 30.8, "beta": 0.147, "g": 2.1, "gamma": 0.58, "c": 0.47},
            _loss,
            amplitudes=("a", "b", "g", "c"),
        ),
        "dense": replace(
            DENSE,
            name="fine-grained-moe",
            title="dense models beside fine-grained mixtures of experts",
            source="arXiv 2402.07871, table 1",
            variables=_SIZES,
            constants={"A": 16.3, "alpha": 0.126, "B": 26.7, "beta": 0.127, "E": 0.47},
        ),
    }
)
"""The fits of arXiv 2402.07871: mixtures of experts, and dense models with the same c."""
