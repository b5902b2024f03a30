"""`iftplan plan --devices`: what each device holds and sends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli_runs import Run, many

PLAN = "plan zoo:gpt-char --sparsity 0.75"
COMMANDS = {
    "fits": f"{PLAN} --devices 8 --tensor-parallel 2 --batch 8 --memory 1G",
    "does not fit": f"{PLAN} --devices 8 --memory 1M",
    "no devices": f"{PLAN} --memory 80G",
    "odd": f"{PLAN} --devices 6 --tensor-parallel 4",
    "odd batch": f"{PLAN} --devices 8 --batch 12",
    "no size": f"{PLAN} --devices 8 --memory lots",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder: Path = tmp_path_factory.mktemp("devices")
    done = many([words.split() for words in COMMANDS.values()], folder)
    return dict(zip(COMMANDS, done, strict=True))


def test_the_table_ends_in_a_verdict(runs: dict[str, Run]) -> None:
    for name in ("fits", "does not fit"):
        run = runs[name]
        assert run.code == 0, run.err
        assert "memory of each device" in run.out
        assert "sent by each device" in run.out
        assert f"\n{name}" in run.out
        assert "not counted: biases and norms" in run.out
    assert "8 devices: 1 replica(s) × 4 parts × 2 tensor-parallel, 2 sample(s)" in runs["fits"].out


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no devices", "Add --devices with their number"),
        ("odd", "use a multiple of 4 devices"),
        ("odd batch", "use a multiple of 8"),
        ("no size", "is not a size; write it as 80G"),
    ],
)
def test_what_cannot_be_is_refused(runs: dict[str, Run], name: str, says: str) -> None:
    assert runs[name].code == 2
    assert says in runs[name].err
