"""The 1797 digits of 8×8 pixels that scikit-learn brings along."""

from __future__ import annotations

import torch
from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.nn.training.data.samples import generator_of

Labelled = tuple[Tensor, Tensor]


def read_digits(test_fraction: float) -> tuple[Labelled, Labelled]:
    """Pixels and labels for training and for testing; the split is always the same.

    Raises:
        InputError: scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "the digits come with scikit-learn, which is not installed; install it with: pip install 'iftplan[train]'."
        ) from error
    found = load_digits()
    order = torch.randperm(len(found.target), generator=generator_of("digits"))
    pixels = torch.from_numpy(found.images).mul(255 / 16).round().byte().unsqueeze(1)[order]
    labels = torch.from_numpy(found.target).long()[order]
    cut = len(labels) - round(len(labels) * test_fraction)
    return (pixels[:cut], labels[:cut]), (pixels[cut:], labels[cut:])
