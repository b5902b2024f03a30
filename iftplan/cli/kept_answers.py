"""Answers about models that commands keep: beside the configuration, or in the current folder."""

from __future__ import annotations

from pathlib import Path

from iftplan.base.errors import IftplanError
from iftplan.cli.process import is_ours


def kept_folder(no_cache: bool) -> Path | None:
    """Folder of kept answers; None where none are to be kept, or this process is somebody else's.

    Args:
        no_cache: whether to keep none.
    """
    if no_cache or not is_ours():
        return None
    from iftplan.cache.store import FOLDER
    from iftplan.checks.configuration_file import find_config

    here = Path.cwd()
    try:
        return find_config(here).parent / FOLDER
    except IftplanError:  # there is none, or one that cannot be read
        return here / FOLDER
