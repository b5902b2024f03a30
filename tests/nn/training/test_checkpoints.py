"""Checkpoints: whole or refused, at every moment, whatever happened to the file."""

import errno
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

from iftplan.base.errors import InputError
from iftplan.nn.training.records import checkpoints
from iftplan.runs.schedules import Updates
from tests.support.runs.checkpoint_states import Bomb, same, silent, state


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    given = state()
    path = checkpoints.write(tmp_path, 100, given)
    assert path == tmp_path / "checkpoint-000000100.pt"
    step, found = checkpoints.newest(tmp_path, silent)
    assert step == 100
    assert same(given, found)
    assert same(given, torch.load(path, weights_only=True)["state"])  # it stays an archive of torch's
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_optimizer_and_a_model_come_back(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    given = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoints.write(tmp_path, 1, given)
    found = checkpoints.newest(tmp_path, silent)
    assert isinstance(given["model"], OrderedDict)
    assert found and same(dict(given["model"]), dict(found[1]["model"]))
    assert same(given["optimizer"], found[1]["optimizer"])


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-best.pt").write_bytes(b"another's")
    assert checkpoints.newest(tmp_path, silent) is None


def test_the_newest_are_kept_and_nothing_else_of_ours(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step\n")
    (tmp_path / ".checkpoint-000000010.pt.tmp").write_bytes(b"a killed run's")
    for step in (10, 20, 30):
        checkpoints.write(tmp_path, step, state(step))
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["checkpoint-000000020.pt", "checkpoint-000000030.pt", "metrics.csv"]


def test_later_ones_go_when_an_earlier_step_is_written_again(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        checkpoints.write(tmp_path, step, state(step), keep=3)
    checkpoints.write(tmp_path, 15, state(15), keep=3)
    assert sorted(p.name[-6:-3] for p in tmp_path.iterdir()) == ["010", "015"]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    checkpoints.write(tmp_path, 10, state(10.0))
    return tmp_path, checkpoints.write(tmp_path, 20, state(20.0))


def refusals(directory: Path) -> str:
    """The messages with which step 20 is refused, having seen that step 10 is used."""
    messages: list[str] = []
    step, found = checkpoints.newest(directory, messages.append)
    assert step == 10
    assert torch.equal(found["weights"]["a"], torch.full((5, 3), 10.0))
    (message,) = messages
    assert "checkpoint-000000020.pt is refused" in message
    assert "step 10 is used instead" in message
    return message


def test_every_truncation_is_refused(pair: tuple[Path, Path]) -> None:
    directory, path = pair
    whole = path.read_bytes()
    for length in (*range(0, len(whole), 37), *range(len(whole) - 100, len(whole))):
        path.write_bytes(whole[:length])
        assert "its checksum is wrong" in refusals(directory)
    path.write_bytes(whole)
    assert checkpoints.newest(directory, silent)[0] == 20


def test_every_flipped_bit_is_refused(pair: tuple[Path, Path]) -> None:
    directory, path = pair
    whole = path.read_bytes()
    for place in (*range(0, len(whole), 41), *range(len(whole) - 100, len(whole))):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        assert "checksum" in refusals(directory)


def test_bytes_added_or_zeroed_are_refused(pair: tuple[Path, Path]) -> None:
    directory, path = pair
    whole = path.read_bytes()
    for content in (whole + b"\0", bytes(len(whole)), whole[:-71] + whole[:71], whole + whole):
        path.write_bytes(content)
        assert "checksum" in refusals(directory)


def test_a_checkpoint_under_another_step_s_name_is_refused(pair: tuple[Path, Path]) -> None:
    directory, path = pair
    shutil.copy(directory / "checkpoint-000000010.pt", path)
    assert "of step 10 where its name says" in refusals(directory)


def test_an_archive_of_something_else_is_refused(pair: tuple[Path, Path]) -> None:
    directory, path = pair
    with path.open("w+b") as file:
        torch.save({"weights": torch.ones(1)}, file)
        checkpoints._seal(file)
    assert "not a checkpoint of iftplan" in refusals(directory)


def test_a_pickle_bomb_with_a_right_checksum_is_refused_unexploded(pair: tuple[Path, Path]) -> None:
    directory, path = pair
    crater = directory / "crater"
    with path.open("w+b") as file:
        torch.save({"schema": checkpoints.SCHEMA, "step": 20, "state": {"x": Bomb(str(crater))}}, file)
        checkpoints._seal(file)
    assert "cannot be loaded" in refusals(directory)
    assert not crater.exists()
    with pytest.raises(
        FileExistsError
    ):  # the bomb is one: armed loading sets it off, here once for each call
        for _ in range(2):
            torch.load(path, weights_only=False)
    assert crater.exists()


def test_a_bare_pickle_is_refused(pair: tuple[Path, Path]) -> None:
    directory, path = pair
    path.write_bytes(pickle.dumps({"schema": checkpoints.SCHEMA, "step": 20, "state": {}}))
    refusals(directory)


def test_no_whole_checkpoint_is_an_error_that_names_all(pair: tuple[Path, Path]) -> None:
    directory, path = pair
    for name in (path, directory / "checkpoint-000000010.pt"):
        name.write_bytes(b"")
    with pytest.raises(
        InputError, match=r"000000020\.pt is refused.*000000010\.pt is refused.*No checkpoint in"
    ):
        checkpoints.newest(directory, silent)


@pytest.mark.parametrize(
    ("bad", "where"),
    [
        ({"a": {"b": [1, Updates(end=10)]}}, r"state\['a'\]\['b'\]\[1\] is a Updates"),
        ({"loss": torch.ones(1).numpy()[0]}, r"state\['loss'\] is a float32"),
        ({Path("x"): 1}, "a key of state is a"),
        ({"s": {1, 2}}, r"state\['s'\] is a set"),
    ],
)
def test_what_could_not_be_loaded_again_is_not_written(
    tmp_path: Path, bad: dict[Any, Any], where: str
) -> None:
    with pytest.raises(TypeError, match=where):
        checkpoints.write(tmp_path, 1, bad)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written .No such file or directory."):
        checkpoints.write(tmp_path / "no", 1, state())


def test_a_full_disk_leaves_the_previous_ones_and_says_so(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the same failure of the same call."""
    checkpoints.write(tmp_path, 10, state(10.0))
    code = f"""
        import resource, torch
        from pathlib import Path
        from iftplan.base.errors import InputError
        from iftplan.nn.training.records import checkpoints
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            checkpoints.write(Path({str(tmp_path)!r}), 20, {{"x": torch.ones(100_000)}})
        except InputError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=120
    )
    assert "checkpoint-000000020.pt cannot be written (File too large)" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-000000010.pt"]
    assert checkpoints.newest(tmp_path, silent)[0] == 10


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


@pytest.mark.parametrize("fatal", range(6))
def test_a_kill_before_any_change_to_the_disk_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fatal: int
) -> None:
    """The process ends before its n-th call that changes the folder or a file; whatever it did before stands."""
    for step in (10, 20):
        checkpoints.write(tmp_path, step, state(step))
    done: list[str] = []

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if len(done) == fatal:
                raise Killed
            done.append(call.__name__)
            return call(*args, **kwargs)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dying(os.fsync))
        for name in ("open", "replace", "unlink"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        with pytest.raises(Killed) if fatal < 5 else nullcontext():
            checkpoints.write(tmp_path, 30, state(30))
    assert done == ["open", "fsync", "replace", "fsync", "unlink"][:fatal]
    step, found = checkpoints.newest(tmp_path, silent)
    assert step == (30 if "replace" in done else 20)
    assert torch.equal(found["weights"]["a"], torch.full((5, 3), float(step)))
    checkpoints.write(tmp_path, 40, state(40))
    assert not list(tmp_path.glob(".*"))
    assert len(list(tmp_path.iterdir())) == 2


def write_for_ever(directory: Path, first: int) -> None:
    for step in range(first, sys.maxsize):
        checkpoints.write(directory, step, state(step) | {"large": torch.full((30_000,), float(step))})


def test_processes_killed_at_random_moments_leave_whole_checkpoints(tmp_path: Path) -> None:
    """At least 25 of them; more where a busy machine lets them write little before they are killed."""
    random, before, halves = Random(0), 0, 0
    for kill in range(500):
        if kill >= 25 and before > 25 and halves > 5:
            break
        process = get_context("fork").Process(target=write_for_ever, args=(tmp_path, before + 1))
        process.start()
        time.sleep(random.uniform(0.01, 0.08) * (1 + kill // 25))
        process.kill()
        process.join()
        halves += len(list(tmp_path.glob(".checkpoint-*")))
        last = checkpoints.newest(tmp_path, silent)
        if last:
            assert last[0] >= before
            assert same(last[1] | state(last[0]), last[1])
            before = last[0]
    assert before > 25
    assert halves > 5  # some were killed in the middle of a file


def test_errno_is_spoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoints.write(tmp_path, 10, state())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"No space left on device.*are untouched"):
        checkpoints.write(tmp_path, 20, state())
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-000000010.pt"]


# --- what a right checksum does not say ------------------------------------------------------------------------


def written_by_a_run() -> dict[str, Any]:
    from iftplan.nn.training.records.metrics import COLUMNS

    return {
        "identity": {"plan": "a", "run": "b"},
        "processes": 1,
        "model": {"w": torch.zeros(2)},
        "optimizer": {},
        "scaler": {},
        "masks": None,
        "spending": {},
        "metrics": [dict.fromkeys(COLUMNS, "0")],
        "step": 100,
        "average": None,
        "loss_sums": [0.5, None],
        "loss_count": 3,
    }


def test_the_state_that_a_run_writes_is_taken() -> None:
    from iftplan.nn.training.records.state_check import check_state

    check_state(written_by_a_run(), 100, "it")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("identity", None, "identity in its state is a NoneType"),
        ("identity", {}, "identity in its state is a value that iftplan train never writes"),
        (
            "identity",
            {"plan": 1, "run": "b"},
            "identity in its state is a value that iftplan train never writes",
        ),
        ("model", {"w": 1}, "model in its state is a value that iftplan train never writes"),
        ("metrics", [{"step": "1"}], "metrics in its state is a value that iftplan train never writes"),
        ("metrics", [7], "metrics in its state is a value that iftplan train never writes"),
        ("step", 7, "its state is of step 7, but its name says 100"),
        ("step", True, "step in its state is a bool"),
        ("processes", 0, "processes in its state"),
        ("loss_count", -1, "loss_count in its state"),
        ("loss_sums", ["x"], "loss_sums in its state"),
        ("spending", "gone", "spending in its state is a str"),
    ],
)
def test_a_wrong_state_is_refused_by_the_part_that_is_wrong(key: str, value: Any, says: str) -> None:
    from iftplan.nn.training.records.state_check import check_state

    with pytest.raises(InputError, match=says):
        check_state({**written_by_a_run(), key: value}, 100, "the checkpoint")
    missing = written_by_a_run()
    del missing[key]
    with pytest.raises(InputError, match=f"its state has no {key}"):
        check_state(missing, 100, "the checkpoint")


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("y"), IndexError("z"), RuntimeError("shape")])
def test_what_goes_wrong_inside_of_a_part_refuses_the_checkpoint(error: Any) -> None:
    from iftplan.nn.training.records.state_check import loading

    with (
        pytest.raises(InputError, match="the checkpoint is refused: its state does not fit the run"),
        loading("the checkpoint"),
    ):
        raise error
