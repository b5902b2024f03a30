"""Folders of images: train/CLASS/*.jpg and test/CLASS/*.jpg, decoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath

import numpy as np
import torch
from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.nn.training.data.digits import Labelled

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
LabelledName = tuple[str, int]
TESTS = ("test", "val", "valid", "validation")


def is_image_folder(root: Path) -> bool:
    """Whether there are a train and a test directory."""
    return (root / "train").is_dir() and any((root / name).is_dir() for name in TESTS)


def read_image_folder(root: Path, size: int, say: Callable[[str], None]) -> tuple[Labelled, Labelled, int]:
    """Pixels and labels for training and testing, and the number of classes.

    Args:
        root: holds train/CLASS/… and test/CLASS/…
        size: side to resize to; 0 leaves images, which must then be of one size.
        say: takes a sentence on progress.

    Raises:
        InputError: directories are missing or empty, or an image cannot be read.
    """
    train, test, classes = labelled_names(root)
    return _part(root, train, size, say), _part(root, test, size, say), classes


def labelled_names(root: Path) -> tuple[list[LabelledName], list[LabelledName], int]:
    """Training and test images, as paths below the folder with class numbers, and the number of classes.

    Raises:
        InputError: directories are missing or empty, or hold other classes.
    """
    parts = [name for name in TESTS if (root / name).is_dir()]
    test = next(
        (name for name in parts if _directories(root / name)), next(iter(parts), None)
    )  # flat ones have no labels
    if test is None or not (root / "train").is_dir():
        raise InputError(
            f"{root} holds no directories train and test; images lie in train/CLASS/NAME.jpg and test/CLASS/NAME.jpg."
        )
    classes = sorted(_directories(root / "train"))
    if not classes:
        raise InputError(f"{root}/train holds no directories; images lie in train/CLASS/NAME.jpg.")
    unknown = sorted(_directories(root / test) - set(classes))
    if unknown:
        raise InputError(
            f"{root / test} holds the class {unknown[0]!r}, and train does not; classes are {', '.join(classes[:8])}."
        )
    return _names(root, "train", classes), _names(root, test, classes), len(classes)


def _directories(root: Path) -> set[str]:
    """Directories that are not hidden; desktops and notebooks leave hidden ones."""
    return {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")}


def _names(root: Path, part: str, classes: Sequence[str]) -> list[LabelledName]:
    found = [
        (f"{part}/{kind}/{name}", label)
        for label, kind in enumerate(classes)
        if (root / part / kind).is_dir()
        for name in sorted(entry.name for entry in (root / part / kind).iterdir())
        if PurePath(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    ]
    if not found:
        raise InputError(f"{root / part} holds no images; they lie in CLASS/NAME.jpg there.")
    return found


def _part(root: Path, found: Sequence[LabelledName], size: int, say: Callable[[str], None]) -> Labelled:
    where = root / found[0][0].partition("/")[0]
    say(f"decoding {len(found)} images of {where} …")
    with ThreadPoolExecutor() as threads:
        pixels = list(threads.map(lambda item: _decoded(root / item[0], size), found))
    return stack_images(pixels, str(where)), torch.tensor([label for _, label in found])


def stack_images(pixels: Sequence[Pixels], where: str) -> Tensor:
    """Images (H, W, C) as one tensor (N, C, H, W).

    Raises:
        InputError: they are not of one size.
    """
    shapes = {image.shape for image in pixels}
    if len(shapes) > 1:
        raise InputError(
            f"images of {where} have {len(shapes)} different sizes, such as {sorted(shapes)[:2]}; set one size to "
            "scale them to, as in data.size = 32."
        )
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def _decoded(path: Path, size: int) -> Pixels:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            image: Image.Image = file.convert("RGB")
            if size and image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(image, dtype=np.uint8)
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path} cannot be read as an image ({error}); remove or replace it.") from error
