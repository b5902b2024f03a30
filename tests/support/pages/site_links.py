"""A built site as browsers follow it: every link, image, script and anchor of its pages, without a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FOLLOWED = {"a": "href", "link": "href", "img": "src", "script": "src", "iframe": "src", "source": "src"}


@dataclass(frozen=True, slots=True)
class Page:
    """What one page offers and asks for.

    Attributes:
        anchors: the ids of its elements.
        targets: (element, address) of everything it links to or loads.
    """

    anchors: frozenset[str]
    targets: tuple[tuple[str, str], ...]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.anchors: list[str] = []
        self.targets: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if found.get("id"):
            self.anchors.append(str(found["id"]))
        if address := found.get(_FOLLOWED.get(tag, "")):
            self.targets.append((tag, address))


def read_page(path: Path) -> Page:
    """The anchors and targets of an HTML file."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return Page(frozenset(reader.anchors), tuple(reader.targets))


def pages(site: Path) -> dict[Path, Page]:
    """Every page of a site."""
    return {path: read_page(path) for path in sorted(site.rglob("*.html"))}


def broken(found: Mapping[Path, Page], site: Path) -> Iterator[str]:
    """What leads nowhere: a missing file, a missing anchor, a place outside the site, and what needs a network."""
    for path, page in found.items():
        for tag, address in page.targets:
            if why := _wrong(found, site, path, tag, address):
                yield f"{path.relative_to(site)}: {address}: {why}"


def external(found: Mapping[Path, Page]) -> set[str]:
    """The addresses on the web that pages link to."""
    return {a for page in found.values() for tag, a in page.targets if tag == "a" and _abroad(a)}


def _abroad(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme == "mailto"


def _wrong(found: Mapping[Path, Page], site: Path, path: Path, tag: str, address: str) -> str:
    parts = urlsplit(address)
    if _abroad(address):
        return "" if tag == "a" else "it is fetched from the network"
    if parts.scheme:
        return "" if parts.scheme == "data" else f"the scheme {parts.scheme} is no page's"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_relative_to(site.resolve()):
        return "it leads out of the site"
    if not target.is_file():
        return "there is no such file"
    anchors = found[target].anchors if target in found else None
    if parts.fragment and anchors is not None and unquote(parts.fragment) not in anchors:
        return "there is no such anchor"
    return ""
