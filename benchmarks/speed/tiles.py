"""Transposable masks: how good the fast solver is beside the exact one, and how long a large layer takes.

    python benchmarks/speed/tiles.py [--tiles 1000] [--size 4096]

Scores are |Gaussian|. Quality is the sum of scores that the fast masks keep over the sum that the exact ones keep, tile by
tile; "greedy" is what published code stops at, with its tiles that lack entries. Seconds are CPU seconds of one thread, for one layer.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from iftplan.masks import NM
from iftplan.nn.masks.best import choose
from iftplan.nn.masks.tiles import _greedy, best_tiles
from iftplan.report.table import Table
from iftplan.report.terminal import print_table

PATTERNS = ((2, 4), (4, 8), (8, 16), (2, 8), (1, 8))


def kept(mask: Tensor, scores: Tensor) -> Tensor:
    return (mask * scores).sum((1, 2))


def quality(kept_of: int, of: int, tiles: int) -> tuple[str, ...]:
    scores = torch.randn(tiles, of, of, generator=torch.Generator().manual_seed(0)).abs().double()
    fast, exact, greedy = (
        best_tiles(scores, kept_of),
        best_tiles(scores, kept_of, "exact"),
        _greedy(scores, kept_of, kept_of),
    )
    for mask in (fast, exact):
        assert bool((mask.sum(1) == kept_of).all()) and bool((mask.sum(2) == kept_of).all())
    ratio = kept(fast, scores) / kept(exact, scores)
    lacking = (greedy.sum((1, 2)) < kept_of * of).double().mean()
    return (
        f"{kept_of}:{of}T",
        f"{ratio.mean():.4f}",
        f"{ratio.min():.4f}",
        f"{(kept(greedy, scores) / kept(exact, scores)).mean():.4f}",
        f"{lacking:.1%}",
    )


def seconds(kept_of: int, of: int, size: int) -> float:
    scores = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).abs()
    structure = NM(kept_of, of, transposable=True)
    start = time.process_time()
    choose(structure, scores, structure.counts(((size, size),))[-1])
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiles", type=int, default=1000)
    parser.add_argument("--size", type=int, default=4096)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = tuple(
        (*quality(n, m, args.tiles), f"{seconds(n, m, args.size):.1f}" if args.size % m == 0 else "")
        for n, m in PATTERNS
    )
    columns = (
        "structure",
        ">fast / exact",
        ">worst tile",
        ">greedy / exact",
        ">greedy lacks entries",
        f">CPU s, {args.size}×{args.size}",
    )
    print_table(Table(columns, rows, f"{args.tiles} tiles"))


if __name__ == "__main__":
    main()
