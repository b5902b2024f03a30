"""CIFAR-10 and CIFAR-100 in their python format, read without running code that a pickle may name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iftplan.base.errors import InputError
from iftplan.nn.training.data.digits import Labelled

_ARRAYS = frozenset(
    {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }
)


class _ArraysOnly(pickle.Unpickler):
    """Makes plain values and NumPy's arrays, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return np.ndarray(0).__reduce__()[0] if name == "_reconstruct" else getattr(np, name)


def cifar_files(root: Path) -> tuple[list[Path], Path] | None:
    """Training and test files of either data set in a directory or its usual subdirectory; None if there are none."""
    for place in (root, root / "cifar-10-batches-py", root / "cifar-100-python"):
        batches = [place / f"data_batch_{i}" for i in range(1, 6)]
        if all(path.is_file() for path in (*batches, place / "test_batch")):
            return batches, place / "test_batch"
        if (place / "train").is_file() and (place / "test").is_file():
            return [place / "train"], place / "test"
    return None


def read_cifar(root: Path) -> tuple[Labelled, Labelled, int]:
    """Pixels and labels for training and testing, and the number of classes.

    Raises:
        InputError: a file is missing, or is something else.
    """
    found = cifar_files(root)
    if found is None:
        raise InputError(
            f"{root} holds no CIFAR in python format; that is data_batch_1 to data_batch_5 and test_batch, or train and test."
        )
    parts = [_batch(path) for path in found[0]]
    train = torch.cat([pixels for pixels, _ in parts]), torch.cat([labels for _, labels in parts])
    classes = 100 if len(parts) == 1 else 10
    return train, _batch(found[1]), classes


def _batch(path: Path) -> Labelled:
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
        pixels, labels = content[b"data"], content.get(b"fine_labels", content.get(b"labels"))
        images = torch.from_numpy(np.array(pixels, dtype=np.uint8).reshape(-1, 3, 32, 32))
        return images, torch.tensor([int(label) for label in labels])
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not a CIFAR batch ({error}); fetch the python version of the data set again."
        ) from error
