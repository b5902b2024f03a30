"""Outputs of the bundled networks."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Prediction(NamedTuple):
    """The answer of a bundled network; a tuple, which every engine and exporter can take apart.

    Attributes:
        logits: (batch, classes) of images, (batch, tokens, vocabulary) of texts.
    """

    logits: Tensor
