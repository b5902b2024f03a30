"""Text and tokens: consecutive windows, shifted by one for the target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from iftplan.base.errors import InputError
from iftplan.nn.training.data.token_rows import JoinedRows, Numbers

TokenRow = Numbers | JoinedRows
IGNORED = -100
"""The target that cross entropy passes over."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenWindows:
    """Windows of one long row of tokens, to predict the next token.

    Attributes:
        tokens: the row, in memory or mapped from files.
        context: tokens of a window.
    """

    tokens: TokenRow
    context: int

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - 1) // self.context)

    def draws(self, count: int, generator: Generator) -> Tensor:
        """Random numbers in [0, 1), by which each window is moved."""
        return torch.rand(count, 1, generator=generator)

    def batch(self, indices: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens and next tokens, (n, context) each; in training, windows begin anywhere near their place."""
        starts = indices * self.context
        if draws is not None:
            starts = starts + (draws[:, 0].double() * self.context).long()
            starts = starts.clamp(max=len(self.tokens) - 1 - self.context)
        places = starts.view(-1, 1) + torch.arange(self.context + 1)
        rows = torch.from_numpy(self.tokens[places.numpy()].astype(np.int64))
        return rows[:, :-1], rows[:, 1:]


def read_text_tokens(path: Path, unit: str = "bytes", separator: str = "") -> Numbers:
    """A text file, or all .txt files of a directory one after another, as numbers; bytes of one file are mapped.

    Args:
        path: of the file or directory.
        unit: "bytes" as they are, or "characters", numbered in the order of their code points.
        separator: put between the files of a directory.

    Raises:
        InputError: characters were asked for, and the text is not UTF-8.
    """
    if unit == "bytes" and path.is_file() and path.stat().st_size:
        return np.memmap(path, dtype=np.uint8, mode="r")
    files = text_files(path) if path.is_dir() else [path]
    content = separator.encode().join(file.read_bytes() for file in files)
    if unit == "bytes":
        return np.frombuffer(content, dtype=np.uint8)
    try:
        points = np.frombuffer(content.decode().encode("utf-32-le"), dtype="<u4")
    except UnicodeDecodeError as error:
        raise InputError(f'{path} is not UTF-8 text ({error}); set data.unit = "bytes".') from error
    return np.unique(points, return_inverse=True)[1].astype(np.uint32)


def text_files(path: Path) -> list[Path]:
    """The .txt files below a directory, in the order of their names; hidden ones and those in hidden folders are left out."""
    found = (file for file in path.rglob("*.txt") if file.is_file())
    return sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(path).parts))


def token_files(path: Path) -> list[Path]:
    """A token file, or the .bin and .npy files of a directory, in the order of their names."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.iterdir() if p.suffix in (".bin", ".npy") and not p.name.startswith("."))


def read_tokens(path: Path) -> TokenRow:
    """Tokens of a file, or of the files of a directory one after another; mapped, not read.

    Raises:
        InputError: there are none, or a file holds something else.
    """
    rows = [_read_token_file(file) for file in token_files(path)]
    if not rows:
        raise InputError(f"{path} holds no token files; their names end in .bin or .npy.")
    return rows[0] if len(rows) == 1 else JoinedRows.of(rows)


def _read_token_file(path: Path) -> Numbers:
    """Tokens of 16 bits, little-endian, one after another; a .npy file may have any integer type."""
    try:
        row: Numbers = (
            np.load(path, mmap_mode="r", allow_pickle=False)
            if path.suffix == ".npy"
            else np.memmap(path, dtype="<u2", mode="r")
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} contains no tokens ({error}); it must be a row of 16-bit numbers, or a .npy file with one "
            "row of integers."
        ) from error
    if row.ndim != 1 or not np.issubdtype(row.dtype, np.integer):
        raise InputError(
            f"{path} contains {row.dtype} of shape {row.shape}, but it must be one row of integers."
        )
    if np.issubdtype(row.dtype, np.signedinteger) and len(row) and row.min() < 0:
        raise InputError(f"{path} contains the token {row.min()}; tokens must be at least 0.")
    return row


def token_pair(
    tokens: TokenRow, context: int, test_fraction: float, where: str
) -> tuple[TokenWindows, TokenWindows]:
    """Windows for training, from the beginning of the tokens, and for testing, from their end.

    Args:
        tokens: (tokens,), one long row.
        context: tokens of a window.
        test_fraction: part of the tokens for testing, in (0, 1).
        where: the source's name, for messages.

    Raises:
        InputError: there is too little of it.
    """
    cut = len(tokens) - round(len(tokens) * test_fraction)
    train, test = TokenWindows(tokens[:cut], context), TokenWindows(tokens[cut:], context)
    if not len(train) or not len(test):
        raise InputError(
            f"{where} has {len(tokens)} tokens, too few for windows of {context} in training and testing; set a "
            "shorter data.context, or use more text."
        )
    return train, test
