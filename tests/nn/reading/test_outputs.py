"""What a model answers with: every head keeps its size, whatever container it comes in."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn
from transformers.utils import ModelOutput

from iftplan.models.spec import InputSpec
from iftplan.nn.reading.outputs import answers
from iftplan.nn.reading.read import read_model
from iftplan.nn.reading.widths.trace import trace_widths

FEATURES = (InputSpec((2, 3, 5)),)
Pair = namedtuple("Pair", "a b")


@dataclass
class Boxes:
    logits: torch.Tensor
    pred_boxes: torch.Tensor


class Plain:
    def __init__(self, a: torch.Tensor, b: torch.Tensor) -> None:
        self.a, self.b, self.name = a, b, "plain"


@dataclass
class Forecast(ModelOutput):
    prediction_outputs: torch.Tensor | None = None
    vision_model_output: object = None
    scale: torch.Tensor | None = None


@dataclass
class Heads(ModelOutput):
    logits: torch.Tensor | None = None
    pred_boxes: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None


CONTAINERS = {
    "tuple": lambda a, b, h: (a, b),
    "list": lambda a, b, h: [a, b],
    "dict": lambda a, b, h: {"logits": a, "pred_boxes": b},
    "ordered dict": lambda a, b, h: OrderedDict(logits=a, pred_boxes=b),
    "nested": lambda a, b, h: {"x": a, "y": [{"z": (b, None, 3)}]},
    "dataclass": lambda a, b, h: Boxes(a, b),
    "dataclass in a list": lambda a, b, h: [Boxes(a, b)],
    "namedtuple": lambda a, b, h: Pair(a, b),
    "object": lambda a, b, h: Plain(a, b),
    "output of transformers": lambda a, b, h: Heads(logits=a, pred_boxes=b, last_hidden_state=h),
}


class TwoHeads(nn.Module):
    def __init__(self, wrap: Callable[..., Any]) -> None:
        super().__init__()
        self.stem, self.body = nn.Linear(5, 8), nn.Linear(8, 8)
        self.a, self.b, self.wrap = nn.Linear(8, 3), nn.Linear(8, 4), wrap

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(self.stem(x))
        return self.wrap(self.a(h), self.b(h), h)


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_head_keeps_its_size(name: str) -> None:
    model = TwoHeads(CONTAINERS[name])
    couplings = trace_widths(model, FEATURES)
    double = {n: w.size if w.fixed else 2 * w.size for n, w in couplings.widths.items()}
    shapes = {n: tuple(d.at(double) for d in s) for n, s in couplings.shapes.items() if "weight" in n}
    assert shapes == {
        "stem.weight": (16, 5),
        "body.weight": (16, 16),
        "a.weight": (3, 16),
        "b.weight": (4, 16),
    }
    assert [t.shape[-1] for t in answers(model(torch.zeros(2, 3, 5)))] == [3, 4]


@pytest.mark.parametrize("name", [name for name in CONTAINERS if name != "output of transformers"])
def test_every_head_is_last(name: str) -> None:
    spec = read_model(TwoHeads(CONTAINERS[name]), FEATURES, widths=False)
    assert [layer.layer.name for layer in spec.layers if layer.last] == ["a", "b"]


def test_features_are_the_answer_of_a_model_without_a_head() -> None:
    a, b = torch.zeros(1), torch.zeros(2)
    base = hf.modeling_outputs.BaseModelOutputWithPooling(
        last_hidden_state=a, pooler_output=b, hidden_states=(b, b)
    )
    assert [t is x for t, x in zip(answers(base), (a, b), strict=True)] == [True, True]


def test_caches_and_states_of_parts_are_no_answer_beside_logits() -> None:
    logits, state = torch.zeros(1), torch.zeros(2)
    out = hf.modeling_outputs.Seq2SeqLMOutput(
        logits=logits,
        encoder_last_hidden_state=state,
        decoder_hidden_states=(state,),
        cross_attentions=(state,),
    )
    assert [t is logits for t in answers(out)] == [True]


def test_a_prediction_is_an_answer_and_what_a_part_answered_is_none() -> None:
    forecast, vision, scale = torch.zeros(1, 8, 2), torch.zeros(1, 5, 64), torch.zeros(1, 1, 2)
    out = Forecast(
        prediction_outputs=forecast,
        vision_model_output=hf.modeling_outputs.BaseModelOutput(last_hidden_state=vision),
        scale=scale,
    )
    found = answers(out)
    assert len(found) == 2 and found[0] is forecast and found[1] is scale


def test_what_holds_itself_ends() -> None:
    loop: dict[str, object] = {"a": torch.zeros(1)}
    loop["self"] = loop
    assert len(answers(loop)) == 1
