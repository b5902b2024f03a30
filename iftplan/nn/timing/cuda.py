"""Layers on an NVIDIA GPU: dense, masked-dense, and what torch has for 2:4 and for block masks there.

Weights are float16, which tensor cores multiply; "dense" is the eager layer in float32, multiplied as TF32. Times are
elapsed, with the device waited for after every run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final
from warnings import catch_warnings, simplefilter

import torch
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812  (its usual name)

from iftplan.base.errors import InputError
from iftplan.masks import NM, parse_mask
from iftplan.models.spec import Kind
from iftplan.nn.export.tensor_cores import unpackable
from iftplan.nn.timing.interleaving import race
from iftplan.nn.timing.work import (
    Candidates,
    Work,
    as_function,
    drawn_input,
    drawn_mask,
    drawn_weight,
    images_last,
    largest_difference,
    passing,
)
from iftplan.plans.speed.timings import BACKENDS, Bench, LayerPair, Measured

DTYPES: Final = "float16; dense: float32 by TF32"

_PEAK: Final = 8192  # a product of matrices of this size comes near the device's best
_CLOSE: Final = 1e-2  # of the largest output, in float16


def cuda_bench(
    pairs: Sequence[LayerPair],
    *,
    batch: int = 1,
    passes: Sequence[str] = ("forward",),
    rounds: int = 9,
    backends: Sequence[str] = BACKENDS,
    say: Callable[[str], None] = lambda text: None,
) -> Bench:
    """Time layers in every backend of the first CUDA device.

    Args:
        pairs: the layers.
        batch: samples.
        passes: "forward" and "step" (forward and backward).
        rounds: of the race.
        backends: those that are timed, a dense one among them.
        say: hears which layer is next.

    Raises:
        InputError: this torch sees no such device.
    """
    if not torch.cuda.is_available():
        build = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        raise InputError(
            f"no layer can be timed on a CUDA device: torch {torch.__version__} sees none here (it {build}); use "
            "`device='cpu'`, or a machine with a CUDA device and torch built for it."
        )
    device = torch.device("cuda", torch.cuda.current_device())
    measured = []
    with _tf32():
        peak = _peak(device)
        for pair in pairs:
            for kind in passes:
                say(f"timing {pair.name} at {float(pair.sparsity):g}, {pair.structure}, {kind} …")
                found = device_candidates(pair, batch, step=kind == "step", device=device, backends=backends)
                timings = race(found.work, found.macs, found.prepared, rounds, 0, found.left_out)
                measured.append(Measured(pair, kind, 1, timings, found.missing))
    machine = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return Bench(machine, batch, rounds, ((1, peak),), tuple(measured), device="cuda", dtype=DTYPES)


def device_candidates(
    pair: LayerPair,
    batch: int,
    *,
    step: bool,
    device: torch.device,
    seed: int = 0,
    backends: Sequence[str] = BACKENDS,
) -> Candidates:
    """Runs of a layer in every backend of a device; each ends when the device is done.

    Args:
        pair: the layer.
        batch: samples.
        step: forward and backward, instead of forward alone.
        device: where; on the CPU what torch has for CUDA alone is left out.
        seed: of the mask and the values.
        backends: those that are wanted.
    """
    generator = Generator().manual_seed(seed)
    times = (3 if step else 1) * batch * pair.dense.positions
    macs, wide, kept = (times * n for n in (pair.dense.weights, pair.wide.weights, pair.nnz))

    def there(tensor: Tensor, dtype: torch.dtype = torch.float16) -> Tensor:
        moved = tensor.to(device, dtype)
        return images_last(moved) if moved.dim() == 4 else moved

    def waited(work: Work) -> Work:
        if device.type != "cuda":
            return work

        def run() -> None:
            work()
            torch.cuda.synchronize(device)

        return run

    found = Candidates(frozenset(backends))
    x, weight = drawn_input(pair.dense, pair, batch, generator), drawn_weight(pair.dense, generator)
    for name, dtype in (("dense", torch.float32), ("dense-half", torch.float16)):
        run = passing(as_function(pair.dense), there(x, dtype), there(weight, dtype), step)
        found.add(name, waited(run), macs)
    mask = drawn_mask(pair, generator)
    # of the size that outputs of one keep their digits: float16 has three of them
    masked = there(torch.randn(mask.shape, generator=generator) * mask / mask[0].sum().clamp_min(1).sqrt())
    x = there(drawn_input(pair.wide, pair, batch, generator))
    found.add("masked-dense", waited(passing(as_function(pair.wide), x, masked, step)), wide)
    expected = as_function(pair.wide)(x, masked)
    for name, layout, make in _layouts(pair):
        reason = layout(masked) if pair.wide.kind is Kind.LINEAR else "torch has it for linear layers alone"
        if step:
            reason = "torch has no gradients for it"
        elif not reason:
            reason = _added(found, name, make, x, masked, expected, kept, waited)
        if reason:
            found.left_out[name] = reason
    return found


def _layouts(
    pair: LayerPair,
) -> list[tuple[str, Callable[[Tensor], str], Callable[[Tensor], Tensor]]]:
    """torch's layouts that fit a mask: name, why a weight cannot have it, and what gives it to one."""
    structure = parse_mask(pair.structure)
    if isinstance(structure, NM):
        return [("torch-2:4", unpackable, torch.sparse.to_sparse_semi_structured)]
    if structure.block:
        shape = structure.block[::-1]  # outputs first
        return [("torch-bsr", lambda weight: _unblockable(shape), lambda weight: weight.to_sparse_bsr(shape))]
    return []


def _unblockable(shape: tuple[int, int]) -> str:
    """Why torch's kernels take no blocks of this shape; empty where they do."""
    if min(shape) >= 16 and not any(size & (size - 1) for size in shape):
        return ""
    return "torch's kernels take blocks of 16, 32, 64, … outputs and inputs"


def _added(
    found: Candidates,
    name: str,
    make: Callable[[Tensor], Tensor],
    x: Tensor,
    weight: Tensor,
    expected: Tensor,
    macs: int,
    waited: Callable[[Work], Work],
) -> str:
    """Add a linear layer in one of torch's layouts; why not, where that fails."""
    try:
        with catch_warnings():
            simplefilter("ignore", UserWarning)  # that the layouts are in beta
            begin = perf_counter()
            held: Any = make(weight)
            waited(lambda: None)()
            once = perf_counter() - begin
            distance = largest_difference(F.linear(x, held), expected)
    except (RuntimeError, ValueError, AssertionError, ImportError) as error:  # this build or device cannot
        return " ".join(f"{type(error).__name__}: {error}".split())[:120]
    if distance > _CLOSE:
        return f"its output is not the layer's (apart by {distance:.1e})"
    found.add(name, waited(passing(F.linear, x, held, False)), macs, once)
    return ""


@contextmanager
def _tf32() -> Iterator[None]:
    """Products of float32 by TF32, as whoever trains on such a device has them; convolutions are by default."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _peak(device: torch.device) -> float:
    """GFLOP/s of a large product in float16, the best of several."""
    a, b = (torch.randn(_PEAK, _PEAK, device=device, dtype=torch.float16) for _ in range(2))
    times = []
    for _ in range(6):
        torch.cuda.synchronize(device)
        begin = perf_counter()
        _ = a @ b
        torch.cuda.synchronize(device)
        times.append(perf_counter() - begin)
    return 2e-9 * _PEAK**3 / min(times)
