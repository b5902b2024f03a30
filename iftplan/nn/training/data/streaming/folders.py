"""Folders of images as sources: train/CLASS/*.jpg and test/CLASS/*.jpg, listed and not decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iftplan.nn.training.data.data_files import DataFiles
from iftplan.nn.training.data.image_folder import labelled_names
from iftplan.nn.training.data.streaming.streamed_images import Whole


@dataclass(frozen=True, slots=True, eq=False)
class FolderImages:
    """Images of one part of a folder.

    Attributes:
        files: of the images.
        labels: class numbers, (N,).
    """

    files: DataFiles
    labels: Whole

    def name(self, index: int) -> str:
        """Path of an image."""
        return str(self.files.root / self.files.names[index])

    def read(self, index: int) -> bytes:
        """Content of an image's file.

        Raises:
            InputError: it is gone, cannot be read or was changed.
        """
        return self.files.read(index)


def folder_sources(root: Path, say: Callable[[str], None]) -> tuple[FolderImages, FolderImages, int]:
    """Training and test images, and the number of classes.

    Args:
        root: holds train/CLASS/… and test/CLASS/…
        say: takes a sentence on progress.

    Raises:
        InputError: directories are missing or empty, or hold other classes.
    """
    say(f"listing the images of {root} …")
    *parts, classes = labelled_names(root)
    train, test = (
        FolderImages(DataFiles.of(root, [name for name, _ in part]), np.array([label for _, label in part]))
        for part in parts
    )
    for part in (train, test):
        missing = np.flatnonzero(np.bincount(part.labels, minlength=classes) == 0)
        if len(missing):
            where = part.files.names[0].partition("/")[0]
            say(f"note: {root / where} has no images of {len(missing)} of the {classes} classes.")
    return train, test, classes
