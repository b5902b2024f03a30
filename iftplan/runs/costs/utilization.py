"""How much of a machine a run uses: model and hardware FLOPs utilization against a peak that was given or measured.

MFU counts what the masks ask for, each product once (arXiv 2204.02311, appendix B); HFU counts what was computed, zeros
under masks included where operators are dense.
"""

from __future__ import annotations

from dataclasses import dataclass

from iftplan.base.units import decimal


@dataclass(frozen=True, slots=True)
class Utilization:
    """Work of a stretch of training, and the time that it took.

    Attributes:
        macs: MACs of the steps by their masks.
        executed: MACs that were computed for that.
        seconds: that the steps took.
        peak: FLOPs a second that the machine is capable of; None where nobody said.

    Example:
        >>> Utilization(macs=10**9, executed=4 * 10**9, seconds=2.0, peak=10e9).mfu
        0.1
    """

    macs: int
    executed: int
    seconds: float
    peak: float | None = None

    @property
    def flops_per_second(self) -> float:
        """FLOPs a second by the masks, two for each MAC; 0 where no step was taken."""
        return 2 * self.macs / self.seconds if self.seconds else 0.0

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilization, a fraction of the peak; None without a peak."""
        return self.flops_per_second / self.peak if self.peak else None

    @property
    def hfu(self) -> float | None:
        """Hardware FLOPs utilization, a fraction of the peak; None without a peak."""
        if not self.peak or not self.seconds:
            return 0.0 if self.peak else None
        return 2 * self.executed / self.seconds / self.peak

    def __str__(self) -> str:
        rate = f"{self.flops_per_second / 1e9:.4g} GFLOP/s in {self.seconds:.3g} s of steps"
        if self.mfu is None or self.hfu is None or self.peak is None:
            return rate
        return (
            f"{rate}; MFU {decimal(self.mfu, 4)}, HFU {decimal(self.hfu, 4)} of {self.peak / 1e9:.4g} GFLOP/s"
        )
