"""Attention's two products as values: their sizes, and what they cost in full and by the pairs of a pattern."""

from __future__ import annotations

from dataclasses import dataclass

from iftplan.base.errors import InputError
from iftplan.masks.attention.notation import parse_attention
from iftplan.masks.attention.pattern import AttentionPattern


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """Sizes of attention, and which pairs the model itself computes.

    Attributes:
        queries: L, number of queries of each head.
        keys: S, number of keys of each head.
        score_channels: E, channels of a query and of a key.
        value_channels: E_v, channels of a value.
        mask: notation of the pattern that the model's own mask keeps; None where shapes do not tell.
    """

    queries: int
    keys: int
    score_channels: int
    value_channels: int
    mask: str | None = "full"

    def problem(self, full: int) -> str:
        """Reason why there is no such attention; empty if there is.

        Args:
            full: MACs with every query and every key.
        """
        sizes = (self.queries, self.keys, self.score_channels, self.value_channels)
        if min(sizes) < 1 or max(sizes) > 10**15:
            return f"its sizes are {', '.join(map(str, sizes))}; each must be from 1 to 10**15"
        if full % (self.queries * self.keys * (self.score_channels + self.value_channels)):
            return f"{full} MACs are not those of its sizes"
        if self.mask is not None:
            try:
                parse_attention(self.mask)
            except InputError as error:
                return str(error)
        return ""

    def macs(self, full: int, pattern: AttentionPattern) -> int:
        """MACs of the pairs that a pattern keeps.

        Args:
            full: MACs with every query and every key, `heads · L · S · (E + E_v)`, at the dense widths or at others.
            pattern: the pattern.

        Raises:
            InputError: the pattern cannot be counted, or it selects keys and E and E_v differ.
        """
        pairs, scores = (count(self.queries, self.keys) for count in (pattern.pairs, pattern.score_pairs))
        channels, rest = divmod(full, self.queries * self.keys)  # heads · (E + E_v)
        if rest:
            raise InputError(
                f"{full} MACs are no attention of {self.queries} queries and {self.keys} keys, which costs a multiple of "
                f"{self.queries * self.keys}."
            )
        if pairs == scores:
            return channels * pairs
        if self.score_channels != self.value_channels:
            raise InputError(
                f"attention pattern {pattern} selects keys, and its cost is known for keys and values of one size only, not "
                f"for {self.score_channels} and {self.value_channels} channels. Choose a pattern without top-k."
            )
        return channels // 2 * (scores + pairs)


@dataclass(frozen=True, slots=True)
class AttentionPairs:
    """Attention that a plan counts by pairs, with its full count beside.

    Attributes:
        call: sizes of the products.
        before: notation of the pattern in the dense model.
        after: notation of the pattern in the plan.
        dense_full_macs: MACs in the dense model with every query and every key.
        full_macs: MACs at the plan's widths with every query and every key.
    """

    call: AttentionCall
    before: str
    after: str
    dense_full_macs: int
    full_macs: int

    @property
    def dense_macs(self) -> int:
        """MACs of the pairs that the dense model keeps.

        Raises:
            InputError: as `AttentionCall.macs`.
        """
        return self.call.macs(self.dense_full_macs, parse_attention(self.before))

    @property
    def at_planned_widths(self) -> int:
        """MACs at the plan's widths of the pairs that the dense model keeps.

        Raises:
            InputError: as `AttentionCall.macs`.
        """
        return self.call.macs(self.full_macs, parse_attention(self.before))

    @property
    def selection_macs(self) -> int:
        """MACs of the plan that only choose keys.

        Raises:
            InputError: as `AttentionCall.macs`.
        """
        chosen = parse_attention(self.after).selection_pairs(self.call.queries, self.call.keys)
        return chosen * (self.full_macs // (2 * self.call.queries * self.call.keys))

    @property
    def macs(self) -> int:
        """MACs of the pairs that the plan keeps.

        Raises:
            InputError: as `AttentionCall.macs`.
        """
        return self.call.macs(self.full_macs, parse_attention(self.after))
