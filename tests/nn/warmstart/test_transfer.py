"""Trained weights in a model that is not quite the trained one: other heads, other masks, other names, folders on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn as tnn

from iftplan import nn
from iftplan.base.errors import InputError, StaleError
from tests.support.training import loss_of, perceptron


def network(classes: int, sparsity: str = "1/2", seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(12, 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, classes),
    )
    return nn.sparsify(model, sparsity, keep_dense=("last",), seed=seed) if sparsity else model


def kept(model: torch.nn.Module) -> dict[str, int]:
    return {weight.name: int(weight.mask.sum()) for weight in nn.masked_weights(model)}


def test_another_head_begins_anew_and_the_masks_come_along() -> None:
    trained, model = network(10), network(5, seed=1)
    head = model[4].weight.clone()
    found = nn.load_(model, trained.state_dict(), fresh=["4"])
    assert torch.equal(model[0].weight, trained[0].weight)
    assert torch.equal(model[2].weight_mask, trained[2].weight_mask)
    assert torch.equal(model[4].weight, head)
    assert (found.fresh, found.unused, found.chosen) == (("4.weight", "4.bias"), (), ())


def test_what_differs_is_refused_unless_it_is_said_and_nothing_is_changed() -> None:
    trained, model = network(10), network(5, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(StaleError, match=r"2 of 6 tensors .* 4\.weight \(5x16, not 10x16\).*in `fresh`: 4\."):
        nn.load_(model, trained.state_dict())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(InputError, match="fresh names 'head', which no tensor"):
        nn.load_(model, trained.state_dict(), fresh=["head"])
    with pytest.raises(InputError, match="masks names '4', which no masked weight"):
        nn.load_(model, trained.state_dict(), fresh=["4"], masks={"4": "drop"})


@pytest.mark.parametrize("sparsity", ["3/4", "1/4"])
def test_a_plan_of_other_counts_keeps_the_largest_of_what_came(sparsity: str) -> None:
    trained, model = network(10), network(10, sparsity, seed=1)
    counts = kept(model)
    found = nn.load_(model, trained.state_dict())
    assert found.chosen == tuple(counts)
    assert kept(model) == counts
    theirs, mine = trained[2].weight_mask, model[2].weight_mask
    inner, outer = (mine, theirs) if sparsity == "3/4" else (theirs, mine)
    assert not (inner & ~outer).any()  # the sparser one lies within the denser
    if sparsity == "3/4":
        value = trained[2].weight.abs()
        assert value[mine].min() >= value[~mine].max()


def test_dense_weights_are_pruned_or_left_for_a_method_that_begins_with_all() -> None:
    trained, model = network(10, ""), network(10, seed=1)
    drawn = model[2].weight_mask.clone()
    nn.load_(model, trained.state_dict(), dense_start=True)
    assert torch.equal(model[2].weight, trained[2].weight)
    assert torch.equal(model[2].weight_mask, drawn)
    nn.load_(model, trained.state_dict())
    assert int((model[2].weight != 0).sum()) == int(drawn.sum())
    nn.load_(model, trained.state_dict(), masks="own")
    assert torch.equal(model[2].weight_mask, model[2].weight != 0)


def test_masks_are_kept_dropped_or_drawn_by_layer() -> None:
    trained, model = network(10), network(10, seed=1)
    own = model[2].weight_mask.clone()
    found = nn.load_(model, trained.state_dict(), masks={"0": "drop", "2": "own"})
    assert found.dropped == ("0.weight",)
    assert kept(model) == {"2.weight": int(own.sum())}
    assert torch.equal(model[2].weight_mask, own)
    assert torch.equal(model[0].weight, trained[0].weight)
    plain = network(10, "", seed=2)
    nn.load_(plain, trained.state_dict())  # a model without masks takes those that there are
    assert kept(plain) == kept(trained)


@pytest.mark.parametrize("prefix", ["module.", "backbone.net.", "_orig_mod."])
def test_prefixes_are_removed_and_what_lies_beside_is_named(prefix: str) -> None:
    trained, model = network(10), network(10, seed=1)
    state = {prefix + name: value for name, value in trained.state_dict().items()}
    found = nn.load_(model, {**state, "other.weight": torch.ones(3)})
    assert found.unused == ("other.weight",)
    assert torch.equal(model[2].weight_mask, trained[2].weight_mask)


def test_a_base_model_is_loaded_into_one_with_a_head() -> None:
    trained = network(10)
    model: Any = torch.nn.ModuleDict({"transformer": network(10, seed=1), "score": torch.nn.Linear(10, 2)})
    found = nn.load_(model, trained.state_dict(), fresh=["score"])
    assert found.fresh == ("score.weight", "score.bias")
    assert torch.equal(model["transformer"][2].weight_mask, trained[2].weight_mask)


def test_a_tensor_that_is_tied_to_another_comes_with_it() -> None:
    model = torch.nn.ModuleDict(
        {"embedding": torch.nn.Embedding(6, 4), "head": torch.nn.Linear(4, 6, bias=False)}
    )
    model["head"].weight = model["embedding"].weight
    nn.load_(model, {"embedding.weight": torch.ones(6, 4)})
    assert bool((model["head"].weight == 1).all())


def test_folders_of_one_file_or_of_shards(tmp_path: Path) -> None:
    trained = network(10, "")
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    whole.mkdir()
    shards.mkdir()
    save_file(state, whole / "model.safetensors")
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(state)}
    for file in set(places.values()):
        save_file({name: state[name] for name in state if places[name] == file}, shards / file)
    (shards / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    for folder in (whole, shards, str(whole / "model.safetensors")):
        model = network(10, "", seed=1)
        nn.load_(model, folder)
        assert torch.equal(model[2].weight, trained[2].weight)
    next(iter(shards.glob("*.safetensors"))).unlink()
    with pytest.raises(InputError, match=r"there is no file .* download the folder again"):
        nn.load_(network(10, ""), shards)
    with pytest.raises(InputError, match=r"has no weights: none of model\.safetensors"):
        nn.load_(network(10, ""), tmp_path)
    (shards / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../a.safetensors"}})
    )
    with pytest.raises(InputError, match="do not lie beside it"):
        nn.load_(network(10, ""), shards)


def test_frozen_masks_stay_while_others_move_and_all_weights_train() -> None:
    model: Any = nn.sparsify(perceptron(), "1/2", keep_dense=("last",))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    masks = nn.Masking(model, optimizer, nn.SET(end=20, interval=2), frozen=["2"])
    before = {name: mask.clone() for name, mask in masks.masks().items()}
    values = model[2].weight.clone()
    torch.manual_seed(0)
    for _ in range(6):
        x = torch.randn(16, 12)
        loss_of(model, (x, x[:, :5].argmax(1))).backward()
        masks.step()
        optimizer.step()
        optimizer.zero_grad()
    assert masks.exploration.updates
    assert torch.equal(masks.masks()["2.weight"], before["2.weight"])
    assert not torch.equal(masks.masks()["4.weight"], before["4.weight"])
    assert not torch.equal(model[2].weight, values)
    masks.release()
    with pytest.raises(InputError, match="no masked weight in 'head' to freeze"):
        nn.Masking(model, optimizer, nn.SET(end=20), frozen=["head"])
    with pytest.raises(InputError, match="begins with every weight"):
        nn.Masking(model, optimizer, nn.STE(), frozen=["2"])


def test_a_folder_of_transformers_gives_its_weights_to_base_and_head(tmp_path: Path) -> None:
    """Shards that `save_pretrained` wrote: of the base model into the language model, and the other way round."""
    import transformers

    config = transformers.GPT2Config(
        n_layer=1, n_embd=16, n_head=2, vocab_size=40, n_positions=8, bos_token_id=None, eos_token_id=None
    )
    torch.manual_seed(0)
    trained = transformers.GPT2LMHeadModel(config).eval()
    trained.transformer.save_pretrained(tmp_path / "base", max_shard_size="2KB")
    trained.save_pretrained(tmp_path / "whole")
    assert (tmp_path / "base" / "model.safetensors.index.json").is_file()
    tokens = torch.arange(8).view(1, -1)
    for folder in ("base", "whole"):
        model = nn.build(f"hf:{tmp_path / 'whole'}", device="cpu").eval()
        assert nn.load_(model, tmp_path / folder).unused == ()
        assert torch.equal(
            model(tokens).logits, trained(tokens).logits
        )  # the tied head came with the embedding
    base = transformers.GPT2Model(config).eval()
    nn.load_(base, tmp_path / "whole")
    assert torch.equal(base(tokens).last_hidden_state, trained.transformer(tokens).last_hidden_state)


class Gated(torch.nn.Module):
    """A network with a buffer that is called like a mask, and is none."""

    def __init__(self, kept: bool) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(4, 4)
        self.register_buffer("feature_mask", torch.full((4,), kept))


def test_a_buffer_that_is_called_like_a_mask_is_loaded() -> None:
    model = Gated(False)
    nn.load_(model, Gated(True).state_dict())
    assert model.feature_mask.all()


def test_a_mask_that_nothing_takes_is_told() -> None:
    state = nn.sparsify(
        torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)), "1/2", keep_dense="none"
    ).state_dict()
    model = nn.sparsify(
        torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)), "1/2", keep_dense="first"
    )
    assert nn.load_(model, state).unused == ("0.weight_mask",)


def test_a_model_without_values_takes_none() -> None:
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    with pytest.raises(InputError, match="on the meta device"):
        nn.load_(model, torch.nn.Sequential(torch.nn.Linear(4, 3)).state_dict())


def test_fresh_layers_of_a_model_without_masks_stay_dense() -> None:
    torch.manual_seed(0)
    plain = tnn.Sequential(tnn.Linear(4, 8), tnn.ReLU(), tnn.Linear(8, 4))
    sparse = nn.sparsify(
        tnn.Sequential(tnn.Linear(4, 8), tnn.ReLU(), tnn.Linear(8, 4)), "1/2", keep_dense="none"
    )
    before = plain.get_parameter("2.weight").clone()
    nn.load_(plain, sparse.state_dict(), fresh=["2"])
    assert torch.equal(plain.get_parameter("2.weight"), before)
    assert [weight.name for weight in nn.masked_weights(plain)] == ["0.weight"]


def test_names_may_be_one_string_and_choices_are_checked() -> None:
    torch.manual_seed(0)
    model = tnn.Sequential(*(tnn.Linear(3, 3) for _ in range(13)))
    trained = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    assert nn.load_(model, trained, fresh="11").fresh == ("11.weight", "11.bias")
    assert not model[1].get_parameter("weight").any() and model[11].get_parameter("weight").any()
    masked = nn.sparsify(tnn.Sequential(tnn.Linear(8, 8)), "1/2", keep_dense="none")
    wrong: Any = {"0": "Dorp"}
    with pytest.raises(InputError, match="Did you mean 'drop'"):
        nn.load_(masked, masked.state_dict(), masks=wrong)
    capital: Any = {"0": "Drop"}
    assert nn.load_(masked, masked.state_dict(), masks=capital).dropped == ("0.weight",)


def test_a_model_without_masks_keeps_none_where_it_is_to_have_its_own() -> None:
    masked = nn.sparsify(tnn.Sequential(tnn.Linear(8, 8)), "1/2", keep_dense="none")
    dense = tnn.Sequential(tnn.Linear(8, 8))
    nn.load_(dense, masked.state_dict(), masks="own")
    assert not list(nn.masked_weights(dense))
    nn.load_(dense, masked.state_dict())
    assert len(list(nn.masked_weights(dense))) == 1


@pytest.mark.parametrize("fresh", ["encoder_q", "encoder_k"])
def test_a_prefix_is_that_of_what_is_not_fresh(fresh: str) -> None:
    """Two encoders of one kind fit a state alike."""
    one = tnn.Linear(4, 3)
    model = tnn.ModuleDict({"encoder_k": tnn.Linear(4, 3), "encoder_q": tnn.Linear(4, 3)})
    (other,) = {"encoder_k", "encoder_q"} - {fresh}
    nn.load_(model, one.state_dict(), fresh=[fresh])
    assert torch.equal(model[other].get_parameter("weight"), one.weight)
    assert not torch.equal(model[fresh].get_parameter("weight"), one.weight)
