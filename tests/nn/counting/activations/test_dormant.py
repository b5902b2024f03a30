"""Dormant neurons by hand: ReDo's score on small networks, and which layers have neurons of their own."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from iftplan.base.errors import InputError
from iftplan.nn import apply, build, dormant_neurons
from iftplan.nn.sources.zoo.gpt2 import gpt_char
from tests.support.models.by_name import ByName
from tests.support.training import planned


def hidden(*weights: float) -> nn.Sequential:
    """One input, neurons relu(w·x), one output."""
    network = nn.Sequential(nn.Linear(1, len(weights), bias=False), nn.ReLU(), nn.Linear(len(weights), 1))
    with torch.no_grad():
        first = network[0]
        assert isinstance(first, nn.Linear)
        first.weight.copy_(torch.tensor(weights)[:, None])
    return network


def test_scores_by_hand() -> None:
    """Means of |h| over x = 1 and 3 are 2, 4, 0 and 0.5; their mean is 1.625."""
    found = dormant_neurons(hidden(1, 2, -1, 0.25), torch.tensor([[1.0], [3.0]]), threshold=0.31)
    (layer,) = found.layers
    assert (layer.name, layer.readers) == ("0", ("2",))
    assert layer.scores == pytest.approx([2 / 1.625, 4 / 1.625, 0, 0.5 / 1.625], abs=1e-8)
    assert layer.dormant == (2, 3)
    assert found.share == layer.share == Fraction(1, 2)
    assert (found.neurons, found.dormant, found.samples) == (4, 2, 2)
    assert found.unobserved == ("2",)
    assert found.passes == 2 + 3  # a pass for each layer and one for the inputs


def test_a_score_at_the_threshold_is_dormant_and_negative_activations_count_by_size() -> None:
    network = hidden(1, 3)
    network[1] = nn.Identity()
    inputs = torch.tensor([[-1.0], [1.0]])
    scores = dormant_neurons(network, inputs).layers[0].scores
    assert scores == pytest.approx([0.5, 1.5])
    assert dormant_neurons(network, inputs, threshold=scores[0]).dormant == 1
    assert dormant_neurons(network, inputs, threshold=scores[0] - 1e-6).dormant == 0


def test_all_neurons_of_a_dead_layer_are_dormant_at_any_threshold() -> None:
    assert dormant_neurons(hidden(-1, -2), torch.ones(3, 1), threshold=0).share == 1


def maps() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 4),
    )


def test_a_feature_map_is_one_neuron_through_norm_pooling_and_flattening() -> None:
    torch.manual_seed(0)
    network, inputs = maps(), torch.randn(5, 2, 4, 4)
    found = dormant_neurons(network, inputs)
    with torch.no_grad():
        network.eval()
        sizes = network[:4](inputs).abs().double().mean((0, 2, 3))
    assert found.layers[0].scores == pytest.approx((sizes / (sizes.mean() + 1e-9)).tolist())


def test_the_network_is_left_as_it_was() -> None:
    network, inputs = maps(), torch.randn(5, 2, 4, 4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    dormant_neurons(network.train(), inputs)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in network.modules())


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer, self.head = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).relu()
        result: Tensor = self.head(h + self.outer(self.inner(h).relu()))
        return result


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(torch.cat((self.left(x), self.right(x)), -1))
        return result


class Shortcut(nn.Module):
    """The second layer reads the first one's neurons and the input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x).relu() + x)
        return result


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (Residual(), ["inner"]),
        (Concatenated(), []),
        (Shortcut(), []),
        (nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2)), []),
        (nn.Sequential(nn.Linear(4, 6), nn.Softmax(-1), nn.Linear(6, 2)), []),
        (nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Dropout(0.5), nn.Linear(6, 2)), ["0"]),
        (nn.Linear(4, 2), []),
    ],
)
def test_only_neurons_that_one_layer_writes_are_observed(network: nn.Module, layers: list[str]) -> None:
    found = dormant_neurons(network, torch.randn(3, 4))
    assert [layer.name for layer in found.layers] == layers
    assert (found.share is None) == (not layers)
    assert "Dormant neurons on 3 samples" in str(found)


def test_channels_last_in_a_flattened_map_are_no_neurons_in_order() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 1), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.second(self.first(x).movedim(1, -1).flatten(1))
            return result

    assert dormant_neurons(Turned(), torch.randn(2, 1, 2, 2)).layers == ()


def test_networks_of_the_zoo_have_the_layers_that_redo_recycles() -> None:
    """ResNets: the first convolutions of the blocks; transformers: what is inside feed-forward blocks."""
    found = dormant_neurons(build("zoo:resnet18-cifar", device="cpu"), torch.randn(2, 3, 32, 32))
    assert len(found.layers) == 8
    assert all(layer.name.endswith("layer.0.convolution") for layer in found.layers)
    text = dormant_neurons(gpt_char(nn.ReLU), torch.randint(256, (1, 8)))
    assert [layer.name for layer in text.layers] == [f"transformer.h.{i}.mlp.c_fc" for i in range(4)]


def test_masked_networks_and_keyword_inputs_are_measured() -> None:
    network = apply(planned("wide"), nn.Sequential(*_perceptron()), seed=0)
    assert len(dormant_neurons(network, torch.randn(4, 12)).layers) == 3
    assert dormant_neurons(network, {"input": torch.randn(4, 12)}).samples == 4


def _perceptron() -> list[nn.Module]:
    from tests.support.training import perceptron

    return list(perceptron().children())


@pytest.mark.parametrize(
    ("inputs", "threshold", "told"),
    [
        (torch.ones(2, 1), -0.1, "the threshold is -0.1"),
        (torch.ones(0, 1), 0.1, "the batch is empty"),
    ],
)
def test_what_cannot_be_measured_is_refused(inputs: Tensor, threshold: float, told: str) -> None:
    with pytest.raises(InputError, match=told):
        dormant_neurons(hidden(1), inputs, threshold=threshold)


def test_a_network_without_values_is_refused() -> None:
    with pytest.raises(InputError, match="on the meta device"):
        dormant_neurons(build("zoo:digits-cnn"), torch.ones(1, 1, 8, 8))


def test_layers_may_be_called_by_name() -> None:
    network, x = hidden(1, 2, -1, 0.25), torch.tensor([[1.0], [3.0]])
    assert dormant_neurons(ByName(*network), x, threshold=0.31) == dormant_neurons(network, x, threshold=0.31)
