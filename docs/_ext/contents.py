"""The contents follow from the front page: each list of links under a heading is a chapter.

So docs/index.md stays plain Markdown, which GitHub shows too, and a page that is in no list is an error of the build.
"""

from __future__ import annotations

import re
from posixpath import join, normpath

from sphinx.application import Sphinx

_HEADING = re.compile(r"^## (.+)$", re.M)
_ITEM = re.compile(r"^- \[([^\]]+)\]\(([\w./-]+)\.(?:md|ipynb)\)", re.M)


def chapters(page: str) -> dict[str, list[tuple[str, str]]]:
    """Heading → (title, target without suffix) of the links that begin its list's items."""
    _, *parts = _HEADING.split(page)
    return {name: _ITEM.findall(body) for name, body in zip(parts[::2], parts[1::2], strict=True)}


def toctrees(page: str, folder: str) -> str:
    """The page's chapters as hidden tables of contents."""
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n"
        + "".join(f"{title} </{normpath(join(folder, target))}>\n" for title, target in items)
        + "```\n"
        for caption, items in chapters(page).items()
        if items
    )


def _append(app: Sphinx, docname: str, content: list[str]) -> None:
    if docname == app.config.root_doc:
        content[0] += toctrees(content[0], docname.rpartition("/")[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the contents to the front page as it is read."""
    app.connect("source-read", _append)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
