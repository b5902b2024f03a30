"""Every layer of ResNet-18 and GPT-3 Small at four sparsities under four kinds of mask, against the best dense time.

    python benchmarks/speed/wallclock.py [--quick] [--threads 1,2] [--backends dense,dense-best,sparse,compact] [--out wallclock.json] [--python PATH]

Interleaved rounds, ratios to the fastest dense backend of the original layer on as many threads (ideal: 1). One thread is measured in
processor time, several in elapsed time, which needs a machine that does nothing else. `--quick` measures a few layers at 75 and 90 %; `--backends` leaves out others, of which masked-dense takes most of the time; `--python` names an
environment with sparselab or DeepSparse, and may be repeated. A table in Markdown has forward / step / step of compact layers; the
last lines hold the ratios against what this project means to reach, and the gain from more threads.
"""

import argparse
import os
from itertools import product
from pathlib import Path
from statistics import median

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from iftplan.base.documents import dumps, write_text  # noqa: E402
from iftplan.base.units import parse_sparsity  # noqa: E402
from iftplan.masks import parse_mask  # noqa: E402
from iftplan.nn.timing.bench import bench  # noqa: E402
from iftplan.nn.timing.libraries import installed_libraries  # noqa: E402
from iftplan.plans.speed.tables import bench_document  # noqa: E402
from iftplan.plans.speed.timings import BACKENDS, Measured, pair_of_layer  # noqa: E402

