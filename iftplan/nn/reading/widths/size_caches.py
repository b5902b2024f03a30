"""Function caches that hold tensors: emptied around a trace, so that nothing symbolic stays in one."""

from __future__ import annotations

import functools
import gc
from dataclasses import dataclass
from typing import Any, Final

import torch

_CACHE: Final = type(functools.lru_cache(len))
_OTHERS: Final = frozenset({"torch", "sympy", "numpy", "functools", "iftplan"})


@dataclass
class FunctionCaches:
    """The caches of a model's functions.

    Attributes:
        met: whether a size was looked up in one.
    """

    met: bool = False

    def forget(self) -> None:
        """Empty every `functools.lru_cache` that has a tensor or a symbolic size in it, if sizes were looked up.

        A cache may be emptied at any time: what it held is computed again.
        """
        if not self.met:
            return
        for cache in [found for found in gc.get_objects() if type(found) is _CACHE]:
            module = getattr(cache, "__module__", None) or ""
            if module.partition(".")[0] not in _OTHERS and cache.cache_info().currsize and _holds(cache, 5):
                cache.cache_clear()


def _holds(value: Any, depth: int) -> bool:
    """Whether a tensor or a symbolic size can be reached from the entries of a cache."""
    for part in gc.get_referents(value):
        if isinstance(part, torch.Tensor | torch.SymInt):
            return True
        inside = type(part) in (dict, tuple, list) or type(part).__name__ in ("_lru_list_elem", "_HashedSeq")
        if inside and depth and _holds(part, depth - 1):
            return True
    return False
