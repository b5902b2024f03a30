"""Validation data and early stopping: which samples, which evaluation is the result, and the same after a resume."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iftplan.base.errors import InputError
from iftplan.nn.training.data.opening import open_data
from iftplan.nn.training.data.tokens import TokenWindows
from iftplan.nn.training.data.validation import Subset
from iftplan.nn.training.records import checkpoints
from iftplan.nn.training.records.best import best_index, best_step, has_waited
from iftplan.runs.settings import DataConfig
from iftplan.runs.tables import result_table
from tests.support.runs.executed import StoppedRunError, executed, small_run


def silent(text: str) -> None:
    """Nobody listens."""


def rows_of(*losses: float) -> list[dict[str, str]]:
    return [{"step": str(5 * (i + 1)), "validation_loss": repr(loss)} for i, loss in enumerate(losses)]


def test_the_first_of_the_smallest_losses_is_the_best() -> None:
    rows = rows_of(3.0, 1.5, 2.0, 1.5, 1e300)
    assert (best_index(rows), best_step(rows)) == (1, 10)
    assert best_step([{"step": "5"}]) is None
    assert [has_waited(rows[: n + 1], 2) for n in range(5)] == [False, False, False, True, True]
    assert not has_waited(rows, 0) and not has_waited([{"step": "5"}], 1)


def test_only_evaluations_at_the_last_density_count() -> None:
    """The network of the second row is better, and denser than the one that the run ends with."""
    rows = [
        row | {"density": d}
        for row, d in zip(rows_of(3.0, 1.0, 2.0, 2.5), ("1", "0.5", "0.1", "0.1"), strict=True)
    ]
    assert [best_step(rows[: n + 1]) for n in range(4)] == [5, 10, 15, 15]
    assert has_waited(rows, 1) and not has_waited(rows[:3], 1)


def test_evaluations_before_a_change_do_not_count_when_the_density_comes_back() -> None:
    """Soft updates keep more weights for a while; the checkpoint of what was best before them is gone by then."""
    rows = [
        row | {"density": d}
        for row, d in zip(rows_of(1.0, 2.0, 3.0, 2.5), ("0.1", "0.3", "0.1", "0.1"), strict=True)
    ]
    assert [best_step(rows[: n + 1]) for n in range(4)] == [5, 10, 15, 20]
    widths = [row | {"density": "1", "forward_macs": m} for row, m in zip(rows, "1122", strict=True)]
    assert [best_step(widths[: n + 1]) for n in range(4)] == [5, 5, 15, 20]


@pytest.mark.parametrize("method", ["gradual", "mask-decay"])
def test_a_result_is_of_one_network(method: str, tmp_path: Path) -> None:
    """Its metric, its checkpoint and its weights are those of an evaluation at the plan's density; nothing ends before."""
    settings = {
        "plan": {"transform": "none", "sparsity": "0.98"},
        "method": {"name": method, "interval": 2, "begin": 0.5, "end": 0.75},
        "data": {"validation_fraction": 0.2},
        "optimizer": {"lr": 0.2},
        "schedule": {"name": "constant"},
        "training": {"steps": 40, "batch_size": 64, "eval_interval": 2, "patience": 1},
    }
    result = executed(small_run(settings), tmp_path)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    best = next(row for row in rows if int(row["step"]) == result["best_step"])
    assert (float(best["metric"]), best["density"]) == (result["metric"], rows[-1]["density"])
    assert (
        result["density"]
        == pytest.approx(result["nnz"] / result["maskable_weights"])
        == float(best["density"])
    )
    assert result["steps"] >= 30
    losses = [float(row["validation_loss"]) for row in rows]
    assert min(losses) < float(best["validation_loss"]), "a denser network was better: what is tested"


def test_a_run_is_not_ended_by_evaluations_of_the_network_before_it_was_thinned(tmp_path: Path) -> None:
    """Masks arrive between two evaluations, when those before have waited long enough."""
    settings = {
        "plan": {"transform": "none", "sparsity": "0.98"},
        "method": {"name": "gradual", "interval": 15, "begin": 0, "end": 15},
        "data": {"validation_fraction": 0.2},
        "optimizer": {"lr": 1e-30},
        "schedule": {"name": "constant"},
        "training": {"steps": 24, "batch_size": 64, "eval_interval": 2, "patience": 2},
    }
    result = executed(small_run(settings), tmp_path)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    before = [row for row in rows if row["density"] != rows[-1]["density"]]
    assert has_waited(before, 2), "what is tested"
    assert result["steps"] > 16
    assert result["density"] == pytest.approx(result["nnz"] / result["maskable_weights"])


def test_a_run_whose_layers_trade_weights_by_macs_stops_early_too(tmp_path: Path) -> None:
    """Sparse momentum may end with more weights than the plan, at the plan's MACs."""
    method = {"name": "snfs", "interval": 2, "end": 0.1}
    result = executed(small_run({**OVERFIT, "method": method}), tmp_path)
    assert result["steps"] < OVERFIT["training"]["steps"]