# layer, samples: a batch that gives each layer some ten milliseconds
RESNET18_CIFAR = (
    ("conv3x3:64-64@32x32", 8), ("conv3x3:128-128@16x16", 16), ("conv3x3:256-256@8x8", 32),
    ("conv3x3:512-512@4x4", 64),
)  # fmt: skip
RESNET18_IMAGENET = (
    ("conv3x3:64-64@56x56", 4), ("conv3x3:128-128@28x28", 8), ("conv3x3:256-256@14x14", 16),
    ("conv3x3:512-512@7x7", 16),
)  # fmt: skip
GPT3_SMALL = (("linear:768-768@1024", 1), ("linear:768-3072@1024", 1), ("linear:3072-768@1024", 1))
QUICK = (
    ("linear:768-3072@512", 1),
    ("linear:768-768@1024", 1),
    ("conv3x3:128-128@16x16", 8),
    ("conv3x3:256-256@8x8", 16),
)
STRUCTURES = ("unstructured", "fan-in", "block1x4", "block4x4")
AIMS = (
    ("linear", "forward", "unstructured", 0.9, "sparse", 1.7), ("linear", "step", "unstructured", 0.9, "sparse", 2.1),
    ("linear", "step", "unstructured", 0.9, "compact", 1.8), ("conv", "forward", "unstructured", 0.9, "sparse", 1.9),
    ("conv", "step", "unstructured", 0.9, "sparse", 2.2), ("conv", "step", "unstructured", 0.9, "compact", 1.9),
    ("linear", "step", "block4x4", 0.9, "sparse", 1.6), ("conv", "step", "block4x4", 0.9, "sparse", 1.6),
    ("linear", "forward", "unstructured", 0.75, "sparse", 1.5), ("conv", "forward", "unstructured", 0.75, "sparse", 1.5),
    ("linear", "step", "unstructured", 0.75, "sparse", 1.7), ("conv", "step", "unstructured", 0.75, "sparse", 1.7),
)  # fmt: skip
"""Kind of layer, passes, structure, sparsity, backend, and the ratio that its layers mean to reach at the median."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", default="1", help="numbers of threads, separated by commas")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--out", default="")
    parser.add_argument("--python", action="append", default=[])
    given = parser.parse_args()
    libraries = installed_libraries(given.python) or None
    layers = QUICK if given.quick else (*RESNET18_CIFAR, *RESNET18_IMAGENET, *GPT3_SMALL)
    sparsities = ("0.75", "0.9") if given.quick else ("0.5", "0.75", "0.9", "0.95")
    threads = [int(number) for number in given.threads.split(",")]
    documents, measured = [], []
    for (layer, batch), sparsity, structure in product(layers, sparsities, STRUCTURES):
        pair = pair_of_layer(layer, parse_sparsity(sparsity), parse_mask(structure))
        found = bench(
            [pair], batch=batch, passes=("forward", "step"), rounds=given.rounds, libraries=libraries,
            backends=given.backends.split(","), threads=threads,
        )  # fmt: skip
        documents.append(bench_document(found))
        measured += found.measured
        told = [
            f"{one.passes} {one.threads}: " + " ".join(f"{t.backend} {t.ratio:.2f}" for t in one.timings)
            for one in found.measured
        ]
        print(f"{layer:24} ×{batch:<3} {sparsity:>5} {structure:13}", " | ".join(told), flush=True)
        if given.out:
            write_text(dumps({"benches": documents}), str(Path(given.out)))
    for count in threads:
        those = [one for one in measured if one.threads == count]
        print(f"\n{count} thread{'s' * (count > 1)}, ratios to dense\n\n{markdown(those)}\n")
        for kind, passes, structure, sparsity, backend, aim in AIMS:
            asked = [one for one in those if matches(one, kind, passes, structure, sparsity)]
            ratios = [r for one in asked for r in ratios_of(one, backend)]
            if ratios:
                middle = median(ratios)
                print(
                    f"{kind} {passes} at {sparsity:g}, {structure}, {backend}: median {middle:.2f}, worst {max(ratios):.2f}, aim {aim}:",
                    "reached" if middle <= aim else "not reached",
                )
    for count in threads[1:]:
        print(f"\n{count} threads against {threads[0]}: {gains(measured, threads[0], count)}")


def gains(measured: list[Measured], few: int, many: int) -> str:
    """Median and range of how much faster each backend is on more threads."""
    times: dict[tuple[str, str, str, str, str], dict[int, float]] = {}
    for one in measured:
        for t in one.timings:
            key = one.pair.name, str(one.pair.sparsity), one.pair.structure, one.passes, t.backend
            times.setdefault(key, {})[one.threads] = t.seconds
    found: dict[str, list[float]] = {}
    for key, seconds in times.items():
        if few in seconds and many in seconds:
            found.setdefault(key[-1], []).append(seconds[few] / seconds[many])
    return "; ".join(
        f"{name} {median(them):.2f} ({min(them):.2f}–{max(them):.2f})" for name, them in found.items()
    )


def markdown(measured: list[Measured]) -> str:
    """A row for each layer and mask: forward / step / step of compact layers, by sparsity."""
    cells: dict[tuple[str, str], dict[float, list[str]]] = {}
    for one in measured:
        row = cells.setdefault((one.pair.name, one.pair.structure), {})
        ratios = [r for backend in ("sparse", "compact") for r in ratios_of(one, backend)]
        row.setdefault(float(one.pair.sparsity), []).extend(f"{ratio:.2f}" for ratio in ratios)
    sparsities = sorted({s for row in cells.values() for s in row})
    lines = ["| layer | mask | " + " | ".join(f"{s:g}" for s in sparsities) + " |"]
    lines.append("|---|---|" + "---|" * len(sparsities))
    for (layer, mask), row in cells.items():
        lines.append(f"| `{layer}` | `{mask}` | " + " | ".join(" / ".join(row[s]) for s in sparsities) + " |")
    return "\n".join(lines)


def matches(one: Measured, kind: str, passes: str, structure: str, sparsity: float) -> bool:
    """Layers that an aim is about: convolutions of 128 channels and more."""
    pair = one.pair
    wide_enough = kind == "linear" or (pair.dense.in_channels or 0) >= 128
    asked = pair.name.startswith(kind) and one.passes == passes and pair.structure == structure
    return asked and wide_enough and float(pair.sparsity) == sparsity


def ratios_of(one: Measured, backend: str) -> list[float]:
    """Of our kernels, for as many MACs as the dense layer has; none where the backend was not timed."""
    return [t.ratio / one.pair.work for t in one.timings if t.backend == backend]


if __name__ == "__main__":
    main()
