"""Data sets that the `datasets` library saved to disk: images with labels, or text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iftplan.base.errors import InputError
from iftplan.nn.training.data.digits import Labelled
from iftplan.nn.training.data.image_folder import TESTS, stack_images
from iftplan.nn.training.data.token_rows import Numbers

IMAGES = ("image", "img")
LABELS = ("label", "fine_label", "labels")


def is_saved(root: Path) -> bool:
    """Whether a folder is a data set that `datasets` saved."""
    return any((root / name).is_file() for name in ("dataset_dict.json", "dataset_info.json", "state.json"))


def load(root: Path) -> dict[str, Any]:
    """Parts of a data set that `datasets` saved, by name.

    Raises:
        InputError: `datasets` is missing, or it cannot be loaded.
    """
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise InputError(
            f"{root} was saved by datasets, which is not installed; install it with: pip install datasets."
        ) from error
    found = load_from_disk(str(root))
    return dict(found) if isinstance(found, dict) else {"train": found}


def image_parts(root: Path, size: int, say: Callable[[str], None]) -> tuple[Labelled, Labelled, int] | None:
    """Training and test images and the number of classes; None where there are no images.

    Args:
        root: folder of the data set.
        size: pixels of an image's side, after resizing; 0 leaves images as they are.
        say: takes a sentence on progress.

    Raises:
        InputError: no part is for testing.
    """
    parts = load(root)
    named = [parts[name] for name in TESTS if name in parts]
    test = next((part for part in named if _is_labelled(part)), next(iter(named), None))
    columns = parts["train"].column_names if "train" in parts else ()
    image = next((name for name in IMAGES if name in columns), None)
    label = next((name for name in LABELS if name in columns), None)
    if image is None or label is None:
        return None
    if test is None:
        raise InputError(f"{root} has the parts {', '.join(parts)}, but it needs one named test.")
    say(f"decoding {len(parts['train']) + len(test)} images of {root} …")
    train, held = (_part(part, image, label, size, str(root)) for part in (parts["train"], test))
    classes = int(train[1].max()) + 1
    for (_, labels), where in ((train, "train"), (held, "test")):
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise InputError(
                f"the {where} part of {root} has labels from {int(labels.min())} to {int(labels.max())}, and the classes of train are 0 to {classes - 1}; "
                "a label of -1 says that nobody knows it, so take the part out."
            )
    return train, held, classes


def _is_labelled(part: Any) -> bool:
    """Whether a part has labels that somebody knows."""
    label = next((name for name in LABELS if name in part.column_names), None)
    first = None if label is None or len(part) == 0 else part[0][label]
    return not isinstance(first, int) or first >= 0


def text_of(root: Path, separator: str) -> Numbers:
    """Text of a data set's training part, row after row with a separator between, as bytes.

    Raises:
        InputError: the training part has no column of text.
    """
    rows = load(root).get("train")
    if rows is None or "text" not in rows.column_names:
        raise InputError(f"{root} has neither images with labels nor a column of text in a part named train.")
    return np.frombuffer(separator.join(rows["text"]).encode(), dtype=np.uint8)


def _part(part: Any, image: str, label: str, size: int, where: str) -> Labelled:
    pixels = []
    for row in part:
        picture = row[image].convert("RGB")
        pixels.append(np.asarray(picture.resize((size, size)) if size else picture, dtype=np.uint8))
    return stack_images(pixels, where), torch.tensor(part[label])
