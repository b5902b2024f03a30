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


def test_other_failures_say_what_pytorch_says() -> None:
    said = told(nn.Linear(8, 4), "2x9")
    assert said.startswith("Linear could not be run on 2x9: RuntimeError: ")
    assert "write" not in said
