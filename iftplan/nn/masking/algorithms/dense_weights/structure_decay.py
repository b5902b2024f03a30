"""Structure decay: from M-1:M over M/2:M, M/4:M … to N:M, in equal frames (arXiv 2209.07617 and 2402.04744)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.masks import NM, MaskStructure
from iftplan.nn.masking.algorithms.base import Asked
from iftplan.nn.masking.algorithms.dense_weights.ste import StraightThrough, check_refresh
from iftplan.nn.masking.layer import Layer
from iftplan.runs.cautions import arrival_cautions
from iftplan.runs.schedules import known_step, step_at


def frames(kept: int, of: int) -> tuple[int, ...]:
    """N of N:M in every frame.

    Example:
        >>> frames(1, 16), frames(3, 8), frames(3, 4)
        ((15, 8, 4, 2, 1), (7, 4, 3), (3,))
    """
    if kept >= of - 1:
        return (kept,)
    halves = [of - 1]
    part = of // 2
    while part > kept:
        halves.append(part)
        part //= 2
    return (*halves, kept)


LONGEST: Final = 16
"""Patterns of the first geometric frame are so many times as long as the last one's (arXiv 2402.04744)."""


def patterns(
    inputs: int, kept: int, of: int, shape: Literal["stepwise", "geometric"]
) -> tuple[tuple[int, int], ...]:
    """N and M of N:M in every frame; geometric ones that do not divide the inputs are as long as the next that does.

    Args:
        inputs: of the matrix.
        kept: N in the end.
        of: M in the end.
        shape: "stepwise" halves N under one M, "geometric" halves both.

    Example:
        >>> patterns(64, 1, 8, "geometric")
        ((8, 64), (8, 64), (4, 32), (2, 16), (1, 8))
    """
    if shape == "stepwise":
        return tuple((n, of) for n in frames(kept, of))
    found, times = [], LONGEST
    while times:
        fitting = next(
            k for k in (times >> i for i in range(times.bit_length())) if inputs % (k * of) == 0 or k == 1
        )
        found.append((fitting * kept, fitting * of))
        times //= 2
    return tuple(found)


@dataclass(frozen=True, slots=True)
class StructureDecay(StraightThrough):
    """Structure decay (arXiv 2209.07617, 2402.04744): straight-through training under N:M masks, with N halved in each frame.

    Or N and M are, from 16N:16M on, which allows fewer masks in every frame at one density.

    Depthwise layers have the final N:M mask from the start.

    Attributes:
        end: step at which the last frame ends, or a fraction of training as a float; the final N:M mask stays after it.
        begin: steps of the dense phase, or a fraction of training as a float.
        straight: whether θ has the gradient of the forward weight, as in the authors' code, or that gradient masked.
        pull: λ of SR-STE's pull towards zero off the mask; 0 in the papers.
        refresh: number of steps between two choices of masks.
        shape: "stepwise" for N halved under one M, "geometric" for both.

    Raises:
        InputError: an unknown shape.
    """

    end: int | float = 0.75
    begin: int | float = 0
    straight: bool = True
    pull: float = 0.0
    refresh: int = 1
    shape: Literal["stepwise", "geometric"] = "stepwise"

    name = "structure-decay"

    def __post_init__(self) -> None:
        check_refresh(self.refresh)
        if self.shape not in ("stepwise", "geometric"):
            raise InputError(
                f"structures decay in no {self.shape!r} frames; shapes are stepwise and geometric."
            )

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm whose last frame ends where the run's schedule does."""
        config, updates = asked.config, asked.updates
        shape: Literal["stepwise", "geometric"] = "geometric" if config.decay == "geometric" else "stepwise"
        return cls(
            updates.end, updates.begin, config.straight, config.pull or 0.0, config.refresh or 1, shape
        )

    @property
    def needs_length(self) -> bool:
        """Whether frames begin or end at a fraction of training."""
        return isinstance(self.begin, float) or isinstance(self.end, float)

    def over(self, steps: int) -> Self:
        """The same algorithm in a training of so many optimizer steps."""
        return replace(self, begin=step_at(self.begin, steps), end=step_at(self.end, steps))

    def structure_refusal(self, structure: MaskStructure) -> str:
        """Sentence on masks that are not N:M, which have no N to halve."""
        if isinstance(structure, NM) and structure.transposable and self.shape == "geometric":
            return f"geometric frames have patterns sixteen times as long, and the tiles of {structure} masks would not fit; take stepwise frames for these, or plan {structure.kept}:{structure.of}."
        if isinstance(structure, NM):
            return ""
        return f"structure decay halves N of N:M masks, and the masks are {structure}; take mask decay for these, or plan with a structure such as 2:8."

    def cautions(self, steps: int, rate: Callable[[int], float] | None = None) -> list[str]:
        """Sentences about a run that ends before masks have the plan's counts.

        Args:
            steps: of the run.
            rate: looked at by no method that arrives.
        """
        return arrival_cautions(self.arrival, steps)

    @property
    def arrival(self) -> int:
        """Step at which masks have the plan's counts at the latest."""
        return known_step(self.end)

    def due(self, step: int) -> bool:
        """Whether masks are chosen anew at that step: every `refresh` steps, and where the final pattern begins."""
        return step % self.refresh == 0 or step == known_step(self.end)

    def leak(self, step: int) -> float:
        """Factor D of pruned weights in the forward pass: 1 in the dense phase, 0 after it."""
        return float(step < known_step(self.begin))

    def goal(self, layer: Layer, step: int) -> tuple[MaskStructure, Tensor, int]:
        """Structure, scores and count of a mask in the step's frame."""
        structure, scores = layer.structure, layer.magnitude
        outputs, inputs = scores.shape
        if not isinstance(structure, NM):
            return structure, scores, layer.target
        kept, of = self.pattern(structure, inputs, step)
        if (kept, of) == (structure.kept, structure.of):
            return structure, scores, layer.target
        looser = replace(structure, kept=kept, of=of)
        return looser, scores, looser.close(((inputs, outputs),), scores.numel())

    def pattern(self, structure: NM, inputs: int, step: int) -> tuple[int, int]:
        """N and M of N:M at that step.

        Args:
            structure: in the end.
            inputs: of the matrix.
            step: counted from 0.
        """
        found = patterns(inputs, structure.kept, structure.of, self.shape)
        begin, end = known_step(self.begin), known_step(self.end)
        if step >= end or end <= begin:
            return structure.kept, structure.of
        return found[max(0, step - begin) * len(found) // (end - begin)]
