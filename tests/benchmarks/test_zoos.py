"""The sweep over other libraries' networks: processes with limits, a journal, stages, and what is told of them."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.places import page_named
from tests.support.programs import path_of

sys.path.insert(0, str(path_of("zoos").parent))

import zoos
from zoo_sweep import stages, table
from zoo_sweep.entry import Entry
from zoo_sweep.forks import Fork
from zoo_sweep.journal import Journal


def ended(fork: Fork) -> Fork:
    while not fork.ended:
        fork.look(0.05)
    return fork


def test_what_a_process_says_arrives_in_order() -> None:
    fork = ended(Fork(lambda say: [say({"n": n}) for n in range(500)], 20, 1))
    assert fork.ended == "ended" and [said["n"] for said in fork.said] == list(range(500))


def test_time_is_limited() -> None:
    def task(say: Callable[[dict[str, Any]], None]) -> None:
        say({"begins": "read"})
        time.sleep(60)

    begin = time.monotonic()
    fork = ended(Fork(task, 1, 1))
    assert fork.ended == "out of time" and fork.said == [{"begins": "read"}] and time.monotonic() - begin < 20


def test_memory_is_limited() -> None:
    fork = ended(Fork(lambda say: say({"bytes": len(bytearray(3 * 2**30))}), 20, 1))
    assert fork.ended == "out of memory" and not fork.said


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (lambda say: __import__("os").kill(__import__("os").getpid(), 9), "ended with status -9"),
        (lambda say: __import__("os")._exit(3), "ended with status 3"),
    ],
)
def test_what_ends_a_process_is_told(task: Callable[..., Any], told: str) -> None:
    assert ended(Fork(task, 20, 1)).ended == told


def test_a_journal_goes_on_after_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "zoos.jsonl"
    first = Journal(path)
    first.add({"model": "a:1", "stages": {}})
    first.add({"model": "a:2", "stages": {}})
    path.write_text(path.read_text() + '{"model": "a:3", "sta')
    again = Journal(path)
    assert list(again.records) == ["a:1", "a:2"]
    again.add({"model": "a:3", "stages": {"read": {"verdict": "yes"}}})
    again.add({"model": "a:1", "stages": {"read": {"verdict": "crash"}}})
    last = Journal(path).records
    assert list(last) == ["a:1", "a:2", "a:3"]
    assert last["a:1"]["stages"]["read"]["verdict"] == "crash"


class Residual(nn.Module):
    def __init__(self, wrong: str = "") -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.wrong, self.calls = wrong, 0

    def forward(self, start: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        x = torch.relu(self.first(start))
        x = torch.relu(self.inner(x)) + x
        if self.wrong == "drifts":
            self.calls += 1
            x = x * self.calls
        if self.wrong == "dense":
            return self.last(torch.relu(self.first(start)))
        if self.wrong == "raises":
            raise RuntimeError("inside the model")
        return {"logits": self.last(x)}


def found(wrong: str = "", limit: int = 10**6) -> dict[str, Any]:
    entry = Entry("ours", wrong or "residual", lambda: Residual(wrong), ("2x8",))
    fork = ended(Fork(lambda say: stages.sweep(entry, say, limit), 60, 4))
    return zoos.record_of(entry.key, fork)


@pytest.fixture(scope="module")
def good() -> dict[str, Any]:
    return found()


def test_a_network_passes_every_stage(good: dict[str, Any]) -> None:
    verdicts = {stage: one["verdict"] for stage, one in good["stages"].items()}
    assert verdicts == dict.fromkeys(stages.STAGES, "yes")
    assert good["macs"] == 2 * (8 * 16 + 16 * 16 + 16 * 4) and good["weights"] == 128 + 256 + 64 + 36
    assert set(table.line(good).split()[1]) == {"+"}


def test_above_the_limit_nothing_is_computed() -> None:
    record = found(limit=100)
    assert "as it was" not in record["stages"] and record["stages"]["wide measure"]["verdict"] == "yes"
    assert not record["real"]


def test_a_network_that_changes_is_seen() -> None:
    assert found("drifts")["stages"]["as it was"]["verdict"] == "apart"


def test_what_cannot_be_wide_is_refused_in_our_words() -> None:
    """Its first and last layers stay dense, and nothing is left that a mask could thin."""
    one = found("dense")["stages"]["wide plan"]
    assert one["verdict"] == "refused" and "sparsity" in one["says"]


def test_what_the_model_raises_is_told_apart() -> None:
    assert found("raises")["stages"]["read"]["verdict"] == "refused in others' words"


def test_a_process_that_dies_is_a_crash_of_its_stage() -> None:
    def task(say: Callable[[dict[str, Any]], None]) -> None:
        say({"begins": "widths"})
        __import__("os").abort()

    record = zoos.record_of("ours:dies", ended(Fork(task, 20, 1)))
    assert (
        record["stages"]["widths"]["verdict"] == "crash" and "status -6" in record["stages"]["widths"]["says"]
    )


RECORDS = [
    {"model": "a:one", "seconds": 1, "stages": {"read": {"verdict": "yes", "says": ""}, "widths": {"verdict": "refused", "says": "layer 'x.y' at model.py:17 has 24 heads"}}},
    {"model": "a:two", "seconds": 1, "stages": {"read": {"verdict": "yes", "says": ""}, "widths": {"verdict": "refused", "says": "layer 'z' at other.py:3 has 7 heads"}}},
    {"model": "b:three", "seconds": 1, "stages": {"read": {"verdict": "crash", "says": "KeyError: 3 [trace.py:4]"}}},
    {"model": "b:four", "seconds": 1, "stages": {stage: {"verdict": "yes", "says": ""} for stage in stages.STAGES}},
]  # fmt: skip


def test_failures_of_one_kind_are_counted_together() -> None:
    kinds = table.kinds(RECORDS)
    assert [(stage, len(models)) for stage, _, _, models in kinds] == [("read", 1), ("widths", 2)]
    assert "3/4" in table.summary(RECORDS) and "1/3" in table.summary(RECORDS)


def test_the_page_names_every_model_and_reason() -> None:
    page = table.page(RECORDS, {"torch": "9.9"})
    assert all(f"{name}" in page for name in ("one", "two", "three", "four", "torch 9.9", "24 heads"))
    assert "Widened, 1 of 2: four." in page and "| read | 2/2 | 1/2 | 3/4 |" in page


def test_what_runs_again(tmp_path: Path) -> None:
    wanted = [zoos._wanted(record, again) for record in (None, *RECORDS) for again in (False, True)]
    assert wanted == [True, True, False, True, False, True, False, True, False, False]


def test_the_page_of_the_documentation_is_what_the_table_writes() -> None:
    page = page_named("models-read.md").read_text(encoding="utf-8")
    assert page.startswith(
        "# Networks of other libraries\n\nMade by `python benchmarks/counting/zoos.py --page docs/results/models-read.md` from "
    )
    for what in stages.STAGES.values():
        assert f"| {what} |" in page


def test_every_journal_line_is_plain_json(good: dict[str, Any]) -> None:
    assert json.loads(json.dumps(good)) == good
