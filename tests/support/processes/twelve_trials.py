"""A sweep of twelve short trials, and what it leaves."""

from __future__ import annotations

import csv
import io
from pathlib import Path

SWEEP = (
    "sweep", "zoo:digits-cnn", "--transforms", "wide,parallel", "--sparsities", "0.5,0.75,0.9", "--train",
    "--methods", "static", "--seeds", "0,1", "--steps", "4", "--set", "training.checkpoint_interval=1",
    "--set", "training.batch_size=32",
)  # fmt: skip
TRIALS = 2 * 3 * 2


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def results(out: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in out.glob("*/result.json")}
