"""Programs of `benchmarks/` as modules, which they are to tests alone."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from tests.support.places import BENCHMARKS


def path_of(name: str) -> Path:
    """Its file, in whichever folder it lies."""
    (found,) = BENCHMARKS.rglob(f"{name}.py")
    return found


def program(name: str) -> ModuleType:
    """The program of this name, read anew."""
    spec = importlib.util.spec_from_file_location(name, path_of(name))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
