"""Run directories at a URL: on a disk, and in an S3-like store of the test's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from iftplan.base.errors import InputError, MeasureError
from iftplan.runs.sweeps.targets import Mirror, RunTarget
from tests.support.processes.stores import BUCKET, missing, s3


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """URL of a bucket in a server on this machine."""
    if said := missing():
        pytest.skip(said)
    with s3() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield f"s3://{BUCKET}"


@pytest.fixture(params=["file", "s3"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> RunTarget:
    if request.param == "file":
        return RunTarget(f"file://{tmp_path}/target")
    return RunTarget(f"{request.getfixturevalue('store')}/{tmp_path.name}")


def mirror(target: RunTarget, host: Path) -> Mirror:
    host.mkdir(exist_ok=True)
    return Mirror(target, host / "run")


def test_another_host_continues_from_what_the_first_one_sent(target: RunTarget, tmp_path: Path) -> None:
    first, second = mirror(target, tmp_path / "one"), mirror(target, tmp_path / "two")
    first.fetch()  # nothing is there yet
    for name in ("run.json", "metrics.csv", "checkpoint-000000001.pt", ".lock"):
        first.directory.mkdir(exist_ok=True)
        (first.directory / name).write_text(name)
    assert first.behind()
    first.send()
    assert not first.behind()
    second.fetch()
    assert sorted(p.name for p in second.directory.iterdir()) == [
        "checkpoint-000000001.pt",
        "metrics.csv",
        "run.json",
    ]
    assert not second.behind()
    (second.directory / "checkpoint-000000001.pt").unlink()
    (second.directory / "checkpoint-000000002.pt").write_text("two")
    (second.directory / "metrics.csv").write_text("more")
    second.send()
    third = mirror(target, tmp_path / "three")
    third.fetch()
    found = {p.name: p.read_text() for p in third.directory.iterdir()}
    assert found == {"checkpoint-000000002.pt": "two", "metrics.csv": "more", "run.json": "run.json"}


def test_the_result_is_sent_last_and_read_back(
    target: RunTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    put = RunTarget.put

    def noting(self: RunTarget, source: Path, path: str) -> None:
        sent.append(path)
        put(self, source, path)

    monkeypatch.setattr(RunTarget, "put", noting)
    first = mirror(target, tmp_path / "one")
    first.directory.mkdir()
    result = {"schema": "iftplan.result/1"}
    for name in ("result.json", "checkpoint-000000001.pt", "metrics.csv", "run.json", "timing.json"):
        (first.directory / name).write_text(json.dumps(result))
    assert target.result("run") is None
    first.send()
    assert sent == [
        "run/timing.json", "run/run.json", "run/metrics.csv", "run/checkpoint-000000001.pt", "run/result.json",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"run/result\.json"):  # read, and found to be none of iftplan's
        target.result("run")


def test_a_cut_off_copy_leaves_no_result(
    target: RunTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = mirror(target, tmp_path / "one")
    first.directory.mkdir()
    (first.directory / "result.json").write_text("{}")

    def broken(*_: Any, **__: Any) -> None:
        raise ConnectionError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(target._files, "mv", broken)
        with pytest.raises(MeasureError, match="cannot be reached"):
            first.send()
    assert target.result("run") is None
    second = mirror(target, tmp_path / "two")
    second.fetch()
    assert not second.directory.exists() or not list(second.directory.iterdir())


@pytest.mark.parametrize("checkpoint", ["checkpoint-000000001.pt", "checkpoint-000000001"])
def test_a_host_that_dies_while_it_copies_leaves_a_run_that_begins_or_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: str
) -> None:
    """After each of its copies; a checkpoint that is a folder is there with all of its files, or not."""
    shards = [f"{checkpoint}/{name}" for name in (".metadata", "__0_0.distcp", "manifest.json", "state.pt")]
    written = ["plan.json", "run.json", "metrics.csv", *([checkpoint] if "." in checkpoint else shards)]
    for copies in range(len(written) + 1):
        target = RunTarget(f"file://{tmp_path}/target{copies}")
        first, second = mirror(target, tmp_path / f"one{copies}"), mirror(target, tmp_path / f"two{copies}")
        for name in written:
            (first.directory / name).parent.mkdir(parents=True, exist_ok=True)
            (first.directory / name).write_text(name)
        left = iter(range(copies))

        def dying(
            self: RunTarget, source: Path, path: str, left: Iterator[int] = left, put: Any = RunTarget.put
        ) -> None:
            if next(left, None) is None:
                raise SystemExit
            put(self, source, path)

        with monkeypatch.context() as patch, suppress(SystemExit):
            patch.setattr(RunTarget, "put", dying)
            first.send()
        second.fetch()
        found = {name for name in written if (second.directory / name).exists()}
        assert found == set(written[:copies] if copies >= 2 else ()) - (
            set(shards) if copies < len(written) else set()
        )


def test_a_checkpoint_that_is_removed_while_a_host_fetches_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = RunTarget(f"file://{tmp_path}/target")
    first, second = mirror(target, tmp_path / "one"), mirror(target, tmp_path / "two")
    first.directory.mkdir()
    for name in ("checkpoint-000000001.pt", "checkpoint-000000002.pt", "metrics.csv", "run.json"):
        (first.directory / name).write_text(name)
    first.send()
    find = target._files.find

    def late(root: str) -> list[str]:
        found: list[str] = find(root)
        target.remove("run/checkpoint-000000001.pt")
        return found

    monkeypatch.setattr(target._files, "find", late)
    second.fetch()
    names = sorted(path.name for path in second.directory.iterdir())
    assert names == ["checkpoint-000000002.pt", "metrics.csv", "run.json"]


def test_a_url_of_no_known_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"--out nothing://at/all cannot be opened"):
        RunTarget("nothing://at/all")
