"""Formulas as MathML, which browsers draw themselves: no script and no network.

The converter is the one that docutils brings for its own HTML. A font that says where sub- and superscripts belong comes
with ziamath and is cut down to what formulas need, for not every machine has one.
"""

from __future__ import annotations

import logging
from importlib.resources import as_file, files
from itertools import chain
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

FONT = "STIXTwoMath-Regular.ttf"
_CHARACTERS = tuple(
    chain(range(0x20, 0x7F), (0xB7, 0xD7, 0x210E), range(0x391, 0x3CA), range(0x2190, 0x22F2))
)
_ITALICS = range(0x1D434, 0x1D468)


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    """A formula within a line."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def display(translator: HTML5Translator, node: nodes.math_block) -> None:
    """A formula on a line of its own."""
    formula = tex2mathml(node.astext(), as_block=True)
    translator.body.append(f'<div class="formula">{formula}</div>\n')
    raise nodes.SkipNode


def write_font(path: Path) -> None:
    """The part of a font that formulas need, with its table of mathematical distances."""
    from fontTools import subset

    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells every table
    options = subset.Options()
    with as_file(files("ziamath").joinpath("fonts", FONT)) as whole:
        font = subset.load_font(str(whole), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=(*_CHARACTERS, *_ITALICS))
    subsetter.subset(font)
    subset.save_font(font, str(path), options)


def _font_into_site(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        write_font(Path(app.outdir, "_static", "formulas.ttf"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Let `html_math_renderer` be "mathml"."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    app.connect("build-finished", _font_into_site)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
