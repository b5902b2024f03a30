"""GradMax's outgoing weights against a maximum that is found apart: neuron by neuron, weight by weight, by autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.models.spec import Couplings, InputSpec
from iftplan.nn import current_widths, grow_, read_model, unit_slopes_
from iftplan.nn.warmstart.growth.gradmax import gradient_matrices
from iftplan.nn.warmstart.growth.pair import Pair


def linear() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))


def linear_normed() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4))


def evaluated() -> nn.Sequential:
    return linear_normed().eval()


def images() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, 2, 1), nn.Tanh(), nn.Conv2d(3, 2, (3, 1), padding="same", dilation=2)
    )


def images_normed() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 2, 3, 2, 1))


def instances() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3, affine=True), nn.Tanh(), nn.Conv2d(3, 2, 2))


def series() -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv1d(4, 2, 3))


FLAT, IMAGE, SERIES = (InputSpec((7, 5)),), (InputSpec((3, 2, 9, 8)),), (InputSpec((3, 3, 9)),)
CASES: dict[str, tuple[Callable[[], nn.Sequential], tuple[InputSpec, ...]]] = {
    "linear": (linear, FLAT),
    "batch norm": (linear_normed, FLAT),
    "batch norm in evaluation": (evaluated, FLAT),
    "convolutions": (images, IMAGE),
    "convolutions and batch norm": (images_normed, IMAGE),
    "convolutions and instance norm": (instances, IMAGE),
    "series": (series, SERIES),
}


def set_up(name: str) -> tuple[nn.Sequential, Couplings, tuple[InputSpec, ...], Tensor, Tensor]:
    """A model in double precision, its couplings and inputs, a batch and its targets."""
    torch.manual_seed(0)
    make, inputs = CASES[name]
    model = make()
    couplings = read_model(model, inputs, widths=True).couplings
    assert couplings is not None
    model.double()
    x = torch.randn(inputs[0].shape, dtype=torch.double)
    return model, couplings, inputs, x, torch.randn_like(model(x))


def free(couplings: Couplings) -> str:
    (width,) = (name for name, width in couplings.widths.items() if not width.fixed)
    return width


def with_neuron(model: nn.Sequential, outgoing: Tensor) -> nn.Sequential:
    """The model with one neuron more, made by hand: incoming weights 0, these outgoing weights, norms that begin at 1 and 0."""
    wide = copy.deepcopy(model)
    for module in list(wide)[:-1]:
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.num_features = module.num_features + 1
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and tensor.dim():
                one = isinstance(module, nn.modules.batchnorm._NormBase) and name in ("weight", "running_var")
                made = torch.cat([tensor.detach(), torch.full_like(tensor[:1], float(one))])
                setattr(module, name, nn.Parameter(made) if isinstance(tensor, nn.Parameter) else made)
    wide[-1].weight = nn.Parameter(torch.cat([model[-1].weight.detach(), outgoing[:, None]], 1))
    return wide


def gradient_of(model: nn.Sequential, outgoing: Tensor, x: Tensor, target: Tensor) -> Tensor:
    """Gradient of the new neuron's incoming weights, by autograd through the whole wider network."""
    wide = with_neuron(model, outgoing)
    loss = functional.mse_loss(wide(x), target)
    (found,) = torch.autograd.grad(loss, wide.get_parameter("0.weight"))
    return found[-1].flatten()


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_as_large_as_any_outgoing_weights_make_it(name: str) -> None:
    model, couplings, inputs, x, target = set_up(name)
    reading = model[-1].weight.detach()
    length = reading.transpose(0, 1).flatten(1).norm(dim=1).mean()
    units = torch.eye(reading[:, 0].numel(), dtype=torch.double)
    columns = [gradient_of(model, unit.view_as(reading[:, 0]), x, target) for unit in units]
    matrix = torch.stack(columns, 1)
    values = torch.linalg.eigvalsh(matrix.T @ matrix).flip(0)
    before, width, count = model(x), free(couplings), 2
    sizes = {width: current_widths(model, couplings)[width] + count}
    growth = grow_(model, couplings, sizes, inputs, loss=lambda: functional.mse_loss(model(x), target))
    assert growth.gradients[width] == pytest.approx(float(length * values[:count].sum().sqrt()), rel=1e-9)
    made = model[-1].weight.detach()[:, -count:].transpose(0, 1).flatten(1)
    assert torch.allclose(made @ made.T, torch.eye(count, dtype=torch.double) * length**2, atol=1e-9)
    drawn = torch.randn(200, made.shape[1], dtype=torch.double)
    drawn *= length / drawn.norm(dim=1, keepdim=True)
    assert (matrix @ drawn.T).norm(dim=0).max() < (matrix @ made[0]).norm()
    assert torch.allclose(model(x), before, atol=1e-12)
    assert growth.loss is not None
    assert growth.loss[0] == pytest.approx(growth.loss[1], rel=1e-12)


