"""The backends that a layer is timed in: all that this machine has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from warnings import catch_warnings, simplefilter

import torch
from torch import Generator, Tensor

from iftplan.base.errors import one_line
from iftplan.masks import parse_mask
from iftplan.models.spec import Kind
from iftplan.nn.execution.frozen import freeze
from iftplan.nn.execution.functions import kept_values, sparse_conv2d, sparse_linear
from iftplan.nn.execution.sparsity import pattern_of
from iftplan.nn.timing.dense import add_dense
from iftplan.nn.timing.libraries import LIBRARIES, Library, add_libraries
from iftplan.nn.timing.work import Candidates, Work, as_function, drawn_input, drawn_mask, padding_of, passing
from iftplan.plans.speed.timings import BACKENDS, LayerPair


def candidates(
    pair: LayerPair,
    batch: int,
    *,
    step: bool,
    seed: int = 0,
    backends: Sequence[str] = BACKENDS,
    libraries: Mapping[str, Library] | None = None,
) -> Candidates:
    """Runs of a layer in every backend.

    Args:
        pair: the layer.
        batch: samples.
        step: forward and backward, instead of forward alone.
        seed: of the mask and the values; which they are is nothing to the times.
        backends: those that are wanted.
        libraries: to be timed too, as `installed_libraries` finds them; none if not given. Close what is returned.
    """
    generator = Generator().manual_seed(seed)
    times = (3 if step else 1) * batch * pair.dense.positions
    macs, wide, kept = (times * n for n in (pair.dense.weights, pair.wide.weights, pair.nnz))
    found = Candidates(frozenset(backends))
    mask = drawn_mask(pair, generator)
    weight = torch.randn(mask.shape, generator=generator) * mask
    add_dense(found, pair, batch, step=step, macs=macs, generator=generator)
    x = drawn_input(pair.wide, pair, batch, generator)
    if found.wants("masked-dense"):
        found.add("masked-dense", passing(as_function(pair.wide), x, weight, step), wide)
    if not found.wants("torch-csr", "torch-bsr"):
        pass
    elif pair.dense.kind is Kind.LINEAR and not step:
        _add_torch_sparse(found, pair, x, weight, kept)
    else:
        why = "torch has no gradients for it on the CPU" if step else "torch has no sparse convolutions"
        found.left_out |= {"torch-csr": why}
    if found.wants("sparse", "compact"):
        _add_sparse(found, pair, x, weight, mask, kept, step)
    if libraries is not None and found.wants(*LIBRARIES):
        add_libraries(found, pair, x, weight, step=step, macs=kept, libraries=libraries)
    return found


def _add_torch_sparse(found: Candidates, pair: LayerPair, x: Tensor, weight: Tensor, macs: int) -> None:
    """torch's own layouts: rows, and blocks where the mask has them."""
    columns = x.T.contiguous()
    block = parse_mask(pair.structure).block
    makers: dict[str, Callable[[], Tensor]] = {"torch-csr": weight.to_sparse_csr}
    if block:
        shape = block[::-1]  # outputs first
        makers["torch-bsr"] = lambda: weight.to_sparse_bsr(shape)
    for name, make in makers.items():
        try:
            with catch_warnings():
                simplefilter("ignore", UserWarning)  # that sparse layouts are in beta
                begin = perf_counter()
                held = make()
                once = perf_counter() - begin
                _ = held @ columns
        except RuntimeError as error:  # what this build of torch cannot do
            found.left_out[name] = one_line(error, 80)
            continue
        found.add(name, _products(held, columns), macs, once)


def _products(held: Tensor, columns: Tensor) -> Work:
    return lambda: held @ columns


def _add_sparse(
    found: Candidates, pair: LayerPair, x: Tensor, weight: Tensor, mask: Tensor, macs: int, step: bool
) -> None:
    begin = perf_counter()
    pattern = pattern_of(mask, torch.float32)
    if step:
        _ = pattern.backward
    frozen = None if step else freeze(pattern, kept_values(weight, pattern), None)
    once = perf_counter() - begin
    padding = padding_of(pair.wide)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        if weight.dim() == 2:
            if frozen is not None:
                return frozen.linear(x, weight, None)
            return sparse_linear(x, weight, None, pattern)
        if frozen is not None:
            return frozen.conv2d(x, weight, None, padding)
        return sparse_conv2d(x, weight, None, pattern, padding=padding)

    def kept(x: Tensor, values: Tensor) -> Tensor:
        if weight.dim() == 2:
            return sparse_linear(x, None, None, pattern, values)
        return sparse_conv2d(x, None, None, pattern, padding=padding, values=values)

    found.add("sparse", passing(run, x, weight, step), macs, once)
    if step:
        found.add("compact", passing(kept, x, kept_values(weight, pattern), step), macs, once)
