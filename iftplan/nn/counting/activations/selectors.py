"""Selections as tensors: which inputs of a matrix stay, token by token."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor
from torch.linalg import vector_norm

from iftplan.models.dynamic.selection import InputSelection, SelectionRule

SAMPLED_TOKENS = 1024
"""Tokens of each matrix from which its threshold is found."""


def scores(x: Tensor, w: Tensor, rule: SelectionRule) -> Tensor:
    """Score of each input of each token: |x_j|, times ‖W_:,j‖₂ unless the rule is TEAL.

    Args:
        x: activations (tokens, K).
        w: matrix (K, N).
        rule: of the selection.
    """
    size = x.abs()
    return size if rule is SelectionRule.TEAL else size * vector_norm(w, dim=1)


def kept(x: Tensor, w: Tensor, selection: InputSelection, weight: str) -> Tensor | None:
    """Mask (tokens, K) of the inputs that stay; None where all do.

    Args:
        x: activations (tokens, K).
        w: matrix (K, N).
        selection: the rule.
        weight: name of the parameter, for its threshold.
    """
    found = scores(x, w, selection.rule)
    if selection.rule is SelectionRule.CETT:
        threshold = selection.thresholds.get(weight)
        return None if threshold is None else found >= threshold
    stay = kept_inputs(x.shape[-1], selection.value)
    places = found.topk(stay, dim=-1).indices
    return torch.zeros_like(found, dtype=torch.bool).scatter_(-1, places, value=True)


def kept_inputs(inputs: int, sparsity: Fraction) -> int:
    """Number of inputs that stay of each token, (1 - s)·K to the nearest."""
    return round((1 - sparsity) * inputs)


def errors(x: Tensor, w: Tensor, stay: Tensor) -> Tensor:
    """Relative error of each token without the inputs that do not stay, ‖Σ_off W_:,j·x_j‖/‖W·x‖ (arXiv 2411.02335, CETT).

    Args:
        x: activations (tokens, K).
        w: matrix (K, N).
        stay: mask (tokens, K).
    """
    lost = vector_norm((x * ~stay) @ w, dim=-1).double()
    whole = vector_norm(x @ w, dim=-1).double()
    return torch.where(lost == 0, 0.0, lost / whole)


def threshold_of(x: Tensor, w: Tensor, most: float) -> float:
    """Largest threshold ε whose mean error on these tokens is at most as large as given.

    It is one of the scores, found by bisection, as the error grows with ε up to the cancellation of its terms.

    Args:
        x: activations (tokens, K).
        w: matrix (K, N).
        most: largest mean of ‖Σ_off W_:,j·x_j‖/‖W·x‖.
    """
    found = scores(x, w, SelectionRule.CETT)
    candidates = found.flatten().sort().values
    low, high = 0, len(candidates)  # below candidates[low] little enough is lost
    while high - low > 1:
        middle = (low + high) // 2
        if float(errors(x, w, found >= candidates[middle]).mean()) <= most:
            low = middle
        else:
            high = middle
    return float(candidates[low]) if len(candidates) else 0.0


def thresholds_of(samples: Mapping[str, tuple[Tensor, Tensor]], most: Fraction) -> dict[str, float]:
    """Threshold of each weight, from tokens that met it.

    Args:
        samples: weight → activations (tokens, K) and matrix (K, N).
        most: largest mean error of each.
    """
    return {name: threshold_of(x, w, float(most)) for name, (x, w) in samples.items()}
