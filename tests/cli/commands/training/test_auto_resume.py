"""`iftplan train --auto-resume`, and what is said where another process does not answer."""

import json
from pathlib import Path
from types import SimpleNamespace as Record
from typing import Any

import pytest

from iftplan.base.errors import UnreachableError
from iftplan.cli.commands.training.train.run import watched
from iftplan.cli.output import Interrupted
from iftplan.nn.training.parallel.links import watched_links
from tests.support.cli_runs import iftplan

SHORT = ("--set", "training.batch_size=32", "--set", "training.checkpoint_interval=4", "--steps", "8")


def test_one_command_begins_a_run_and_continues_it(tmp_path: Path) -> None:
    """Without its last checkpoint and its result, a run is one that was stopped."""
    words = ("train", *SHORT, "--auto-resume", "--out", str(tmp_path / "run"))
    assert iftplan(*words, cwd=tmp_path).code == 0
    whole = (tmp_path / "run" / "result.json").read_bytes()
    (tmp_path / "run" / "result.json").unlink()
    stopped = [path for path in (tmp_path / "run").iterdir() if "8" in path.name and path.suffix == ".pt"]
    assert stopped
    for path in stopped:
        path.unlink()
    again = iftplan(*words, cwd=tmp_path)
    assert again.code == 0
    assert (tmp_path / "run" / "result.json").read_bytes() == whole
    assert json.loads(whole)["steps"] == 8


def test_it_continues_no_other_run(tmp_path: Path) -> None:
    words = ("train", *SHORT, "--auto-resume", "--out", str(tmp_path / "run"))
    assert iftplan(*words, cwd=tmp_path).code == 0
    other = iftplan(*words, "--seed", "5", cwd=tmp_path)
    assert other.code == 2
    assert "Resume it with the settings that it was started with" in other.err
    nowhere = iftplan("train", *SHORT, "--auto-resume", cwd=tmp_path)
    assert nowhere.code == 2
    assert "--auto-resume needs the directory of the run" in nowhere.err


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            "[/somewhere/gloo/transport/tcp/pair.cc:537] Read error [10.9.0.2]:19688: Connection reset by peer. This is typically caused by …",
            "Read error [10.9.0.2]:19688: Connection reset by peer.",
        ),
        (
            "[/somewhere/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 10000ms for recv operation to complete",
            "Timed out waiting 10000ms for recv operation to complete.",
        ),
    ],
)
def test_silence_is_told_in_words(said: str, kept: str) -> None:
    with pytest.raises(UnreachableError, match="did not answer within 10 seconds") as told, watched_links(10):
        raise RuntimeError(said)
    assert f": {kept} Its own message" in str(told.value)
    assert "/somewhere" not in str(told.value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), watched_links(10):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("rank", "told"),
    [
        (0, "stopped at step 3 of 9; continue with: iftplan train --resume --out runs/two"),
        (1, "process 1 stopped at step 3 of 9"),
    ],
)
def test_one_process_of_those_that_are_interrupted_says_how_to_go_on(rank: int, told: str) -> None:
    fabric = Record(is_global_zero=rank == 0, global_rank=rank)
    loop: Any = Record(fabric=fabric, step=3, length=Record(steps=9), task=Record(metric="accuracy"))
    with pytest.raises(Interrupted) as caught, watched(loop, Path("runs/two")):
        raise KeyboardInterrupt
    assert str(caught.value) == told
