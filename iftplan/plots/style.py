"""How every figure looks: themes, colours, markers; and how one becomes bytes that do not change.

The colours are told apart with the common kinds of colour blindness (Okabe and Ito), and every series has a marker of
its own, so that a figure says the same in grey.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import log10
from types import MappingProxyType

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iftplan.base.arguments import one_of
from iftplan.base.units import abbreviate
from iftplan.report.table import printable


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a figure.

    Attributes:
        background: behind everything.
        ink: text, and what matters most.
        muted: what matters less.
        grid: what is only looked for.
        palette: of series.
    """

    background: str
    ink: str
    muted: str
    grid: str
    palette: tuple[str, ...]


THEMES: Mapping[str, Theme] = MappingProxyType(
    {
        "light": Theme(
            "#ffffff", "#1a1a1a", "#6b6b6b", "#e3e3e3",
            ("#0072b2", "#d55e00", "#008f68", "#b0568c", "#8a6d00", "#2a8fc4", "#5b4bb5"),
        ),
        "dark": Theme(
            "#16181d", "#f0f0f0", "#a6a9b0", "#34373f",
            ("#56b4e9", "#f28e4b", "#2fc797", "#e08fbd", "#e0c341", "#9fc9ff", "#b3a4ff"),
        ),
        "print": Theme(
            "#ffffff", "#000000", "#555555", "#dddddd",
            ("#4a4a4a", "#8c8c8c", "#2b2b2b", "#737373", "#5c5c5c", "#909090", "#3a3a3a"),
        ),
    }
)  # fmt: skip


def theme_named(name: str) -> Theme:
    """The theme of that name.

    Raises:
        InputError: there is none; names those that are.
    """
    return THEMES[one_of("theme", name, THEMES)]


MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h", "*")
DASHES = ("-", "--", "-.", ":")


@contextmanager
def drawing(theme: Theme) -> Iterator[None]:
    """matplotlib's settings while a figure is made, and while it is written."""
    settings = {
        "text.parse_math": False,  # names of strangers are no formulas
        "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that machines agree
        "font.size": 9.0,
        "svg.hashsalt": "iftplan",
        "svg.fonttype": "path",
        "pdf.fonttype": 42,
        "path.simplify": True,
        "axes.unicode_minus": True,
        "text.color": theme.ink,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "axes.facecolor": theme.background,
        "figure.facecolor": theme.background,
        "savefig.facecolor": "auto",  # the figure's own
        "savefig.edgecolor": "none",
    }
    with matplotlib.rc_context(settings):  # type: ignore[arg-type]
        yield


def new_axes(theme: Theme, width: float = 7.2, height: float = 4.5) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes.

    Args:
        theme: colours.
        width: inches.
        height: inches.
    """
    figure, (axes,) = new_row(theme, 1, width, height)
    return figure, axes


def new_row(
    theme: Theme,
    count: int,
    width: float = 7.2,
    height: float = 4.5,
    ratios: Sequence[float] | None = None,
    *,
    share: bool = True,
) -> tuple[Figure, list[Axes]]:
    """An empty figure with some axes side by side.

    Args:
        theme: colours.
        count: how many axes.
        width: inches.
        height: inches.
        ratios: of their widths; None for equal ones.
        share: whether they have one vertical axis.
    """
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    row = list(figure.subplots(1, count, sharey=share, squeeze=False, width_ratios=ratios)[0])
    for axes in row:
        axes.grid(True, color=theme.grid, linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure, row


def count_axis(axes: Axes, which: str, title: str) -> None:
    """Name an axis of counts and write its ticks: with SI prefixes, from 10¹⁵ on in one power of ten that the name has.

    A logarithmic axis says so.

    Args:
        axes: whose scale and limits are set.
        which: "x" or "y".
        title: quantity and unit.
    """
    from matplotlib.ticker import FuncFormatter

    axis, name = (axes.xaxis, axes.set_xlabel) if which == "x" else (axes.yaxis, axes.set_ylabel)
    scale = "log" if (axes.get_xscale() if which == "x" else axes.get_yscale()) == "log" else "linear"
    power = common_power(*axis.get_view_interval())
    axis.set_major_formatter(FuncFormatter(lambda value, _: si(value, power)))
    name(axis_name(title, power, log=scale == "log"))


def axis_name(title: str, power: int = 0, *, log: bool = False) -> str:
    """Name of an axis with what its ticks are to be multiplied by, and whether it is logarithmic.

    Args:
        title: what the axis shows, with its unit.
        power: of ten, by which its ticks are to be multiplied.
        log: whether its scale is logarithmic.

    Example:
        >>> axis_name("training MACs", 18, log=True)
        'training MACs (10¹⁸), log scale'
    """
    unit = f" ({power_of_ten(power)})" if power else ""
    return f"{title}{unit}{', log scale' if log else ''}"


def common_power(low: float, high: float) -> int:
    """Power of ten, a multiple of three, that an axis' numbers are written in; 0 where each has its own prefix."""
    if high < 1e15 or low * 1000 <= high:
        return 0
    return 3 * int(log10(high) // 3)


def si(value: float, power: int = 0) -> str:
    """A number with its prefix, from 10¹⁵ on with its power of ten, as short as it can be; in units of 10^power if given.

    Example:
        >>> si(1.8e9), si(1.267e18), si(1.2e18, 18)
        ('1.8 G', '1.267·10¹⁸', '1.2')
    """
    if power:
        return f"{value / 10**power:.4g}"
    if abs(value) < 1000:
        return f"{value:.4g}"
    number, _, exponent = abbreviate(round(value)).partition("e")
    if not exponent:
        return number
    return power_of_ten(int(exponent)) if number == "1" else f"{number}·{power_of_ten(int(exponent))}"


def power_of_ten(exponent: int) -> str:
    """A power of ten as it is printed: 10¹⁸."""
    return "10" + str(exponent).translate(_RAISED)


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def label_text(text: str, longest: int = 48) -> str:
    """A stranger's text as a label: one line, no control characters, never so long that it pushes all else away.

    matplotlib leaves labels that begin with an underscore out of legends; a space before it keeps them.
    """
    line = " ".join(printable(text.replace("\n", " ")).split())
    short_line = line if len(line) <= longest else f"{line[: longest - 1]}…"
    return f" {short_line}" if short_line.startswith("_") else short_line