def test_between_convolutions_it_is_the_auxiliary_kernel_cut_into_patches() -> None:
    """The paper's way, away from borders: the gradient of a kernel of k₁+k₂-1 that leads past the neurons."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 2)).double()
    x = torch.randn(4, 2, 8, 8, dtype=torch.double)
    past = torch.zeros(2, 2, 4, 4, dtype=torch.double, requires_grad=True)
    loss = (model(x) + functional.conv2d(x, past)).pow(3).mean()
    (kernel,) = torch.autograd.grad(loss, past)  # (outputs, inputs, 4, 4)
    patches = kernel.unfold(2, 3, 1).unfold(3, 3, 1)  # (outputs, inputs, 2, 2, 3, 3): place in k₂, then in k₁
    expected = patches.permute(1, 4, 5, 0, 2, 3).reshape(2 * 9, 2 * 4)
    (found,), _ = gradient_matrices(model, [Pair("0", "2", ())], lambda: model(x).pow(3).mean())
    assert torch.allclose(found, expected, atol=1e-12)


def relu_network() -> tuple[nn.Sequential, Couplings, tuple[InputSpec, ...], Callable[[], Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 4))
    couplings = read_model(model, FLAT, widths=True).couplings
    assert couplings is not None
    x, y = torch.randn(7, 5), torch.randint(4, (7,))
    return model, couplings, FLAT, lambda: functional.cross_entropy(model(x), y)


def test_neurons_that_would_never_learn_are_refused_and_nothing_has_changed() -> None:
    model, couplings, inputs, loss = relu_network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    parameters, state = list(model.parameters()), copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=r"slope 0 at 0.*unit_slopes_"):
        grow_(model, couplings, {free(couplings): 8}, inputs, loss=loss, optimizer=optimizer)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert optimizer.param_groups[0]["params"] == parameters
    assert (model[0].out_features, model[2].in_features) == (6, 6)


def test_with_slope_one_at_zero_they_learn() -> None:
    model, couplings, inputs, loss = relu_network()
    value = loss()
    assert unit_slopes_(model) == 1
    assert torch.equal(loss(), value)
    grow_(model, couplings, {free(couplings): 8}, inputs, loss=loss)
    loss().backward()
    assert model[0].weight.grad[6:].norm() > 0


def test_random_incoming_weights_have_the_length_that_is_asked() -> None:
    model, couplings, inputs, loss = relu_network()
    old = model[0].weight.detach().norm(dim=1).mean()
    grow_(model, couplings, {free(couplings): 8}, inputs, loss=loss, epsilon=0.01)
    new = model[0].weight.detach()[6:].norm(dim=1)
    assert torch.allclose(new, (0.01 * old).expand(2))


def test_an_activation_that_does_not_answer_zero_shows_in_the_loss() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Sigmoid(), nn.Linear(6, 4))
    couplings = read_model(model, FLAT, widths=True).couplings
    assert couplings is not None
    x = torch.randn(7, 5)
    growth = grow_(model, couplings, {free(couplings): 8}, FLAT, loss=lambda: model(x).square().mean())
    assert growth.loss is not None
    assert abs(growth.loss[0] - growth.loss[1]) > 1e-3


def test_norms_over_channels_are_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 4))
    couplings = read_model(model, FLAT, widths=True).couplings
    assert couplings is not None
    x = torch.randn(7, 5)
    growth = grow_(model, couplings, {free(couplings): 8}, FLAT, loss=lambda: model(x).square().mean())
    assert growth.uneven == ("1",)


class Pooled(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 2))


class Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(self.first(x) + self.second(x))
        return answer


@pytest.mark.parametrize(
    ("make", "inputs", "more", "error", "words"),
    [
        (linear, FLAT, 5, InfeasibleError, "4 directions.*at most 4"),
        (Pooled, IMAGE, 1, InputError, "place by place.*3x3x7x6.*3x3x3x3"),
        (Added, FLAT, 1, InfeasibleError, "first, second write it and last read it"),
    ],
)
def test_what_gradmax_cannot_grow_is_refused_with_what_can(
    make: Callable[[], nn.Module],
    inputs: tuple[InputSpec, ...],
    more: int,
    error: type[Exception],
    words: str,
) -> None:
    model = make()
    couplings = read_model(model, inputs, widths=True).couplings
    assert couplings is not None
    width, x = free(couplings), torch.randn(inputs[0].shape)
    size = current_widths(model, couplings)[width] + more
    with pytest.raises(error, match=words):
        grow_(model, couplings, {width: size}, inputs, loss=lambda: model(x).square().mean())
    before = model(x)
    grow_(model, couplings, {width: size}, inputs, how="replicas")
    assert torch.allclose(model(x), before, atol=1e-5)
