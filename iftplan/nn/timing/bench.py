"""A list of layers, timed one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter, thread_time

import torch

from iftplan.nn.execution.kernels.registers import instructions_here
from iftplan.nn.timing.candidates import candidates
from iftplan.nn.timing.copies import copies_of, in_turn
from iftplan.nn.timing.cuda import cuda_bench
from iftplan.nn.timing.dense import dense_products
from iftplan.nn.timing.interleaving import race
from iftplan.nn.timing.libraries import Library
from iftplan.plans.speed.machine import processor
from iftplan.plans.speed.timings import BACKENDS, Bench, LayerPair, Measured

_PEAK = 1024  # a product of matrices of this size comes near the machine's best


def bench(
    pairs: Sequence[LayerPair],
    *,
    batch: int = 1,
    passes: Sequence[str] = ("forward",),
    threads: Sequence[int] = (1,),
    rounds: int = 9,
    backends: Sequence[str] = BACKENDS,
    libraries: Mapping[str, Library] | None = None,
    device: str = "cpu",
    cold: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Bench:
    """Time layers in every backend that there is.

    Args:
        pairs: the layers.
        batch: samples.
        passes: "forward" and "step" (forward and backward).
        threads: numbers of threads; 0 for all.
        rounds: of the race.
        backends: those that are timed, a dense one among them.
        libraries: to be timed too, as `iftplan.nn.timing.libraries.installed_libraries` finds them.
        device: "cpu", or "cuda" for `iftplan.nn.timing.cuda.cuda_bench`, which has neither threads nor libraries nor copies.
        cold: time copies of a layer in turn, as `iftplan.nn.timing.copies` makes them, without libraries.
        say: hears which layer is next.

    Raises:
        InputError: numba is missing, or torch sees no such device.
    """
    if device == "cuda":
        return cuda_bench(pairs, batch=batch, passes=passes, rounds=rounds, backends=backends, say=say)
    instructions = instructions_here()
    peaks, measured = [], []
    for count in on_threads(threads):
        peaks.append((count, _peak(count)))
        for pair in pairs:
            for kind in passes:
                say(f"timing {pair.name} at {float(pair.sparsity):g}, {pair.structure}, {kind} …")
                made = partial(candidates, pair, batch, step=kind == "step", backends=backends)
                copies = copies_of(pair, batch) if cold else 1
                found = in_turn([made(seed=n, libraries=None if cold else libraries) for n in range(copies)])
                try:
                    timings = race(found.work, found.macs, found.prepared, rounds, count, found.left_out)
                finally:
                    found.close()
                measured.append(Measured(pair, kind, count, timings, found.missing))
    versions = tuple((name, library.version) for name, library in (libraries or {}).items())
    machine = f"{processor()}, {instructions}"
    return Bench(machine, batch, rounds, tuple(peaks), tuple(measured), versions, cold=cold)


def on_threads(threads: Sequence[int]) -> Iterator[int]:
    """Each number of threads once, while torch has as many; then it has as many as before.

    Args:
        threads: 0 for all.
    """
    before = torch.get_num_threads()
    try:
        for count in dict.fromkeys(n or os.cpu_count() or 1 for n in threads):
            torch.set_num_threads(count)
            yield count
    finally:
        torch.set_num_threads(before)


def _peak(threads: int) -> float:
    """GFLOP/s of a large dense product, the best of several by every library that torch brings."""
    a, b = torch.randn(_PEAK, _PEAK), torch.randn(_PEAK, _PEAK)
    clock, times = (thread_time if threads == 1 else perf_counter), []
    for product in dense_products() * 6:
        begin = clock()
        product(a, b)
        times.append(clock() - begin)
    return 2e-9 * _PEAK**3 / min(times)
