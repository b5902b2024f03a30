"""Runs that are stopped anywhere end as if they had not been: checkpoints of Orbax hold all that masks need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="JAX, of the extra jax, is not installed")
pytest.importorskip("orbax.checkpoint", reason="Orbax, which Flax brings, is not installed")

import orbax.checkpoint as ocp

from tests.support.places import ROOT
from tests.support.processes.jax_loop import ALGORITHMS, batch, begun, digest, stepping

STEPS = 24


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_goes_on_from_its_middle_to_the_bit(algorithm: str, tmp_path: Path) -> None:
    optimizer, params, state = begun(algorithm)
    step = stepping(optimizer)
    checkpointer = ocp.StandardCheckpointer()
    for number in range(STEPS):
        if number == STEPS // 2:
            checkpointer.save(tmp_path / "middle", {"params": params, "state": state})
        params, state = step(params, state, *batch(number))
    checkpointer.wait_until_finished()
    _, fresh, empty = begun(algorithm)
    found = checkpointer.restore(tmp_path / "middle", {"params": fresh, "state": empty})
    again, resumed = found["params"], found["state"]
    assert int(resumed.steps) == STEPS // 2
    for number in range(STEPS // 2, STEPS):
        again, resumed = step(again, resumed, *batch(number))
    assert int(resumed.changes) == int(state.changes) > 4
    assert digest((again, resumed)) == digest((params, state))


def _run(folder: Path, algorithm: str, killed: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.processes.jax_loop",
            "stopped",
            str(folder),
            algorithm,
            str(STEPS),
            str(killed),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


@pytest.mark.slow
def test_a_run_that_is_killed_at_ten_points_ends_as_one_that_is_not(tmp_path: Path) -> None:
    whole = _run(tmp_path / "whole", "rigl", -1)
    assert whole.returncode == 0, whole.stderr
    for killed in (0, 2, 3, 4, 9, 11, 12, 17, 18, 22):
        done = _run(tmp_path / "killed", "rigl", killed)
        assert done.returncode == -signal.SIGKILL, done.stderr
    done = _run(tmp_path / "killed", "rigl", -1)
    assert done.returncode == 0, done.stderr
    assert done.stdout == whole.stdout
    assert done.stdout.startswith(f"{STEPS} ")
