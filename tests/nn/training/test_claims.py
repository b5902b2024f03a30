"""A run directory belongs to one process at a time; whoever interrupts is told how far it came."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from iftplan.base.errors import InputError
from iftplan.nn.training.records.claims import claim
from tests.support.cli_runs import iftplan

HOLD = """
import sys, time
from pathlib import Path
from iftplan.nn.training.records.claims import claim
with claim(Path(sys.argv[1]), fresh=True):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_held_directory_is_refused_until_its_holder_dies(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(directory)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        for fresh in (True, False):
            with (
                pytest.raises(InputError, match="another process is training in"),
                claim(directory, fresh=fresh),
            ):
                pass
        holder.kill()
    with claim(directory, fresh=True):
        pass


@pytest.mark.parametrize("record", ["run.json", "metrics.csv", "result.json"])
def test_a_directory_that_holds_a_run_is_for_continuing_it(tmp_path: Path, record: str) -> None:
    (tmp_path / record).write_text("")
    with pytest.raises(InputError, match="iftplan train --resume --out"), claim(tmp_path, fresh=True):
        pass
    with claim(tmp_path, fresh=False):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), claim(tmp_path / "file" / "run", fresh=True):
        pass


def begun(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "iftplan", *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def until_there(
    paths: Sequence[Path], count: int, process: subprocess.Popen[bytes], pattern: str = ""
) -> None:
    end = time.monotonic() + 100
    while sum(path.exists() for path in paths) + len(list(paths[0].glob(pattern)) if pattern else ()) < count:
        assert process.poll() is None and time.monotonic() < end, process.stderr and process.stderr.read()
        time.sleep(0.01)


TRAIN = (
    "train",
    "--steps",
    "100000",
    "--set",
    "training.batch_size=8",
    "--set",
    "training.eval_interval=20",
    "--out",
    "d",
)


@pytest.mark.slow
def test_two_runs_in_one_directory_and_an_interruption(tmp_path: Path) -> None:
    first = begun(tmp_path, *TRAIN, "--seed", "0")
    until_there([tmp_path / "d"], 2, first, "checkpoint-*.pt")
    record = (tmp_path / "d/run.json").read_bytes()
    for words in ((*TRAIN, "--seed", "1"), ("train", "--resume", "--out", "d")):
        refused = iftplan(*words, cwd=tmp_path)
        assert refused.code == 2
        assert "d already contains a run" in refused.err or "another process is training in d" in refused.err
        assert len(refused.message.splitlines()) == 1
    os.killpg(first.pid, signal.SIGINT)
    _, err = first.communicate()
    assert first.returncode == 130
    told = err.decode().splitlines()[-1]
    assert re.fullmatch(
        r"iftplan: stopped at step \d+ of 100000; continue with: iftplan train --resume --out d\.", told
    )
    assert b"Traceback" not in err
    assert (tmp_path / "d/run.json").read_bytes() == record


SWEEP = (
    "sweep", "zoo:digits-cnn", "--transforms", "wide,parallel", "--sparsities", "0.5,0.75", "--train", "--methods",
    "static", "--seeds", "0,1,2", "--steps", "60", "--set", "training.batch_size=32", "--out", "out",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupted_sweep_says_how_many_runs_are_finished(tmp_path: Path, workers: str) -> None:
    process = begun(tmp_path, *SWEEP, "--workers", workers)
    (tmp_path / "out").mkdir(exist_ok=True)
    until_there([tmp_path / "out"], 3 + 1, process, "*/result.json")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it, to all of them
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    finished = len(list((tmp_path / "out").glob("*/result.json")))
    told = err.decode().splitlines()[-1]
    match = re.fullmatch(
        r"iftplan: stopped with (\d+) of 12 runs finished; run the same command again to continue\.", told
    )
    assert match and finished - 1 <= int(match[1]) <= finished < 12
    assert b"Traceback" not in err
