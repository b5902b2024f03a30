"""What is timed and what came out: a layer as it was and as it is planned, on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt, lcm

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.families.builtin import family_named
from iftplan.families.solver import solve
from iftplan.masks import MaskStructure
from iftplan.models.notation import layer_notation, parse_layer
from iftplan.models.spec import Kind, LayerSpec
from iftplan.plans.plan import Plan, Role

BACKENDS = (
    "dense",
    "dense-best",
    "dense-half",
    "masked-dense",
    "torch-csr",
    "torch-bsr",
    "torch-2:4",
    "sparselab",
    "deepsparse",
    "sparse",
    "compact",
)
"""In the order of tables; the ratio is to the fastest of those that begin with "dense"."""

TIMED = (Kind.LINEAR, Kind.CONV2D)
"""Kinds of layers that are timed."""


@dataclass(frozen=True, slots=True)
class LayerPair:
    """A dense layer and the masked wide layer that replaces it.

    Attributes:
        name: the dense layer in layer notation.
        dense: as it was.
        wide: as it is planned, every weight counted.
        nnz: weights that are kept.
        sparsity: that was asked for.
        structure: of the mask, in the notation of `iftplan.masks.parse_mask`.
        count: how often the network has it.
    """

    name: str
    dense: LayerSpec
    wide: LayerSpec
    nnz: int
    sparsity: Fraction
    structure: str
    count: int = 1

    @property
    def density(self) -> float:
        """Density of the wide layer, a fraction of 1."""
        return self.nnz / self.wide.weights

    @property
    def work(self) -> float:
        """MACs of the planned layer over those of the dense one: 1, or a little less if a structure leaves a remainder."""
        return self.nnz / self.dense.weights

    @property
    def image(self) -> tuple[int, int]:
        """Height and width of one sample's positions, as square as they divide."""
        height = isqrt(self.dense.positions)
        while self.dense.positions % height:
            height -= 1
        return height, self.dense.positions // height


