"""From a run's data settings to a task; the kind of data is told from the path."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from iftplan.base.errors import InputError
from iftplan.nn.training.data.cifar import cifar_files, read_cifar
from iftplan.nn.training.data.digits import Labelled, read_digits
from iftplan.nn.training.data.disk_datasets import image_parts, is_saved, text_of
from iftplan.nn.training.data.image_folder import is_image_folder, read_image_folder
from iftplan.nn.training.data.images import image_pair
from iftplan.nn.training.data.masked_tokens import MaskedWindows
from iftplan.nn.training.data.samples import Task
from iftplan.nn.training.data.tokens import Numbers, read_text_tokens, read_token_file, token_pair
from iftplan.runs.settings import DataConfig

_KNOWN = "digits, a directory of CIFAR python batches, a directory with train/CLASS/*.jpg and test/CLASS/*.jpg, what datasets saved to disk, a .txt file, or a .bin or .npy file of tokens"


def open_data(config: DataConfig, say: Callable[[str], None]) -> Task:
    """Data set of a run, as a task with training and test samples.

    Raises:
        InputError: there are none, or they cannot be read.
    """
    path, kind = Path(config.path), kind_of(config)
    if kind != "digits" and not path.exists():
        raise InputError(f"there are no data at {config.path!r}. Data can be {_KNOWN}.")
    match kind:
        case "digits":
            return _images(config, (*read_digits(config.test_fraction), 10), "digits")
        case "cifar":
            return _images(config, read_cifar(path), path.name)
        case "images":
            return _images(config, read_image_folder(path, config.size, say), path.name)
        case "datasets":
            found = image_parts(path, config.size, say)
            return _images(config, found, path.name) if found else _tokens(config, text_of(path), path)
        case "text":
            return _tokens(config, read_text_tokens(path, config.unit), path)
        case _:
            return _tokens(config, read_token_file(path), path)


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
        if is_image_folder(path):
            return "images"
        if any(path.rglob("*.txt")):
            return "text"
    elif path.suffix in (".txt", ".md"):
        return "text"
    elif path.suffix in (".bin", ".npy"):
        return "tokens"
    missing = "" if path.exists() else " There is nothing at that path."
    raise InputError(
        f"{config.path!r} is not recognised as data.{missing} Data can be {_KNOWN}. If it is one of these, "
        "set data.kind."
    )


def _images(config: DataConfig, found: tuple[Labelled, Labelled, int], name: str) -> Task:
    train, test, classes = found
    return Task(*image_pair(train, test, crop=config.crop, flip=config.flip), "accuracy", classes, name)


def _tokens(config: DataConfig, row: Numbers, path: Path) -> Task:
    train, test = token_pair(row, config.context, config.test_fraction, str(path))
    count = config.vocabulary or int(row.max()) + 1
    if config.objective == "next":
        return Task(train, test, "perplexity", count, path.name)
    hide = partial(MaskedWindows, mask_token=config.mask_token, vocabulary=count)
    return Task(hide(train), hide(test), "perplexity", max(count, config.mask_token + 1), path.name)
