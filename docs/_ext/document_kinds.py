"""The kinds of documents that the reference lists."""

from __future__ import annotations

from formats import Format

KINDS: tuple[Format, ...] = ()
