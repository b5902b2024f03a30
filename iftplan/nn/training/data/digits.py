"""The 1797 digits of 8×8 pixels that scikit-learn brings along."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.nn.training.data.samples import generator_of

Labelled = tuple[Tensor, Tensor]


def read_digits(test_fraction: float) -> tuple[Labelled, Labelled]:
    """Pixels and labels for training and for testing; the split is always the same.

    Raises:
        InputError: scikit-learn is missing, or a part of the data would be empty.
    """
    found = torch.from_numpy(_table())
    order = torch.randperm(len(found), generator=generator_of("digits"))
    pixels = found[:, :-1].mul(255 / 16).round().byte().view(-1, 1, 8, 8)[order]
    labels = found[:, -1].long()[order]
    cut = len(labels) - round(len(labels) * test_fraction)
    if not 0 < cut < len(labels):
        raise InputError(
            f"data.test_fraction = {test_fraction:g} leaves {cut} of the {len(labels)} digits for training; the nearest that leave "
            f"some for both are {1 / len(labels):.2g} and {1 - 1 / len(labels):.4g}."
        )
    return (pixels[:cut], labels[:cut]), (pixels[cut:], labels[cut:])


def _table() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """A row for each image: 64 pixels and the label.

    Read from the library's file where it lies there, for to import the library takes seconds.
    """
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise InputError(
            "the digits come with scikit-learn, which is not installed; install it with: pip install 'iftplan[train]'."
        )
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if file.exists():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.column_stack([found.data, found.target])
