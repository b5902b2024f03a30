"""What processes that tests start inherit: Ctrl-C reaches them, and they keep their bytecode.

Ctrl-C also where the suite itself runs in the background of a shell; bytecode also where the environment says not to write it,
for some thousand processes would each compile the package anew.
"""

from __future__ import annotations

import os
import signal
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

collect_ignore_glob = [] if find_spec("jax") else ["support/*/jax_*"]
"""What cannot be imported without JAX."""

LONG = frozenset((Path(__file__).parent / "long.txt").read_text(encoding="utf-8").split())
"""Tests, and files of tests, that take seconds: the quick half does without them."""


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes seconds."""
    for item in items:
        function = item.nodeid.partition("[")[0]
        if not LONG.isdisjoint((function, function.partition("::")[0])):
            item.add_marker("long")
