"""Data of a run's settings as a task; the path tells their kind, and images too large for memory are streamed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from iftplan.base.errors import InputError
from iftplan.nn.training.data.batches import workers_for
from iftplan.nn.training.data.cifar import cifar_files, read_cifar
from iftplan.nn.training.data.data_files import DataFiles
from iftplan.nn.training.data.digits import Labelled, read_digits
from iftplan.nn.training.data.disk_datasets import image_parts, is_saved, text_of
from iftplan.nn.training.data.image_folder import TESTS, is_image_folder, labelled_names, read_image_folder
from iftplan.nn.training.data.images import image_pair
from iftplan.nn.training.data.masked_tokens import MaskedWindows
from iftplan.nn.training.data.samples import Task
from iftplan.nn.training.data.streaming.augmentation import augmentation_of
from iftplan.nn.training.data.streaming.folders import FolderImages, folder_sources
from iftplan.nn.training.data.streaming.shards import ShardImages, is_shards, shard_sources
from iftplan.nn.training.data.streaming.streamed_images import StreamedImages
from iftplan.nn.training.data.tokens import (
    TokenRow,
    read_text_tokens,
    read_tokens,
    text_files,
    token_files,
    token_pair,
)
from iftplan.nn.training.data.validation import with_validation
from iftplan.runs.settings import DataConfig

_KNOWN = "digits, a directory of CIFAR python batches, a directory with train/CLASS/*.jpg and test/CLASS/*.jpg, a directory of tar shards, what datasets saved to disk, a .txt file, or .bin or .npy files of tokens"
_STREAMED = ("shorter_side", "random_resized_crop", "eval_shorter_side", "color_jitter")
_IN_MEMORY = 2**32
"""Bytes of pixels beyond which "auto" streams a folder of images; the same on every machine, as results have to be."""
_LOOKED_AT = 10**7
"""Tokens among which one that stands for hidden ones would be met."""
_LONG = 10**9
"""Tokens from which it takes a while to read them all."""
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def open_data(config: DataConfig, say: Callable[[str], None]) -> Task:
    """Data set of a run, as a task with training and test samples, and validation samples where they are asked for.

    Raises:
        InputError: there are none, or they cannot be read.
    """
    return with_validation(_opened(config, say), config.validation_fraction)


def _opened(config: DataConfig, say: Callable[[str], None]) -> Task:
    path, kind = Path(config.path), kind_of(config)
    if kind == "digits":
        if config.path not in ("", "digits"):
            raise InputError(
                f"data.path is {config.path!r}, and data.kind is 'digits', which needs none. Set data.kind='auto' to train on the data at that path, or leave data.path out."
            )
        return _images(config, (*read_digits(config.test_fraction), 10), "digits")
    if not path.exists():
        raise InputError(f"there are no data at {config.path!r}. Data can be {_KNOWN}.")
    match kind:
        case "image-folder":
            return _streamed(config, folder_sources(path, say))
        case "tar":
            return _streamed(config, shard_sources(path, say))
    return replace(_in_memory(config, kind, path, say), files=_files(kind, path))


def _in_memory(config: DataConfig, kind: str, path: Path, say: Callable[[str], None]) -> Task:
    match kind:
        case "cifar":
            return _images(config, read_cifar(path), path.name)
        case "images":
            return _images(config, read_image_folder(path, config.size, say), path.name)
        case "datasets":
            found = image_parts(path, config.size, say)
            if found:
                return _images(config, found, path.name)
            between = "\n" if config.separator is None else config.separator
            return _tokens(config, text_of(path, between), path, say)
        case "text":
            return _tokens(config, read_text_tokens(path, config.unit, config.separator or ""), path, say)
        case _:
            return _tokens(config, read_tokens(path), path, say)


def kind_of(config: DataConfig) -> str:
    """The kind of data; "auto" is told from the path.

    Raises:
        InputError: it cannot be.
    """
    path = Path(config.path)
    if config.kind != "auto":
        return config.kind
    if config.path == "digits" and not path.exists():
        return "digits"
    if not config.path:
        raise InputError(f"no data were given; name them with --data: {_KNOWN}.")
    if path.is_dir():
        if cifar_files(path):
            return "cifar"
        if is_saved(path):
            return "datasets"
        if is_shards(path):
            return "tar"
        if is_image_folder(path):
            return "image-folder" if _must_stream(config, path) else "images"
        if text_files(path):
            return "text"
        if token_files(path):
            return "tokens"
    elif path.suffix in (".txt", ".md"):
        return "text"
    elif path.suffix in (".bin", ".npy"):
        return "tokens"
    missing = "" if path.exists() else " There is nothing at that path."
    if (path / "train").is_dir():
        missing = f" It has a folder train, and no folder {', '.join(TESTS[:-1])} or {TESTS[-1]} beside it."
    raise InputError(
        f"{config.path!r} is not recognised as data.{missing} Data can be {_KNOWN}. If it is one of these, "
        "set data.kind."
    )


def _must_stream(config: DataConfig, path: Path) -> bool:
    """Whether a folder of images is read during training, because a setting needs it or because of its size."""
    if any(getattr(config, name) for name in _STREAMED):
        return True
    train, test, _ = labelled_names(path)
    return (len(train) + len(test)) * 3 * config.size**2 > _IN_MEMORY


def _files(kind: str, path: Path) -> DataFiles:
    """Files that data in memory, or mapped, are in."""
    match kind:
        case "cifar":
            train, test = cifar_files(path) or ((), path)
            return DataFiles.of(path, [str(file.relative_to(path)) for file in (*train, test)])
        case "images":
            train_names, test_names, _ = labelled_names(path)
            return DataFiles.of(path, [name for name, _ in (*train_names, *test_names)])
        case "datasets":
            return DataFiles.at(path, "d*.arrow")  # its library keeps others there for itself
        case "tokens" if path.is_dir():
            return DataFiles.of(path, [file.name for file in token_files(path)])
        case _:
            return DataFiles.at(path, "*.txt")


def _images(config: DataConfig, found: tuple[Labelled, Labelled, int], name: str) -> Task:
    train, test, classes = found
    needed = next((key for key in _STREAMED if getattr(config, key)), None)
    if needed is not None:
        raise InputError(
            f"data.{needed} is for images that are read during training, but {name} is held in memory; leave it out, "
            'or use a folder of images with data.kind = "image-folder", or tar shards.'
        )
    channels = train[0].shape[1]
    given = (_channels(config, key, channels) for key in ("mean", "std"))
    scale = tuple(None if values is None else torch.tensor(values) for values in given)
    images = image_pair(train, test, scale, crop=config.crop, flip=config.flip, cutout=config.cutout)
    return Task(*images, "accuracy", classes, name, mixup=config.mixup)


def _streamed(
    config: DataConfig, found: tuple[FolderImages, FolderImages, int] | tuple[ShardImages, ShardImages, int]
) -> Task:
    train, test, classes = found
    mean, std = (torch.tensor(_channels(config, key, 3) or _IMAGENET[key]) for key in ("mean", "std"))
    augmentation = augmentation_of(config, mean.tolist())
    return Task(
        StreamedImages(train, augmentation),
        StreamedImages(test, augmentation),
        "accuracy",
        classes,
        Path(config.path).name,
        files=train.files.joined(test.files),
        scale=(mean, std),
        mixup=config.mixup,
        workers=workers_for(config.workers),
    )


def _channels(config: DataConfig, key: str, count: int) -> tuple[float, ...] | None:
    """The mean or the deviation of each channel, where it was given."""
    values: tuple[float, ...] | None = getattr(config, key)
    if values is not None and len(values) != count:
        raise InputError(f"data.{key} has {len(values)} values, but the images have {count} channels.")
    return values


def _tokens(config: DataConfig, row: TokenRow, path: Path, say: Callable[[str], None]) -> Task:
    train, test = token_pair(row, config.context, config.test_fraction, str(path))
    if not config.vocabulary and len(row) > _LONG:
        say(f"looking for the largest of {len(row)} tokens in {path}; data.vocabulary saves that …")
    count = config.vocabulary or int(row.max()) + 1
    if config.objective == "next":
        return Task(train, test, "perplexity", count, path.name, consecutive=True)
    looked_at = row[np.arange(min(len(row), _LOOKED_AT))]
    if config.mask_token < count and bool((looked_at == config.mask_token).any()):
        raise InputError(
            f"data.mask_token is {config.mask_token}, which occurs in {path} as any other token, so what is hidden could not be told from it; "
            f"give a number that does not occur, such as data.mask_token={count}."
        )
    hide = partial(MaskedWindows, mask_token=config.mask_token, vocabulary=count)
    classes = max(count, config.mask_token + 1)
    return Task(hide(train), hide(test), "perplexity", classes, path.name, consecutive=True)
