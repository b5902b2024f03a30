"""A machine's profile, measured: the grid of `iftplan.plans.speed.profiles` in dense operators and in sparse kernels.

Copies of layers with few columns are timed in turn, as in a network, whose other weights pass through the caches meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from iftplan.nn.execution.kernels.registers import instructions_here
from iftplan.nn.timing.bench import bench
from iftplan.plans.plan import Pass
from iftplan.plans.speed.machine import processor
from iftplan.plans.speed.profiles import ROUNDS, Profile, ProfiledLayer
from iftplan.plans.speed.timings import LayerPair, Measured

_MOST_MULTIPLIED = 10**9
"""MACs of a wide layer that dense operators are timed with: what is larger takes as long for each MAC."""


def profile(
    pairs: Sequence[LayerPair],
    *,
    passes: Sequence[Pass] = ("forward", "step"),
    threads: int = 1,
    rounds: int = ROUNDS,
    say: Callable[[str], None] = lambda text: None,
) -> Profile:
    """Measure a machine once, for all plans that are made for time.

    Args:
        pairs: the layers.
        passes: "forward" and "step" (forward and backward).
        threads: how many; 0 for all.
        rounds: of every race.
        say: hears which layer is next.

    Raises:
        InputError: numba is missing.
    """
    entries: list[ProfiledLayer] = []
    count = threads
    for small in (True, False):
        chosen = [pair for pair in pairs if (pair.wide.dense_macs <= _MOST_MULTIPLIED) is small]
        backends = ("dense", "dense-best", *(("masked-dense",) if small else ()), "sparse")
        if chosen:
            found = bench(
                chosen,
                passes=passes,
                threads=(threads,),
                rounds=rounds,
                backends=backends,
                cold=True,
                say=say,
            )
            count = found.peaks[0][0]
            entries += map(_entry, found.measured)
    return Profile(processor(), instructions_here(), count, rounds, tuple(entries))


def _entry(one: Measured) -> ProfiledLayer:
    seconds = {timing.backend: timing.seconds for timing in one.timings}
    dense = min(time for name, time in seconds.items() if name.startswith("dense"))
    passes: Pass = "step" if one.passes == "step" else "forward"
    return ProfiledLayer(one.pair, passes, dense, seconds["sparse"], seconds.get("masked-dense"))
