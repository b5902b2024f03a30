"""One HTML file: no network, no library, nothing but what stands in it.

Jinja2 escapes every value. As a second lock, the content security policy in the file allows one script, named
by its hash, and no other source of anything.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from iftplan.base.units import count, percent, with_sign
from iftplan.report.html.treemap import HEIGHT, LINE, WIDTH, tiles
from iftplan.report.libraries import missing
from iftplan.report.page import Page
from iftplan.report.table import printable, without_breaks


def _shown(text: str) -> str:
    return without_breaks(printable(text))


def page_html(page: Page) -> str:
    """The page as a self-contained HTML document: headline, findings, totals, treemap, sortable layers.

    Raises:
        InputError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise missing("HTML", "jinja2") from error
    here = files("iftplan.report.html")
    script = (here / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "count": count,
        "signed": with_sign,
        "percent": percent,
        "shown": _shown,
        "plain": printable,
    }
    template = environment.from_string((here / "page.html").read_text(encoding="utf-8"))
    return template.render(
        page=page,
        style=(here / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        tiles=tiles,
        width=int(WIDTH),
        height=int(HEIGHT),
        line_height=LINE,
    )
