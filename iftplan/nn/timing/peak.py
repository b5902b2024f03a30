"""The peak of a device: FLOPs a second of a large dense product in the precision that a run computes in."""

from __future__ import annotations

from time import perf_counter

import torch

_SIDE = {"cpu": 1024, "cuda": 8192}
_TIMES = 5


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of a large product, the best of several.

    Args:
        device: that is measured, with the threads that it has now.
        dtype: of the product.
    """
    side = _SIDE.get(device.type, 1024)
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(_TIMES):
        wait(device)
        begin = perf_counter()
        _ = a @ b
        wait(device)
        seconds.append(perf_counter() - begin)
    return 2 * side**3 / min(seconds)


def wait(device: torch.device) -> None:
    """Wait for the work that a device has been given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
