"""Training on two hosts that are network namespaces: a worker is killed, a host is cut off, dies and comes back."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes.hosts.namespaces import no_namespaces
from tests.support.processes.launches import environment

SETTINGS = (
    *(
        "--set",
        "training.batch_size=32",
        "--set",
        "training.threads=1",
        "--set",
        "training.precision=32-true",
    ),
    *("--set", "training.timeout=10", "--set", "method.interval=7"),
)
PATIENCE = 900

pytestmark = [pytest.mark.slow, pytest.mark.long]


def on_two_hosts(kind: str, folder: Path, *options: str) -> dict[str, Any]:
    """What came of the scenario, and what the hosts said."""
    if said := no_namespaces():
        pytest.skip(said)
    program = (sys.executable, "-m", "tests.support.processes.hosts.elastic_hosts", kind, str(folder))
    done = subprocess.run(
        ["unshare", "--net", "--mount", *program, *SETTINGS, *options],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = "".join(path.read_text() for path in sorted(folder.glob("host*")))
    return {**json.loads(done.stdout), "said": said}


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def test_a_killed_worker_changes_nothing(tmp_path: Path) -> None:
    """The hosts go on from the last checkpoint, to the result of a run that nothing happened to."""
    length = (
        "--steps",
        "120",
        "--set",
        "training.checkpoint_interval=10",
        "--set",
        "training.eval_interval=10",
    )
    found = on_two_hosts("killed", tmp_path, *length)
    assert found["codes"] == [0, 0], found["said"]
    assert "another process of this run ended or did not answer" in found["said"]
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "iftplan")
    undisturbed = ("train", "--out", "undisturbed", *SETTINGS, *length)
    subprocess.run([sys.executable, *launch, *undisturbed], cwd=tmp_path, env=environment(), check=True)
    for name in ("result.json", "metrics.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


@pytest.mark.skipif(
    os.environ.get("IFTPLAN_MATRIX") != "whole", reason="minutes: IFTPLAN_MATRIX=whole runs it"
)
def test_a_host_that_dies_is_done_without_and_taken_back(tmp_path: Path) -> None:
    """What is said where the number of processes changes, and that counts and costs stay what they were."""
    length = (
        "--steps",
        "3000",
        "--set",
        "training.checkpoint_interval=20",
        "--set",
        "training.eval_interval=20",
    )
    found = on_two_hosts("cut", tmp_path, *length)
    assert found["codes"] == [0, 0], found["said"]
    for change in ("used 2 process(es) and continues on 1", "used 1 process(es) and continues on 2"):
        assert change in found["said"]
    assert "did not answer within 10 seconds" in found["said"]
    assert result(tmp_path / "out")["steps"] == 3000
    lines = (tmp_path / "out" / "metrics.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[0]) for line in lines] == list(range(20, 3001, 20))
