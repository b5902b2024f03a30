"""Outgoing weights of new neurons that make the gradient of their incoming weights as large as can be (GradMax).

New neurons begin with incoming weights zero, so the function stays the same whatever their outgoing weights W are. The
gradient of one neuron's incoming weights is M·w, linear in its outgoing weights w, and

    M = Σ over samples and places of (what an incoming weight reads) ⊗ (∂L/∂z behind an outgoing weight).

Under ‖W‖ ≤ c the norm ‖M·W‖ is largest for the first right singular vectors of M (arXiv 2201.05125, section 3.2). Between
linear layers M is the gradient of a linear layer that leads past the neurons. Between convolutions the paper takes the
gradient of a kernel of size k₁+k₂-1 and cuts it into patches; here M is the gradient of the second convolution on the
unfolded input of the first, which is the same away from borders and exact at them, with any stride and dilation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.nn.counting.activations.dormant import Average
from iftplan.nn.torch_internals import ConvNd, NormBase
from iftplan.nn.warmstart.growth.outgoing import Outgoing, mean_length
from iftplan.nn.warmstart.growth.pair import Pair

Loss = Callable[[], Tensor]
"""Runs the model on a batch and returns the loss."""


def gradmax(matrix: Tensor, model: nn.Module, pair: Pair, count: int, scale: float = 1.0) -> Outgoing:
    """Outgoing weights of `count` new neurons, each as long as the neurons that are there are on average.

    Args:
        matrix: M (`gradient_matrices`).
        model: without the new neurons.
        pair: the layers before and behind them.
        count: number of new neurons.
        scale: length of a new neuron's outgoing weights, over the mean length.

    Raises:
        InfeasibleError: there are fewer directions than neurons.
    """
    most = min(matrix.shape)
    if count > most:
        raise InfeasibleError(
            f"GradMax has {most} directions for new neurons between {pair.incoming} and {pair.outgoing} (the smaller of "
            f"{matrix.shape[0]} incoming and {matrix.shape[1]} outgoing weights of a neuron), not {count}. Grow by at most {most} "
            "in one step, or with how='random' or 'replicas'."
        )
    _, values, right = torch.linalg.svd(matrix, full_matrices=False)
    vectors = right[:count]
    largest = vectors.abs().argmax(1, keepdim=True)
    vectors = vectors * vectors.gather(1, largest).sign()  # a singular vector may come with either sign
    weight = model.get_submodule(pair.outgoing).get_parameter("weight")
    length = scale * mean_length(weight)
    made = (length * vectors).view(count, weight.shape[0], *weight.shape[2:]).transpose(0, 1)
    return Outgoing(made.to(weight), float(length * values[:count].norm()))


def gradient_matrices(
    model: nn.Module, pairs: Sequence[Pair], loss: Loss, average: Average = lambda x: x
) -> tuple[list[Tensor], float]:
    """M of each pair in double precision, (incoming weights of a neuron) × (outgoing weights of a neuron), and the loss.

    Args:
        model: in the mode that it trains in.
        pairs: layers before and behind new neurons.
        loss: runs the model on a batch; it is called once, with one backward pass.
        average: of a tensor over the processes that share the batch.

    Raises:
        InputError: the loss does not depend on a reading layer, or the layers do not follow on each other place by place.
    """
    met = [_Met([], [], [], []) for _ in pairs]
    hooks = []
    for pair, calls in zip(pairs, met, strict=True):
        hooks.append(model.get_submodule(pair.incoming).register_forward_hook(calls.before))
        hooks.append(model.get_submodule(pair.outgoing).register_forward_hook(calls.behind))
    try:
        with torch.enable_grad():
            value = loss()
    finally:
        for hook in hooks:
            hook.remove()
    for pair, calls in zip(pairs, met, strict=True):
        _check(pair, calls, value)
    gradients = iter(torch.autograd.grad(value, [z for calls in met for z in calls.outputs]))
    found = []
    for pair, calls in zip(pairs, met, strict=True):
        incoming, outgoing = model.get_submodule(pair.incoming), model.get_submodule(pair.outgoing)
        norms = [model.get_submodule(path) for path in pair.norms]
        windows = [
            _normed(_windows(incoming, x.double()), norms, _channel_axis(incoming)) for x in calls.inputs
        ]
        each = [_matrix(outgoing, x, next(gradients).double()) for x in windows]
        found.append(average(torch.stack(each).sum(0)))
    return found, float(average(value.detach()))


@dataclass(frozen=True, slots=True)
class _Met:
    """What the layers of a pair read and wrote in a forward pass, call by call."""

    inputs: list[Tensor]
    written: list[Tensor]
    passed: list[Tensor]
    outputs: list[Tensor]

    def before(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.inputs.append(args[0].detach())
        self.written.append(output.detach())

    def behind(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.passed.append(args[0].detach())
        self.outputs.append(output)


def _check(pair: Pair, calls: _Met, loss: Tensor) -> None:
    if not calls.outputs or not loss.requires_grad:
        raise InputError(
            f"the loss does not run {pair.outgoing}; let `loss` run the model on a batch and return its loss with a gradient."
        )
    written, read = [tuple(x.shape) for x in calls.written], [tuple(x.shape) for x in calls.passed]
    if written != read:
        raise InputError(
            f"GradMax needs layers that follow on each other place by place, but {pair.incoming} writes {_shapes(written)} "
            f"and {pair.outgoing} reads {_shapes(read)}. Grow this width with how='replicas'."
        )


def _shapes(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes)


def _windows(incoming: nn.Module, x: Tensor) -> Tensor:
    """What the incoming weights of a neuron read at every place, as channels (last for linear layers)."""
    if not isinstance(incoming, ConvNd):
        return x
    size = prod(incoming.kernel_size)
    pick = (
        torch.eye(size)
        .to(x)
        .view(size, 1, *incoming.kernel_size)
        .repeat(incoming.in_channels, *[1] * (x.dim() - 1))
    )
    return _convolve(incoming, x, pick, groups=incoming.in_channels)


def _matrix(outgoing: nn.Module, windows: Tensor, gradient: Tensor) -> Tensor:
    if not isinstance(outgoing, ConvNd):
        return windows.reshape(-1, windows.shape[-1]).T @ gradient.reshape(-1, gradient.shape[-1])
    channels = windows.shape[1]
    kernel = windows.new_zeros(outgoing.out_channels, channels, *outgoing.kernel_size, requires_grad=True)
    with torch.enable_grad():
        (found,) = torch.autograd.grad(_convolve(outgoing, windows, kernel), kernel, gradient)
    return found.transpose(0, 1).reshape(channels, -1)


def _convolve(like: ConvNd, x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
    convolution = (functional.conv1d, functional.conv2d, functional.conv3d)[len(like.kernel_size) - 1]
    return convolution(x, weight, None, like.stride, like.padding, like.dilation, groups)


def _channel_axis(layer: nn.Module) -> int:
    return -1 - len(layer.kernel_size) if isinstance(layer, ConvNd) else -1


def _normed(windows: Tensor, norms: list[nn.Module], channel: int) -> Tensor:
    """What a norm makes of a change in a channel that is zero: its mean is taken off, and it is divided by √ε."""
    for norm in norms:
        if not isinstance(norm, NormBase):
            continue  # a mean over channels: no factor by which directions differ
        own = norm.training or norm.running_mean is None
        each = isinstance(norm, nn.modules.instancenorm._InstanceNorm)
        if own:
            over = [i for i in range(windows.dim()) if i != windows.dim() + channel and (i or not each)]
            windows = (windows - windows.mean(over, keepdim=True)) / norm.eps**0.5
        else:
            windows = windows / (1 + norm.eps) ** 0.5
    return windows
