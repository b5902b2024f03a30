"""The sparse scaling law: which loss a sparse model reaches, and which sparsity is best for a given compute.

Frantar, Riquelme, Houlsby, Alistarh and Evci, "Scaling laws for sparsely-connected foundation models"
(arXiv 2309.08520).

    L(S, N, D) = (a_S·(1-S)^b_S + c_S)·N^(-b_N) + (a_D/D)^b_D + c

with N the non-zero parameters without embeddings and D the tokens or images seen. A budget of C FLOPs, spent on a network
that costs as much as a dense one of N/(1-S) parameters, sees D = κ·C·(1-S)/(6·N).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, isfinite, log
from types import MappingProxyType
from typing import Any

from iftplan.base.errors import InputError
from iftplan.runs.laws.law import SPARSITY, Law, Variable

CONSTANTS = ("a_s", "b_s", "c_s", "b_n", "a_d", "b_d", "c")
"""Names of the constants, in the order of the equation."""


@dataclass(frozen=True, slots=True)
class ScalingLaw:
    """Sparse scaling law (arXiv 2309.08520, equation 1) with the constants of one fit.

    Attributes:
        name: the models and the data it was fitted on.
        unit: what D counts.
        a_s: see the equation.
        b_s: see the equation.
        c_s: see the equation.
        b_n: see the equation.
        a_d: see the equation.
        b_d: see the equation.
        c: the loss that nothing takes away.
        sparsest: the largest sparsity among the runs it was fitted on.
        sizes: the smallest and largest N among these runs; None where it is not known.
        seen: the smallest and largest D among these runs; None where it is not known.
    """

    name: str
    unit: str
    a_s: float
    b_s: float
    c_s: float
    b_n: float
    a_d: float
    b_d: float
    c: float
    sparsest: float
    sizes: tuple[float, float] | None = None
    seen: tuple[float, float] | None = None

    def as_law(self) -> Law:
        """The same law as a value like all others, without the closed form of its optimum."""
        sizes, seen = self.sizes or (None, None), self.seen or (None, None)
        return Law(
            "sparse",
            self.name,
            "arXiv 2309.08520, equation 1",
            "L = (a_S·(1 - S)^b_S + c_S)·N^(-b_N) + (a_D/D)^b_D + c",
            (
                Variable("sparsity", "S", "sparsity", low=0, high=self.sparsest, **SPARSITY),
                Variable("params", "N", "non-zero parameters", low=sizes[0], high=sizes[1]),
                Variable("data", "D", self.unit, low=seen[0], high=seen[1]),
            ),
            {name: getattr(self, name) for name in CONSTANTS},
            _loss,
            amplitudes=("a_s", "c_s", "a_d", "c"),
        )

    def loss(self, sparsity: float, params: float, data: float) -> float:
        """Loss L(S, N, D) of arXiv 2309.08520, in nats for T5.

        Args:
            sparsity: S, in [0, 1).
            params: N, non-zero parameters without embeddings.
            data: D, tokens or images.

        Raises:
            InputError: a sparsity outside [0, 1), or a size that is not positive.
        """
        _check(sparsity, params=params, data=data)
        capacity = (self.a_s * (1 - sparsity) ** self.b_s + self.c_s) * params**-self.b_n
        return float(capacity + (self.a_d / data) ** self.b_d + self.c)

    def data(self, sparsity: float, params: float, compute: float, kappa: float = 1.0) -> float:
        """Tokens or images D that training FLOPs C pay for: κ·C·(1-S)/(6·N).

        Args:
            sparsity: S, in [0, 1).
            params: N, non-zero parameters without embeddings.
            compute: C, FLOPs of training, two for each MAC.
            kappa: κ, cost of a step of the network with all its weights over that of a sparse step; 1 where
                sparsity saves nothing.
        """
        _check(sparsity, params=params, compute=compute, kappa=kappa)
        return kappa * compute * (1 - sparsity) / (6 * params)

    def loss_at(self, sparsity: float, params: float, compute: float, kappa: float = 1.0) -> float:
        """Loss that a compute of so many FLOPs reaches, in nats for T5.

        Args:
            sparsity: S, in [0, 1).
            params: N, non-zero parameters without embeddings.
            compute: C, FLOPs of training, two for each MAC.
            kappa: κ, see `data`.
        """
        return self.loss(sparsity, params, self.data(sparsity, params, compute, kappa))

    def optimal_sparsity(self, params: float, compute: float, kappa: float = 1.0) -> float:
        """The sparsity with the least loss for fixed non-zero parameters and compute; 0 where dense is best.

        Args:
            params: N, non-zero parameters without embeddings.
            compute: C, FLOPs of training, two for each MAC.
            kappa: κ, see `data`.

        Raises:
            InputError: a size that is not positive.

        Example:
            >>> round(LAWS["t5-c4"].optimal_sparsity(1e8, 1e20), 4)
            0.5245
        """
        _check(0.0, params=params, compute=compute, kappa=kappa)
        exponent = (log(self.b_d / (self.a_s * self.b_s)) + self.b_n * log(params)) / (self.b_d + self.b_s)
        seen = 6 * self.a_d * params / (kappa * compute)
        kept = exp(exponent) * seen ** (self.b_d / (self.b_d + self.b_s))
        return max(0.0, 1.0 - float(kept))

    def compute_for(self, sparsity: float, params: float, kappa: float = 1.0) -> float:
        """Training FLOPs at which a sparsity is optimal: the inverse of `optimal_sparsity`.

        Args:
            sparsity: S, in [0, 1).
            params: N, non-zero parameters without embeddings.
            kappa: κ, see `data`.

        Raises:
            InputError: a sparsity outside [0, 1), a size that is not positive, or a compute beyond all numbers.
        """
        _check(sparsity, params=params, kappa=kappa)
        exponent = log(self.b_d / (self.a_s * self.b_s)) + self.b_n * log(params)
        kept = (self.b_d + self.b_s) * log(1 - sparsity)
        try:
            return exp((exponent - kept) / self.b_d) * 6 * self.a_d * params / kappa
        except OverflowError as error:
            raise InputError(
                f"with b_d = {self.b_d:.3g} no finite compute makes a sparsity of {sparsity:g} the best; a fit with such a "
                "constant needs runs that differ more in data."
            ) from error

    def notes(
        self, sparsity: float, params: float | None = None, data: float | None = None
    ) -> tuple[str, ...]:
        """Sentences on the limits of an answer with that sparsity.

        Args:
            sparsity: S, in [0, 1).
            params: N, non-zero parameters without embeddings; None to say nothing of them.
            data: D, tokens or images; None to say nothing of them.
        """
        extrapolated = (
            (f"the law was fitted on sparsities up to {self.sparsest:g}, so {sparsity:.3g} is extrapolated",)
            if sparsity > self.sparsest
            else ()
        )
        pruned = ", with gradual pruning during training" if self in LAWS.values() else ""
        return (
            f"the law was fitted on {self.name}{pruned}; other models and methods have other constants",
            "parameters are non-zero parameters, without embeddings",
            *extrapolated,
            *self._beyond(params=params, data=data),
        )

    def _beyond(self, **values: float | None) -> tuple[str, ...]:
        law = self.as_law()
        found = (law.variable(name).beyond(value) for name, value in values.items() if value is not None)
        return tuple(sentence for sentence in found if sentence)


def _loss(k: Mapping[str, Any], v: Mapping[str, Any], _: Any) -> Any:
    capacity = k["a_s"] * (1 - v["sparsity"]) ** k["b_s"] + k["c_s"]
    return capacity * v["params"] ** -k["b_n"] + (k["a_d"] / v["data"]) ** k["b_d"] + k["c"]


def from_law(law: Law) -> ScalingLaw:
    """The sparse law with the constants of a fit, for sizes and data in units of one.

    Args:
        law: a sparse law, its variables in any units.

    Raises:
        InputError: with these constants no sparsity is best: less data or sparser weights do no harm.
    """
    k, sparsity, params, data = law.constants, *map(law.variable, ("sparsity", "params", "data"))
    for name, what in (("b_s", "sparsity"), ("b_d", "data")):
        if not k[name] > 0:
            raise InputError(
                f"the runs do not determine how loss depends on {what}: the fitted {name} is {k[name]:.3g}, and only above 0 "
                f"is there a best sparsity. Add runs that differ more in {what}."
            )
    scale = params.unit ** k["b_n"]
    return ScalingLaw(
        law.title, data.meaning, k["a_s"] * scale, k["b_s"], k["c_s"] * scale, k["b_n"], k["a_d"] * data.unit,
        k["b_d"], k["c"], _known(sparsity.high), _span(params), _span(data),
    )  # fmt: skip


def _known(value: float | None) -> float:
    return 0.0 if value is None else value


def _span(variable: Variable) -> tuple[float, float] | None:
    return None if variable.low is None or variable.high is None else (variable.low, variable.high)


LAWS: Mapping[str, ScalingLaw] = MappingProxyType(
    {
        "t5-c4": ScalingLaw(
            "T5 on C4", "tokens", 16.787, 0.72161, 45.018, 0.24513, 6.900e8, 0.20271, 0.65074, 0.875,
            sizes=(1327104, 84934656), seen=(16.384e9, 65.536e9),
        ),
        "vit-jft": ScalingLaw(
            "ViT on JFT-4B", "images", 294.39, 0.82101, 468.16, 0.39223, 2.3741e8, 0.88979, 4.5167, 0.9375,
            sizes=(663552, 42467328), seen=(225e6, 1.8e9),
        ),
    }
)  # fmt: skip
"""The two fits of arXiv 2309.08520, with the ranges of the runs that the authors published
(google-research/jaxpruner, projects/bigsparse; Apache 2.0)."""


def _check(sparsity: float, **sizes: float) -> None:
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity {sparsity} is outside [0, 1); at 1 no weights are left.")
    for name, size in sizes.items():
        if not (isfinite(size) and size > 0):
            raise InputError(f"{name} is {size}; it must be a positive, finite number.")
