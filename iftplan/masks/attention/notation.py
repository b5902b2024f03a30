"""Attention patterns as they are written in plans and on the command line."""

from __future__ import annotations

import re
from functools import reduce
from operator import and_

from iftplan.base.errors import InputError
from iftplan.masks.attention.band import Band
from iftplan.masks.attention.block_map import BlockMap
from iftplan.masks.attention.pattern import AttentionPattern, TopK

NOTATIONS = "full, causal, window:256, block:64, strided:8, top-k:64, top-k:1024/16 (in pages) and blocks:64:10/11 (a map of blocks), joined by +"
"""Notations of all parts, for messages."""


def parse_attention(text: str) -> AttentionPattern:
    """Attention pattern that a notation names in any case, such as `causal`, `window:256+causal` or `top-k:64`.

    Raises:
        InputError: none is written like that, or parts cannot be combined.

    Example:
        >>> str(parse_attention("causal+window:256"))
        'window:256+causal'
    """
    return reduce(and_, (_part(part, text) for part in text.strip().lower().split("+")))


def _part(part: str, text: str) -> AttentionPattern:
    match part.strip().split(":"):
        case ["full"]:
            return AttentionPattern()
        case ["causal"]:
            return AttentionPattern(Band(ahead=1))
        case ["window", size] if _counts(size):
            return AttentionPattern(Band(int(size), int(size)))
        case ["block", size] if _counts(size):
            return AttentionPattern(block=int(size))
        case ["strided", step] if _counts(step):
            return AttentionPattern(stride=int(step))
        case ["top-k", sizes] if _counts(*sizes.split("/")) and sizes.count("/") <= 1:
            return AttentionPattern(top_k=_top_k(*map(int, sizes.split("/"))))
        case ["blocks", size, rows] if _counts(size) and _is_map(rows):
            return AttentionPattern(blocks=BlockMap(int(size), tuple(rows.split("/"))))
    raise InputError(f"unknown attention pattern {text!r}. Patterns are {NOTATIONS}.")


def _top_k(kept: int, page: int = 0) -> TopK:
    if page and kept % page:
        near = max(page, kept // page * page)
        raise InputError(
            f"top-k:{kept}/{page} keeps {kept} keys, which are no whole pages of {page}. The nearest is top-k:{near}/{page}."
        )
    return TopK(kept, page)


def _counts(*texts: str) -> bool:
    return all(re.fullmatch(r"[1-9]\d{0,14}", text, re.ASCII) for text in texts)


def _is_map(rows: str) -> bool:
    return bool(re.fullmatch(r"[01]+(/[01]+)*", rows)) and len({len(row) for row in rows.split("/")}) == 1
