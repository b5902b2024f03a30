"""From a run's data settings to a task; the kind of data is told from the path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from iftplan.errors import InputError
from iftplan.nn.training.samples import Task
from iftplan.runs import DataConfig

_KNOWN = "digits, a directory of CIFAR python batches, a directory with train/CLASS/*.jpg and test/CLASS/*.jpg, a .txt file, or a .bin or .npy file of tokens"


def open_data(config: DataConfig, say: Callable[[str], None]) -> Task:
    """Read the data.

    Raises:
        InputError: there are none, or they cannot be read.
    """
    path, kind = Path(config.path), kind_of(config)
    if kind == "digits":
        from iftplan.nn.training.digits import read_digits
        from iftplan.nn.training.images import image_pair

        parts = read_digits(config.test_fraction)
        return Task(*image_pair(*parts, crop=config.crop, flip=config.flip), "accuracy", 10, "digits")
    if not path.exists():
        raise InputError(f"there are no data at {path}; data are {_KNOWN}.")
    if kind == "images":
        from iftplan.nn.training.image_folder import read_image_folder
        from iftplan.nn.training.images import image_pair

        train, test, classes = read_image_folder(path, config.size, say)
        pair = image_pair(train, test, crop=config.crop, flip=config.flip)
        return Task(*pair, "accuracy", classes, path.name)
    if kind in ("text", "tokens"):
        from iftplan.nn.training.tokens import read_text_tokens, read_token_file, token_pair

        row = read_text_tokens(path) if kind == "text" else read_token_file(path)
        windows = token_pair(row, config.context, config.test_fraction, str(path))
        return Task(*windows, "perplexity", int(row.max()) + 1, path.name)
    raise InputError(f"data of kind {kind} are not read yet; data are {_KNOWN}.")


def kind_of(config: DataConfig) -> str:
    """The kind of data; "auto" is told from the path.

    Raises:
        InputError: it cannot be.
    """
    path = Path(config.path)
    if config.kind != "auto":
        return config.kind
    if config.path in ("", "digits") and not path.is_dir():
        return "digits"
    if path.is_dir():
        from iftplan.nn.training.image_folder import is_image_folder

        if is_image_folder(path):
            return "images"
        if any(path.rglob("*.txt")):
            return "text"
    if path.suffix in (".bin", ".npy"):
        return "tokens"
    if path.suffix == ".txt":
        return "text"
    raise InputError(
        f"what {config.path!r} holds cannot be told; data are {_KNOWN}. Say data.kind if it is one of them."
    )
