"""How near a kernel can come to a dense product on this processor, when it loads an operand of each multiplication.

    python benchmarks/speed/floor.py [--rounds 9]

Dense products keep what they load in registers and use it many times. A row of a sparse weight uses each vector of
activations once, so that it loads one for each fused multiplication and addition. Both are timed here, from registers and
from the first-level cache, beside PyTorch's product of matrices, on one thread in interleaved rounds: what loading costs is
the floor of the ratios of `benchmarks/speed/wallclock.py`, before weights, places and sums are loaded too.
"""

import argparse
import os
from statistics import median
from time import thread_time
from typing import Any

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numba  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from llvmlite import ir  # noqa: E402
from numba import types  # noqa: E402
from numba.extending import intrinsic  # noqa: E402

from iftplan.nn.execution.kernels.panels import Emitter  # noqa: E402
from iftplan.nn.execution.kernels.registers import Vectors, instructions_here, vectors_of  # noqa: E402
from iftplan.plans.speed.machine import processor  # noqa: E402
from iftplan.report.table import Table  # noqa: E402
from iftplan.report.terminal import print_table  # noqa: E402

SIDE = 1024
TURNS = 2_000_000


def looping(vectors: Vectors, sums: int, *, loads: bool) -> Any:
    """A function of an address and a number of turns, each of which adds one product to each of some registers."""
    lanes, bits = vectors.lanes, vectors.bits

    @intrinsic  # type: ignore[untyped-decorator]
    def turns(context: Any, address: Any, count: Any) -> Any:
        def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
            address, count = args
            emit = Emitter(b, lanes, sums, bits)
            before, loop, end = b.block, b.append_basic_block("turn"), b.append_basic_block("end")
            weight, held = emit.load(address, emit.vector), emit.load(emit.plus(address, 8192), emit.vector)
            b.branch(loop)
            b.position_at_end(loop)
            i = b.phi(ir.IntType(64))
            i.add_incoming(emit.number(0), before)
            totals = [b.phi(emit.vector) for _ in range(sums)]
            row = emit.plus(address, emit.times(b.and_(i, emit.number(7)), 1024))
            factors = emit.vectors(row) if loads else [held] * sums
            added = [emit.fused(weight, x, total) for x, total in zip(factors, totals, strict=True)]
            for total, became in zip(totals, added, strict=True):
                total.add_incoming(emit.zero, before)
                total.add_incoming(became, loop)
            following = emit.plus(i, 1)
            i.add_incoming(following, loop)
            b.cbranch(b.icmp_signed("<", following, count), loop, end)
            b.position_at_end(end)
            for place, became in zip(emit.row(address), added, strict=True):
                emit.store(became, place)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    @numba.njit
    def run(address: int, count: int) -> None:
        turns(address, count)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    vectors = vectors_of(instructions_here())
    sums = 16 if vectors.lanes == 16 else 8
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    buffer = np.zeros(4096, np.float32)
    address = (buffer.ctypes.data + 63) // 64 * 64
    loops = {name: looping(vectors, sums, loads=name != "from registers") for name in ("from registers", "from the cache")}  # fmt: skip
    work = {name: (lambda run=run: run(address, TURNS), TURNS * sums * vectors.lanes) for name, run in loops.items()}  # fmt: skip
    work["a product of matrices"] = (lambda: a @ b), SIDE**3
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(given.rounds + 1):  # the first one compiles
        for name, (run, macs) in work.items():
            begin = thread_time()
            run()
            times[name].append((thread_time() - begin) / macs)
    dense = times["a product of matrices"][1:]
    rows = tuple(
        (name, f"{1e-9 / median(own[1:]):.0f}", f"{median(t / d for t, d in zip(own[1:], dense, strict=True)):.2f}")
        for name, own in times.items()
    )  # fmt: skip
    print_table(Table(("multiplications", ">10⁹ MACs a second", ">time, × dense"), rows, processor()))


if __name__ == "__main__":
    main()
