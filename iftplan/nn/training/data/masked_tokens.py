"""Windows of tokens of which some are hidden and predicted, as BERT is trained (arXiv 1810.04805, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from iftplan.nn.training.data.samples import generator_of
from iftplan.nn.training.data.tokens import IGNORED, TokenWindows

HIDDEN, MASKED, RANDOM = 0.15, 0.8, 0.1


@dataclass(frozen=True, slots=True, eq=False)
class MaskedWindows:
    """Windows with 15 % of the tokens to predict: 80 % of those masked, 10 % replaced at random, 10 % kept.

    Attributes:
        windows: of the tokens themselves.
        mask_token: token that replaces a hidden one.
        vocabulary: number of tokens to draw from.
    """

    windows: TokenWindows
    mask_token: int
    vocabulary: int

    def __len__(self) -> int:
        return len(self.windows)

    def draws(self, count: int, generator: Generator) -> Tensor:
        """Random numbers in [0, 1): one for the place of each window, and three for every token."""
        return torch.rand(count, 1 + 3 * self.windows.context, generator=generator)

    def batch(self, indices: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens, some of them hidden, and targets that ignore all others; (n, context) each."""
        tokens, _ = self.windows.batch(indices, None if draws is None else draws[:, :1])
        if draws is None:  # evaluation hides the same tokens of a window every time
            rows = [self.draws(1, generator_of("masked", int(index))) for index in indices]
            draws = torch.cat(rows)
        chosen, how, drawn = draws[:, 1:].chunk(3, dim=1)
        hidden = chosen < HIDDEN
        replacement = torch.where(
            how < MASKED,
            self.mask_token,
            torch.where(how < MASKED + RANDOM, (drawn * self.vocabulary).long(), tokens),
        )
        return torch.where(hidden, replacement, tokens), torch.where(hidden, tokens, IGNORED)
