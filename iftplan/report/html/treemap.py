"""A treemap of a model's MACs: modules inside modules, drawn as rectangles whose area is their cost.

squarify lays the rectangles out and the page's template draws them as SVG, some ten kilobytes where plotly's
script alone is four megabytes. What would be smaller than a few pixels is drawn as part of its module, so a
model of ten thousand layers stays quick to open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from iftplan.report.libraries import missing
from iftplan.report.page import TreemapLayer

WIDTH, HEIGHT = 1000.0, 420.0
_SMALLEST = 90.0  # square pixels: below this nobody can point at it
_FIRST = 100  # at the top at least so many are drawn, however small
_DEEPEST = 40  # modules inside modules; nobody reads further
_LABELLED = 40.0  # pixels of width that a name needs to say anything
_CHARACTER = 6.7  # pixels of one character of the label's font
LINE = 13.0  # pixels from one line of a label to the next


@dataclass(frozen=True, slots=True)
class Tile:
    """One rectangle: a layer, or a module too small to be opened up.

    Attributes:
        name: of the layer or module.
        macs: its cost.
        share: of the whole.
        gained: MACs above what they were; None where nothing is compared.
        tone: which of the top-level modules it belongs to, counted from 0.
        x, y, width, height: where it lies, in pixels.
        label: the end of the name, in as many lines as fit inside.
    """

    name: str
    macs: int
    share: float
    gained: int | None
    tone: int
    x: float
    y: float
    width: float
    height: float
    label: tuple[str, ...]


@dataclass(slots=True)
class _Module:
    name: str
    macs: int = 0
    before: int | None = None
    children: dict[str | None, _Module] = field(default_factory=dict)

    def add(self, share: TreemapLayer) -> None:
        self.macs += share.macs
        if share.before is not None:
            self.before = (self.before or 0) + share.before


def tiles(shares: Sequence[TreemapLayer]) -> tuple[Tile, ...]:
    """Rectangles of a model's layers, their areas in proportion to MACs.

    Args:
        shares: layers with dotted names; layers without cost have no area and are left out.

    Raises:
        InputError: squarify is not installed.
    """
    try:
        import squarify  # noqa: F401  (asked for before anything is laid out)
    except ImportError as error:
        raise missing("the treemap of HTML", "squarify") from error
    root = _tree([share for share in shares if share.macs > 0])
    if not root.macs:
        return ()
    root = _opened(root)
    tones = {child.name: tone for tone, child in enumerate(root.children.values())}
    return tuple(_laid_out(root, (0.0, 0.0, WIDTH, HEIGHT), root.macs, tones, 0, 0))


def _tree(shares: Sequence[TreemapLayer]) -> _Module:
    root = _Module("")
    for share in shares:
        module = root
        module.add(share)
        path = ""
        for part in share.name.split("."):
            path = f"{path}.{part}" if path else part
            module = module.children.setdefault(part, _Module(path))
            module.add(share)
        itself = module.children.setdefault(None, _Module(path))  # beside its submodules, if it has any
        itself.add(share)
    return root


def _laid_out(
    module: _Module,
    box: tuple[float, float, float, float],
    whole: int,
    tones: Mapping[str, int],
    tone: int,
    depth: int,
) -> Iterator[Tile]:
    import squarify

    x, y, width, height = box
    module = _opened(module)
    least = 0 if depth else _FIRST
    children = _drawn(module, width * height, least) if depth < _DEEPEST else []
    if not children:
        yield _tile(module, box, whole, tone)
        return
    areas = squarify.normalize_sizes([child.macs for child in children], width, height)
    for child, place in zip(children, squarify.squarify(areas, x, y, width, height), strict=True):
        inner = (place["x"], place["y"], place["dx"], place["dy"])
        yield from _laid_out(child, inner, whole, {}, tones.get(child.name, tone), depth + 1)


def _opened(module: _Module) -> _Module:
    """The first module inside that has more than one part; a wrapper around everything tells nothing."""
    while len(module.children) == 1:
        (module,) = module.children.values()
    return module


def _drawn(module: _Module, area: float, least: int) -> list[_Module]:
    """The children that are large enough to be seen, and one that stands for all the others."""
    ordered = sorted(module.children.values(), key=lambda child: -child.macs)
    large = sum(child.macs * area >= _SMALLEST * module.macs for child in ordered)
    seen, rest = ordered[: max(large, least)], ordered[max(large, least) :]
    if rest and seen:
        compared = [child.before for child in rest if child.before is not None]
        others = f"{module.name}: {len(rest)} smaller" if module.name else f"{len(rest)} smaller"
        seen.append(_Module(others, sum(c.macs for c in rest), sum(compared) if compared else None))
    return sorted(seen, key=lambda child: -child.macs)


def _tile(module: _Module, box: tuple[float, float, float, float], whole: int, tone: int) -> Tile:
    x, y, width, height = box
    return Tile(
        name=module.name,
        macs=module.macs,
        share=module.macs / whole,
        gained=None if module.before is None else module.macs - module.before,
        tone=tone,
        x=round(x, 1),
        y=round(y, 1),
        width=round(width, 1),
        height=round(height, 1),
        label=_label(module.name, width, height),
    )


def _label(name: str, width: float, height: float) -> tuple[str, ...]:
    """The end of a name, which is what tells layers apart, broken after dots where it can be."""
    characters, lines = int((width - 8) / _CHARACTER), min(3, int((height - 2) / LINE))
    if width < _LABELLED or lines < 1:
        return ()
    found = [""]
    for part in reversed(re.findall(r"[^.]*\.?", name)):
        if len(part) + len(found[0]) <= characters:
            found[0] = part + found[0]
        elif len(found) < lines and found[0]:
            found.insert(0, part if len(part) <= characters else f"…{part[1 - characters :]}")
        else:
            found[0] = f"…{(part + found[0])[1 - characters :]}"
            break
    return tuple(found)
