"""Two processes under gloo, DDP and FSDP2: one launch, then what each rank reported is held against the other's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from iftplan import nn
from iftplan.nn.masking.processes import Ranks, fingerprint
from iftplan.nn.training.records import checkpoints
from tests.support.processes import distributed_scenarios as scenarios
from tests.support.processes.launches import environment

Reports = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one process has written a checkpoint after seven steps, and two processes theirs."""
    folder = tmp_path_factory.mktemp("ranks")
    model = scenarios.sparse()
    masks = nn.Masking(model, scenarios.adam(model), scenarios.rigl())
    scenarios.train(model, model, masks, range(7))
    scenarios.save(folder / "single", model, masks, 7)
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> Reports:
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [sys.executable, *launch, scenarios.__file__, str(folder)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def both(ranks: Reports, scenario: str) -> Iterator[dict[str, Any]]:
    for report in ranks:
        assert isinstance(report[scenario], dict), report[scenario]
        yield report[scenario]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """The same run in one process: whole batches."""
    torch.set_num_threads(1)
    model = scenarios.sparse()
    masks = nn.Masking(model, scenarios.adam(model), scenarios.rigl())
    return {"digests": scenarios.train(model, model, masks, range(12)), "final": scenarios.flat(model)}


@pytest.mark.slow
def test_growth_follows_the_mean_gradient_and_not_the_mean_of_its_size(ranks: Reports) -> None:
    """Gradients +1 and -1 of weight 2 score 0, so that weight 3 with .4 on both ranks grows."""
    for report in both(ranks, "mean_gradient"):
        assert report["scores"] == pytest.approx([0, 0, 0, 0.4])
        assert report["scores"][2] == 0
        assert report["mask"] == [True, False, False, True]
        assert report["of_mean_absolute"] == 2  # what averaging |g|, or one rank's gradient, would have grown


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["data_parallel", "accumulated", "fully_sharded", "not_finite"])
def test_masks_are_the_same_on_both_ranks_after_every_step(ranks: Reports, scenario: str) -> None:
    first, second = both(ranks, scenario)
    assert first["digests"] == second["digests"]
    assert len(set(first["digests"])) > 1


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["data_parallel", "fully_sharded"])
def test_two_ranks_train_as_one_process_with_the_whole_batch(
    ranks: Reports, alone: dict[str, Any], scenario: str
) -> None:
    """Not to the bit: sums are taken in another order."""
    for report in both(ranks, scenario):
        assert report["digests"][:4] == alone["digests"][:4]
        assert report["off"] == []


@pytest.mark.slow
def test_both_ranks_recycle_the_same_neurons(ranks: Reports) -> None:
    """Activations of the two halves of a batch differ; fresh weights follow from the seed."""
    first, second = both(ranks, "recycled")
    assert first == second
    assert first["off"] == []
    assert sum(len(found) for step in first["neurons"] for found in step.values()) > 0


@pytest.mark.slow
def test_both_ranks_learn_the_same_tasks(ranks: Reports) -> None:
    """As one process does with whole batches, whose sums are taken in another order."""
    torch.set_num_threads(1)
    model = scenarios.sparse()
    alone = scenarios.learn_tasks(model, model)
    first, second = both(ranks, "several_tasks")
    assert first == second
    assert first["digests"][:4] == alone["digests"][:4]
    assert len(set(first["digests"])) > 4
    assert first["answers"][0] != first["answers"][1]
    assert first["answers"][0] == pytest.approx(alone["answers"][0], abs=1e-4)


@pytest.mark.slow
def test_sharded_and_replicated_training_agree(ranks: Reports) -> None:
    replicated, sharded = next(both(ranks, "data_parallel")), next(both(ranks, "fully_sharded"))
    assert replicated["digests"] == sharded["digests"]
    assert torch.allclose(torch.tensor(replicated["final"]), torch.tensor(sharded["final"]), atol=1e-6)


@pytest.mark.slow
def test_parts_are_parts(ranks: Reports) -> None:
    """Nine rows of weights are five and four."""
    first, second = both(ranks, "fully_sharded")
    assert first["parts"][0] == [5, 6]
    assert second["parts"][0] == [4, 6]


@pytest.mark.slow
def test_accumulated_batches_make_one_update_for_two_steps(ranks: Reports) -> None:
    for report in both(ranks, "accumulated"):
        assert report["updates"] == 2
        assert report["off"] == []


@pytest.mark.slow
def test_masks_can_be_left_out_of_broadcasts(ranks: Reports) -> None:
    """DDP writes every buffer at each forward pass but those: the mask is written by its updates alone."""
    for report in both(ranks, "accumulated"):
        assert report["written"] == report["updates"]


@pytest.mark.slow
def test_an_overflow_in_one_rank_s_part_postpones_the_update_on_both(ranks: Reports) -> None:
    """Updates are due at steps 2 and 4 of the schedule; step 2 overflows on rank 1 alone, step 3 makes it up."""
    for report in both(ranks, "not_finite"):
        assert len(set(report["digests"][:4])) == 1
        assert report["digests"][4] != report["digests"][3]
        assert report["updates"] == 1


