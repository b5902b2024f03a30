"""Run directories at a URL: on a disk, and in an S3-like store of the test's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
    for name in ("result.json", "checkpoint-000000001.pt", "run.json", "timing.json"):
        (first.directory / name).write_text(json.dumps(result))
    assert target.result("run") is None
    first.send()
    assert sent == [
        "run/run.json", "run/timing.json", "run/checkpoint-000000001.pt", "run/result.json",
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


def test_a_url_of_no_known_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"--out nothing://at/all cannot be opened"):
        RunTarget("nothing://at/all")
