"""Pictures as bytes: PNG, SVG and PDF, the same to the last byte whenever they are made."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from matplotlib.figure import Figure

from iftplan.base.arguments import one_of
from iftplan.base.documents import write_bytes
from iftplan.plots.style import THEMES, drawing, label_text

FORMS = ("png", "svg", "pdf")


@dataclass(frozen=True, slots=True, repr=False)
class Picture:
    """Finished figure with a title and a description in words.

    Attributes:
        figure: matplotlib's.
        title: one line.
        description: what it shows, in words, for those who cannot see it.
    """

    figure: Figure
    title: str
    description: str

    def save(self, path: str | Path) -> None:
        """Write the figure, as PNG, SVG or PDF by the end of the path.

        Raises:
            InputError: the path says none of these, or cannot be written.
        """
        write_bytes(encode(self, Path(path).suffix.lower().removeprefix(".")), str(path))

    def __repr__(self) -> str:
        return f"Picture({self.title!r})"

    def _repr_png_(self) -> bytes:
        return reduce_palette(encode(self, "png"))


def encode(picture: Picture, form: str) -> bytes:
    """Bytes of a figure's file, with its title and description inside and without a date.

    Args:
        picture: what to write.
        form: one of `FORMS`.

    Raises:
        InputError: another form.
    """
    one_of("the form of a picture", form, FORMS)
    picture = replace(
        picture, title=label_text(picture.title, 200), description=label_text(picture.description, 2000)
    )
    out = io.BytesIO()
    with drawing(THEMES["light"]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that no bundled font has
        picture.figure.savefig(out, format=form, metadata=_metadata(picture, form))
    return _described(out.getvalue(), picture) if form == "svg" else out.getvalue()


def reduce_palette(png: bytes) -> bytes:
    """The picture in a palette of 128 colours, a third of the size: notebooks keep their figures."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(128).save(out, format="png", optimize=True)
    return out.getvalue()


def _metadata(picture: Picture, form: str) -> dict[str, Any]:
    match form:
        case "png":
            return {"Software": None, "Title": picture.title, "Description": picture.description}
        case "svg":
            return {"Date": None, "Creator": None}
    return {
        "CreationDate": None,
        "Creator": None,
        "Producer": None,
        "Title": picture.title,
        "Subject": picture.description,
    }


def _described(svg: bytes, picture: Picture) -> bytes:
    """SVG with the title and the description that screen readers read."""
    head, opening, rest = svg.decode("utf-8").partition("<svg ")
    attributes, end, body = rest.partition(">")
    words = f'<title id="title">{escape(picture.title)}</title>\n <desc id="desc">{escape(picture.description)}</desc>'
    named = f'{opening}role="img" aria-labelledby="title desc" {attributes}{end}\n {words}'
    return (head + named + body).encode("utf-8")
