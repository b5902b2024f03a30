"""Pruning during training: the loss follows from the average number of parameters over training.

Jin et al., "The journey matters: average parameter count over pre-training unifies sparse and dense scaling laws"
(arXiv 2501.12486). Pruning that begins at 25 % and ends at 75 % of the training compute is near-optimal there.
"""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import Literal

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.runs.laws.dense import DENSE

BEGIN, END = 0.25, 0.75
"""Fractions of training between which the paper advises to prune."""

Decay = Literal["geometric", "linear", "cubic"]

AVERAGE = replace(
    DENSE,
    name="average",
    title="pruning during training, by the average parameter count",
    source="arXiv 2501.12486",
    equation="L = A/N̄^α + B/D^β + E, N̄ = (1/T)·Σ N_t",
    remarks=(
        "the constants of arXiv 2501.12486 are not known here: these are the ones of dense models (arXiv 2203.15556), "
        "which the paper's law has the form of",
    ),
)
"""The dense law, asked with average parameter counts."""


@check_arguments
def average_density(
    final: float, begin: float = BEGIN, end: float = END, decay: Decay = "geometric"
) -> float:
    """Average density over training of weights that are pruned between two moments, a fraction of 1.

    Args:
        final: density at the end of training, in (0, 1].
        begin: fraction of training before which all weights are there.
        end: fraction of training after which only the last are.
        decay: how density falls in between: by the same factor with each step ("geometric", as in arXiv 2501.12486),
            by the same amount ("linear"), or quickly first ("cubic", arXiv 1710.01878).

    Raises:
        InputError: a density outside (0, 1], or times that are no span of training.

    Example:
        >>> round(average_density(0.8, 2500 / 11200, 8100 / 11200), 4)
        0.8928
    """
    if not 0 < final <= 1:
        raise InputError(f"density {final:g} is outside (0, 1]; at 0 no weights are left.")
    if not 0 <= begin <= end <= 1:
        raise InputError(
            f"pruning cannot run from {begin:g} to {end:g} of training; both are fractions from 0 to 1, the end "
            f"not before the begin, as {BEGIN:g} and {END:g}."
        )
    between = {
        "geometric": (1 - final) / -log(final) if final < 1 else 1.0,
        "linear": (1 + final) / 2,
        "cubic": final + (1 - final) / 4,
    }[decay]
    return begin + (end - begin) * between + (1 - end) * final
