"""Tables 14 and 15 of arXiv 2303.11525: sizes and training FLOPs of GPT-3, published and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor, isqrt

from iftplan.families.builtin import family_named
from iftplan.models.spec import ModelSpec
from iftplan.plans.plan import Plan, Scope
from iftplan.plans.planner import plan
from iftplan.plans.policy import Policy

FLOPS_PER_STEP = 6
"""FLOPs of training for one MAC of the forward pass: two FLOPs, forward and twice that backward."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """Sizes of a GPT: what its contractions follow from.

    Attributes:
        layers: transformer blocks.
        hidden: channels between layers.
        feed_forward: channels inside the feed-forward part.
        context: tokens of a sequence.
        vocabulary: outputs of the head.
    """

    layers: int
    hidden: int
    feed_forward: int
    context: int = 1024
    vocabulary: int = 50257

    def matrix_macs(self, density: Fraction = Fraction(1)) -> Fraction:
        """MACs of the masked matrices, for one sequence: 4·d² + 2·d·f weights a layer.

        Args:
            density: of all of them.
        """
        weights = 4 * self.hidden**2 + 2 * self.hidden * self.feed_forward
        return self.layers * self.context * weights * density

    def macs(self, density: Fraction = Fraction(1)) -> Fraction:
        """MACs of the forward pass of one sequence: matrices, full attention products, head.

        Args:
            density: of the matrices.
        """
        attention = 2 * self.layers * self.context**2 * self.hidden
        return self.matrix_macs(density) + attention + self.hidden * self.vocabulary * self.context


SMALL = Decoder(12, 768, 3072)
MEDIUM = Decoder(24, 1024, 4096)


@dataclass(frozen=True, slots=True)
class Sizing:
    """Sizes of Sparse Wide GPT-3 Small under one rounding, and what they cost at uniform density.

    Attributes:
        rounding: "published", "floor" or "cover"; the last one is a plan of iftplan, whose density closes.
        sparsity: 0 for the dense model.
        hidden: channels between layers.
        feed_forward: channels inside the feed-forward part.
        matrices: MACs of the masked matrices over those of the dense model.
        model: MACs of the whole forward pass over those of the dense model.
    """

    rounding: str
    sparsity: Fraction
    hidden: int
    feed_forward: int
    matrices: Fraction
    model: Fraction


PUBLISHED_SIZES = {Fraction(0): (768, 3072), Fraction(1, 2): (1092, 4344), Fraction(3, 4): (1536, 6144)}
"""Table 14: sparsity → hidden and feed-forward channels."""


def sizings(read: Callable[[str], ModelSpec]) -> tuple[Sizing, ...]:
    """Sizes of table 14 under every rounding.

    Args:
        read: a source to its spec, with widths.
    """
    spec = read("zoo:gpt3-small")
    found = []
    for sparsity, (hidden, feed_forward) in PUBLISHED_SIZES.items():
        found.append(_sizing("published", sparsity, hidden, feed_forward))
        if sparsity:
            found.append(
                _sizing(
                    "floor", sparsity, _floor(SMALL.hidden, sparsity), _floor(SMALL.feed_forward, sparsity)
                )
            )
            found.append(_planned(wide_plan(spec, sparsity)))
    return tuple(found)


def wide_plan(spec: ModelSpec, sparsity: Fraction) -> Plan:
    """Sparse Wide plan of a GPT whose masked matrices cost what the dense ones do, to the MAC.

    Args:
        spec: of the dense model, with widths.
        sparsity: which the widths follow from.
    """
    return plan(spec, Policy(family=family_named("wide"), sparsity=sparsity, scope=Scope.MATRICES))


def _floor(channels: int, sparsity: Fraction) -> int:
    """⌊channels/√(1-s)⌋, exactly."""
    square = Fraction(channels**2) / (1 - sparsity)
    return isqrt(floor(square))


def _sizing(rounding: str, sparsity: Fraction, hidden: int, feed_forward: int) -> Sizing:
    wide = replace(SMALL, hidden=hidden, feed_forward=feed_forward)
    return Sizing(
        rounding,
        sparsity,
        hidden,
        feed_forward,
        wide.matrix_macs(1 - sparsity) / SMALL.matrix_macs(),
        wide.macs(1 - sparsity) / SMALL.macs(),
    )


def _planned(found: Plan) -> Sizing:
    inner = next(layer for layer in found.layers if layer.name.endswith("mlp.c_fc"))
    assert inner.after is not None
    return Sizing(
        "cover",
        found.sparsity,
        inner.after.in_channels,  # type: ignore[arg-type]
        inner.after.out_channels,  # type: ignore[arg-type]
        found.ratio(Scope.MATRICES),
        found.ratio(Scope.MODEL),
    )


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """Row of table 15: FLOPs of one sequence's training step, and of the whole training.

    Attributes:
        model: as the paper calls it.
        sparsity: 0 for a dense model.
        published: FLOPs of a sequence, as printed.
        published_total: FLOPs of all sequences, as printed.
        counted: FLOPs of a sequence that iftplan counts, contractions alone.
        closed: the same of iftplan's own plan, whose matrices are closed; None for dense models.
        perplexity: as printed, with its ±.
    """

    model: str
    sparsity: Fraction
    published: Fraction
    published_total: Fraction
    counted: Fraction
    closed: Fraction | None
    perplexity: str

    @property
    def deviation(self) -> Fraction:
        """Counted over published FLOPs of a sequence, minus 1."""
        return self.counted / self.published - 1

    @property
    def sequences(self) -> Fraction:
        """Sequences of the whole training, from the two published numbers."""
        return self.published_total / self.published

    @property
    def total(self) -> Fraction:
        """FLOPs of the whole training that iftplan counts, for as many sequences."""
        return self.counted * self.sequences


def training_rows(read: Callable[[str], ModelSpec], rounding: str = "published") -> tuple[TrainingRow, ...]:
    """Rows of table 15.

    Args:
        read: a source to its spec, with widths.
        rounding: of the wide model's sizes, "published" or "floor"; iftplan's own plan stands beside it either way.
    """
    half = Fraction(1, 2)
    sizes = {s.rounding: s for s in sizings(read) if s.sparsity == half}
    wide = replace(SMALL, hidden=sizes[rounding].hidden, feed_forward=sizes[rounding].feed_forward)
    closed = FLOPS_PER_STEP * wide_plan(read("zoo:gpt3-small"), half).macs(Scope.MODEL)
    return (
        _training_row("GPT-3 Small", "8.763e11", "2.0011e18", SMALL, "20.8 ± 0.3"),
        replace(
            _training_row("GPT-3 Small", "1.029e12", "2.3498e18", wide, "20.4 ± 0.2", half),
            closed=Fraction(closed),
        ),
        _training_row("GPT-3 Medium", "2.4845e12", "5.6734e18", MEDIUM, "20.5 ± 0.2"),
    )


def _training_row(
    model: str, flops: str, total: str, decoder: Decoder, perplexity: str, sparsity: Fraction = Fraction(0)
) -> TrainingRow:
    counted = FLOPS_PER_STEP * decoder.macs(1 - sparsity)
    return TrainingRow(model, sparsity, Fraction(flops), Fraction(total), counted, None, perplexity)
