"""What was timed, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence

from iftplan.base.documents import Document, with_digest
from iftplan.base.units import count, decimal_text
from iftplan.models.notation import layer_notation
from iftplan.plans.speed.profiles import Profile, ProfiledLayer
from iftplan.plans.speed.timings import (
    BACKENDS,
    Bench,
    LayerPair,
    Measured,
    NetworkBench,
    Timing,
    network_ratio,
)
from iftplan.report.table import Table

_NOTES = (
    "ratio: time over that of the fastest dense backend of the original layer in the same round (ideal 1), median and quartiles",
    "GFLOP/s: of the work a backend does, two for each MAC; share: of the dense peak that was measured here",
    "once: packing masks and ordering weights, outside of what is timed; everything ran once before it was timed",
)


def pairs_table(pairs: Sequence[LayerPair]) -> Table:
    """Layers that would be timed, a row for each."""
    rows = tuple(
        (
            pair.name, decimal_text(pair.sparsity), layer_notation(pair.wide), pair.structure,
            count(pair.nnz), f"{pair.density:.4f}", f"{pair.work:.4f}", str(pair.count),
        )
        for pair in pairs
    )  # fmt: skip
    columns = ("layer", ">sparsity", "wide", "mask", ">nnz", ">density", ">MACs", ">times")
    return Table(columns, rows, "to be timed", ("MACs: over those of the dense layer",))


def pairs_document(pairs: Sequence[LayerPair]) -> Document:
    """Layers that would be timed as a JSON object, sealed with its digest."""
    return with_digest(
        {"schema": "iftplan.bench/1", "convention": "flop", "layers": [_pair(x) for x in pairs]}
    )


def bench_table(bench: Bench) -> Table:
    """A row for each layer, pass and backend."""
    peaks = dict(bench.peaks)
    rows = []
    for one in bench.measured:
        for t in one.timings:
            rows.append(
                (
                    one.pair.name, decimal_text(one.pair.sparsity), one.pair.structure, one.passes, str(one.threads),
                    t.backend, f"{t.seconds * 1e3:.3f}", f"{t.ratio:.2f}", f"{t.low:.2f}–{t.high:.2f}",
                    f"{t.gflops:.1f}", f"{t.gflops / peaks[one.threads]:.0%}", f"{t.prepared * 1e3:.1f}",
                )
            )  # fmt: skip
    columns = (
        "layer", ">sparsity", "mask", "pass", ">threads", "backend", ">ms", ">ratio", ">quartiles",
        ">GFLOP/s", ">share", ">once ms",
    )  # fmt: skip
    cold = ", weights from beyond the cache" if bench.cold else ""
    title = f"{bench.machine}; {_peaks(bench)}; batch {bench.batch}, {bench.rounds} rounds{cold}"
    return Table(
        columns, tuple(rows), title, (*_NOTES, *_libraries(bench), *_totals(bench), *_left_out(bench))
    )


def _peaks(bench: Bench) -> str:
    if bench.device != "cpu":
        return f"{bench.dtype}; dense peak {bench.peaks[0][1]:.0f} GFLOP/s"
    told = ", ".join(f"{peak:.0f} GFLOP/s on {n} thread{'s' * (n > 1)}" for n, peak in bench.peaks)
    return f"dense peak {told}"


def _totals(bench: Bench) -> list[str]:
    """Of several layers, all together."""
    groups: dict[tuple[str, int], list[Measured]] = {}
    for one in bench.measured:
        groups.setdefault((one.passes, one.threads), []).append(one)
    lines = []
    for (passes, threads), found in groups.items():
        if len({(one.pair.sparsity, one.pair.structure) for one in found}) > 1 or len(found) < 2:
            continue
        ratios = {backend: network_ratio(found, backend) for backend in BACKENDS}
        told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items() if ratio is not None)
        lines.append(f"all layers, {passes}, {threads} thread{'s' * (threads > 1)}: {told}")
    return lines


def _libraries(bench: Bench) -> list[str]:
    told = ", ".join(f"{name} {version}".strip() for name, version in bench.libraries)
    return [f"in processes of their own: {told}"] if told else []


def _left_out(bench: Bench) -> list[str]:
    reasons = dict.fromkeys(f"{name}: {why}" for one in bench.measured for name, why in one.left_out)
    return [f"not measured: {reason}" for reason in reasons]


def bench_document(bench: Bench) -> Document:
    """Measured times as a JSON object, sealed with its digest."""
    return with_digest(
        {
            "schema": "iftplan.bench/1",
            "convention": "flop",
            "machine": bench.machine,
            "device": bench.device,
            "dtype": bench.dtype,
            "batch": bench.batch,
            "rounds": bench.rounds,
            "cold": bench.cold,
            "peaks": [{"threads": threads, "gflops": peak} for threads, peak in bench.peaks],
            "libraries": dict(bench.libraries),
            "layers": [_measured(one) for one in bench.measured],
        }
    )


def network_table(bench: NetworkBench) -> Table:
    """A row for each pass and backend of a whole network."""
    rows = tuple(
        (
            one.passes, str(one.threads), t.backend, f"{t.seconds * 1e3:.2f}", f"{t.ratio:.2f}",
            f"{t.low:.2f}–{t.high:.2f}", f"{t.prepared * 1e3:.1f}",
        )
        for one in bench.measured
        for t in one.timings
    )  # fmt: skip
    columns = ("pass", ">threads", "backend", ">ms", ">ratio", ">quartiles", ">once ms")
    title = f"{bench.model} at {bench.sparsity:g}, {bench.structure}; {bench.machine}; batch {bench.batch}, {bench.rounds} rounds"
    notes = (
        "ratio: time over that of the dense network in the same round (ideal 1), median and quartiles",
        "forward: evaluation without gradients, weights packed once; step: forward and backward without an optimizer",
    )
    return Table(columns, rows, title, notes)


def network_document(bench: NetworkBench) -> Document:
    """Measured times of a whole network as a JSON object, sealed with its digest."""
    return with_digest(
        {
            "schema": "iftplan.bench/1",
            "convention": "flop",
            "machine": bench.machine,
            "batch": bench.batch,
            "rounds": bench.rounds,
            "layers": [],
            "network": {"model": bench.model, "sparsity": bench.sparsity, "structure": bench.structure},
            "passes": [
                {
                    "pass": one.passes,
                    "threads": one.threads,
                    "timings": [
                        {key: value for key, value in _timing(t).items() if key != "gflops"}
                        for t in one.timings
                    ],
                }
                for one in bench.measured
            ],
        }
    )


def _pair(pair: LayerPair) -> Document:
    return {
        "layer": pair.name,
        "wide": layer_notation(pair.wide),
        "sparsity": float(pair.sparsity),
        "structure": pair.structure,
        "nnz": pair.nnz,
        "density": pair.density,
        "count": pair.count,
    }


def _measured(one: Measured) -> Document:
    return {
        **_pair(one.pair),
        "pass": one.passes,
        "threads": one.threads,
        "timings": [_timing(t) for t in one.timings],
        "left_out": dict(one.left_out),
    }


def _timing(t: Timing) -> Document:
    return {
        "backend": t.backend, "seconds": t.seconds, "ratio": t.ratio, "low": t.low, "high": t.high,
        "gflops": t.gflops, "prepared_seconds": t.prepared,
    }  # fmt: skip


def profile_table(profile: Profile) -> Table:
    """Sparse kernels over the original dense layer, a row for each layer and a column for each sparsity."""
    sparsities = sorted({entry.pair.sparsity for entry in profile.entries})
    rows: dict[tuple[str, ...], dict[object, str]] = {}
    for entry in profile.entries:
        row = rows.setdefault((entry.pair.name, entry.pair.structure, entry.passes), {})
        row[entry.pair.sparsity] = f"{entry.sparse / entry.dense:.2f}{'' if _pays(entry) else ' *'}"
    columns = ("layer", "mask", "pass", *(f">{decimal_text(sparsity)}" for sparsity in sparsities))
    threads = f"{profile.threads} thread{'s' * (profile.threads > 1)}"
    return Table(
        columns,
        tuple((*key, *(row.get(s, "") for s in sparsities)) for key, row in rows.items()),
        f"{profile.machine}, {profile.instructions}, {threads}, {profile.rounds} rounds",
        (
            "time of sparse kernels over that of the dense layer, by sparsity",
            "*: dense operators on the wide layer are faster",
        ),
    )


def _pays(entry: ProfiledLayer) -> bool:
    return entry.operators is None or entry.sparse <= entry.operators
