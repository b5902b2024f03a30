"""The import of lightning-fabric, which looks up the version of a library that nothing here needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Final

_METRICS: Final = "torchmetrics"


@contextmanager
def no_metrics_loaded() -> Iterator[None]:
    """Import lightning-fabric within: it finds the version of torchmetrics without the library.

    It would import the whole of it, and with it transformers and SciPy where they are installed, which takes longer than torch.
    """
    stand_in = None if _METRICS in sys.modules else _version_of(_METRICS)
    if stand_in is None:
        yield
        return
    sys.modules[_METRICS] = stand_in
    try:
        yield
    finally:
        del sys.modules[_METRICS]


def _version_of(name: str) -> ModuleType | None:
    """A module that has the version of a library and nothing else; None where it is not installed."""
    try:
        found = version(name)
    except PackageNotFoundError:
        return None
    module = ModuleType(name)
    module.__version__ = found  # type: ignore[attr-defined]
    return module
