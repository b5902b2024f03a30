"""The meta device keeps ties where iftplan moves a model there, and lost ones are named."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from torch import nn

import iftplan as ift
from iftplan.base.errors import InputError
from iftplan.models.spec import InputSpec
from iftplan.nn import apply, read_model
from iftplan.nn.counting.measure import measure
from iftplan.nn.meta.copies import check_ties, on_meta

TOKENS = (InputSpec((2, 4), "int64"),)


def tied() -> nn.Module:
    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2)).eval()


def test_a_double_keeps_its_ties() -> None:
    double = on_meta(tied())
    assert double.lm_head.weight is double.transformer.wte.weight
    assert read_model(double, TOKENS) == read_model(tied(), TOKENS)


def test_ties_that_a_move_lost_are_named_wherever_a_model_comes_in() -> None:
    plan = ift.plan(read_model(tied(), TOKENS), "parallel", "1/2", scope="matrices")
    said = r"lm_head\.weight is no longer tied to transformer\.wte\.weight.*model\.to\('meta'\).*tie_weights"
    for entry in (
        lambda model: read_model(model, TOKENS),
        lambda model: measure(model, TOKENS),
        lambda model: apply(plan, model),
        lambda model: read_model(nn.Sequential(model), TOKENS),
    ):
        with pytest.raises(InputError, match=said):
            entry(tied().to("meta"))


def test_ties_that_are_there_or_were_never_claimed_pass() -> None:
    again = tied().to("meta")
    again.tie_weights()
    with torch.device("meta"):
        built = tied()
    loose = hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=16, n_layer=1, n_head=2, tie_word_embeddings=False))
    for model in (again, built, tied(), loose.to("meta"), nn.Linear(2, 3).to("meta")):
        check_ties(model)
