"""Mixture of experts: E feed-forward blocks in the place of one, of which every token meets k (arXiv 2101.03961).

    m·E + (k + h)·G·m·w = g·m·n        w = (g·n - E)/(G·(k + h))

m and n are the widths of the model and of the dense block between its matrices, of which it has g (2, or 3 with a gate);
w is the width of an expert, of G matrices: as many, or 2 in the place of 3 where experts have no gate. A router of m·E weights scores the experts; h shared ones meet every token. The
model's width cancels. Where every expert takes C = ⌈k·T/E·c⌉ rows of T tokens, full or not, k is E·C/T (section 2.2 there).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, Final, Literal

from iftplan.base.errors import InputError
from iftplan.base.units import decimal_text
from iftplan.masks.cardinality import log2_choose

NAME: Final = "experts"
TITLE: Final = "mixture of experts"
SOURCE: Final = "arXiv 2101.03961, section 2"

Router = Literal["softmax", "relu"]


def cost(m: Any, w: Any, E: Any, k: Any, h: Any, G: Any) -> Any:  # noqa: N803  (as in the equation)
    """MACs of one token in a block of experts, of numbers or of symbols.

    Args:
        m: width of the model.
        w: width of an expert.
        E: number of experts.
        k: how many of them a token meets.
        h: number of shared experts.
        G: matrices of an expert.
    """
    return m * E + (k + h) * G * m * w


def width(n: Any, g: Any, E: Any, k: Any, h: Any, G: Any) -> Any:  # noqa: N803
    """Width of an expert at which the block costs as much as the dense one, of exact numbers or of symbols.

    Args:
        n: width of the dense block between its matrices.
        g: matrices of the dense block.
        E: number of experts.
        k: how many of them a token meets.
        h: number of shared experts.
        G: matrices of an expert.
    """
    return (g * n - E) / (G * (k + h))


@dataclass(frozen=True, slots=True)
class Mixture:
    """Mixture of experts that stands in the place of every feed-forward block.

    Attributes:
        experts: number of experts E.
        top_k: how many of them each token meets; with a ReLU router, how many are assumed for the cost.
        shared: experts beside them that every token meets.
        capacity: factor c of C = ⌈k·T/E·c⌉, the rows that each expert takes of T tokens: rows are padded to that, and
            tokens above it pass the block by. None computes exactly the k·T rows that tokens choose.
        ungated: whether experts have two matrices with Swish between them where the block has a gate (arXiv 2507.08771).
        router: "softmax", or "relu" for ReLU and RMSNorm, which has every expert of a score above zero (arXiv 2507.08771).
        balance: coefficient of the loss that spreads tokens over experts (arXiv 2101.03961, equation 4).
        locality: with a ReLU router, coefficient of the loss that has neighbouring tokens meet the same experts, BCE of
            σ(τ·s_t) and σ(τ·s_(t+1)) with τ = 100 (arXiv 2507.08771 and its code).
        chunks: with a ReLU router, coefficient of the loss on the experts that 8 consecutive tokens meet together, the
            mean of 1 - Π(1 - p_t) over chunks and experts (the same).

    Raises:
        InputError: numbers that no mixture has, or that do not go together.
    """

    experts: int
    top_k: int
    shared: int = 0
    capacity: Fraction | None = None
    ungated: bool = False
    router: Router = "softmax"
    balance: Fraction = Fraction(1, 100)
    locality: Fraction = Fraction(0)
    chunks: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        if self.experts < 1 or not 1 <= self.top_k <= self.experts:
            raise InputError(
                f"a mixture of {self.experts} experts of which a token meets {self.top_k} cannot be: it needs at least "
                "one expert, and meets between one and all of them. Write `family='experts:8x2'`, for instance."
            )
        losses = (self.balance, self.locality, self.chunks)
        if self.shared < 0 or (self.capacity is not None and self.capacity <= 0) or min(losses) < 0:
            raise InputError(
                "shared experts and the coefficients of losses are at least 0, and a capacity factor is above 0."
            )
        if self.router != "relu" and (self.locality or self.chunks):
            raise InputError(
                "locality and chunks are losses of a ReLU router. Write `family='experts:40x4:relu:locality=0.001'`."
            )
        if self.router == "relu" and self.capacity is not None:
            raise InputError(
                "a ReLU router has every expert of a score above zero, so its experts have no capacity. Leave "
                "`capacity` out, or use the softmax router."
            )

    def __str__(self) -> str:
        """The mixture as `parse_mixture` reads it."""
        parts = [NAME, f"{self.experts}x{self.top_k}" + (f"+{self.shared}" if self.shared else "")]
        if self.router != "softmax":
            parts.append(self.router)
        if self.ungated:
            parts.append("ungated")
        if self.capacity is not None:
            parts.append(f"capacity={decimal_text(self.capacity)}")
        if self.balance != Fraction(1, 100):
            parts.append(f"balance={decimal_text(self.balance)}")
        parts += [
            f"{key}={decimal_text(value)}"
            for key, value in (("locality", self.locality), ("chunks", self.chunks))
            if value
        ]
        return ":".join(parts)

    @property
    def convention(self) -> str:
        """Convention that rows of experts are counted by: "tokens × k", or "padded to capacity"."""
        return "tokens × k" if self.capacity is None else "padded to capacity"

    def rows_per_expert(self, tokens: int) -> int:
        """Capacity C: the rows that one expert takes at most of so many tokens."""
        if self.capacity is None:
            return tokens
        return ceil(Fraction(self.top_k * tokens, self.experts) * self.capacity)

    def rows(self, tokens: int) -> int:
        """Rows that all experts compute together for so many tokens, in the mixture's convention."""
        return self.top_k * tokens if self.capacity is None else self.experts * self.rows_per_expert(tokens)

    @property
    def log2_choices(self) -> float:
        """Bits of a token's choice in one block, log2 C(E, k); one bit for each expert with a ReLU router."""
        return float(self.experts) if self.router == "relu" else log2_choose(self.experts, self.top_k)


