"""Dense models and mixtures of experts in one law, under budgets of compute, memory and inference.

Ludziejewski et al., "Joint MoE scaling laws: mixture of experts can be memory efficient" (arXiv 2502.05172).

A model of L layers and width d with V tokens in its vocabulary has SwiGLU experts of hidden width 3d, one of which is
active: N_act = 2dV + 13Ld², N_total = 2dV + (4 + 9E)Ld² (appendix A). It needs memory for its weights and for keys and
values of T tokens, N_total + 2TLd numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.base.units import abbreviate
from iftplan.runs.laws.experts import saturated
from iftplan.runs.laws.law import Law, Variable


def _loss(k: Mapping[str, Any], v: Mapping[str, Any], m: Any) -> Any:
    experts = saturated(v["experts"], k["E_start"], k["E_max"])
    log = m.log(experts)
    return (
        k["a"] * experts ** k["delta"] * v["params"] ** (k["alpha"] + k["gamma"] * log)
        + k["b"] * experts ** k["omega"] * v["data"] ** (k["beta"] + k["zeta"] * log)
        + k["c"]
    )


JOINT_MOE = Law(
    "joint-moe",
    "dense models and mixtures of experts",
    "arXiv 2502.05172",
    "L = a·Ê^δ·N^(α + γ·ln Ê) + b·Ê^ω·D^(β + ζ·ln Ê) + c, 1/Ê = 1/(E - 1 + (1/E_start - 1/E_max)^-1) + 1/E_max",
    (
        Variable("params", "N", "active parameters", high=2.7e9),
        Variable("data", "D", "tokens"),
        Variable("experts", "E", "experts", low=1, high=32, least=1),
    ),
    {
        "a": 35.91, "alpha": -0.1889, "delta": -0.2285, "gamma": 0.0098, "b": 35.98, "beta": -0.1775,
        "omega": 0.5529, "zeta": -0.0259, "E_start": 2.0732, "E_max": 290.4521, "c": 1.3637,
    },
    _loss,
    amplitudes=("a", "b", "c"),
    definitions=("one of E experts is active for each token; parameters are active ones, with embeddings",),
)  # fmt: skip
"""The fit to more than 280 runs, up to 2.7 billion active and 5 billion total parameters."""


@dataclass(frozen=True, slots=True)
class ExpertShape:
    """Shape of a transformer whose size is a real number: its width, as so many times the number of its layers.

    Attributes:
        vocabulary: V, tokens that have an embedding and an output weight vector.
        aspect: d/L, width over number of layers.

    Raises:
        InputError: a vocabulary or an aspect ratio that is not positive.
    """

    vocabulary: float = 50257
    aspect: float = 64

    def __post_init__(self) -> None:
        if self.vocabulary < 0 or self.aspect <= 0:
            raise InputError(
                f"a vocabulary of {self.vocabulary:g} tokens and a width of {self.aspect:g} times the layers are no "
                "transformer; the default is 50257 and 64."
            )

    def active(self, width: float) -> float:
        """Active parameters N_act of a model of that width."""
        return 2 * width * self.vocabulary + 13 * width**3 / self.aspect

    def total(self, width: float, experts: float) -> float:
        """All parameters N_total of a model of that width."""
        return 2 * width * self.vocabulary + (4 + 9 * experts) * width**3 / self.aspect

    def memory(self, width: float, experts: float, context: float) -> float:
        """Numbers in memory at inference: all parameters, and keys and values of the context.

        Args:
            width: d.
            experts: E.
            context: T, tokens whose keys and values are kept, of all sequences together.
        """
        return self.total(width, experts) + 2 * context * width**2 / self.aspect

    def width(self, active: float) -> float:
        """Width of the model with so many active parameters."""
        return _inverse(self.active, active)

    def largest(self, memory: float, experts: float, context: float) -> float:
        """Active parameters of the largest model that fits into a memory.

        Args:
            memory: M, numbers that it holds (bytes over bytes per number).
            experts: E.
            context: T, see `memory`.

        Raises:
            InfeasibleError: not even a model of width 1 fits.
        """
        if self.memory(1, experts, context) > memory:
            raise InfeasibleError(
                f"no model fits into a memory of {abbreviate(memory)} numbers; the smallest has "
                f"{abbreviate(self.memory(1, experts, context))}."
            )
        return self.active(_inverse(lambda d: self.memory(d, experts, context), memory))


def _inverse(increasing: Any, value: float) -> float:
    low, high = 0.0, 1.0
    while increasing(high) < value:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < value else (low, middle)
    return (low + high) / 2
