"""Sparsity of experts over chunks of tokens (BlockFFN, arXiv 2507.08771)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction

from iftplan.base.errors import InputError
from iftplan.models.dynamic.shares import at_least


def token_sparsity(active: Sequence[Collection[int]], experts: int) -> Fraction:
    """Token-level sparsity (TLS): share of experts that a token does not use, mean over tokens.

    Args:
        active: experts of each token, numbered from 0.
        experts: how many there are.

    Raises:
        InputError: no tokens, or an expert that does not exist.

    Example:
        >>> print(token_sparsity([{0, 1}, {1, 2}], 8))
        3/4
    """
    return chunk_sparsity(active, experts, 1)


def chunk_sparsity(active: Sequence[Collection[int]], experts: int, chunk: int) -> Fraction:
    """Chunk-level sparsity (CLS): share of experts that no token of a chunk uses, mean over chunks.

    A chunk of consecutive tokens reads the weights of every expert that any of them uses, so its memory traffic is that of
    their union, 1 - |∪|/E; its MACs are still those of each token.

    Args:
        active: experts of each token in their order, numbered from 0.
        experts: how many there are, E.
        chunk: tokens of a chunk; a shorter rest at the end is no chunk.

    Raises:
        InputError: fewer tokens than a chunk has, or an expert that does not exist.

    Example:
        >>> print(chunk_sparsity([{0, 1}, {1, 2}], 8, 2))
        5/8
    """
    at_least("chunk", chunk, 1)
    at_least("experts", experts, 1)
    wrong = next((e for token in active for e in token if not 0 <= e < experts), None)
    if wrong is not None:
        raise InputError(
            f"expert {wrong} does not exist; {experts} experts are numbered from 0 to {experts - 1}."
        )
    chunks = len(active) // chunk
    if not chunks:
        raise InputError(f"{len(active)} tokens make no chunk of {chunk}; give at least {chunk} tokens.")
    used = sum(len(set().union(*active[i * chunk : (i + 1) * chunk])) for i in range(chunks))
    return 1 - Fraction(used, experts * chunks)


def expected_chunk_sparsity(token: Fraction, chunk: int) -> Fraction:
    """Chunk-level sparsity if tokens chose their experts independently: TLS^chunk.

    Args:
        token: token-level sparsity, in [0, 1].
        chunk: tokens of a chunk.

    Example:
        Without the locality that BlockFFN trains for, a TLS of 80 % would leave 17 % of the experts unread by 8 tokens; the
        paper reports more than 70 %.

        >>> round(float(expected_chunk_sparsity(Fraction(4, 5), 8)), 3)
        0.168
    """
    return Fraction(token) ** chunk
