"""Routed language models: how many more parameters a dense model would need to be as good.

Clark et al., "Unified scaling laws for routed language models" (arXiv 2202.01169, table 3).

    log L = a·log N + b·log Ê + c·log N·log Ê + d

with logarithms of base 10, N the parameters that a token sees and Ê the experts as they saturate.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log10
from types import MappingProxyType
from typing import Any

from iftplan.runs.laws.experts import saturated
from iftplan.runs.laws.law import Law, Variable


def _loss(k: Mapping[str, Any], v: Mapping[str, Any], m: Any) -> Any:
    experts = m.log10(saturated(v["experts"], k["E_start"], k["E_max"]))
    size = m.log10(v["params"])
    return 10 ** (k["a"] * size + k["b"] * experts + k["c"] * size * experts + k["d"])


def _fit(router: str, *constants: float) -> Law:
    names = ("a", "b", "c", "d", "E_start", "E_max")
    return Law(
        "routed",
        f"language models with {router} routing",
        "arXiv 2202.01169, table 3",
        "log L = a·log N + b·log Ê + c·log N·log Ê + d, 1/Ê = 1/(E - 1 + (1/E_start - 1/E_max)^-1) + 1/E_max",
        (
            Variable("params", "N", "parameters that a token sees"),
            Variable("experts", "E", "experts", least=1),
        ),
        dict(zip(names, constants, strict=True)),
        _loss,
        definitions=("all models saw the same amount of data, so the law has no term for it",),
    )


ROUTED: Mapping[str, Law] = MappingProxyType(
    {
        "s-base": _fit("S-BASE", -0.082, -0.108, 0.009, 1.104, 1.847, 314.478),
        "rl-r": _fit("RL-R", -0.083, -0.126, 0.012, 1.111, 1.880, 469.982),
        "hash": _fit("HASH", -0.087, -0.136, 0.012, 1.157, 4.175, 477.741),
    }
)
"""The fits of arXiv 2202.01169, one for each way of routing."""


def dense_equivalent(law: Law, params: float, experts: float) -> float:
    """Parameters of the dense model (one expert) with the same loss: the paper's effective parameter count.

    Args:
        law: one of `ROUTED`, or a fit of one to other runs.
        params: N, parameters that a token sees.
        experts: E.

    Example:
        >>> round(dense_equivalent(ROUTED["s-base"], 1e9, 1))
        1000000000
    """
    k, loss = law.constants, log10(law.loss(params=params, experts=experts))
    start = log10(k["E_start"])
    size = 10 ** ((loss - k["d"] - k["b"] * start) / (k["a"] + k["c"] * start))
    return float(size * law.variable("params").unit)
