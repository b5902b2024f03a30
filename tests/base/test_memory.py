"""Freed memory stays with the process: what is allocated again costs no fresh pages."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

if platform.libc_ver()[0] != "glibc":
    pytest.skip("this system's C library is not glibc", allow_module_level=True)

FAULTS = """
import resource, sys
import numpy as np
from iftplan.base.memory import keep_memory

print(keep_memory() if sys.argv[1] == "keep" else None)
for i in range(6):
    if i == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(64 << 20, np.uint8).fill(1)  # larger than what glibc keeps by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str, **environment: str) -> tuple[str, int]:
    """What was answered, and page faults of five allocations of 64 MiB after a first one."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    clean["NUMPY_MADVISE_HUGEPAGE"] = "0"  # pages of one size
    found = subprocess.run(
        [sys.executable, "-c", FAULTS, mode], env={**clean, **environment}, capture_output=True, text=True, check=True
    )  # fmt: skip
    answer, count = found.stdout.split()
    return answer, int(count)


def test_memory_that_is_freed_is_used_again() -> None:
    _, before = faults("leave")
    answer, after = faults("keep")
    assert answer == "True"
    assert before > 5 * 16_000 and after < 100, "each MiB has 256 pages"


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_an_environment_that_sets_the_allocator_is_left_alone(name: str) -> None:
    value = {"MALLOC_ARENA_MAX": "4", "GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}[name]
    answer, count = faults("keep", **{name: value})
    assert answer == "False" and count > 5 * 16_000


def test_a_run_on_a_cpu_keeps_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from iftplan.nn.training import run as runs
    from tests.support.runs.executed import executed, small_run

    kept: list[bool] = []
    monkeypatch.setattr(runs, "keep_memory", lambda: kept.append(True))
    executed(small_run({"training": {"steps": 2}}), tmp_path / "run")
    assert kept == [True]
