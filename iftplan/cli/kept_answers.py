"""Answers about models that commands keep: beside the configuration, or in the current folder.

Beside them lies which plans this user has made in which folder: the Python that such a plan names, its maker has named.
"""

from __future__ import annotations

from pathlib import Path

from iftplan.base.documents import Document
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


def note_made(plan: Document, no_cache: bool) -> bool:
    """Note for later commands that this user made a plan in this folder; False if it cannot be kept.

    Args:
        plan: its document; the user has named the source that it names.
        no_cache: whether to keep nothing.
    """
    from iftplan.cache.store import Store

    request = _made_request(plan)
    Store(kept_folder(no_cache), "").keep(_slot(plan), request, {"made": True}, reads={}, outward=())
    return made_here(plan, no_cache)


def made_here(plan: Document, no_cache: bool) -> bool:
    """Whether this user made a plan in this folder, and so has named the Python that it names.

    Notes are signed with the user's own secret, so that no repository can bring one, and hold for one plan to the bit.

    Args:
        plan: its document.
        no_cache: whether to look at nothing that was kept.
    """
    from iftplan.cache.dependencies import Footprint
    from iftplan.cache.store import Store

    folder = kept_folder(no_cache)
    return Store(folder, "").find(_slot(plan), _made_request(plan), Footprint(Path.cwd())) is not None


def _slot(plan: Document) -> str:
    return f"made:{plan['digest']}:{Path.cwd()}"


def _made_request(plan: Document) -> Document:
    return {"plan": plan["digest"], "in": str(Path.cwd())}
