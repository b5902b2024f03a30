"""Sharded checkpoints: folders that are whole or refused, in which nothing runs, written beside the training."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import format_utils
from torch.distributed.checkpoint.filesystem import FileSystemReader

from iftplan.base.documents import dumps, loads, with_digest
from iftplan.base.errors import InputError
from iftplan.nn.training.records import checkpoints, shard_files
from tests.support.runs.checkpoint_states import Bomb, same, silent, state


def write(folder: Path, step: int, value: float = 1.0, **options: Any) -> Path:
    return checkpoints.write_sharded(folder, step, state(value), **options).result()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    write(tmp_path, 10, 10.0)
    return tmp_path, write(tmp_path, 20, 20.0)


def refusal(directory: Path) -> str:
    """Why step 20 is refused, having seen that step 10 is used."""
    messages: list[str] = []
    found = checkpoints.newest(directory, messages.append)
    assert found is not None and found[0] == 10
    assert same(found[1], state(10.0))
    (message,) = messages
    assert "checkpoint-000000020 is refused" in message
    assert "step 10 is used instead" in message
    return message


def sealed(folder: Path) -> None:
    """Give a changed folder a manifest that fits it, as a stranger could."""
    names = [path.name for path in folder.iterdir() if path.name != shard_files.MANIFEST]
    files = {name: shard_files.sha256_of(folder / name) for name in names}
    shard_files.write_manifest(folder, checkpoints.step_of(folder), files)


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    path = write(tmp_path, 100)
    assert path == tmp_path / "checkpoint-000000100"
    found = checkpoints.newest(tmp_path, silent)
    assert found is not None and found[0] == 100
    assert same(found[1], state())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_it_is_of_the_moment_at_which_it_was_asked_for(tmp_path: Path) -> None:
    """Counters without dimensions change in place too."""
    given: dict[str, Any] = {"w": torch.ones(1000, 100), "count": torch.tensor(3), "rows": [{"step": 1}]}
    writing = checkpoints.write_sharded(tmp_path, 1, given)
    given["w"].zero_()
    given["count"] += 1
    given["rows"][0]["step"] = 2
    found = checkpoints.read(writing.result())
    assert same(found, {"w": torch.ones(1000, 100), "count": torch.tensor(3), "rows": [{"step": 1}]})


def test_torch_s_own_tools_read_it(tmp_path: Path) -> None:
    path, file = write(tmp_path, 1), tmp_path / "whole.pt"
    format_utils.dcp_to_torch_save(path, file)
    found = torch.load(file, weights_only=True)
    assert same(found["weights.a"], torch.full((5, 3), 1.0))


def test_it_becomes_a_single_file_and_a_folder_again(tmp_path: Path) -> None:
    path = write(tmp_path, 7)
    file = checkpoints.gather(path)
    assert file == tmp_path / "checkpoint-000000007.pt"
    assert same(checkpoints.read(file), state())
    shutil.rmtree(path)
    assert checkpoints.shard(file) == path
    assert same(checkpoints.read(path), state())


def test_the_newest_of_both_kinds_are_kept(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-000000005.tmp").mkdir()
    (tmp_path / ".checkpoint-000000005.tmp" / "__0_0.distcp").write_bytes(b"a killed run's")
    write(tmp_path, 10)
    checkpoints.write(tmp_path, 20, state())
    write(tmp_path, 30)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-000000020.pt", "checkpoint-000000030"]
    write(tmp_path, 40, best=20)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["checkpoint-000000020.pt", "checkpoint-000000030", "checkpoint-000000040"]
    checkpoints.write(tmp_path, 25, state(), best=20)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-000000020.pt",
        "checkpoint-000000025.pt",
    ]


def test_a_step_is_written_again(tmp_path: Path) -> None:
    write(tmp_path, 10, 1.0)
    assert same(checkpoints.read(write(tmp_path, 10, 2.0)), state(2.0))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-000000010"]


@pytest.mark.parametrize("name", ["manifest.json", "state.pt", ".metadata", "__0_0.distcp"])
def test_every_file_is_needed_whole(pair: tuple[Path, Path], name: str) -> None:
    directory, path = pair
    whole = (path / name).read_bytes()
    for length in range(0, len(whole), 97):
        (path / name).write_bytes(whole[:length])
        refusal(directory)
    for place in range(0, len(whole), 101):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        (path / name).write_bytes(changed)
        refusal(directory)
    (path / name).unlink()
    assert name in refusal(directory)
    (path / name).write_bytes(whole)
    found = checkpoints.newest(directory, silent)
    assert found is not None and found[0] == 20


def test_a_folder_under_another_step_s_name_is_refused(pair: tuple[Path, Path]) -> None:
    directory, path = pair
    shutil.rmtree(path)
    shutil.copytree(directory / "checkpoint-000000010", path)
    assert "of step 10 where its name says" in refusal(directory)


@pytest.mark.parametrize("name", ["state.pt", ".metadata"])
def test_a_pickle_bomb_with_right_checksums_is_refused_unexploded(pair: tuple[Path, Path], name: str) -> None:
    directory, path = pair
    bomb, crater = Bomb(str(directory / "crater")), directory / "crater"
    if name == "state.pt":
        torch.save({"schema": shard_files.SCHEMA, "step": 20, "state": {"x": bomb}}, path / name)
    else:
        (path / name).write_bytes(pickle.dumps(bomb))
    sealed(path)
    assert "cannot be loaded" in refusal(directory)
    assert not crater.exists()
    if name == ".metadata":  # the bomb is one: torch's own reader sets it off
        with pytest.raises(AttributeError):
            FileSystemReader(path).read_metadata()
        assert crater.exists()
        crater.rmdir()


def test_tensors_in_files_elsewhere_are_refused(pair: tuple[Path, Path]) -> None:
    directory, path = pair
    metadata = shard_files._metadata(path)
    for where in metadata.storage_data.values():
        where.relative_path = "../checkpoint-000000010/__0_0.distcp"
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    sealed(path)
    assert ".metadata does not fit" in refusal(directory)


def test_manifests_name_files_beside_them(pair: tuple[Path, Path]) -> None:
    directory, path = pair
    manifest = loads((path / "manifest.json").read_text(), "")
    manifest["files"]["../checkpoint-000000010/state.pt"] = "0" * 64
    (path / "manifest.json").write_text(dumps(with_digest(manifest)))
    assert "../checkpoint-000000010/state.pt is missing" in refusal(directory)


def test_a_disk_that_fails_leaves_what_was_there(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, _ = pair

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_files, "write_manifest", full)
    with pytest.raises(InputError, match=r"000000030 cannot be written \(No space left on device\)"):
        write(directory, 30)
    assert sorted(p.name for p in directory.iterdir()) == ["checkpoint-000000010", "checkpoint-000000020"]


def test_what_could_not_be_loaded_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\['s'\] is a set"):
        checkpoints.write_sharded(tmp_path, 1, {"s": {1, 2}})
    with pytest.raises(TypeError, match=r"two tensors of the state have the path a\.b"):
        checkpoints.write_sharded(tmp_path, 1, {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}})
    assert list(tmp_path.iterdir()) == []


def test_each_process_writes_its_share() -> None:
    """Tensors that all have are written once, as many bytes by each as can be."""
    tensors = {str(n): torch.ones(n) for n in (1, 2, 3, 4, 5, 6)}
    parts = [shard_files.share(tensors, rank, 3) for rank in range(3)]
    assert sorted(name for part in parts for name in part) == sorted(tensors)
    assert [sum(t.numel() for t in part.values()) for part in parts] == [7, 7, 7]
    assert all(part[name].data_ptr() != tensors[name].data_ptr() for part in parts for name in part)
