"""Start-up: CPU seconds of whole processes, interleaved, as ratios to bare Python and to `import sympy`.

python benchmarks/startup.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from iftplan.report.table import Table
from iftplan.report.terminal import print_table

COMMANDS = {
    "python (floor)": ["-c", "pass"],
    "import sympy": ["-c", "import sympy"],
    "import iftplan": ["-c", "import iftplan"],
    "iftplan --version": ["-m", "iftplan", "--version"],
    "iftplan --help": ["-m", "iftplan", "--help"],
    "solve, numbers": ["-m", "iftplan", "solve", "--layer", "conv3x3:64-128@16x16", "--sparsity", "0.75"],
    "solve, numbers, JSON": ["-m", "iftplan", "solve", "--layer", "linear:64-64", "--format", "json"],
    "solve, symbolic": ["-m", "iftplan", "solve", "--layer", "conv3x3", "--sparsity", "0.75"],
}


def cpu_seconds(arguments: list[str]) -> float:
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} failed")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            times[name].append(cpu_seconds(arguments))
    middle = {name: statistics.median(values) for name, values in times.items()}
    floor, sympy = middle["python (floor)"], middle["import sympy"]
    rows = tuple(
        (name, f"{t / floor:.1f}", f"{t / sympy:.2f}", f"{t - floor:.3f}") for name, t in middle.items()
    )
    columns = ("process", ">× bare Python", ">× import sympy", ">CPU s beyond bare Python")
    print_table(Table(columns, rows, f"start-up, median CPU time of {rounds} interleaved rounds"))


if __name__ == "__main__":
    main()
