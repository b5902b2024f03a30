"""Backward MACs: by hand, by torch's own count where that is right, and where it is wrong shown to be."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from iftplan.base.errors import MeasureError
from iftplan.models.spec import InputSpec
from iftplan.nn import measure_step
from iftplan.nn.counting.saved_tensors import SavedTensors
from tests.support.models.traps import Checkpointed, opaque, run


def frozen(model: nn.Module, *names: str) -> nn.Module:
    for name, parameter in model.named_parameters():
        if name.startswith(names):
            parameter.requires_grad_(False)
    return model


@dataclass(frozen=True)
class Case:
    """A model, its input and its gradients by hand; `torch_agrees` where FlopCounterMode's rules are right."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    forward: int
    backward: int
    torch_agrees: bool = True


def two() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def attend(q: nn.Module, k: nn.Module, v: nn.Module, x: Tensor) -> Tensor:
    heads = [m(x).view(2, 5, 2, 4).transpose(1, 2) for m in (q, k, v)]
    return F.scaled_dot_product_attention(*heads)


A, B = 5 * 8 * 16, 5 * 16 * 4
STEM, BODY = (
    2 * 49 * 8 * 3 * 9,
    2 * 25 * 8 * 2 * 9,
)  # 8 filters of 3 channels at 7×7, of 2 channels (4 groups) at 5×5
SCORES = 2 * 2 * 5 * 5 * 4
INPUT, HIDDEN = 10 * 4 * 6 * 3, 10 * 4 * 6 * 6

CASES = (
    Case("two layers: the first has no input gradient", two, (5, 8), A + B, A + 2 * B),
    Case("the first layer is frozen", lambda: frozen(two(), "0"), (5, 8), A + B, B),
    Case("only the first weight is trained", lambda: frozen(two(), "2"), (5, 8), A + B, A + B),
    Case(
        "only biases are trained",
        lambda: frozen(two(), "0.weight", "2.weight"),
        (5, 8),
        A + B,
        B,
    ),
    Case("nothing is trained", lambda: frozen(two(), "0", "2"), (5, 8), A + B, 0),
    Case(
        "convolutions, one of them grouped",
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4)),
        (2, 3, 9, 9),
        STEM + BODY,
        STEM + 2 * BODY,
        torch_agrees=False,  # its formula of the gradients forgets the groups
    ),
    Case(
        "a depthwise convolution of the input",
        lambda: nn.Conv2d(8, 8, 3, groups=8),
        (1, 8, 5, 5),
        9 * 8 * 9,
        9 * 8 * 9,
        torch_agrees=False,
    ),
    Case(
        "convolutions without groups",
        lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.ConvTranspose1d(8, 4, 3)),
        (2, 3, 9),
        2 * 7 * 8 * 3 * 3 + 2 * 7 * 8 * 4 * 3,
        2 * 7 * 8 * 3 * 3 + 2 * 2 * 7 * 8 * 4 * 3,
    ),
    Case(
        "attention: four products, three projections without input gradients",
        run(attend, nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)),
        (2, 5, 8),
        3 * 640 + 2 * SCORES,
        3 * 640 + 4 * SCORES,
        torch_agrees=False,  # fused attention counts 0 on the CPU, forward and backward
    ),
    Case(
        "attention whose values alone are trained",
        lambda: frozen(run(attend, nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))(), "parts.0", "parts.1"),
        (2, 5, 8),
        3 * 640 + 2 * SCORES,
        640 + SCORES,
        torch_agrees=False,
    ),
    Case("products of activations", run(lambda m, x: m(x) @ m(x).t(), nn.Linear(8, 4)), (5, 8), 420, 320 + 200),
    Case("one layer called twice", run(lambda m, x: m(m(x)), nn.Linear(8, 8)), (5, 8), 640, 3 * 320),
    Case(
        "bilinear of the input: its weight, and what it is multiplied with",
        run(lambda m, x: m(x, x), nn.Bilinear(4, 4, 3)),
        (7, 4),
        7 * 3 * (16 + 4),
        7 * 3 * (16 + 4),
        torch_agrees=False,  # it has no formula
    ),
    Case(
        "bilinear of two layers",
        run(lambda a, b, m, x: m(a(x), b(x)), nn.Linear(4, 4), nn.Linear(4, 5), nn.Bilinear(4, 5, 3)),
        (7, 4),
        7 * (16 + 20) + 7 * 3 * (20 + 5),
        7 * (16 + 20) + 2 * 7 * 3 * (20 + 5),
        torch_agrees=False,
    ),
    Case("checkpointed", lambda: Checkpointed(False), (2, 5), 70, 70),
    Case(
        "LSTM: the first state is given, so its products have no input gradient",
        lambda: nn.LSTM(3, 6),
        (5, 2, 3),
        INPUT + HIDDEN,
        INPUT + HIDDEN + HIDDEN * 4 // 5,
        torch_agrees=False,  # the fused kernel counts 0
    ),
)  # fmt: skip


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradients_by_hand(case: Case, device: str) -> None:
    model = case.build().to(device)
    flags = [(module, module.training) for module in model.modules()]
    cost = measure_step(model, [InputSpec(case.shape)])
    assert (cost.forward, cost.backward) == (case.forward, case.backward)
    assert cost.macs == case.forward + case.backward
    assert cost.unknown == {}
    assert [("checkpoint" in note) for note in cost.assumptions] == [True] * case.name.startswith(
        "checkpointed"
    )
    assert [(module, module.training) for module in model.modules()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())


