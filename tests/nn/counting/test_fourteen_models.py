"""Closed forms, the meta engine, FlopCounterMode and fvcore agree to the MAC on fourteen published models."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from iftplan.models.counting import cross_check
from iftplan.models.spec import InputSpec
from iftplan.nn.counting.measure import measure
from tests.support.models import closed_forms as paper
from tests.support.models.fourteen import MODELS, Published

CLOSED_FORMS = {
    "resnet18": lambda c: paper.resnet(c, 224),
    "resnet50": lambda c: paper.resnet(c, 224),
    "mobilenetv2": lambda c: paper.mobilenetv2(c, 224),
    "mobilevit": lambda c: paper.mobilevit(c, 256),
    "vit": lambda c: paper.vit(c, 224),
    "swin": lambda c: paper.swin(c, 224),
    "convnext": lambda c: paper.convnext(c, 224),
    "bert": lambda c: paper.bert(c, 128),
    "gpt2": lambda c: paper.gpt2(c, 128),
    "gpt2-medium": lambda c: paper.gpt2(c, 128),
    "llama-1b": lambda c: paper.llama(c, 128),
    "t5-small": lambda c: paper.t5(c, 128, 64),
    "mixtral": lambda c: paper.mixtral(c, 128),
    "mamba-130m": lambda c: paper.mamba(c, 128),
}
SHORTER = {"mamba-130m": (InputSpec((1, 8), "int64"),)}
"""fvcore traces Mamba's scan as unrolled steps, one for each token and layer: minutes at 128."""


@pytest.mark.parametrize("name", MODELS)
def test_meta_engine_is_the_closed_form(name: str) -> None:
    published = MODELS[name]()
    table = measure(published.build(), published.inputs)
    assert table.macs == CLOSED_FORMS[name](published.config)
    assert not table.unknown
    assert not table.uncalled


@pytest.mark.parametrize("name", MODELS)
def test_three_engines_agree(name: str) -> None:
    published = MODELS[name]()
    model, inputs = published.build(), SHORTER.get(name, published.inputs)
    tables = [measure(model, inputs, engine=engine) for engine in ("meta", "flop_counter", "fvcore")]
    assert cross_check(tables) == ()
    assert [table.unknown for table in tables] == [{}, {}, {}]
    assert tables[0].by_weight() == tables[1].by_weight() == tables[2].by_weight()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in MODELS if n != "mamba-130m"])
def test_fvcore_on_real_tensors_agrees(name: str) -> None:
    published = MODELS[name]()
    torch.set_num_threads(1)
    model = published.build("cpu")
    real = measure(model, published.inputs, engine="fvcore")
    assert cross_check([real, measure(model, published.inputs)]) == ()


def test_seventy_billion_parameters() -> None:
    config = hf.LlamaConfig(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=128256,
    )
    llama = Published(hf.LlamaForCausalLM, config, (InputSpec((1, 2048), "int64"),))
    assert measure(llama.build(), llama.inputs).macs == paper.llama(config, 2048)


@pytest.mark.parametrize("side", [224, 256, 200])
def test_swin_pads_to_whole_windows(side: int) -> None:
    config = hf.SwinConfig(num_labels=1000, image_size=side)
    swin = Published(hf.SwinForImageClassification, config, (InputSpec((1, 3, side, side)),))
    assert measure(swin.build(), swin.inputs).macs == paper.swin(config, side)