_SIZES = re.compile(r"(?P<experts>\d{1,6})x(?P<chosen>\d{1,6})(?:\+(?P<shared>\d{1,6}))?")
_NUMBERS = ("capacity", "balance", "locality", "chunks")
_NUMBER = re.compile(r"\d{1,9}\.\d{1,9}(?:/[1-9]\d{0,8})?|\d{1,18}(?:/[1-9]\d{0,17})?")
"""A decimal, or a fraction with as many digits as one is written back with that began as a decimal over a number."""


def is_mixture(text: str) -> bool:
    """Whether a family's name is that of a mixture of experts."""
    return text.partition(":")[0].strip().lower() == NAME


def parse_mixture(text: str) -> Mixture:
    """Mixture from `experts:8x2`: 8 experts of which each token meets 2; behind it `+1` for a shared one, and options.

    Raises:
        InputError: it cannot be read.

    Example:
        >>> parse_mixture("experts:8x2+1:capacity=1.25")
        Mixture(experts=8, top_k=2, shared=1, capacity=Fraction(5, 4), ungated=False, router='softmax', balance=Fraction(1, 100), locality=Fraction(0, 1), chunks=Fraction(0, 1))
    """
    _, sizes, *options = [*text.strip().lower().split(":"), ""]
    found = _SIZES.fullmatch(sizes)
    if not found:
        raise InputError(
            f"{text!r} does not say how many experts there are and how many a token meets. Write "
            "`family='experts:8x2'` for 8 experts of which each token meets 2, or `experts:8x2+1` with a shared one."
        )
    given: dict[str, Any] = {}
    for option in filter(None, options):
        key, _, value = option.partition("=")
        if option in ("softmax", "relu"):
            given["router"] = option
        elif option == "ungated":
            given["ungated"] = True
        elif key in _NUMBERS and _NUMBER.fullmatch(value):
            given[key] = _number(value)
        else:
            raise InputError(
                f"{text!r}: {option!r} is no option of a mixture of experts. Options are softmax, relu, ungated, "
                f"and with a number {', '.join(f'{name}=' for name in _NUMBERS)}."
            )
    return Mixture(int(found["experts"]), int(found["chosen"]), int(found["shared"] or 0), **given)


def _number(text: str) -> Fraction:
    top, _, bottom = text.partition("/")
    return Fraction(top) / Fraction(bottom or 1)
