"""The section of a plan's document that only a mixture of experts has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from iftplan.base.errors import InputError
from iftplan.families.transforms.experts import Mixture, parse_mixture
from iftplan.plans.experts import size_of
from iftplan.plans.plan import PlannedLayer


@with_config(ConfigDict(extra="forbid"))
class ExpertsObject(TypedDict):
    """Mixture of experts in the place of feed-forward blocks.

    Attributes:
        mixture: how many experts, of which kind, as `--transform` takes them.
        convention: what rows of experts are counted by: tokens × k, or padded to capacity.
        blocks: number of blocks that were replaced.
        total_weights: weights of the model that contract.
        active_weights: of those, the weights that one token meets.
        log2_choices: bits that name the experts that one token meets in all blocks.
    """

    mixture: str
    convention: str
    blocks: int
    total_weights: int
    active_weights: int
    log2_choices: float


def experts_object(layers: Sequence[PlannedLayer], mixture: Mixture) -> dict[str, Any]:
    """The section of a plan of experts.

    Args:
        layers: of the plan.
        mixture: its experts.
    """
    size = size_of(layers, mixture)
    return {
        "mixture": str(mixture),
        "convention": mixture.convention,
        "blocks": size.blocks,
        "total_weights": size.total,
        "active_weights": size.active,
        "log2_choices": size.log2_choices,
    }


def parse_experts(section: ExpertsObject, where: str) -> Mixture:
    """The experts of a section; what follows from the layers is worked out again by whoever reads the plan.

    Args:
        section: as it was read.
        where: names the document in messages.

    Raises:
        InputError: it names no experts.
    """
    try:
        return parse_mixture(section["mixture"])
    except InputError as error:
        raise InputError(f"{where}: experts.mixture: {error}") from error
