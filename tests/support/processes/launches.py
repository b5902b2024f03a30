"""The environment of processes that tests start."""

from __future__ import annotations

import os

from tests.support.places import ROOT


def environment() -> dict[str, str]:
    """This one's, with one thread for each process and this checkout first."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
