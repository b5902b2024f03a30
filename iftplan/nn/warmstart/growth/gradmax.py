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

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.nn.torch_internals import ConvNd, NormBase
from iftplan.nn.warmstart.growth.pair import Pair

Loss = Callable[[], Tensor]
"""Runs the model on a batch and returns the loss."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Outgoing weights of new neurons.

    Attributes:
        weights: of the reading layer's weight: (outputs, new neurons, *kernel).
        gradient: norm of the gradient of all incoming weights that they give.
    """

    weights: Tensor
    gradient: float


def gradmax(model: nn.Module, pair: Pair, count: int, loss: Loss, scale: float = 1.0) -> Outgoing:
    """Outgoing weights of `count` new neurons, each as long as the neurons that are there are on average.

    Args:
        model: in the mode that it trains in, without the new neurons.
        pair: the layers before and behind them.
        count: number of new neurons.
        loss: gives the loss of a batch.
        scale: length of a new neuron's outgoing weights, over the mean length.

    Raises:
        InfeasibleError: there are fewer directions than neurons.
        InputError: the layers do not follow on each other place by place.
    """
    matrix = gradient_matrix(model, pair, loss)
    if count > min(matrix.shape):
        raise InfeasibleError(
            f"GradMax has {min(matrix.shape)} directions for new neurons between {pair.incoming} and {pair.outgoing} "
            f"(the smaller of {matrix.shape[0]} incoming and {matrix.shape[1]} outgoing weights of a neuron), not {count}. "
            f"Grow by at most {min(matrix.shape)} in one step."
        )
    _, values, right = torch.linalg.svd(matrix, full_matrices=False)
    vectors = right[:count]
    largest = vectors.abs().argmax(1, keepdim=True)
    vectors = vectors * vectors.gather(1, largest).sign()  # a singular vector may come with either sign
    weight = model.get_submodule(pair.outgoing).get_parameter("weight")
    length = scale * weight.detach().double().transpose(0, 1).flatten(1).norm(dim=1).mean()
    made = (length * vectors).view(count, weight.shape[0], *weight.shape[2:]).transpose(0, 1)
    return Outgoing(made.to(weight), float(length * values[:count].norm()))


def gradient_matrix(model: nn.Module, pair: Pair, loss: Loss) -> Tensor:
    """M in double precision: (incoming weights of a neuron) × (outgoing weights of a neuron).

    Raises:
        InputError: the loss does not depend on the reading layer, or the layers do not follow on each other place by
            place.
    """
    incoming, outgoing = model.get_submodule(pair.incoming), model.get_submodule(pair.outgoing)
    met: dict[str, list[Tensor]] = {"read": [], "written": [], "passed": [], "z": []}

    def before(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        met["read"].append(args[0].detach())
        met["written"].append(output.detach())

    def behind(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        met["passed"].append(args[0].detach())
        met["z"].append(output)

    hooks = [incoming.register_forward_hook(before), outgoing.register_forward_hook(behind)]
    try:
        with torch.enable_grad():
            value = loss()
    finally:
        for hook in hooks:
            hook.remove()
    if not met["z"] or not value.requires_grad:
        raise InputError(
            f"the loss does not run {pair.outgoing}; let `loss` run the model on a batch and return its loss with a gradient."
        )
    shapes = [[tuple(x.shape) for x in met[key]] for key in ("written", "passed")]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"GradMax needs layers that follow on each other place by place, but {pair.incoming} writes {shapes[0]} and "
            f"{pair.outgoing} reads {shapes[1]}. Grow this width with how='replicas'."
        )
    gradients = torch.autograd.grad(value, met["z"])
    norms = [model.get_submodule(path) for path in pair.norms]
    made = sum(
        _matrix(incoming, outgoing, _normed(_windows(incoming, x.double()), norms, _channel_axis(incoming)), g.double())
        for x, g in zip(met["read"], gradients, strict=True)
    )
    assert isinstance(made, Tensor)
    return made


def _windows(incoming: nn.Module, x: Tensor) -> Tensor:
    """What the incoming weights of a neuron read at every place, as channels (last for linear layers)."""
    if not isinstance(incoming, ConvNd):
        return x
    size = prod(incoming.kernel_size)
    pick = torch.eye(size).to(x).view(size, 1, *incoming.kernel_size).repeat(incoming.in_channels, *[1] * (x.dim() - 1))
    return _convolve(incoming, x, pick, groups=incoming.in_channels)


def _matrix(incoming: nn.Module, outgoing: nn.Module, windows: Tensor, gradient: Tensor) -> Tensor:
    if not isinstance(outgoing, ConvNd):
        return windows.reshape(-1, windows.shape[-1]).T @ gradient.reshape(-1, gradient.shape[-1])
    channels = windows.shape[1]
    kernel = windows.new_zeros(outgoing.out_channels, channels, *outgoing.kernel_size, requires_grad=True)
    with torch.enable_grad():
        (found,) = torch.autograd.grad(_convolve(outgoing, windows, kernel), kernel, gradient)
    return found.transpose(0, 1).reshape(channels, -1)


def _convolve(like: ConvNd, x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
    convolution = (functional.conv1d, functional.conv2d, functional.conv3d)[len(like.kernel_size) - 1]
    return convolution(x, weight, None, like.stride, like.padding, like.dilation, groups)  # type: ignore[operator]


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
