"""Work that a forward pass hands to other threads or processes, which no engine sees.

Each engine sees the operators of one thread: the one that calls the model. Whatever else computes during the pass
is noticed here and named, so that nothing is missing from a count without a word.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import wraps
from multiprocessing.pool import Pool
from multiprocessing.process import BaseProcess
from typing import Any

from torch import nn

from iftplan.base.errors import MeasureError
from iftplan.nn.torch_internals import TorchDispatchMode


@contextmanager
def one_thread(model: nn.Module) -> Iterator[None]:
    """Run a pass and refuse what it computed elsewhere.

    Raises:
        MeasureError: operators ran in another thread, or the pass started processes.
    """
    elsewhere: list[str] = []
    with ExitStack() as stack:
        for owner, method, wrapped in (
            (threading.Thread, "start", _watched_start(elsewhere)),
            (ThreadPoolExecutor, "submit", _watched_submit(elsewhere)),
            (BaseProcess, "start", _noted(elsewhere, "a process", BaseProcess.start)),
            (ProcessPoolExecutor, "submit", _noted(elsewhere, "a process", ProcessPoolExecutor.submit)),
            *((Pool, name, _noted(elsewhere, "a pool", getattr(Pool, name))) for name in _POOLED),
            (nn.Module, "__call__", _watched_call(elsewhere)),
        ):
            stack.callback(setattr, owner, method, getattr(owner, method))
            setattr(owner, method, wrapped)
        try:
            yield
        except Exception as error:
            if elsewhere:  # which is why
                raise _refusal(model, elsewhere[0]) from error
            raise
    if elsewhere:
        raise _refusal(model, elsewhere[0])


def _refusal(model: nn.Module, where: str) -> MeasureError:
    return MeasureError(
        f"{type(model).__name__} starts {where} of its own in the forward pass, and iftplan cannot count "
        "operators there. Call the layers one after another, for instance with map(…) instead of pool.map(…)."
    )


_POOLED = ("apply_async", "_map_async", "imap", "imap_unordered")


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes that an operator ran in the thread that it was entered in."""

    def __init__(self, elsewhere: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elsewhere = elsewhere

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.elsewhere.append("a thread")
        return func(*args, **(kwargs or {}))


def _watched(elsewhere: list[str], function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _Watch(elsewhere):
            return function(*args, **kwargs)

    return run


def _watched_start(elsewhere: list[str]) -> Callable[..., Any]:
    start = threading.Thread.start

    def started(thread: threading.Thread) -> None:
        thread.run = _watched(elsewhere, thread.run)  # type: ignore[method-assign]
        start(thread)

    return started


def _watched_submit(elsewhere: list[str]) -> Callable[..., Any]:
    submit = ThreadPoolExecutor.submit

    def submitted(
        pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        return submit(pool, _watched(elsewhere, function), *args, **kwargs)

    return submitted


def _watched_call(elsewhere: list[str]) -> Callable[..., Any]:
    call, owner = nn.Module.__call__, threading.get_ident()

    def called(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != owner:
            elsewhere.append("a thread")
        return call(module, *args, **kwargs)

    return called


def _noted(elsewhere: list[str], what: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*args: Any, **kwargs: Any) -> Any:
        elsewhere.append(what)
        return method(*args, **kwargs)

    return noted
