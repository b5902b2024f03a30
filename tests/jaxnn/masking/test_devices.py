"""Masks do not depend on how many devices train them, nor on how weights and batches are spread over these."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("jax", reason="JAX, of the extra jax, is not installed")
pytest.importorskip("orbax.checkpoint", reason="Orbax, which Flax brings, is not installed")

from tests.support.places import ROOT


def ended(algorithm: str, layout: str, devices: int) -> list[str]:
    """What a process prints: devices, changes of masks, digests of masks and of weights."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.processes.jax_loop", "spread", algorithm, layout, "20"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("algorithm", ["rigl", "set", "gradual", "srste"])
def test_two_devices_train_the_masks_of_one(algorithm: str) -> None:
    one = ended(algorithm, "whole", 1)
    for layout in ("weights", "batch"):
        two = ended(algorithm, layout, 2)
        assert (one[0], two[0]) == ("1", "2")
        assert int(one[1]) > 4
        assert one[1:3] == two[1:3], layout
