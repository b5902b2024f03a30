"""Files of a sharded checkpoint: what torch.distributed.checkpoint writes, a manifest over them, and reading without trust.

`.metadata` and `__RANK_N.distcp` are torch's own form and hold every tensor under its path in the state, joined by
dots. `state.pt` holds all else, with tensors without data in the places of those. `manifest.json` is written last and
has the SHA-256 of each file.

torch reads `.metadata` with pickle, which runs what a stranger put there; here it is read by an unpickler that knows a
dozen names and nothing else. Nothing but tensors is asked of the other files, and those load as weights only.
"""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from hashlib import file_digest
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from iftplan.base.documents import digest as digest_of
from iftplan.base.documents import dumps, loads, with_digest
from iftplan.base.errors import InputError
from iftplan.nn.masks.shards import is_sharded

SCHEMA = "iftplan.sharded_checkpoint/1"
MANIFEST, STATE, METADATA = "manifest.json", "state.pt", ".metadata"
Place = tuple[str | int, ...]
Target = Callable[[Place, Tensor], Tensor]

_NAMES = {
    "torch": {"Size"} | {name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "ChunkStorageMetadata"),
        *("TensorProperties", "_MEM_FORMAT_ENCODING"),
    },
}


def split(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The state with tensors without data in it, and those tensors under their paths.

    Tensors of no dimension, such as an optimizer's counters, stay where they are, as copies: training goes on with them.

    Raises:
        TypeError: two tensors have the same path.
    """
    found: dict[str, Tensor] = {}

    def take(place: Place, tensor: Tensor) -> Tensor:
        if not (is_sharded(tensor) or _has_data(tensor)):
            return tensor.detach().clone()
        key = _key(place)
        if key in found:
            raise TypeError(f"two tensors of the state have the path {key}")
        found[key] = tensor
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")

    return _mapped(dict(state), take), found


def share(tensors: Mapping[str, Tensor], rank: int, world: int) -> dict[str, Tensor]:
    """Copies of what one process writes: its parts of sharded tensors, and of the others as many bytes as each process.

    Args:
        tensors: by name, the same names on every process.
        rank: of the process.
        world: number of processes.
    """
    loads_, mine = [0] * world, set()
    for name in sorted(
        tensors, key=lambda name: (-tensors[name].numel() * tensors[name].element_size(), name)
    ):
        if not is_sharded(tensors[name]):
            least = loads_.index(min(loads_))
            loads_[least] += tensors[name].numel() * tensors[name].element_size()
            if least == rank:
                mine.add(name)
    return {
        name: tensor.detach().clone()
        for name, tensor in tensors.items()
        if name in mine or is_sharded(tensor)
    }


def write_shards(folder: Path, tensors: dict[str, Tensor], group: Any = None) -> None:
    """Write the tensors of all processes, each its own; a collective of the group, or of one process without one.

    Args:
        folder: that all processes see.
        tensors: of this process, by name.
        group: of processes; None for one alone.
    """
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.metadata import StorageMeta
    from torch.distributed.checkpoint.state_dict_saver import save

    class Writer(FileSystemWriter):
        def storage_meta(self) -> StorageMeta:
            return StorageMeta()  # not the folder's name, which is another one in the end

    writer, planner = Writer(folder), DefaultSavePlanner()
    if group is not None:
        save(tensors, storage_writer=writer, planner=planner, process_group=group)
        return
    writer.set_up_storage_writer(True)
    planner.set_up_planner(tensors, writer.storage_meta(), True)
    plans, metadata = planner.create_global_plan([writer.prepare_local_plan(planner.create_local_plan())])
    plan = planner.finish_plan(writer.prepare_global_plan(plans)[0])
    written = writer.write_data(plan, planner)
    writer.finish(metadata, [written.wait()])


def write_state(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    """Write everything of a state that is no tensor.

    Args:
        folder: of the checkpoint.
        step: of training.
        state: everything but tensors.
    """
    with (folder / STATE).open("wb") as file:
        torch.save({"schema": SCHEMA, "step": step, "state": state}, file)
        file.flush()
        os.fsync(file.fileno())


def write_manifest(folder: Path, step: int, files: Mapping[str, str]) -> None:
    """Write the manifest, the last file: the names of all others with their SHA-256.

    Args:
        folder: of the checkpoint.
        step: of training.
        files: name → SHA-256.
    """
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(dumps(with_digest({"schema": SCHEMA, "step": step, "files": dict(files)})))
        file.flush()
        os.fsync(file.fileno())


def files_of(folder: Path, rank: int) -> list[Path]:
    """Names of the files that a process wrote; the first process also has those that belong to all."""
    common = [folder / STATE, folder / METADATA] if rank == 0 else []
    return [*common, *sorted(folder.glob(f"__{rank}_*.distcp"))]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def check_files(folder: Path, step: int, *, rank: int = 0, world: int = 1) -> dict[str, str]:
    """Compare the files of a checkpoint with their checksums; the files that its manifest lists.

    Args:
        folder: the checkpoint.
        step: that its name says.
        rank: of this process among those that check the files together.
        world: number of these processes.

    Raises:
        InputError: it is incomplete, was changed, or is not a checkpoint of that step.
    """
    files = _manifest(folder, step)
    for number, (name, expected) in enumerate(sorted(files.items())):
        # what is unpickled is checked by each process, data by one
        if (number % world == rank or name in (STATE, METADATA)) and sha256_of(folder / name) != expected:
            raise InputError(
                f"{folder} is refused: the checksum of {name} is wrong, so it is incomplete or was changed."
            )
    return files


def read_shards(
    folder: Path, step: int, files: Mapping[str, str], target: Target | None = None
) -> dict[str, Any]:
    """The state in a sharded checkpoint, each tensor loaded into what `target` gives for it.

    Args:
        folder: the checkpoint.
        step: that its name says.
        files: those of its manifest, which are whole.
        target: given a tensor's place in the state and the tensor without data, where its data go, which may be a
            part of it; whole tensors on the CPU without one.

    Raises:
        InputError: it is not a checkpoint of that step.
    """
    content = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or content.get("step") != step:
        raise InputError(f"{folder} is refused: {STATE} is not the state of step {step}.")
    metadata = _metadata(folder)
    tensors: dict[str, Tensor] = {}

    def place(at: Place, empty: Tensor) -> Tensor:
        if not empty.is_meta:
            return empty
        key = _key(at)
        _check_stored(folder, key, empty, metadata, files)
        tensors[key] = target(at, empty) if target is not None else on_cpu(empty)
        return tensors[key]

    state: dict[str, Any] = _mapped(content["state"], place)
    _load(folder, tensors, metadata)
    return state


def on_cpu(empty: Tensor) -> Tensor:
    """Empty tensor on the CPU with the shape and memory order of a tensor without data."""
    return torch.empty_strided(empty.shape, empty.stride(), dtype=empty.dtype)


def _manifest(folder: Path, step: int) -> dict[str, str]:
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder} is refused: it has no {MANIFEST}, so it is incomplete.")
    document = loads(path.read_text(encoding="utf-8"), str(path))
    if document.get("digest") != digest_of(document):
        raise InputError(f"{folder} is refused: the digest in {MANIFEST} is wrong, so it was changed.")
    schema, found, files = (document.get(key) for key in ("schema", "step", "files"))
    if schema != SCHEMA or found != step or not isinstance(files, dict):
        raise InputError(
            f"{folder} is refused: it holds {schema!r} of step {found} where its name says {SCHEMA!r} of step {step}."
        )
    missing = sorted(
        name for name in {STATE, METADATA, *files} if name not in files or not _beside(folder, name)
    )
    if missing:
        raise InputError(f"{folder} is refused: {missing[0]} is missing.")
    return files


def _beside(folder: Path, name: str) -> bool:
    return Path(name).name == name and (folder / name).is_file()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _NAMES.get(module, ()):
            raise pickle.UnpicklingError(f"{METADATA} names {module}.{name}, which no checkpoint needs")
        return super().find_class(module, name)


def _metadata(folder: Path) -> Any:
    from torch.distributed.checkpoint.metadata import Metadata

    with (folder / METADATA).open("rb") as file:
        metadata = _unpickled(file)
    if not isinstance(metadata, Metadata):
        raise InputError(f"{folder} is refused: {METADATA} does not say where tensors are.")
    return metadata


def _unpickled(file: IO[bytes]) -> Any:
    return _Unpickler(file).load()


def _check_stored(folder: Path, key: str, empty: Tensor, metadata: Any, files: Mapping[str, str]) -> None:
    """Refuse a tensor that is stored in another form than the state says, in part, or in a file that the manifest does not list."""
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    stored = metadata.state_dict_metadata.get(key)
    places = [where for index, where in metadata.storage_data.items() if index.fqn == key]
    if (
        not isinstance(stored, TensorStorageMetadata)
        or (stored.size, stored.properties.dtype) != (empty.shape, empty.dtype)
        or sum(chunk.sizes.numel() for chunk in stored.chunks) != empty.numel()
        or any(where.relative_path not in files or where.transform_descriptors for where in places)
    ):
        raise InputError(f"{folder} is refused: {METADATA} does not fit {key} in {STATE}.")


def _load(folder: Path, tensors: dict[str, Tensor], metadata: Any) -> None:
    """Fill tensors; each process for itself, and a stored piece at a time."""
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    reader, planner = FileSystemReader(folder), DefaultLoadPlanner()
    planner.set_up_planner(tensors, metadata, True)
    reader.set_up_storage_reader(metadata, True)
    plans = planner.create_global_plan([reader.prepare_local_plan(planner.create_local_plan())])
    plan = planner.finish_plan(reader.prepare_global_plan(plans)[0])
    reader.read_data(plan, planner).wait()


def _key(place: Place) -> str:
    return ".".join(str(part) for part in place)


def _has_data(tensor: Tensor) -> bool:
    return tensor.dim() > 0 and tensor.numel() > 0


def _mapped(value: Any, change: Callable[[Place, Tensor], Tensor], at: Place = ()) -> Any:
    """A state with other tensors; its containers keep their types."""
    if isinstance(value, Tensor):
        return change(at, value)
    if isinstance(value, dict):
        items: Iterator[tuple[Any, Any]] = (
            (key, _mapped(item, change, (*at, key))) for key, item in value.items()
        )
        return OrderedDict(items) if isinstance(value, OrderedDict) else dict(items)
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, change, (*at, i)) for i, item in enumerate(value))
    return value
