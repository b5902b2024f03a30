"""What a failed pass says about its inputs: what to write instead."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from iftplan.base.errors import MeasureError
from iftplan.models.notation import parse_input
from iftplan.nn.counting.measure import measure
from iftplan.nn.reading.read import read_model


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(16, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.embedding(x))
        return out


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 4), Tokens()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.cat((self.left(batch["image"]), self.right(batch["ids"])[:, 0]))


def told(model: nn.Module, *inputs: str) -> str:
    with pytest.raises(MeasureError) as caught:
        read_model(model, tuple(map(parse_input, inputs)))
    return str(caught.value)


def test_indices_as_floats_are_met_with_their_dtype() -> None:
    assert told(Tokens(), "2x16").endswith("are whole numbers; write `inputs='2x16:int64'`.")
    assert told(Tokens(), "x=2x16").endswith("write `inputs='x=2x16:int64'`.")
    assert read_model(Tokens(), (parse_input("2x16:int64"),)).macs == 2 * 16 * 8 * 4


def test_the_entries_of_a_dictionary_are_met_with_their_notation() -> None:
    said = told(Towers(), "image=2x8", "ids=2x16:int64")
    assert "If batch is a dictionary" in said
    assert said.endswith("write `inputs=['batch.image=2x8', 'batch.ids=2x16:int64']`.")
    given = tuple(map(parse_input, ("batch.image=2x8", "batch.ids=2x16:int64")))
    assert measure(Towers(), given).macs == 2 * 8 * 4 + 2 * 16 * 8 * 4


def test_another_keyword_is_met_with_those_that_there_are() -> None:
    assert told(Tokens(), "2x16:int64", "mask=2x16").endswith("It takes x.")


def test_other_sizes_are_met_with_what_the_first_layer_reads() -> None:
    image = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU())
    assert told(image, "1x3x8x8").endswith("Its first layer, 0 (Conv2d), reads 1 channel: write 1x1xHxW.")
    assert told(nn.Sequential(nn.Conv3d(2, 8, 3)), "2x8x8").endswith("reads 2 channels: write 1x2xDxHxW.")
    assert "Its first layer, Linear, reads 8 features" in told(nn.Linear(8, 4), "2x9")
    row = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    assert told(row, "2x3x3").endswith("Its first layer, 1 (Linear), reads 16 features: write 1x16.")


def test_other_failures_say_what_pytorch_says() -> None:
    said = told(nn.Unflatten(1, (2, 3)), "2x9")
    assert said.startswith("Unflatten could not be run on 2x9: RuntimeError: ")
    assert "write" not in said
