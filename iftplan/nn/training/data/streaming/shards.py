"""Tar shards in WebDataset's layout as sources: NAME.jpg beside NAME.cls or NAME.json, in numbered .tar files.

Each shard is read through once; after that every image is read at its own place, so that samples can be shuffled over
all shards. The places are kept in the user's cache until a shard changes.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from iftplan.base.documents import loads, write_bytes
from iftplan.base.errors import InputError
from iftplan.base.user_folders import user_cache
from iftplan.nn.training.data.data_files import DataFiles
from iftplan.nn.training.data.image_folder import SUFFIXES, TESTS
from iftplan.nn.training.data.streaming.streamed_images import Whole

SHARD, OFFSET, SIZE, LABEL = range(4)
_VERSION = "places/1"
_BLOCK = 512


@dataclass(frozen=True, slots=True, eq=False)
class ShardImages:
    """Images of one part of the shards.

    Attributes:
        files: the shards.
        places: shard, byte at which the image begins, its bytes and its class number; (N, 4).
    """

    files: DataFiles
    places: Whole

    @property
    def labels(self) -> Whole:
        """Class numbers, (N,)."""
        return self.places[:, LABEL]

    def name(self, index: int) -> str:
        """Shard of an image, and its name in that shard."""
        shard, offset, _, _ = self.places[index].tolist()
        path = self.files.root / self.files.names[shard]
        with path.open("rb") as file:
            file.seek(offset - _BLOCK)
            header = file.read(_BLOCK)
        try:
            inside = tarfile.TarInfo.frombuf(header, "utf-8", "replace").name
        except tarfile.TarError:
            inside = f"the image at byte {offset}"
        return f"{inside} in {path}"

    def read(self, index: int) -> bytes:
        """Content of an image's file.

        Raises:
            InputError: its shard is gone, cannot be read or was changed.
        """
        shard, offset, size, _ = self.places[index].tolist()
        return self.files.read(shard, offset, size)


def is_shards(path: Path) -> bool:
    """Whether a folder holds shards for training."""
    return bool(_shards(path, ("train",)))


def shard_sources(root: Path, say: Callable[[str], None]) -> tuple[ShardImages, ShardImages, int]:
    """Training and test images, and the number of classes.

    Args:
        root: holds shards with "train" and with "test" or "val" in their names, or folders of such names with shards.
        say: takes a sentence on progress.

    Raises:
        InputError: shards are missing, compressed or damaged, or hold no images with labels.
    """
    train, test = (_part(root, words, say) for words in (("train",), TESTS))
    classes = int(train.labels.max()) + 1
    beyond = int(test.labels.max())
    if beyond >= classes:
        raise InputError(
            f"the test shards of {root} hold the class {beyond}, but the classes for training are 0 to {classes - 1}."
        )
    return train, test, classes


def _part(root: Path, words: Sequence[str], say: Callable[[str], None]) -> ShardImages:
    paths = _shards(root, words)
    if not paths:
        raise InputError(
            f"{root} holds no shards for {'training' if 'train' in words else 'testing'}; their names, or that of "
            f"their folder, must contain {' or '.join(words)}, as in {words[0]}-000000.tar."
        )
    files = DataFiles.of(root, [str(path.relative_to(root)) for path in paths])
    places = _kept(files)
    if places is None:
        places = _places(paths, say)
        _keep(files, places)
    return ShardImages(files, places)


def _shards(root: Path, words: Sequence[str]) -> list[Path]:
    """Shards in folders of these names, and shards with one of them as a word of their names."""
    inside = (p for word in words for p in (root / word).glob("*.tar*"))
    beside = (p for p in root.glob("*.tar*") if set(re.split("[^a-z]+", p.name.lower())) & set(words))
    return sorted(path for path in (*inside, *beside) if path.is_file() and not path.name.startswith("."))


def _places(paths: Iterable[Path], say: Callable[[str], None]) -> Whole:
    paths, found = list(paths), []
    say(f"listing the images of {len(paths)} shards in {paths[0].parent} …")
    for number, path in enumerate(paths):
        found += [(number, *place) for place in _places_in(path)]
        if (number + 1) % 100 == 0:
            say(f"{number + 1} of {len(paths)} shards, {len(found)} images …")
    return np.array(found, dtype=np.int64)


def _places_in(path: Path) -> list[tuple[int, int, int]]:
    """Offset, size and label of each image of a shard, in bytes."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            packed = file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"))
        if packed:
            raise InputError(
                f"{path} is compressed, so its images cannot be read one by one; unpack it to a plain .tar (images are "
                "compressed already)."
            )
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                if not member.isfile() or Path(member.name).name.startswith("."):
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key, suffix = f"{folder}/{stem}", f".{suffix.lower()}"
                if suffix in SUFFIXES:
                    images[key] = member.offset_data, member.size
                elif suffix in (".cls", ".json"):
                    content = shard.extractfile(member)
                    assert content is not None, "a regular file has content"
                    labels[key] = _label(content.read(), suffix, f"{member.name} in {path}")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a tar file ({error}); remove or replace it.") from error
    unlabelled = next((key for key in images if key not in labels), None)
    if unlabelled is not None or not images:
        missing = f"no label for {unlabelled.strip('/')}" if unlabelled is not None else "no images"
        raise InputError(
            f"{path} holds {missing}; each NAME.jpg needs its class number in NAME.cls or NAME.json."
        )
    return [(*place, labels[key]) for key, place in images.items()]


def _label(content: bytes, suffix: str, where: str) -> int:
    """The class number in a .cls or .json file."""
    try:
        text = content.decode()
        label = int(text) if suffix == ".cls" else loads(text, where)["label"]
        if type(label) is int and label >= 0:
            return label
    except (ValueError, KeyError, InputError):
        pass
    form = "one number" if suffix == ".cls" else 'an object with a number under "label"'
    raise InputError(f"{where} holds no class number; a {suffix} file is {form}, at least 0.")


# --- kept in the user's cache -----------------------------------------------------------------------------


def _entry(files: DataFiles) -> Path:
    told = sha256(f"{_VERSION}:{files.root.resolve()}".encode("utf-8", "surrogateescape"))
    for name, size, time in zip(files.names, files.sizes.tolist(), files.times.tolist(), strict=True):
        told.update(f"\0{name}\0{size}\0{time}".encode("utf-8", "surrogateescape"))
    return user_cache() / "shards" / f"{told.hexdigest()}.npy"


def _kept(files: DataFiles) -> Whole | None:
    """Places that were found before, as long as every shard has its size and its time."""
    try:
        with _entry(files).open("rb") as file:
            found: Whole = np.load(file, allow_pickle=False)
    except (OSError, RuntimeError, ValueError, EOFError, BadZipFile):
        return None
    whole = found.dtype == np.int64 and found.ndim == 2 and found.shape[1] == 4 and len(found)
    return found if whole else None


def _keep(files: DataFiles, places: Whole) -> None:
    content = BytesIO()
    np.save(content, places)
    with suppress(OSError, RuntimeError, InputError):  # without a cache it is found again the next time
        path = _entry(files)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(content.getvalue(), str(path))
