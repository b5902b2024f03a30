"""`iftplan sweep` on hosts that share a database and an object store, no disk; and its workers as jobs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from signal import SIGKILL
from subprocess import Popen, run

import optuna
import pytest
from optuna.trial import TrialState

from iftplan.runs.sweeps.queue import storage_at
from iftplan.runs.sweeps.targets import RunTarget
from tests.support.cli_runs import Run, many
from tests.support.processes import databases, launches, stores
from tests.support.processes.hosts import slurm
from tests.support.processes.hosts.namespaces import no_namespaces
from tests.support.processes.twelve_trials import SWEEP, TRIALS, results, rows

PATIENCE = 900.0
REFUSED = {
    "--job slurm_partition=gpu": "--job needs --submit",
    "--submit local --job partition": "--job 'partition' is not KEY=VALUE",
    "--out memory://runs": "--out memory://runs needs --storage URL",
    "--out nothing://at/all --storage sqlite:///s.db": "--out nothing://at/all cannot be opened",
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("refused")
    asked = "sweep zoo:digits-cnn --transforms wide --sparsities 0.5 --train --steps 1"
    return dict(zip(REFUSED, many([f"{asked} {more}".split() for more in REFUSED], folder), strict=True))


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_be_is_said(refused: dict[str, Run], options: str) -> None:
    assert refused[options].code == 2
    assert REFUSED[options] in refused[options].message


@pytest.mark.slow
def test_workers_are_jobs(tmp_path: Path) -> None:
    if find_spec("submitit") is None:
        pytest.skip("not installed: submitit")
    words = "sweep zoo:digits-cnn --transforms wide --sparsities 0.5,0.75 --train --steps 2 --format csv"
    jobs = "--submit local --workers 2 --job timeout_min=30"
    (done,) = many([f"{words} {jobs}".split()], tmp_path)
    assert done.code == 0, done.err
    assert "submitted 2 jobs" in done.err
    assert [row["outcome"] for row in rows(done.out)] == ["trained", "trained"]
    logs = [path.read_text() for path in (tmp_path / "sweeps" / ".jobs").glob("*.err")]
    assert len(logs) == 2 and sum(log.count("accuracy") for log in logs) == 2


@pytest.mark.slow
def test_jobs_of_slurm_finish_what_one_that_was_cancelled_left(tmp_path: Path) -> None:
    """A node on each of two hosts, which are network namespaces; the cluster keeps no accounts.

    A cancelled job has a second before it is killed. Ten trials are left then, of which it cannot train five in that time.
    """
    submitit = "" if find_spec("submitit") else "not installed: submitit"
    if found := slurm.missing() or submitit or no_namespaces():
        pytest.skip(found)
    place = [
        "--out",
        "runs",
        "--format",
        "csv",
        "--submit",
        "slurm",
        "--workers",
        "2",
        "--job",
        "timeout_min=30",
    ]
    longer = (*SWEEP, "--steps", "40")
    program = [sys.executable, "-m", "tests.support.processes.hosts.slurm", str(tmp_path), *longer, *place]
    hosts = ("unshare", "--net", "--mount", *program)
    done = run(hosts, env=launches.environment(), cwd=tmp_path, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    report = json.loads(done.stdout)
    assert report["code"] == 0, report["err"]
    assert f"job {report['cancelled']} left the queue without a result" in report["err"]
    assert [row["outcome"] for row in rows(report["out"])] == ["trained"] * TRIALS
    alone = started((*longer, "--out", "runs"), tmp_path / "alone", launches.environment())
    assert alone.wait(PATIENCE) == 0
    assert results(tmp_path / "runs") == results(tmp_path / "alone" / "runs")


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    if said := databases.missing() or stores.missing():
        pytest.skip(said)
    with stores.s3() as found:
        yield {**launches.environment(), **found}


@pytest.mark.slow
def test_two_hosts_without_a_common_disk_finish_what_one_would(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is killed and its host does not come back; the server crashes and is started again."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with databases.postgresql() as server:
        words = (*SWEEP, "--out", f"s3://{stores.BUCKET}/sweep", "--storage", server.url, "--format", "csv")
        hosts = [started(words, tmp_path / name, environment) for name in ("one", "two")]
        target = RunTarget(f"s3://{stores.BUCKET}/sweep")

        def finished() -> list[str]:
            found = target._files.find(target._root) if target._files.exists(target._root) else []
            return sorted(path.split("/")[-2] for path in found if path.endswith("/result.json"))

        until(lambda: len(finished()) >= 2)
        hosts[0].send_signal(SIGKILL)
        assert hosts[0].wait() == -SIGKILL
        until(lambda: len(finished()) >= 5)
        server.stop()
        time.sleep(2)
        server.start()
        assert hosts[1].wait(PATIENCE) == 0, (tmp_path / "two" / "stderr").read_text()
        storage = storage_at(server.url)
        (name,) = optuna.get_all_study_names(storage)
        trials = optuna.load_study(study_name=name, storage=storage).trials
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * TRIALS
        found = {name: target.result(name) for name in finished()}
    assert len(found) == TRIALS
    alone = started((*SWEEP, "--out", "runs"), tmp_path / "alone", environment)
    assert alone.wait(PATIENCE) == 0
    assert found == {name: json.loads(text) for name, text in results(tmp_path / "alone" / "runs").items()}
    table = rows((tmp_path / "two" / "stdout").read_text())
    assert {row["outcome"] for row in table} == {"trained"} and len(table) == TRIALS
    assert not list((tmp_path / "two").glob("sweeps*")), "runs were left on a host"


@pytest.mark.slow
def test_a_host_that_is_cut_off_for_a_minute_loses_no_trial_and_trains_none_twice(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Hosts are network namespaces; while one is cut off, the database crashes and comes back."""
    if said := no_namespaces():
        pytest.skip(said)
    program = [sys.executable, "-m", "tests.support.processes.hosts.two_hosts", str(tmp_path), *SWEEP]
    hosts = ("unshare", "--net", "--mount", *program)
    done = run(hosts, env=environment, cwd=tmp_path, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    found = json.loads(done.stdout)
    said = (tmp_path / "host1").read_text() + (tmp_path / "host2").read_text()
    assert found["codes"] == [0, 0], said
    assert found["states"] == ["COMPLETE"] * TRIALS
    alone = started((*SWEEP, "--out", "runs"), tmp_path / "alone", environment)
    assert alone.wait(PATIENCE) == 0
    single = {name: json.loads(text) for name, text in results(tmp_path / "alone" / "runs").items()}
    assert found["results"] == single and len(single) == TRIALS


def started(words: tuple[str, ...], folder: Path, environment: dict[str, str]) -> Popen[bytes]:
    folder.mkdir()
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
        return Popen(
            [sys.executable, "-m", "iftplan", *words], cwd=folder, env=environment, stdout=out, stderr=err
        )


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "the sweep does not go on"
        time.sleep(0.05)
