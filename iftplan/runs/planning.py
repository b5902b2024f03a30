"""From a run's settings to what the planner is asked for."""

from __future__ import annotations

from collections.abc import Mapping

from iftplan.base.units import parse_sparsity
from iftplan.families.builtin import FAMILIES, family_named
from iftplan.families.family import Family
from iftplan.families.solver import mask_for
from iftplan.masks import parse_mask
from iftplan.masks.distributions import Distribution
from iftplan.plans.plan import Scope
from iftplan.plans.policy import Policy
from iftplan.runs.settings import PlanConfig


def policy_of(asked: PlanConfig, families: Mapping[str, Family] = FAMILIES) -> Policy:
    """Policy that a run's settings ask the planner for.

    Args:
        asked: the settings.
        families: by name; those of your own beside the built-in ones.

    Raises:
        InputError: something that cannot be read, or does not go together.
        InfeasibleError: masks of that structure have another sparsity.
    """
    own = families.get(asked.transform)
    family = None if asked.transform == "none" else own or family_named(asked.transform)
    sparsity = parse_sparsity(asked.sparsity)
    return Policy(
        family=family,
        sparsity=sparsity,
        scope=Scope(asked.scope),
        distribution=Distribution(asked.distribution),
        keep_dense=frozenset(asked.keep_dense) - {"none"},
        round_to=asked.round_to,
        mask=mask_for(family, sparsity, parse_mask(asked.mask) if asked.mask else None),
    )
