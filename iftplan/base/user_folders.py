"""Where this user's own files are."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Cache folder of the user: `iftplan` in `XDG_CACHE_HOME`, or in `.cache` in the user's home.

    Raises:
        RuntimeError: this user has no home folder, and no cache folder was named.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iftplan"
