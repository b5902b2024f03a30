"""Time over sparsity at equal MACs: the ideal, what dense operators on masked weights take, and what was measured."""

from __future__ import annotations

from iftplan.plots.style import DASHES, THEMES, Picture, drawing, new_axes, shown
from iftplan.timings import Bench

_DRAWN = ("masked-dense", "torch-csr", "torch-bsr", "sparselab", "deepsparse", "sparse")


def bench_picture(bench: Bench, *, title: str = "", theme: str = "light") -> Picture:
    """Draw ratios to the best dense time of the original layers; one line for each backend, pass and mask."""
    colors = THEMES[theme]
    lines: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for one in bench.measured:
        for timing in one.timings:
            if timing.backend in _DRAWN:
                masked = one.pair.structure if timing.backend != "masked-dense" else "any mask"
                key = (timing.backend, one.passes, masked)
                lines.setdefault(key, []).append((float(one.pair.sparsity), timing.ratio))
    last = max(float(one.pair.sparsity) for one in bench.measured)
    grid = [last * i / 60 for i in range(61)]
    named = title or f"Time at equal MACs, {bench.machine}"
    with drawing(colors):
        figure, axes = new_axes(colors)
        axes.plot(grid, [1] * len(grid), color=colors.ink, linewidth=1.2, label="ideal: as fast as dense")
        axes.plot(
            grid, [1 / (1 - s) for s in grid], color=colors.muted, linestyle="--", linewidth=1.2,
            label="masked-dense, by MACs",
        )  # fmt: skip
        for i, ((backend, passes, mask), points) in enumerate(sorted(lines.items())):
            points.sort()
            axes.plot(
                [s for s, _ in points], [r for _, r in points], marker="o", markersize=4,
                color=colors.palette[i % len(colors.palette)], linestyle=DASHES[i % len(DASHES)],
                label=shown(f"{backend}, {passes}, {mask}"),
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlabel("sparsity")
        axes.set_ylabel("time over the best dense time")
        axes.set_title(shown(named, 90), loc="left", fontsize=10)
        figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    told = "; ".join(
        f"{backend}, {passes}, {mask}: {', '.join(f'{r:.2f} at {s:g}' for s, r in points)}"
        for (backend, passes, mask), points in sorted(lines.items())
    )
    return Picture(
        figure, named, f"Time of planned layers over the best dense time of the original ones: {told}."
    )
