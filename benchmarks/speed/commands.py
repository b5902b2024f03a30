"""How long a command takes: CPU seconds of whole processes, interleaved, as ratios to `import torch` in the same run.

python benchmarks/speed/commands.py [--rounds 3] [--only 'plan*']
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from iftplan.models.zoo.entries import ZOO
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


TOY = """
from torch import nn


def a():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def b():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))


def c():
    return nn.Sequential(nn.Embedding(10, 8), nn.TransformerEncoderLayer(8, 2, 16))
"""
"""Three small models, which change from one revision to the next."""

TOYS = """
[models.a]
source = "toy.py:a"
inputs = ["1x8"]
[models.b]
source = "toy.py:b"
inputs = ["1x3x8x8"]
[models.c]
source = "toy.py:c"
inputs = ["1x5:int64"]
"""


@dataclass(frozen=True)
class Command:
    """One process to time.

    Attributes:
        name: of the row.
        arguments: of Python.
        limit: what it may take, in times of `import torch`; None for what is only shown.
        fresh: whether nothing is kept from before.
        folder: where it runs, inside the prepared one.
    """

    name: str
    arguments: tuple[str, ...]
    limit: float | None = None
    fresh: bool = False
    folder: str = "."


def iftplan(name: str, limit: float | None, *words: str, **more: Any) -> Command:
    """A command of iftplan's."""
    return Command(name, ("-m", "iftplan", *words), limit, **more)


def commands() -> list[Command]:
    """What is timed, in the order of a round."""
    own = ("net.py:model", "--input", "1x3x32x32", "--sparsity", "0.75", "-o", "own.json")
    return [
        Command("python", ("-c", "pass")),
        Command(FLOOR, ("-c", "import torch")),
        Command("import iftplan", ("-c", "import iftplan")),
        iftplan("--help", 0.08, "--help"),
        iftplan("solve, numbers", 0.1, "solve", "--layer", "conv3x3:64-128@16x16", "--sparsity", "0.75"),
        iftplan("solve, symbolic", 0.15, "solve", "--layer", "conv3x3", "--sparsity", "0.75"),
        *(
            iftplan(f"plan zoo:{name}, {family}", 0.6, "plan", f"zoo:{name}", "--transform", family, "--sparsity", "0.5", "--scope", "model", "-o", "zoo.json")
            for name in ZOO
            for family in ("wide", "parallel")
        ),
        iftplan("plan of one's own, parallel", 1.3, "plan", *own, "--transform", "parallel", fresh=True),
        iftplan("plan of one's own, parallel, again", 0.35, "plan", *own, "--transform", "parallel"),
        iftplan("plan of one's own, wide", 1.8, "plan", *own, "--transform", "wide", fresh=True),
        iftplan("plan of one's own, wide, again", 0.35, "plan", *own, "--transform", "wide"),
        iftplan("audit of a zoo plan", 1.6, "audit", "audited.json", fresh=True),
        iftplan("audit of a zoo plan, again", 0.4, "audit", "audited.json"),
        iftplan("audit of a zoo plan, cross-checked", 2.2, "audit", "audited.json", "--cross-check", fresh=True),
        iftplan("audit of a zoo plan, cross-checked, again", 0.4, "audit", "audited.json", "--cross-check"),
        iftplan("check of ten unchanged models", 0.25, "check", folder="ten"),
        iftplan("check --base of three changed models", 3.0, "check", "--base", "HEAD", fresh=True, folder="toys"),
    ]  # fmt: skip


def prepared(folder: Path) -> None:
    """The files that the commands read."""
    ten, toys = folder / "ten", folder / "toys"
    ten.mkdir()
    toys.mkdir()
    for place in (folder, ten):
        (place / "net.py").write_text(NET)
    models = (f'[models.m{i}]\nsource = "net.py:model"\ninputs = ["{i + 1}x3x32x32"]\n' for i in range(10))
    (ten / "iftplan.toml").write_text("".join(models))
    (toys / "iftplan.toml").write_text(TOYS)
    (toys / "toy.py").write_text(TOY)
    (toys / ".gitignore").write_text(".iftplan_cache/\n__pycache__/\n")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "begun")):
        subprocess.run([*git, *words], cwd=toys, check=True)
    (toys / "toy.py").write_text(TOY.replace("4))", "6))").replace("8, 2, 16", "8, 2, 24"))
    run = (sys.executable, "-m", "iftplan")
    plan = ("plan", "zoo:resnet18-cifar", "--transform", "wide", "-o", "audited.json")
    subprocess.run([*run, *plan], cwd=folder, capture_output=True, check=True)
    subprocess.run([*run, "check"], cwd=ten, capture_output=True, check=True)


def cpu_of(command: Command, folder: Path) -> float:
    """User and system time of one command and its children, in seconds."""
    place = folder / command.folder
    if command.fresh:
        shutil.rmtree(place / ".iftplan_cache", ignore_errors=True)
    return cpu_seconds(command.arguments, place)


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
                times[command.name].append(cpu_of(command, folder))
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
