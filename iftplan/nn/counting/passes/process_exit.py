"""User code that ends the process: reported as an error, because exit status 0 would look like a passed check."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

_ENDING: Final = ("_exit", "execv", "execve")  # the other `exec…` come down to these
_SIGNALLED: Final = 128  # a status above it is that of a signal, which somebody sent
_LET_THROUGH: Final = (Exception, KeyboardInterrupt, GeneratorExit)


class ProcessExit(BaseException):
    """Raised in the place of an end of the process that no handler would see."""


@contextmanager
def no_exit(error: Callable[[str], Exception]) -> Iterator[None]:
    """Turn every way to end the process into the error that `error` makes of its name.

    Raises:
        Exception: what `error` returns for "sys.exit(0)", "os._exit(0)" or the name of another exception that is no
            `Exception`. Ctrl-C stays what it is.
    """
    originals = {name: getattr(os, name) for name in _ENDING}
    active = True

    def ending(name: str) -> Callable[..., Any]:
        def end(*args: Any) -> Any:
            if not active:  # kept by someone's `from os import _exit`
                return originals[name](*args)
            _refuse(name, args)

        return end

    for name in _ENDING:
        setattr(os, name, ending(name))
    try:
        yield
    except _LET_THROUGH:
        raise
    except ProcessExit as end:
        raise error(str(end)) from None
    except SystemExit as end:
        if isinstance(end.code, int) and end.code > _SIGNALLED:
            raise
        raise error(f"sys.exit({'' if end.code is None else repr(end.code)})") from end
    except BaseException as end:
        raise error(f"raise {type(end).__name__}") from end
    finally:
        active = False
        for name, original in originals.items():
            setattr(os, name, original)


def _refuse(name: str, args: tuple[Any, ...]) -> NoReturn:
    raise ProcessExit(f"os.{name}({', '.join(map(repr, args))})")
