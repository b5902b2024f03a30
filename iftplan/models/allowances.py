"""Costs that a user vouches for: `NAME=MACS_PER_CALL`, or per output element, `NAME=64*out+1000`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from iftplan.base.errors import InputError

_FORM = re.compile(r"(?P<name>[\w.:]+)=(?:(?P<per_output>\d+)\*out)?(?:(?P<plus>\+)?(?P<per_call>\d+))?")


@dataclass(frozen=True, slots=True)
class VouchedCost:
    """MACs of one call: `per_call + per_output · output elements`."""

    per_call: int = 0
    per_output: int = 0

    def macs(self, outputs: int) -> int:
        """MACs of a call with so many output elements."""
        return self.per_call + self.per_output * outputs


def parse_vouched(given: Sequence[str]) -> dict[str, VouchedCost]:
    """Read costs that a user vouches for: operator → cost.

    Raises:
        InputError: not of the form, or an operator has two costs.

    Example:
        >>> parse_vouched(["my::scan=64*out+1000"])
        {'my::scan': VouchedCost(per_call=1000, per_output=64)}
    """
    found: dict[str, VouchedCost] = {}
    for text in given:
        match = _FORM.fullmatch(text)
        both = match and match["per_output"] and match["per_call"]
        if not match or not (match["per_output"] or match["per_call"]) or bool(both) != bool(match["plus"]):
            raise InputError(
                f"`allow`: {text!r} is not NAME=MACS_PER_CALL; write a whole number, as in my::operator=0, or count its output elements, as in my::operator=64*out."
            )
        cost = VouchedCost(int(match["per_call"] or 0), int(match["per_output"] or 0))
        if found.setdefault(match["name"], cost) != cost:
            raise InputError(f"`allow`: {match['name']} has two costs; give the one that is meant.")
    return found