@pytest.mark.slow
def test_masks_that_differ_are_refused_by_name_on_both_ranks(ranks: Reports) -> None:
    for report in both(ranks, "masks_differ"):
        assert "the masks of 2.weight on rank 1 are not those of rank 0" in report["message"]
        assert report["alike"] == "no error"


@pytest.mark.slow
def test_gradients_that_nobody_averaged_are_found_at_the_first_update(ranks: Reports) -> None:
    for report in both(ranks, "gradients_differ"):
        assert "on rank 1 are not those of rank 0" in report["message"]
        assert report["steps"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("source", scenarios.SOURCES)
def test_two_ranks_continue_any_checkpoint(ranks: Reports, source: str, kind: str) -> None:
    first, second = (report[f"{source} to {kind}"] for report in both(ranks, "resumed"))
    assert first["digests"] == second["digests"]
    for report in (first, second):
        assert report["alike"]  # gathered again, it is what was in the file, to the bit
        assert report["off"] == []
    if source.removesuffix("-shards") == kind:  # the same processes: as if nothing had been interrupted
        name = {"ddp": "data_parallel", "fsdp": "fully_sharded"}[kind]
        uninterrupted = next(both(ranks, name))
        assert first["digests"] == uninterrupted["digests"][7:]
        assert first["final"] == uninterrupted["final"]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["ddp", "fsdp", "ddp-shards", "fsdp-shards"])
def test_one_process_continues_what_two_wrote(ranks: Reports, folder: Path, source: str) -> None:
    model = scenarios.sparse()
    masks = nn.Masking(model, scenarios.adam(model), scenarios.rigl())
    scenarios.load(folder / source, model, masks)
    found = checkpoints.newest(folder / source, print)
    assert found is not None
    assert scenarios.same(scenarios.state_of(model, masks), found[1])
    name = {"ddp": "data_parallel", "fsdp": "fully_sharded"}[source.removesuffix("-shards")]
    two = next(both(ranks, name))
    assert scenarios.digest(masks) == two["digests"][6]
    scenarios.train(model, model, masks, range(7, 12))
    assert torch.allclose(torch.tensor(scenarios.flat(model)), torch.tensor(two["final"]), atol=1e-3)
    assert scenarios.hold(masks) == []


def test_one_process_asks_nobody() -> None:
    ranks = Ranks.of(scenarios.perceptron())
    assert ranks.group is None
    assert ranks.all(True, torch.device("cpu"))
    assert not ranks.all(False, torch.device("cpu"))
    ranks.check({"a": torch.ones(3, dtype=torch.bool)}, 1)


def test_masks_that_differ_have_other_fingerprints() -> None:
    """All masks of up to two weights out of 90, which words of eight and a padded rest hold: no two alike."""
    seen = set()
    for chosen in (*combinations(range(90), 2), *combinations(range(90), 1), ()):
        mask = torch.zeros(90, dtype=torch.bool)
        mask[list(chosen)] = True
        seen.add(int(fingerprint(mask)))
    assert len(seen) == 90 * 89 // 2 + 90 + 1


def test_a_fingerprint_depends_on_entries_and_not_on_strides() -> None:
    mask = torch.rand(7, 5, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    strided = mask.to(memory_format=torch.channels_last)
    assert strided.stride() != mask.stride()
    assert int(fingerprint(strided)) == int(fingerprint(mask))


@pytest.mark.slow
@pytest.mark.parametrize("name", scenarios.REMEMBERING)
def test_what_is_kept_beside_a_model_is_the_same_on_both_ranks(ranks: Reports, name: str) -> None:
    """Under DDP and in FSDP2's parts, and continued from a state of either."""
    algorithm = scenarios.REMEMBERING[name]
    model = scenarios.sparse(dense_start=algorithm.starts_dense, structure=scenarios.STRUCTURES.get(name))
    masks = nn.Masking(model, scenarios.adam(model), algorithm)
    alone = scenarios.train(model, model, masks, range(9))
    first, second = both(ranks, "remembering")
    for kind in ("ddp", "fsdp"):
        found = first[f"{name}, {kind}"]
        assert found == second[f"{name}, {kind}"]
        assert found["alike"] and found["off"] == []
        assert found["digests"][:5] == alone[:5]  # sums are taken in another order
        assert found["final"] == pytest.approx(scenarios.flat(model), abs=1e-5)
    assert len(set(alone)) > 2 or name == "SaRA"  # whose masks stay full


@pytest.mark.slow
def test_pruning_at_the_start_says_what_several_processes_cannot(ranks: Reports) -> None:
    for found in both(ranks, "second_derivatives"):
        assert "choose masks in one process, or take snip, force or synflow" in found["message"]
    model = scenarios.sparse(dense_start=True)
    masks = nn.Masking(model, scenarios.adam(model), nn.SynFlow(rounds=5))
    alone = scenarios.train(model, model, masks, range(3))
    for found in both(ranks, "flow"):
        assert found["digests"] == alone
        assert "the model is sharded; use DDP" in found["refused"]
