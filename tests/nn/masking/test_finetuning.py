"""Averages beside moving masks, and starting from sparse weights: frozen masks, found masks, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import optim
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from iftplan import nn
from iftplan.base.errors import InputError, StaleError
from tests.support.training import (
    batches,
    copies,
    counts,
    hold,
    loss_of,
    perceptron,
    planned,
    rigl,
    same,
    sparse,
    train,
)

# --- averages --------------------------------------------------------------------------------------------


def averaged(model: torch.nn.Module, average: AveragedModel, *, follow: bool) -> nn.Masking:
    """Train with moving masks, updating an average."""
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    masks = nn.Masking(model, optimizer, rigl())
    for batch in batches(10):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        masks.step()
        optimizer.step()
        average.update_parameters(model)
        if follow:
            nn.follow_(average, model)
    return masks


AVERAGES = {
    "ema": {"multi_avg_fn": get_ema_multi_avg_fn(0.9)},
    "ema, buffers too": {"multi_avg_fn": get_ema_multi_avg_fn(0.9), "use_buffers": True},
    "swa": {"multi_avg_fn": get_swa_multi_avg_fn()},
}


@pytest.mark.parametrize("kind", AVERAGES)
def test_an_average_that_follows_is_as_sparse_as_the_plan(kind: str) -> None:
    model = sparse()
    kept = counts(model)
    average = AveragedModel(model, **AVERAGES[kind])
    masks = averaged(model, average, follow=True)
    assert masks.exploration.updates == 3
    assert counts(average.module) == kept
    for mine, theirs in zip(nn.masked_weights(average.module), nn.masked_weights(model), strict=True):
        assert torch.equal(mine.mask, theirs.mask)
        assert mine.parameter[~mine.mask].abs().max() == 0
    assert nn.measure_applied(planned("wide"), average.module).passed


@pytest.mark.parametrize("kind", AVERAGES)
def test_left_alone_an_average_is_too_dense(kind: str) -> None:
    """What `follow_` is for; should this ever fail, it is needed no more."""
    model = sparse()
    average = AveragedModel(model, **AVERAGES[kind])
    averaged(model, average, follow=False)
    active = sum(int((w.parameter != 0).sum()) for w in nn.masked_weights(average.module))
    assert active > 1.05 * sum(counts(model).values())


def test_an_average_of_weights_that_stay_is_the_average() -> None:
    """Where masks do not move, following changes nothing."""
    for algorithm in (nn.Static(), rigl()):
        model, seen = sparse(), []
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        masks = nn.Masking(model, optimizer, algorithm)
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
        expected, always = None, torch.ones_like(model[2].weight, dtype=torch.bool)
        for batch in batches(10):
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            masks.step()
            optimizer.step()
            ema.update_parameters(model)
            nn.follow_(ema, model)
            now = model[2].weight.detach()
            expected = now.clone() if expected is None else 0.5 * expected + 0.5 * now
            always &= masks.masks()["2.weight"]
            seen.append(int(always.sum()))
        torch.testing.assert_close(ema.module[2].weight[always], expected[always])
        assert (seen[-1] < seen[0]) == (algorithm != nn.Static())


def test_the_average_of_another_network_is_refused() -> None:
    with pytest.raises(InputError, match="the average has 3 masked weights and the model 6"):
        nn.follow_(AveragedModel(sparse()), torch.nn.ModuleList([sparse(), sparse()]))


# --- fine-tuning -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    model = sparse()
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    train(model, nn.Masking(model, optimizer, rigl()), optimizer, 30)
    return model


def test_frozen_masks_come_with_the_weights(trained: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "sparse.pt")
    model = nn.apply(planned("wide"), perceptron(), seed=7)
    assert not torch.equal(model[2].weight_mask, trained[2].weight_mask)
    nn.load_masked_(model, torch.load(tmp_path / "sparse.pt"))
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    masks = nn.Masking(model, optimizer)
    first = copies(masks)
    assert same(first, {w.name: w.mask for w in nn.masked_weights(trained)})
    kept = counts(model)
    train(model, masks, optimizer, 10)
    hold(model, masks, kept)
    assert same(first, masks.masks())
    assert not torch.equal(model[2].weight, trained[2].weight)
    assert nn.measure_applied(planned("wide"), model).passed


def test_masks_come_to_a_model_that_has_none(trained: torch.nn.Module) -> None:
    bare = nn.densify(nn.apply(planned("wide"), perceptron(), seed=7))
    nn.load_masked_(bare, trained.state_dict())
    assert counts(bare) == counts(trained)
    x = torch.randn(3, 12)
    assert torch.equal(bare(x), trained(x))


def test_what_was_loaded_is_a_copy(trained: torch.nn.Module) -> None:
    model = nn.load_masked_(sparse(), trained.state_dict())
    model[2].weight_mask.fill_(True)
    assert not trained[2].weight_mask.all()


def test_a_densified_model_trains_every_weight(trained: torch.nn.Module) -> None:
    model = nn.densify(trained)
    with pytest.raises(InputError, match="no masked weights"):
        nn.Masking(model, optim.SGD(model.parameters(), lr=0.1))
    x = torch.randn(3, 12)
    assert torch.equal(model(x), trained(x))  # where dense fine-tuning starts
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    loss_of(model, next(batches(1))).backward()
    optimizer.step()
    off = ~trained[2].weight_mask
    assert (model[2].weight[off] != 0).float().mean() > 0.9
    assert (trained[2].weight[off] == 0).all()


def test_masks_are_found_again_in_a_finalized_model(trained: torch.nn.Module) -> None:
    final = nn.finalize(trained)
    found = nn.mask_zeros_(final)
    masks = {w.name: w.mask for w in nn.masked_weights(found)}
    for weight in nn.masked_weights(trained):  # an active weight may be zero, though hardly after a step
        assert not (masks[weight.name] & ~weight.mask).any()
        assert (weight.mask & ~masks[weight.name]).sum() <= 2
    optimizer = optim.AdamW(found.parameters(), lr=0.01)
    kept = counts(found)
    masking = nn.Masking(found, optimizer)
    train(found, masking, optimizer, 5)
    hold(found, masking, kept)


def test_padding_of_an_embedding_is_not_sparsity() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(5, 4, padding_idx=0), torch.nn.Linear(4, 4))
    with pytest.raises(InputError, match="no masks to keep"):
        nn.mask_zeros_(model)
    model[1].weight.data[0] = 0
    assert counts(nn.mask_zeros_(model)) == {"1.weight": 12}
    with pytest.raises(InputError, match="masked already"):
        nn.mask_zeros_(model)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "model._orig_mod.module.", "net."])
def test_a_wrappers_prefix_is_seen_through(trained: torch.nn.Module, prefix: str) -> None:
    model = sparse(seed=2)
    nn.load_masked_(model, {prefix + name: value for name, value in trained.state_dict().items()})
    assert same(model.state_dict(), trained.state_dict())


def test_wrapped_models_and_averages_give_and_take_states(trained: torch.nn.Module) -> None:
    sources: list[Any] = [torch.compile(trained), torch.nn.DataParallel(trained), AveragedModel(trained)]
    wraps: list[Any] = [lambda model: model, torch.compile, torch.nn.DataParallel]
    for source in sources:
        for wrap in wraps:
            model = sparse(seed=2)
            nn.load_masked_(wrap(model), source.state_dict())
            assert same(model.state_dict(), trained.state_dict())


def test_a_state_among_others_is_named(trained: torch.nn.Module) -> None:
    state = trained.state_dict()
    whole: dict[str, Any] = {"state_dict": state, "epoch": 3}
    with pytest.raises(
        InputError, match=r"give the part that holds the weights, such as state\['state_dict'\]"
    ):
        nn.load_masked_(sparse(), whole)
    among = {**{f"model.{name}": value for name, value in state.items()}, "loss.weight": torch.ones(2)}
    with pytest.raises(
        StaleError, match=r"under the prefix 'model\.', and others beside it \(loss\.weight\)"
    ):
        nn.load_masked_(sparse(), among)


def test_a_state_of_another_network_is_refused_and_changes_nothing(trained: torch.nn.Module) -> None:
    model = sparse()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for state in (
        perceptron().state_dict(),  # dense: narrower
        {name: tensor for name, tensor in trained.state_dict().items() if name != "4.bias"},
        {**trained.state_dict(), "9.weight": torch.zeros(1)},
    ):
        with pytest.raises(StaleError, match="Apply the plan that it was trained with"):
            nn.load_masked_(model, state)
        assert same(before, model.state_dict())


def test_an_unknown_name_is_refused(trained: torch.nn.Module) -> None:
    with pytest.raises(InputError, match="no parameter 'nowhere'"):
        nn.mask_zeros_(nn.finalize(trained), ["nowhere"])


def normed(make: Callable[[torch.nn.Module], object]) -> torch.nn.Module:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    with torch.no_grad():
        model[0].weight[:, 0] = 0
    make(model[0])
    return model


COMPUTED = {
    "prune": (lambda m: prune.l1_unstructured(m, "weight", 0.5), "torch.nn.utils.prune.remove("),
    "weight norm": (parametrizations.weight_norm, "parametrize.remove_parametrizations("),
    "spectral norm": (parametrizations.spectral_norm, "parametrize.remove_parametrizations("),
    "weight norm by a hook": (torch.nn.utils.weight_norm, "torch.nn.utils.remove_weight_norm("),
    "spectral norm by a hook": (torch.nn.utils.spectral_norm, "torch.nn.utils.remove_spectral_norm("),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize("names", [None, ("0.weight",)])
def test_zeros_of_a_computed_weight_are_named_with_what_makes_it_a_parameter(
    kind: str, names: tuple[str, ...] | None
) -> None:
    make, remedy = COMPUTED[kind]
    model = normed(make)
    with pytest.raises(InputError, match=r"0\.weight is computed from 0\.") as caught:
        nn.mask_zeros_(model, names)
    call = str(caught.value).partition("; call ")[2].removesuffix(" first.")
    assert call.startswith((remedy, f"torch.nn.utils.{remedy}"))
    eval(call, {"torch": torch, "model": model})  # noqa: S307  (what it says, works)
    mask = nn.mask_zeros_(model)[0].weight_mask
    assert not mask[:, 0].any()