def test_labelled_samples_are_parted_by_their_number_alone() -> None:
    whole = open_data(DataConfig(), silent)
    task = open_data(DataConfig(validation_fraction=0.25), silent)
    assert isinstance(task.train, Subset) and isinstance(task.validation, Subset)
    count = len(whole.train)
    assert len(task.validation) == round(count / 4)
    both = torch.cat([task.train.indices, task.validation.indices])
    assert torch.equal(both.sort().values, torch.arange(count))
    again = open_data(DataConfig(validation_fraction=0.25), silent).validation
    assert isinstance(again, Subset) and torch.equal(again.indices, task.validation.indices)
    picked = torch.tensor([0, 3])
    for mine, theirs in zip(
        task.validation.batch(picked, None),
        whole.train.batch(task.validation.indices[picked], None),
        strict=True,
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("objective", ["next", "masked"])
def test_no_token_is_both_trained_and_validated_on(tmp_path: Path, objective: Any) -> None:
    row = np.arange(2000, dtype=np.uint16)
    row.tofile(tmp_path / "tokens.bin")
    config = DataConfig(
        "tokens",
        str(tmp_path / "tokens.bin"),
        context=16,
        objective=objective,
        validation_fraction=0.2,
        mask_token=2000,
    )
    task = open_data(config, silent)
    assert task.validation is not None and isinstance(task.train, Subset)
    seen = []
    for part in (task.train, task.validation):
        assert isinstance(part, Subset)
        windows = part.whole if isinstance(part.whole, TokenWindows) else part.whole.windows  # type: ignore[attr-defined]
        widest = torch.full((len(part), 1), 1 - 1e-7) if part is task.train else None
        seen.append(windows.batch(part.indices, widest)[1])
    trained, validated = seen
    assert trained.max() < validated.min() - 1  # inputs begin one token before their targets


@pytest.mark.parametrize("part", [0.0001, 0.9999])
def test_a_part_without_samples_is_refused(part: float) -> None:
    with pytest.raises(InputError, match=r"data\.validation_fraction"):
        open_data(DataConfig(validation_fraction=part), silent)


@pytest.mark.parametrize("part", [0.0001, 0.9999])
def test_digits_without_a_part_to_test_or_train_are_refused(part: float) -> None:
    with pytest.raises(InputError, match=r"data\.test_fraction = .* of the 1797 digits"):
        open_data(DataConfig(test_fraction=part), silent)


def test_patience_needs_validation_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set data\.validation_fraction=0\.1"):
        executed(small_run({"training": {"patience": 2}}), tmp_path)


OVERFIT = {
    "data": {"validation_fraction": 0.2},
    "optimizer": {"lr": 0.5},
    "schedule": {"name": "constant"},
    "training": {"steps": 60, "eval_interval": 2, "checkpoint_interval": 50, "patience": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rigl", "srste", "densified"])
def test_a_run_stops_early_and_the_best_evaluation_is_its_result(tmp_path: Path, method: str) -> None:
    run = small_run({**OVERFIT, "method": {"name": method, "interval": 2}})
    result = executed(run, tmp_path / "whole")
    rows = list(csv.DictReader((tmp_path / "whole" / "metrics.csv").read_text().splitlines()))
    losses = [float(row["validation_loss"]) for row in rows]
    best = losses.index(min(losses))
    assert len(rows) - 1 - best == 3 and result["steps"] == int(rows[-1]["step"]) < 60
    assert result["best_step"] == int(rows[best]["step"])
    assert result["validation_loss"] == losses[best]
    assert result["metric"] == float(rows[best]["metric"])
    assert result["train_macs"] == int(rows[-1]["train_macs"])
    state = checkpoints.read(checkpoints.path_of(tmp_path / "whole", result["best_step"]))
    assert state["step"] == result["best_step"]

    half = tmp_path / "half"
    with pytest.raises(StoppedRunError):
        executed(run, half, stop=result["best_step"] + 3)
    assert executed(run, half, resume=True) == result
    assert executed(run, half, resume=True) == result  # a run that has stopped takes no step more
    assert (half / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


@pytest.mark.slow
def test_another_run_begins_with_the_best_weights(tmp_path: Path) -> None:
    run = small_run(OVERFIT)
    result = executed(run, tmp_path / "first")
    best = checkpoints.path_of(tmp_path / "first", result["best_step"])
    ends = []
    for start in (tmp_path / "first", best):
        settings = {
            "method": {"name": "static"},
            "start": {"checkpoint": str(start)},
            "training": {"steps": 2},
        }
        ends.append(executed(small_run(settings), tmp_path / f"next-{start.name}")["weights_digest"])
    assert ends[0] == ends[1]
    last = max((tmp_path / "first").glob("checkpoint-*.pt"))
    settings["start"] = {"checkpoint": str(last)}
    assert executed(small_run(settings), tmp_path / "last")["weights_digest"] != ends[0]


def test_the_table_of_a_result_says_which_evaluation_it_is(tmp_path: Path) -> None:
    plain = executed(small_run({"training": {"steps": 2}}), tmp_path / "plain")
    chosen = executed(
        small_run({"training": {"steps": 2}, "data": {"validation_fraction": 0.2}}), tmp_path / "chosen"
    )
    assert len(result_table(plain).notes) == 1
    assert result_table(chosen).notes[1].startswith("best validation loss ")
    assert "after 2 steps" in result_table(chosen).notes[1]
