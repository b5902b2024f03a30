"""Sparse training under transformers' Trainer: clipping, accumulation, checkpoints, logs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import iftplan as ift
from iftplan import nn
from iftplan.base.errors import InputError, StaleError
from iftplan.nn.callbacks.json_state import pack, unpack
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.plans.plan import Plan
from iftplan.runs.costs.training_cost import TrainingCost
from iftplan.runs.schedules import Updates
from tests.support.training import counts, hold, same

pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate: pip install 'iftplan[dev]'")
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

SMALL = {"vocab_size": 32, "bos_token_id": 0, "eos_token_id": 0}


def gpt() -> torch.nn.Module:
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=16, **SMALL))


def bert() -> torch.nn.Module:
    return BertForMaskedLM(
        BertConfig(
            vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=16,
        )
    )  # fmt: skip


MODELS = {"gpt": (gpt, "wide"), "bert": (bert, "parallel")}


@cache
def planned(name: str, mask: str = "unstructured") -> Plan:
    make, family = MODELS[name]
    model = ift.read_model(make(), "input_ids=2x16:int64", widths=family == "wide")
    return ift.plan(model, family, "1/2", mask=mask)


def sparse(
    name: str, seed: int = 0, mask: str = "unstructured", *, dense_start: bool = False
) -> torch.nn.Module:
    torch.manual_seed(seed)
    return nn.apply(planned(name, mask), MODELS[name][0](), seed=seed, dense_start=dense_start)


class Tokens(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __init__(self, count: int = 40) -> None:
        self.rows = torch.randint(0, 32, (count, 16), generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[i], "labels": self.rows[i]}


def trainer(model: torch.nn.Module, where: Path, *callbacks: TrainerCallback, **options: object) -> Trainer:
    given = {
        "max_steps": 12, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_grad_norm": 0.5,
        "learning_rate": 1e-2, "weight_decay": 0.1, "logging_steps": 4, "save_steps": 6, "use_cpu": True,
        "report_to": [], "disable_tqdm": True, "seed": 3,
    }  # fmt: skip
    args = TrainingArguments(str(where), **{**given, **options})
    return Trainer(model=model, args=args, train_dataset=Tokens(), callbacks=list(callbacks))


RIGL = nn.RigL(Updates(end=12, interval=2, at_end=True))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """These runs are short, and told so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(Masks |The mask schedule|Pruning|[0-9]+ of )")
        yield


