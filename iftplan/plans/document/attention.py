"""The parts of a plan's document that only plans with an attention pattern have."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from iftplan.base.documents import Document
from iftplan.masks.attention.product import AttentionCall, AttentionPairs
from iftplan.plans.plan import Plan, Scope


def attention_object(plan: Plan) -> Document:
    """Pattern of a plan's attention as a JSON object, with the full count of every scope beside."""
    return {
        "convention": "pairs",
        "pattern": plan.attention,
        **({"before": plan.attention_before} if plan.attention_before else {}),
        "dense_full": {scope.value: plan.dense_full_macs(scope) for scope in plan.scopes},
        "planned_full": {scope.value: plan.full_macs(scope) for scope in plan.scopes},
    }


def pairs_object(pairs: AttentionPairs) -> Document:
    """Sizes, patterns and full counts of one product as a JSON object."""
    call = pairs.call
    return {
        "queries": call.queries,
        "keys": call.keys,
        "score_channels": call.score_channels,
        "value_channels": call.value_channels,
        "mask": call.mask,
        "before": pairs.before,
        "after": pairs.after,
        "dense_full_macs": pairs.dense_full_macs,
        "full_macs": pairs.full_macs,
    }


def parse_pairs(parsed: PairsObject) -> AttentionPairs:
    """Attention of a row, as it was written."""
    call: dict[str, Any] = {
        key: parsed[key] for key in ("queries", "keys", "score_channels", "value_channels", "mask")
    }
    return AttentionPairs(
        AttentionCall(**call),
        parsed["before"],
        parsed["after"],
        parsed["dense_full_macs"],
        parsed["full_macs"],
    )


@with_config(ConfigDict(extra="forbid"))
class AttentionObject(TypedDict):
    """Pattern that attention keeps, and the counts of every query with every key beside those by pairs.

    Attributes:
        convention: what attention is counted in, before and after: pairs of a query and a key.
        pattern: the pattern asked for.
        before: the pattern that was given for the dense model, where its mask is not known; absent elsewhere.
        dense_full: MACs of the dense model in each scope, every query with every key.
        planned_full: MACs after the plan in each scope, every query with every key.
    """

    convention: Literal["pairs"]
    pattern: str
    before: NotRequired[str]
    dense_full: dict[Scope, int]
    planned_full: dict[Scope, int]


@with_config(ConfigDict(extra="forbid"))
class PairsObject(TypedDict):
    """Attention of one module.

    Attributes:
        queries: queries of each head.
        keys: keys of each head.
        score_channels: channels of a query and of a key in the dense model.
        value_channels: channels of a value in the dense model.
        mask: the pattern of the model's own mask; null where shapes do not tell.
        before: the pattern that the dense model is counted by.
        after: the pattern that the plan is counted by.
        dense_full_macs: MACs before with every query and every key.
        full_macs: MACs after with every query and every key.
    """

    queries: int
    keys: int
    score_channels: int
    value_channels: int
    mask: str | None
    before: str
    after: str
    dense_full_macs: int
    full_macs: int
