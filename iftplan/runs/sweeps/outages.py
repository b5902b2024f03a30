"""Waiting while a database does not answer: a restarted server or a cut network ends no sweep."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, PendingRollbackError

from iftplan.base.errors import MeasureError, one_line

PATIENCE = 600.0
"""Seconds without an answer after which a worker gives up."""
PAUSE = 0.5
"""Seconds between tries."""
# the last where Optuna asks again in a transaction whose connection broke
_OUTAGES = (OperationalError, InterfaceError, InternalError, PendingRollbackError)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def is_outage(error: BaseException) -> bool:
    """Whether an error says that a database did not answer, itself or by what Optuna made of it."""
    return isinstance(error, _OUTAGES) or (
        isinstance(error, StorageInternalError) and isinstance(error.__cause__, _OUTAGES)
    )


def through_outages(call: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same function, repeated while its database does not answer; repeating it must do no harm.

    Raises:
        MeasureError: no answer for `PATIENCE` seconds.
    """

    @wraps(call)
    def patient(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return call(*args, **kwargs)
            except Exception as error:
                if not is_outage(error):
                    raise
                if time.monotonic() > end:
                    raise silent(error) from error
            time.sleep(PAUSE)

    return patient


def silent(error: BaseException) -> MeasureError:
    """Refusal to wait any longer for a database."""
    told = one_line(error.__cause__ or error, 200)
    return MeasureError(
        f"the database of --storage has not answered for {PATIENCE:.0f} seconds ({told}). Start it, and run the same command again to continue."
    )
