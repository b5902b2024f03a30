"""Messages name arguments as Python has them, `inputs='1x8'`; in a configuration they become its keys."""

from __future__ import annotations

import json
import re
from ast import literal_eval

_TRUST = re.compile(r" \(or `trust=True`\)")  # a configuration trusts nothing that it does not name
_ARGUMENT = re.compile(r"`(inputs|model|allow|nonzeros)=([^`]+)`")


def in_configuration(text: str) -> str:
    """The same text for whoever writes a configuration.

    Example:
        >>> in_configuration("give its shape, such as `inputs='1x3x8x8'`.")
        'give its shape, such as inputs = ["1x3x8x8"].'
    """
    return _ARGUMENT.sub(_as_key, _TRUST.sub("", text))


def _as_key(span: re.Match[str]) -> str:
    try:
        given = literal_eval(span[2])
    except (ValueError, SyntaxError):
        return span[0]
    values = [str(one) for one in (given if isinstance(given, list | tuple) else [given])]
    match span[1]:
        case "nonzeros":
            return f"nonzeros = {json.dumps(given)}"
        case "model":
            return f"model = {json.dumps(values[0])}"
        case "allow":
            pairs = (value.partition("=")[::2] for value in values)
            tables = (f'{{operator = "{name}", macs = "{macs}", reason = "…"}}' for name, macs in pairs)
            return f"allow = [{', '.join(tables)}]"
    return f"inputs = {json.dumps(values, ensure_ascii=False)}"