def by_torch(model: nn.Module, x: Tensor) -> int:
    """What FlopCounterMode counts for the gradients, in MACs."""
    result: Any = model(x)
    result = result[0] if isinstance(result, tuple) else result
    with FlopCounterMode(display=False) as counter:
        if result.requires_grad:
            result.sum().backward()
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradients_by_torch(case: Case) -> None:
    assert (by_torch(case.build().eval(), torch.ones(case.shape)) == case.backward) is case.torch_agrees


def test_each_module_has_its_own() -> None:
    cost = measure_step(two(), [InputSpec((5, 8))])
    assert cost.modules == {"0": (A, A), "2": (B, 2 * B)}


def test_an_unknown_operator_is_named() -> None:
    model = run(lambda m, x: opaque(m(x)), nn.Linear(4, 4))()
    assert measure_step(model, [InputSpec((3, 4))]).unknown == {"iftplan_traps::opaque": 1}


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: checkpoint(m, x, use_reentrant=True),
        lambda m, x: torch.no_grad()(m)(x),
    ],
)
def test_what_ran_without_gradients_is_said(forward: Callable[..., Any]) -> None:
    sentence, *_ = measure_step(run(forward, nn.Linear(4, 4))(), [InputSpec((3, 4))]).assumptions
    assert "no_grad" in sentence


@pytest.mark.parametrize(("inputs", "says"), [([InputSpec((5, 7))], "5x7"), ([], "no inputs")])
def test_a_step_that_does_not_run_is_an_error_of_ours(inputs: list[InputSpec], says: str) -> None:
    with pytest.raises(MeasureError, match=f"a step of Sequential could not be run on {says}: "):
        measure_step(two(), inputs)


class Regions(nn.Module):
    def __init__(self, nested: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.nested = nn.Linear(8, 16), nn.Linear(16, 8), nested

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, x, use_reentrant=False).relu()

    def block(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        return checkpoint(self.b, x, use_reentrant=False) if self.nested else self.b(x)


@pytest.mark.parametrize(
    ("model", "again"),
    [
        (Regions(), "1 024"),
        (Regions(nested=True), "1 536"),
        (nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8)), ""),
    ],
)
def test_what_checkpoints_compute_again_is_named(model: nn.Module, again: str) -> None:
    cost = measure_step(model, "4x8")
    assert cost.forward == 2 * 4 * 8 * 16
    assert cost.recomputed is not None
    assert cost.executed == cost.macs + cost.recomputed
    assert cost.backward + cost.recomputed == by_torch(model, torch.ones(4, 8))
    assert [note.partition(" MACs")[0] for note in cost.assumptions if "checkpoint" in note] == (
        [again] if again else []
    )


def test_what_runs_without_gradients_has_none() -> None:
    """A linear probe: convolutions and products with a parameter as linear layers."""

    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.w, self.head = nn.Conv2d(3, 4, 3), nn.Parameter(torch.ones(4, 4)), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                features = self.conv(x).mean((2, 3)) @ self.w
            out: Tensor = self.head(features)
            return out

    cost = measure_step(Probe(), "1x3x8x8")
    assert (cost.forward, cost.backward) == (36 * 27 * 4 + 16 + 8, 8)
    assert len(cost.assumptions) == 1


def test_convolutions_under_a_checkpoint_have_no_unknown_gradients() -> None:
    class Images(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(lambda x: self.b(self.a(x).relu()), x, use_reentrant=False)

    cost = measure_step(Images(), "1x3x8x8")
    assert (cost.unknown, cost.forward) == ({}, 2 * 64 * 9 * 12)
    assert cost.recomputed == 64 * 9 * 12


def test_layers_of_transformers_that_checkpoint_in_training_are_seen_to() -> None:
    """All but a block's last product is computed again: nothing needs its output before the next block does."""
    config = GPT2Config(
        n_layer=2, n_embd=64, n_head=2, vocab_size=128, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    batch = {"input_ids": torch.zeros(2, 32, dtype=torch.long)}
    plain = measure_step(model, batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its name before transformers 6
        model.gradient_checkpointing_enable({"use_reentrant": False})
    saving = measure_step(model, batch)
    tokens = 2 * 32
    in_a_block = tokens * (3 * 64 * 64 + 64 * 64 + 4 * 64 * 64) + 2 * tokens * 32 * 64
    assert (plain.recomputed, saving.recomputed) == (0, 2 * in_a_block)
    assert (plain.macs, saving.macs) == (saving.macs, plain.executed)
    assert saving.activation_bytes < plain.activation_bytes / 4


def test_activation_memory_is_what_autograd_keeps_and_no_parameter() -> None:
    """Each linear layer keeps its input, and the rectifier its output, which is the second layer's input."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    assert measure_step(model, "5x8").activation_bytes == 4 * 5 * (8 + 16)
    with SavedTensors(model) as saved:
        model(torch.ones(5, 8))
    assert saved.bytes == 4 * 5 * (8 + 16)
    frozen(model, "0", "2")
    assert measure_step(model, "5x8").activation_bytes == 0


def test_cosines_without_gradients_have_none() -> None:
    def forward(layer: nn.Module, x: Tensor) -> Tensor:
        h = layer(x)
        with torch.no_grad():
            s = F.cosine_similarity(h, x)
        return h * s[:, None]

    cost = measure_step(run(forward, nn.Linear(8, 8))(), [InputSpec((4, 8))])
    assert (cost.forward, cost.backward) == (4 * 64 + 4 * 8, 4 * 64)
    assert any("torch.no_grad" in note for note in cost.assumptions)
