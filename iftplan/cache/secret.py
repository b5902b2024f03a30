"""What entries are signed with: a number that this user's own folder holds, and no repository.

A cache lies among the files of a project, and so anybody who can commit can put entries there. Without the secret their
signatures are wrong, and they are as good as none.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from iftplan.base.user_folders import user_cache

_BYTES = 32


def read_secret() -> bytes | None:
    """The secret, made where there is none yet; None where this user has no place that is theirs alone."""
    try:
        path = user_cache() / "cache.key"
        return _read(path) or _made(path)
    except (OSError, RuntimeError):
        return None


def _read(path: Path) -> bytes | None:
    """The secret in a file that nobody else can have written; None where there is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_size != _BYTES:
            raise PermissionError("this is no key")
        if os.name == "posix" and (about.st_uid != os.geteuid() or about.st_mode & 0o077):
            raise PermissionError("this key is not the user's alone")
        return file.read()


def _made(path: Path) -> bytes | None:
    """A new secret; whichever of two processes is first makes it for both."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        own.unlink()
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(_BYTES))
    try:
        os.link(own, path)  # in one step, and never over one that is there
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not path.exists():
            own.replace(path)
    finally:
        own.unlink(missing_ok=True)
    return _read(path)
