"""Leases in a database: a worker that vanished gives its trial back, and one that was only slow notices."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from threading import Timer

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from iftplan.base.errors import MeasureError
from iftplan.runs.sweeps import outages
from iftplan.runs.sweeps.leases import LostError
from iftplan.runs.sweeps.queue import TrialQueue, leases_at, storage_at
from tests.support.processes.databases import Server, missing, postgresql
from tests.support.processes.workers import NAMES, ended, forked, train_all

SECONDS = 2.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if said := missing():
        pytest.skip(said)
    with postgresql() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sweep.db"
    found: Server = request.getfixturevalue("server")
    return emptied(found.url)


def emptied(url: str) -> str:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("drop schema public cascade"))
        connection.execute(sqlalchemy.text("create schema public"))
    engine.dispose()
    return url


def opened(url: str, directory: Path) -> TrialQueue:
    leases = leases_at(url, "grid", directory, SECONDS)
    return TrialQueue(storage_at(url), "grid", directory, leases=leases)


def states(url: str) -> list[TrialState]:
    return [trial.state for trial in optuna.load_study(study_name="grid", storage=storage_at(url)).trials]


def until_claimed(queue: TrialQueue) -> float:
    """Seconds until the queue gave its only trial."""
    began = time.monotonic()
    while (claim := queue.claim()) is None:
        assert time.monotonic() - began < 20 * SECONDS
        time.sleep(0.05)
    claim.lease.release()  # whose thread would be in the database while a process is forked
    return time.monotonic() - began


def test_a_trial_whose_worker_vanished_is_given_back_after_its_lease(url: str, tmp_path: Path) -> None:
    queue = opened(url, tmp_path)
    queue.add(["one"])
    told, telling = os.pipe()

    def vanish() -> None:
        assert opened(url, tmp_path).claim() is not None
        os.write(telling, b".")
        time.sleep(60)

    pid = forked(vanish)
    os.read(told, 1)
    assert queue.claim() is None
    time.sleep(1.5 * SECONDS)
    assert queue.claim() is None, "a lease that is renewed was given away"
    os.kill(pid, SIGKILL)
    ended([pid])
    assert SECONDS / 3 < until_claimed(queue) < 2 * SECONDS


def test_a_worker_that_was_only_slow_notices_that_another_has_its_trial(url: str, tmp_path: Path) -> None:
    queue = opened(url, tmp_path)
    queue.add(["one"])
    told, telling = os.pipe()

    def pause() -> None:
        slow = opened(url, tmp_path)
        claim = slow.claim()
        assert claim is not None
        os.write(telling, b".")
        time.sleep(0.5 * SECONDS)  # stopped in here
        assert not claim.lease.kept()
        with pytest.raises(LostError, match="another one continues"):
            slow.finish(claim, (9.0, 9.0))
        with pytest.raises(LostError):
            slow.fail(claim, "it was not me")

    pid = forked(pause)
    os.read(told, 1)
    os.kill(pid, SIGSTOP)
    assert until_claimed(queue) < 2 * SECONDS
    os.kill(pid, SIGCONT)
    assert ended([pid]) == [0]
    assert states(url) == [TrialState.RUNNING]
    assert queue.reasons() == {}


def test_a_lease_that_ran_out_and_that_nobody_took_is_renewed(url: str, tmp_path: Path) -> None:
    queue = opened(url, tmp_path)
    queue.add(["one"])

    def pause() -> None:
        slow = opened(url, tmp_path)
        claim = slow.claim()
        assert claim is not None
        os.kill(os.getpid(), SIGSTOP)
        assert claim.lease.kept()
        slow.finish(claim, (1.0, 2.0))

    pid = forked(pause)
    os.waitpid(pid, os.WUNTRACED)
    time.sleep(1.5 * SECONDS)
    os.kill(pid, SIGCONT)
    assert ended([pid]) == [0]
    assert states(url) == [TrialState.COMPLETE]


def test_workers_at_once_train_every_trial_once(url: str, tmp_path: Path) -> None:
    def work() -> None:
        opened(url, tmp_path).add(NAMES)
        train_all(lambda: opened(url, tmp_path), 0.05)

    assert ended([forked(work) for _ in range(3)]) == [0] * 3
    assert states(url) == [TrialState.COMPLETE] * len(NAMES)
    assert sorted(path.stem for path in tmp_path.glob("trial-*.json")) == sorted(NAMES)


def test_a_server_that_is_restarted_and_breaks_connections_loses_no_trial(
    server: Server, tmp_path: Path
) -> None:
    url = emptied(server.url)
    opened(url, tmp_path).add(NAMES)
    pids = [forked(lambda: train_all(lambda: opened(url, tmp_path), 0.4)) for _ in range(2)]
    for cut in range(3):
        while len(list(tmp_path.glob("trial-*.json"))) < 3 * cut + 2:
            time.sleep(0.02)
        if cut == 1:
            server.disconnect()
            continue
        server.stop()
        time.sleep(0.5)
        server.start()
    assert ended(pids) == [0, 0], "a worker found a trial that was trained before, or gave up"
    assert states(url) == [TrialState.COMPLETE] * len(NAMES)


def test_a_worker_waits_out_an_outage_longer_than_its_lease(server: Server, tmp_path: Path) -> None:
    queue = opened(emptied(server.url), tmp_path)
    queue.add(["one"])
    claim = queue.claim()
    assert claim is not None
    server.stop()
    Timer(2 * SECONDS, server.start).start()
    began = time.monotonic()
    queue.finish(claim, (1.0, 2.0))
    assert time.monotonic() - began > SECONDS
    assert states(server.url) == [TrialState.COMPLETE]


def test_a_server_that_stays_silent_is_an_error_that_says_what_to_do(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "PATIENCE", 1.0)
    queue = opened(emptied(server.url), tmp_path)
    server.stop()
    try:
        with pytest.raises(MeasureError, match=r"has not answered for 1 seconds .* run the same command"):
            queue.left()
    finally:
        server.start()
