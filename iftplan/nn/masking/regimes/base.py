"""Interface of the two regimes that `Masking` trains weights under, `Held` and `Behind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Regime(Protocol):
    """Regime under which masked weights are trained.

    Steps count from 0; an optimizer's step that closes training step t may change the masks of step t + `ahead`.

    Attributes:
        ahead: 0 where masks change by what step t saw, 1 where they are chosen for the step that comes.
    """

    @property
    def ahead(self) -> int: ...  # noqa: D102  (above)

    def wants_dense_gradient(self, step: int, *, due: bool) -> bool:
        """Whether a step will look at gradients off the masks."""

    def took_dense_gradient(self, step: int, *, updated: bool) -> bool:
        """Whether a step has done so, in which masks were updated or not."""

    def reached(self) -> Mapping[str, int] | None:
        """Number of weights that the step that begins now trains, by name; None for those that masks keep, or all."""

    def probed(self) -> tuple[Mapping[str, int], ...]:
        """Weights that were kept in each pass over one sample that the last update has made by itself."""

    def written_(self) -> None:
        """Take note that weights were written to between two steps, by none of ours."""

    def correct_(self, step: int, *, due: bool) -> None:
        """Make the gradients of the forward weights those that the optimizer is to take."""

    def before_(self, step: int, *, due: bool) -> bool:
        """Act before the optimizer's step, or in it, on correct gradients; whether masks have changed."""

    def after_(self, step: int, *, due: bool) -> bool:
        """Act after the optimizer's step; whether masks have changed."""

    def hold_(self) -> None:
        """Set weights to zero off the masks."""

    def ended(self) -> Regime:
        """Regime that keeps the weights which training under this one leaves."""

    def state_dict(self, *, parts: bool = False) -> dict[str, Any] | None:
        """State that neither the model nor the optimizer nor the masks hold, with `parts` sharded; None without any."""

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a state; None is that of a run without one, such as a run that has ended."""