def state(model: torch.nn.Module, masking: nn.TrainerMasking) -> dict[str, torch.Tensor]:
    """Everything that an interrupted run must end with: weights, masks, optimizer, what masks have seen."""
    assert masking.masks is not None
    found = {f"model.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    slots = masking.masks.optimizer.state_dict()["state"]
    found |= {
        f"optimizer.{i}.{k}": torch.as_tensor(v).clone() for i, s in slots.items() for k, v in s.items()
    }
    seen = masking.masks.exploration
    found |= {f"ever.{name}": mask for name, mask in seen.ever.items()}
    return found | {f"always.{name}": mask for name, mask in seen.always.items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_under_masks_that_move(name: str, tmp_path: Path) -> None:
    model = sparse(name)
    kept = counts(model)
    made = trainer(model, tmp_path)
    masking = nn.TrainerMasking(made, RIGL)
    made.train()
    assert masking.masks is not None
    assert (masking.masks.steps, masking.masks.exploration.updates) == (12, 5)
    hold(model, masking.masks, kept)
    assert nn.measure_applied(planned(name), model).passed
    logged = [row for row in made.state.log_history if "loss" in row]
    assert [row["step"] for row in logged] == [4, 8, 12]
    assert logged[-1]["mask_updates"] == 5
    assert logged[0]["density"] == pytest.approx(
        sum(kept.values()) / sum(w.mask.numel() for w in nn.masked_weights(model))
    )
    assert logged[0]["itop"] < logged[-1]["itop"] <= 1


class Norms(TrainerCallback):
    """Norms of the gradients that the optimizer is given: after clipping, and off the masks."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.off: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        self.norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))
        self.off.append(max(float(w.parameter.grad[~w.mask].abs().max()) for w in nn.masked_weights(model)))


@pytest.mark.parametrize("accumulated", [1, 3])
def test_clipping_sees_masked_gradients(accumulated: int, tmp_path: Path) -> None:
    seen = Norms()
    made = trainer(sparse("gpt"), tmp_path, seen, max_grad_norm=0.05, gradient_accumulation_steps=accumulated)
    nn.TrainerMasking(made, RIGL)
    made.train()
    # all gradients are longer than the limit: clipped after masking they have exactly its length, and clipped
    # before they would have less
    assert seen.norms == pytest.approx([0.05] * 12, rel=1e-3)
    assert seen.off == [0] * 12


def test_without_clipping_gradients_are_masked_too(tmp_path: Path) -> None:
    seen = Norms()
    made = trainer(sparse("gpt"), tmp_path, seen, max_grad_norm=0.0)
    nn.TrainerMasking(made, RIGL)
    made.train()
    assert seen.off == [0] * 12


def test_accumulated_steps_equal_one_large_batch(tmp_path: Path) -> None:
    ends = []
    for batch, accumulated in ((4, 1), (2, 2)):
        model = sparse("gpt").eval()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        made = trainer(
            model,
            tmp_path,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulated,
            save_strategy="no",
        )
        masking = nn.TrainerMasking(made, RIGL)
        made.train()
        assert masking.masks is not None
        ends.append({name: mask.clone() for name, mask in masking.masks.masks().items()})
    agree = [int((a == b).sum()) / a.numel() for a, b in zip(ends[0].values(), ends[1].values(), strict=True)]
    assert min(agree) > 0.99  # sums in another order may swap weights that tie


@pytest.mark.parametrize(
    ("name", "algorithm", "options"),
    [
        ("gpt", RIGL, {}),
        ("gpt", RIGL, {"mask": "2:4"}),
        ("gpt", nn.Gradual(Updates(end=10, interval=2)), {"mask": "2:4"}),
        ("gpt", nn.RigL(Updates(end=12, interval=2), order=nn.Order.REPLACE), {"optim": "sgd", "max_grad_norm": 0}),
        ("gpt", nn.SET(Updates(end=12, interval=2)), {"gradient_accumulation_steps": 1}),
        ("bert", nn.Gradual(Updates(end=10, interval=2)), {}),
        ("bert", nn.Static(), {"optim": "adamw_torch"}),
        ("gpt", nn.SNFS(Updates(end=12, interval=2)), {}),
    ],
    ids=["rigl", "rigl 2:4", "gradual 2:4", "rigl replaces", "set", "gradual", "static", "snfs"],
)  # fmt: skip
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(
    name: str, algorithm: Algorithm, options: dict[str, Any], tmp_path: Path
) -> None:
    options = {"logging_steps": 2, **options}  # Trainer forgets a loss that it has not logged yet
    mask = options.pop("mask", "unstructured")
    begins: dict[str, Any] = {"dense_start": algorithm.starts_dense, "mask": mask}
    whole = sparse(name, **begins)
    first = trainer(whole, tmp_path / "whole", **options)
    masking = nn.TrainerMasking(first, algorithm)
    first.train()
    expected = state(whole, masking)

    again = sparse(name, seed=99, **begins)  # other weights, other masks
    second = trainer(again, tmp_path / "resumed", **options)
    resumed = nn.TrainerMasking(second, algorithm)
    second.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))
    found = state(again, resumed)
    assert same(found, expected)
    assert resumed.masks.metrics() == masking.masks.metrics()
    assert [r for r in second.state.log_history if "loss" in r] == [
        r for r in first.state.log_history if "loss" in r
    ]
    counted = json.loads((tmp_path / "whole" / "checkpoint-12" / "trainer_state.json").read_text())
    resumed_file = json.loads((tmp_path / "resumed" / "checkpoint-12" / "trainer_state.json").read_text())
    assert (
        counted["stateful_callbacks"]["TrainerMasking"]
        == resumed_file["stateful_callbacks"]["TrainerMasking"]
    )


@pytest.mark.parametrize("accumulated", [1, 2])
def test_total_flos_are_those_of_the_masks(accumulated: int, tmp_path: Path) -> None:
    """Two sequences of 16 in a batch, as the plan counts them; steps that look at the dense gradient cost more."""
    plan, cost = planned("gpt"), TrainingCost.of(planned("gpt"))
    model = sparse("gpt")
    options = {"gradient_accumulation_steps": accumulated, "logging_steps": 6}
    made = trainer(model, tmp_path / "whole", **options)
    masking = nn.TrainerMasking(made, nn.RigL(Updates(end=10, interval=3)), plan=plan)
    made.train()
    updates = masking.masks.exploration.updates
    assert updates > 1
    expected = 2 * accumulated * (12 * cost.step() + updates * (cost.opened - cost.forward()))
    logged = [r for r in made.state.log_history if "loss" in r][-1]
    assert made.state.total_flos == logged["masked_flos"] == expected
    assert logged["dense_flos"] == 2 * 12 * accumulated * cost.dense_step
    again = trainer(sparse("gpt", 99), tmp_path / "again", **options)
    nn.TrainerMasking(again, nn.RigL(Updates(end=10, interval=3)), plan=plan)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))
    assert again.state.total_flos == expected
    assert [r for r in again.state.log_history if "loss" in r][-1]["dense_flos"] == logged["dense_flos"]


def test_flos_of_another_size_or_plan_are_refused(tmp_path: Path) -> None:
    shorter = ift.plan(gpt(), "wide", "1/2", inputs="input_ids=2x8:int64")
    made = trainer(sparse("gpt"), tmp_path)
    nn.TrainerMasking(made, plan=shorter)
    with pytest.raises(
        InputError, match="the plan counts inputs of 2x8, and a batch has none of that size, only 2x16"
    ):
        made.train()
    with pytest.raises(InputError, match="was not applied to the model that is trained"):
        nn.TrainerMasking(trainer(sparse("gpt"), tmp_path), plan=planned("bert"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("run")
    made = trainer(sparse("gpt"), where, max_steps=2, save_steps=2)
    nn.TrainerMasking(made)
    made.train()
    return where / "checkpoint-2"


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("TrainerMasking"),
        lambda found: found["TrainerMasking"]["attributes"].clear(),
        lambda found: found["TrainerMasking"]["attributes"]["masks"]["ever"].update({"transformer.h.0.attn.c_attn.weight": {"shape": [16, 48], "bits": "AAAA"}}),
    ],
    ids=["absent", "empty", "torn"],
)  # fmt: skip
def test_a_checkpoint_without_the_masks_state_is_refused(
    checkpoint: Path, change: Callable[..., Any], tmp_path: Path
) -> None:
    file = checkpoint / "trainer_state.json"
    before = file.read_text()
    found = json.loads(before)
    change(found["stateful_callbacks"])
    file.write_text(json.dumps(found))
    try:
        made = trainer(sparse("gpt"), tmp_path)
        nn.TrainerMasking(made, RIGL)
        with pytest.raises(StaleError, match="checkpoint of step 2 has no state of masks"):
            made.train(resume_from_checkpoint=str(checkpoint))
    finally:
        file.write_text(before)


def test_training_twice_begins_anew(tmp_path: Path) -> None:
    model = sparse("gpt")
    kept = counts(model)
    made = trainer(model, tmp_path, max_steps=4, save_strategy="no")
    masking = nn.TrainerMasking(made, RIGL)
    made.train()
    first = masking.masks
    made.train()
    assert first is not masking.masks
    assert (first.exploration.updates, masking.masks.exploration.updates) == (1, 1)
    hold(model, masking.masks, kept)


def test_a_trainer_takes_one_and_must_not_rebuild_it(tmp_path: Path) -> None:
    made = trainer(sparse("gpt"), tmp_path)
    nn.TrainerMasking(made)
    with pytest.raises(InputError, match="already has a TrainerMasking"):
        nn.TrainerMasking(made)
    rebuilding = trainer(sparse("gpt"), tmp_path, restore_callback_states_from_checkpoint=True)
    with pytest.raises(InputError, match="masks are restored anyway"):
        nn.TrainerMasking(rebuilding)


def test_dense_weights_behind_masks_do_not_fit_in_a_trainer_s_state(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot store these in trainer_state\.json.* nn\.LightningMasking"):
        nn.TrainerMasking(trainer(sparse("gpt", dense_start=True), tmp_path), nn.SRSTE())


def test_a_doubtful_run_is_told_so(tmp_path: Path) -> None:
    made = trainer(sparse("gpt"), tmp_path, max_steps=2, save_strategy="no")
    nn.TrainerMasking(made, nn.RigL(Updates(end=100)))
    with pytest.warns(UserWarning, match="Masks never change: the first update would be at step 100"):
        made.train()


class Stops(TrainerCallback):
    """Raises at step 5, once."""

    def __init__(self) -> None:
        self.left = 1

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == 5 and self.left:
            self.left = 0
            raise KeyboardInterrupt


@pytest.mark.parametrize("own_optimizer", [False, True])
def test_training_can_begin_anew_after_an_end_and_after_an_interruption(
    own_optimizer: bool, tmp_path: Path
) -> None:
    model = sparse("gpt")
    kept = counts(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2) if own_optimizer else None
    made = trainer(model, tmp_path, Stops())
    made.optimizer = optimizer
    masking = nn.TrainerMasking(made, RIGL)
    with pytest.raises(KeyboardInterrupt):
        made.train()
    for _ in range(2):
        made.train()
        assert masking.masks.steps == 12
        hold(model, masking.masks, kept)


def test_masks_see_gradients_in_their_own_scale(tmp_path: Path) -> None:
    """Half precision scales the loss by a power of two until the optimizer's step."""
    model = sparse("gpt")
    made = trainer(model, tmp_path)
    masking = nn.TrainerMasking(made, RIGL)
    weight = next(p for p in model.parameters() if p.requires_grad)
    seen, scale = [], 2.0**10

    class Masks:
        def step(self) -> None:
            assert weight.grad is not None
            seen.append(weight.grad.clone())
            weight.grad.add_(1)  # as a method does, in its own scale

    def scaled(*_: Any, **__: Any) -> torch.Tensor:
        weight.grad = torch.full_like(weight, 3 * scale)
        return torch.zeros(())

    masking._training_step, masking.masks = scaled, Masks()  # type: ignore[assignment]
    made.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    masking._masked_step()
    assert seen[0].eq(3).all()
    assert weight.grad is not None and weight.grad.eq(4 * scale).all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.bfloat16, torch.float64])
def test_tensors_of_a_state_come_back_as_they_were(dtype: torch.dtype) -> None:
    value = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = unpack(json.loads(json.dumps(pack({"a": {"b": value, "none": value[:0]}, "n": 3}))))
    assert found["n"] == 3 and found["a"]["b"].dtype is dtype
    assert torch.equal(found["a"]["b"], value) and found["a"]["none"].shape == (0, 5)
