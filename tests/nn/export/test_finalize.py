"""The two ways out of masks, and what a finalized model can be turned into."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from iftplan.nn import apply, densify, enforce_, finalize, masked_weights
from iftplan.nn.masks.nonzeros import nonzeros
from iftplan.nn.meta.inputs import make_inputs
from iftplan.plans.scaling import parametrize
from tests.support.models.applied import FAMILIES, HOSTS, host, planned
from tests.support.sampling import WHOLE

SCALED = ("GPT-2", "wide, with scales")
PLACES = [("convolutions", family) for family in FAMILIES] + [("GPT-2", "wide"), ("BERT", "parallel")]


def made(name: str, family: str) -> nn.Module:
    family, _, scaled = family.partition(", ")
    plan = planned(name, family)
    return apply(parametrize(plan) if scaled else plan, host(name))


def inputs(name: str) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    torch.manual_seed(1)
    args, kwargs = make_inputs(HOSTS[name][1], "cpu")
    return tuple(torch.randn_like(x) if x.is_floating_point() else x for x in args), kwargs


def answer(model: nn.Module, name: str) -> Tensor:
    args, kwargs = inputs(name)
    output = model(*args, **kwargs)
    return getattr(output, "logits", output)


@pytest.mark.parametrize("name", list(HOSTS))
@pytest.mark.parametrize("family", ["wide", "parallel", "doped"])
def test_sparsity_zero_gives_back_the_dense_model_bit_for_bit(name: str, family: str) -> None:
    dense, plan = host(name), planned(name, family, "0")
    back = finalize(apply(plan, dense))
    assert torch.equal(answer(back, name), answer(dense, name))
    before, after = dense.state_dict(), back.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert [type(m) for m in back.modules()] == [type(m) for m in dense.modules()]


@pytest.mark.parametrize(("name", "family"), PLACES)
def test_finalized_it_answers_the_same_without_masks(name: str, family: str) -> None:
    model = apply(planned(name, family), host(name))
    with torch.no_grad():  # what an optimizer step leaves off the masks is cleared
        expected = answer(model, name)
        for weight in masked_weights(model):
            weight.parameter[~weight.mask] = 1.0
    final = finalize(model)
    assert torch.equal(answer(final, name), expected)
    assert not [key for key in final.state_dict() if key.endswith("_mask")]
    kept = {w.name: int(w.mask.sum()) for w in masked_weights(model)}
    assert {n: c for n, c in nonzeros(final, from_values=True).items() if n in kept} == kept
    assert all((w.parameter[~w.mask] == 1).all() for w in masked_weights(model))  # it was copied


@pytest.mark.parametrize(("name", "family"), PLACES)
def test_densified_every_weight_trains(name: str, family: str) -> None:
    model = apply(planned(name, family), host(name))
    dense = densify(model)
    assert torch.equal(answer(dense, name), answer(model, name))
    assert not list(masked_weights(dense))
    answer(dense, name).square().mean().backward()
    optimizer = torch.optim.Adam(dense.parameters(), 0.1)
    optimizer.step()
    enforce_(dense)
    parameters = dict(dense.named_parameters())
    grown = [(parameters[w.name][~w.mask] != 0).any() for w in masked_weights(model)]
    assert not grown or any(grown)


class Logits(nn.Module):
    """A transformer as a plain function of its tokens: its cache cannot be exported."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids=input_ids).logits


@pytest.mark.parametrize(("name", "family"), [*PLACES, SCALED])
def test_a_finalized_model_is_exported(name: str, family: str) -> None:
    model = finalize(made(name, family)).eval()
    model = model if name == "convolutions" else Logits(model)
    args, kwargs = inputs(name)
    program = torch.export.export(model, args, kwargs, strict=False)
    torch.testing.assert_close(program.module()(*args, **kwargs), answer(model, name))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    torch.testing.assert_close(again(*args, **kwargs), answer(model, name))


@pytest.mark.parametrize("family", FAMILIES)
def test_onnxruntime_answers_the_same(family: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX export needs onnxscript, of the extra dev")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra dev")
    model = finalize(apply(planned("convolutions", family), host("convolutions"))).eval()
    (x,), _ = inputs("convolutions")
    file = str(tmp_path / "model.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), file, dynamo=True, input_names=["x"], verbose=False)
    (output,) = runtime.InferenceSession(file).run(None, {"x": x.numpy()})
    with torch.no_grad():
        expected = model(x)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(torch.from_numpy(output), expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("family", [*FAMILIES, SCALED[1]] if WHOLE else [FAMILIES[0], FAMILIES[-1]])
def test_onnxruntime_answers_the_same_for_a_transformer(family: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX export needs onnxscript, of the extra dev")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra dev")

    model = Logits(finalize(made("GPT-2", family))).eval()
    tokens = torch.arange(22).view(2, 11)
    file = str(tmp_path / "model.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (tokens,), file, dynamo=True, input_names=["x"], verbose=False)
    (output,) = runtime.InferenceSession(file).run(None, {"x": tokens.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(output), model(tokens), atol=1e-4, rtol=0)
