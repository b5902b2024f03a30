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

from iftplan.base.errors import InputError


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
            InputError: a sparsity outside [0, 1), or a size that is not positive.
        """
        _check(sparsity, params=params, kappa=kappa)
        exponent = log(self.b_d / (self.a_s * self.b_s)) + self.b_n * log(params)
        kept = (self.b_d + self.b_s) * log(1 - sparsity)
        return exp((exponent - kept) / self.b_d) * 6 * self.a_d * params / kappa

    def notes(self, sparsity: float) -> tuple[str, ...]:
        """Sentences on the limits of an answer with that sparsity."""
        extrapolated = (
            (f"the law was fitted on sparsities up to {self.sparsest:g}, so {sparsity:.3g} is extrapolated",)
            if sparsity > self.sparsest
            else ()
        )
        return (
            f"the law was fitted on {self.name}, with gradual pruning during training; other models and methods "
            "have other constants",
            "parameters are non-zero parameters, without embeddings",
            *extrapolated,
        )


LAWS: Mapping[str, ScalingLaw] = MappingProxyType(
    {
        "t5-c4": ScalingLaw(
            "T5 on C4", "tokens", 16.787, 0.72161, 45.018, 0.24513, 6.900e8, 0.20271, 0.65074, 0.875
        ),
        "vit-jft": ScalingLaw(
            "ViT on JFT-4B", "images", 294.39, 0.82101, 468.16, 0.39223, 2.3741e8, 0.88979, 4.5167, 0.9375
        ),
    }
)
"""The two fits of arXiv 2309.08520; their data go to these sparsities."""


def law_named(name: str) -> ScalingLaw:
    """Fit of the law by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in LAWS:
        raise InputError(
            f"`data`: there is no scaling law for {name!r}; there are laws for {', '.join(LAWS)}."
        )
    return LAWS[name]


def _check(sparsity: float, **sizes: float) -> None:
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity {sparsity} is outside [0, 1); at 1 no weights are left.")
    for name, size in sizes.items():
        if not (isfinite(size) and size > 0):
            raise InputError(f"{name} is {size}; it must be a positive, finite number.")
