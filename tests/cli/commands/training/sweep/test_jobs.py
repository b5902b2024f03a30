"""Waiting for jobs of a scheduler that forgets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from iftplan.cli.commands.training.sweep import jobs


@dataclass
class Job:
    """A job that has ended when it was asked so many times."""

    job_id: str
    asked: float

    def done(self) -> bool:
        self.asked -= 1
        return self.asked < 0


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_LOOK", 0.0)
    monkeypatch.setattr(jobs, "_LOOKS", 2)


def ended() -> tuple[int, int]:
    return 1, 2


def test_a_job_that_is_missing_twice_is_lost_and_others_are_waited_for() -> None:
    lives, lost, told = Job("7_0", 12), Job("7_1", float("inf")), list[str]()
    questions = list[list[str]]()

    def queued(names: Sequence[str]) -> set[str]:
        questions.append(list(names))
        return {"7_0"}

    assert jobs.wait_for([lives, lost], ended, told.append, queued) == {"7_1"}
    assert lives.asked < 0
    assert questions[0] == ["7_0", "7_1"] and questions[-1] == ["7_0"]
    assert told == ["1 of 2 runs finished"]


def test_a_job_whose_result_comes_after_it_left_the_queue_has_ended() -> None:
    assert jobs.wait_for([Job("7_0", 3)], ended, print, lambda _: set()) == set()


def test_a_scheduler_that_does_not_answer_says_nothing_of_jobs() -> None:
    assert jobs.wait_for([Job("7_0", 20)], ended, print, lambda _: None) == set()
    assert jobs.wait_for([Job("7_0", 20)], ended, print, None) == set()