@dataclass(frozen=True, slots=True)
class Timing:
    """Time of one backend for one layer.

    Attributes:
        backend: which.
        seconds: the median over the rounds.
        ratio: the median over the rounds of its time over that of the fastest dense backend in the same round.
        low: the first quartile of those ratios.
        high: the third.
        gflops: of the work that it does (masked-dense multiplies zeros too), two for each MAC, in 10^9 a second.
        prepared: seconds of what is done once: packing a mask, ordering a weight.
    """

    backend: str
    seconds: float
    ratio: float
    low: float
    high: float
    gflops: float
    prepared: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Measured times of a layer.

    Attributes:
        pair: the layer.
        passes: "forward", or "step" for forward and backward together.
        threads: of the processor.
        timings: by backend.
        left_out: backend → why it was not measured.
    """

    pair: LayerPair
    passes: str
    threads: int
    timings: tuple[Timing, ...]
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Bench:
    """Measured times of several layers on one machine.

    Attributes:
        machine: the processor and what its kernels are made of.
        batch: samples.
        rounds: in each of which every backend ran once, one after the other.
        peaks: threads → measured dense peak in GFLOP/s.
        measured: the layers.
        libraries: that others wrote and somebody installed → version.
        device: "cpu" or "cuda".
        dtype: of weights and activations.
        cold: whether copies of a layer with few columns were timed in turn, so that its weights were in no core's cache.
    """

    machine: str
    batch: int
    rounds: int
    peaks: tuple[tuple[int, float], ...]
    measured: tuple[Measured, ...]
    libraries: tuple[tuple[str, str], ...] = ()
    device: str = "cpu"
    dtype: str = "float32"
    cold: bool = False


@dataclass(frozen=True, slots=True)
class MeasuredNetwork:
    """Measured times of a whole network.

    Attributes:
        passes: "forward", or "step" for forward and backward together.
        threads: of the processor.
        timings: by backend.
    """

    passes: str
    threads: int
    timings: tuple[Timing, ...]


@dataclass(frozen=True, slots=True)
class NetworkBench:
    """Measured times of a planned network on one machine.

    Attributes:
        model: where it comes from.
        sparsity: of its masks, a fraction of 1.
        structure: of its masks.
        machine: the processor and what its kernels are made of.
        batch: how many of the plan's input are computed together.
        rounds: in each of which every backend ran once, one after the other.
        measured: its passes.
    """

    model: str
    sparsity: float
    structure: str
    machine: str
    batch: int
    rounds: int
    measured: tuple[MeasuredNetwork, ...]


def pair_of_layer(text: str, sparsity: Fraction, structure: MaskStructure, *, multiple: int = 1) -> LayerPair:
    """Pair of a dense layer, in layer notation, and its Sparse Wide layer.

    Args:
        text: the layer.
        sparsity: of the wide one.
        structure: of its mask.
        multiple: that its channels are of, besides those of the structure.

    Raises:
        InputError: it is neither a linear layer nor a two-dimensional convolution of one group.
        InfeasibleError: the structure keeps nothing of it.

    Example:
        >>> pair_of_layer("linear:768-3072@512", Fraction(9, 10), parse_mask("fan-in")).nnz  # doctest: +SKIP
        2351030
    """
    dense = _timed(text, parse_layer(text))
    steps = lcm(*structure.multiples, multiple)
    found = solve(dense, family_named("wide"), sparsity, mask=structure, round_to=steps, throw=True)
    widths = found.structure
    wide = _widened(dense, int(widths["in_channels"] or 0), int(widths["out_channels"] or 0))
    if not found.nnz:
        raise InfeasibleError(
            f"{structure} masks keep no weights of {text} at this sparsity; choose a lower one."
        )
    return LayerPair(layer_notation(dense), dense, wide, found.nnz, sparsity, str(structure))


def pairs_of_plan(plan: Plan) -> tuple[LayerPair, ...]:
    """The masked layers of a wide plan, each once.

    Raises:
        InputError: the plan is not wide, or masks nothing that can be timed.
    """
    if plan.transform != "wide":
        raise InputError(
            f"this is a plan of the family {plan.transform}, but only wide layers are timed against dense ones; "
            "plan with `family='wide'`."
        )
    found: dict[tuple[LayerSpec, LayerSpec, int], LayerPair] = {}
    for layer in plan.layers:
        if layer.role is not Role.TRANSFORMED or not layer.maskable:
            continue
        dense, wide = layer.before, layer.after
        if not dense or not wide or dense.kind not in TIMED or dense.groups != 1 or dense.experts > 1:
            continue
        key = (dense, wide, layer.nnz)
        count = found[key].count + 1 if key in found else 1
        found[key] = LayerPair(layer_notation(dense), dense, wide, layer.nnz, plan.sparsity, plan.mask, count)
    if not found:
        raise InputError(
            f"the plan of {plan.model} masks no linear layer and no two-dimensional convolution, so there is "
            "nothing to time."
        )
    return tuple(found.values())


def network_ratio(measured: Sequence[Measured], backend: str) -> float | None:
    """Time of all layers in a backend over that of the best dense one, each as often as it occurs."""
    sums = [0.0, 0.0]
    for one in measured:
        times = {timing.backend: timing.seconds for timing in one.timings}
        if backend not in times:
            return None
        sums[0] += one.pair.count * times[backend]
        sums[1] += one.pair.count * min(t for name, t in times.items() if name.startswith("dense"))
    return sums[0] / sums[1] if sums[1] else None


def _timed(text: str, layer: LayerSpec) -> LayerSpec:
    if layer.kind not in TIMED or layer.groups != 1 or layer.experts != 1 or layer.symbolic:
        raise InputError(
            f"{text!r} cannot be timed; give a linear layer or a convolution of two dimensions with its channels, "
            "such as linear:768-3072@512 or conv3x3:128-128@16x16."
        )
    return layer


def _widened(dense: LayerSpec, inputs: int, outputs: int) -> LayerSpec:
    return LayerSpec(dense.name, dense.kind, inputs, outputs, dense.kernel, 1, dense.positions)
