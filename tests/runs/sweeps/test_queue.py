"""The queue of a sweep: killed at any moment, half-written, or shared, it gives every trial once."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from random import Random
from signal import SIGKILL

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from iftplan.base.errors import InputError
from iftplan.runs.sweeps.queue import TrialQueue, storage_at
from tests.support.processes.workers import NAMES, ended, forked, train_all


def grid(directory: Path) -> TrialQueue:
    return TrialQueue(storage_at(str(directory / "journal.log")), "grid", directory)


def search(directory: Path, limit: int) -> TrialQueue:
    def ask(study: optuna.Study) -> optuna.Trial:
        return study.ask({"x": FloatDistribution(0, 1)})

    def named(trial: FrozenTrial) -> str:
        return f"at-{trial.params['x']}" if trial.params else ""

    storage = storage_at(str(directory / "journal.log"))
    return TrialQueue(storage, "search", directory, limit=limit, ask=ask, named=named)


def study_in(directory: Path, name: str = "grid") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=storage_at(str(directory / "journal.log")))


def test_workers_at_once_train_every_trial_once(tmp_path: Path) -> None:
    grid(tmp_path).add(NAMES)
    pids = [forked(lambda: train_all(lambda: grid(tmp_path), 0.002)) for _ in range(4)]
    assert ended(pids) == [0] * 4
    states = [trial.state for trial in study_in(tmp_path).trials]
    assert states == [TrialState.COMPLETE] * len(NAMES)
    assert sorted(p.stem for p in tmp_path.glob("trial-*.json")) == sorted(NAMES)


@pytest.mark.parametrize("kind", ["grid", "search"])
def test_killed_again_and_again_none_is_lost_and_none_made_twice(tmp_path: Path, kind: str) -> None:
    random = Random(0)

    def open_queue() -> TrialQueue:
        return grid(tmp_path) if kind == "grid" else search(tmp_path, len(NAMES))

    if kind == "grid":
        grid(tmp_path).add(NAMES)
    for _ in range(12):
        pids = [forked(lambda: train_all(open_queue, 0.01)) for _ in range(2)]
        time.sleep(random.uniform(0.0, 0.06))
        for pid in pids:
            os.kill(pid, SIGKILL)
        assert set(ended(pids)) <= {-SIGKILL, 0}, "a worker found a trial that was trained before"
    assert ended([forked(lambda: train_all(open_queue, 0.001))]) == [0]
    complete = [t for t in study_in(tmp_path, kind).trials if t.state is TrialState.COMPLETE]
    assert len(complete) == len(NAMES)
    assert len(list(tmp_path.glob("*.json"))) == len(NAMES)


def test_a_trial_of_a_living_worker_is_left_to_it(tmp_path: Path) -> None:
    queue, other = grid(tmp_path), grid(tmp_path)
    queue.add(["one"])
    claim = queue.claim()
    assert claim is not None and claim.name == "one"
    assert other.claim() is None
    assert other.left() == ["one"]
    queue.finish(claim, (0.5, 1.0))
    assert other.claim() is None
    assert other.left() == []


def test_a_trial_is_continued_by_another_when_its_worker_is_gone(tmp_path: Path) -> None:
    queue = grid(tmp_path)
    queue.add(["one"])

    def hold() -> None:
        claim = grid(tmp_path).claim()
        time.sleep(60 if claim else 0)

    pid = forked(hold)
    while not study_in(tmp_path).get_trials(states=(TrialState.RUNNING,)):
        time.sleep(0.01)
    assert queue.claim() is None
    os.kill(pid, SIGKILL)
    ended([pid])
    claim = queue.claim()
    assert claim is not None and claim.name == "one"


def test_a_half_written_line_is_cut_off_and_not_joined_to_the_next(tmp_path: Path) -> None:
    grid(tmp_path).add(["one"])
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"worker')
    queue = grid(tmp_path)
    queue.add(["one", "two"])
    assert sorted(queue.left()) == ["one", "two"]
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_a_search_killed_while_asking_asks_again(tmp_path: Path) -> None:
    queue = search(tmp_path, 2)
    study_in(tmp_path, "search").ask()  # begun, and killed before it had a setting
    claims = [queue.claim(), queue.claim()]
    assert all(claim is not None and claim.params for claim in claims)
    assert queue.claim() is None
    assert len(queue.names()) == 2


def test_what_failed_says_why_and_is_tried_again_on_request(tmp_path: Path) -> None:
    queue = grid(tmp_path)
    queue.add(["one", "two"])
    claim = queue.claim()
    assert claim is not None
    queue.fail(claim, "it diverged")
    assert queue.reasons() == {"one": "it diverged"}
    queue.add(["one", "two"])
    assert queue.left() == ["two"]
    queue.add(["one", "two"], again=True)
    assert sorted(queue.left()) == ["one", "two"]
    assert queue.reasons() == {}


def test_what_is_finished_on_record_and_has_no_result_is_asked_for_again(tmp_path: Path) -> None:
    queue = grid(tmp_path)
    queue.add(["one", "two"])
    while claim := queue.claim():
        queue.finish(claim, (0.0, 1.0))
    queue.add(["one", "two"], has_result=lambda name: True)
    assert queue.left() == []
    queue.add(["one", "two"], has_result=lambda name: name == "two")
    assert queue.left() == ["one"]
    assert queue.ended() == (1, 2)


def test_a_place_that_is_none_is_an_error_of_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (str(tmp_path / "file/journal.log"), "nothing://at-all"):
        with pytest.raises(InputError, match="cannot be opened"):
            storage_at(place)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"\0\0\0\0", "line 2 is not an entry of a journal"),
        (b"[1]", "line 2 is not an entry of a journal"),
        (b'{"op_code": 1e999, "worker_id": "a"}', "line 2 is not an entry of a journal"),
        (b'{"worker_id": "a"}', "line 2 is not an entry of a journal"),
        (b"\xff\xfe{}", "line 2 is not an entry of a journal"),
        (b'{"op_code": 99, "worker_id": "a"}', "the record of the trials, .*journal.log, cannot be read"),
    ],
)
def test_a_whole_line_that_nobody_wrote_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    grid(tmp_path).add(NAMES[:2])
    journal = tmp_path / "journal.log"
    first, *rest = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join((first, line + b"\n", *rest)))
    with pytest.raises(InputError, match=says):
        grid(tmp_path)


def test_a_search_that_asks_for_the_same_settings_twice_has_no_more_trials(tmp_path: Path) -> None:
    def named(trial: FrozenTrial) -> str:
        return "the same" if trial.params else ""

    def ask(study: optuna.Study) -> optuna.Trial:
        return study.ask({"x": FloatDistribution(0, 1)})

    storage = storage_at(str(tmp_path / "journal.log"))
    queue = TrialQueue(storage, "search", tmp_path, limit=3, ask=ask, named=named)
    for done in range(3):
        claim = queue.claim()
        assert claim is not None
        queue.finish(claim, (0.0, 1.0))
        assert queue.ended() == (done + 1, 3)
    assert queue.claim() is None
