"""How long a command takes: CPU seconds of whole processes, interleaved, as ratios to `import torch` in the same run.

python benchmarks/commands.py [--rounds 3] [--only 'plan*']
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from iftplan.models.zoo import ZOO
from iftplan.report.table import Table
from iftplan.report.terminal import print_table

FLOOR = "import torch"
NET = """
from torch import nn


class Block(nn.Module):
    def __init__(self, inside, outside, stride):
        super().__init__()
        self.a, self.b = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.m, self.n = nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)
        self.way = nn.Conv2d(inside, outside, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x):
        return (self.n(self.b(self.m(self.a(x)).relu())) + self.way(x)).relu()


def model():
    blocks = [Block(64 * w // (s or 1), 64 * w, s or 1) for w in (1, 2, 4, 8) for s in ((2 if w > 1 else 0), 0)]
    return nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 100))
"""
"""A ResNet of a user's own."""


@dataclass(frozen=True)
class Command:
    """One process to time.

    Attributes:
        name: of the row.
        arguments: of Python.
        limit: what it may take, in times of `import torch`; None for what is only shown.
    """

    name: str
    arguments: tuple[str, ...]
    limit: float | None = None


def iftplan(name: str, limit: float | None, *words: str) -> Command:
    """A command of iftplan's."""
    return Command(name, ("-m", "iftplan", *words), limit)


def commands() -> list[Command]:
    """What is timed, in the order of a round."""
    own = ("net.py:model", "--input", "1x3x32x32", "--sparsity", "0.75", "-o", "own.json")
    return [
        Command("python", ("-c", "pass")),
        Command(FLOOR, ("-c", "import torch")),
        iftplan("--help", 0.08, "--help"),
        iftplan("solve, numbers", 0.1, "solve", "--layer", "conv3x3:64-128@16x16", "--sparsity", "0.75"),
        iftplan("solve, symbolic", 0.15, "solve", "--layer", "conv3x3", "--sparsity", "0.75"),
        *(
            iftplan(f"plan zoo:{name}, {family}", 0.6, "plan", f"zoo:{name}", "--transform", family, "--sparsity", "0.5", "--scope", "model", "-o", "zoo.json")
            for name in ZOO
            for family in ("wide", "parallel")
        ),
        iftplan("plan of one's own, wide", 1.8, "plan", *own, "--transform", "wide"),
        iftplan("plan of one's own, parallel", 1.3, "plan", *own, "--transform", "parallel"),
        iftplan("audit of a zoo plan", 1.6, "audit", "audited.json"),
        iftplan("audit of a zoo plan, cross-checked", 2.2, "audit", "audited.json", "--cross-check"),
        iftplan("check of ten unchanged models", 0.25, "check"),
    ]  # fmt: skip


def prepared(folder: Path) -> None:
    """The files that the commands read."""
    (folder / "net.py").write_text(NET)
    models = "".join(
        f'[models.m{i}]\nsource = "net.py:model"\ninputs = ["{i + 1}x3x32x32"]\n' for i in range(10)
    )
    (folder / "iftplan.toml").write_text(models)
    for words in (("plan", "zoo:resnet18-cifar", "--transform", "wide", "-o", "audited.json"), ("check",)):
        subprocess.run([sys.executable, "-m", "iftplan", *words], cwd=folder, capture_output=True, check=True)


def cpu_seconds(arguments: tuple[str, ...], folder: Path) -> float:
    """User and system time of one process and its children, in seconds.

    Raises:
        SystemExit: it failed.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    said = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed: {said.decode()[-500:]}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Time every command and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="*", help="names of rows, as a pattern")
    given = parser.parse_args()
    chosen = [c for c in commands() if c.name == FLOOR or fnmatch(c.name, given.only)]
    times: dict[str, list[float]] = {c.name: [] for c in chosen}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepared(folder)
        for _ in range(given.rounds):
            for command in chosen:
                times[command.name].append(cpu_seconds(command.arguments, folder))
    middle = {name: statistics.median(values) for name, values in times.items()}
    rows = []
    for command in chosen:
        ratio = middle[command.name] / middle[FLOOR]
        verdict = "" if command.limit is None else "" if ratio <= command.limit else "over"
        limit = "" if command.limit is None else f"{command.limit:.2f}"
        rows.append((command.name, f"{middle[command.name]:.2f}", f"{ratio:.2f}", limit, verdict))
    columns = ("process", ">CPU s", ">× import torch", ">wanted", "")
    print_table(Table(columns, tuple(rows), f"CPU time of whole processes, medians of {given.rounds} rounds"))
    zoo = [middle[c.name] / middle[FLOOR] for c in chosen if c.name.startswith("plan zoo:")]
    if zoo:
        print(f"plan zoo:NAME: median {statistics.median(zoo):.2f}, worst {max(zoo):.2f} (wanted .35 and .6)")


if __name__ == "__main__":
    main()
