"""The trade-off as one interactive HTML file: plotly's script, the data and the style stand in it, and nothing is fetched.

Plotly reads text as a small HTML of its own, and decodes entities before it does, so names of strangers are written
with signs that look like its markup and are not. As a second lock, the policy in the file runs no script but the two
that it names by their hashes.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from typing import Any

from iftplan.plots.crowds import Crowd, crowds, place_in_column
from iftplan.plots.pareto import MANY, WIDE_X, WIDE_Y, describe, guides, spans
from iftplan.plots.style import MARKERS, THEMES, axis_name, common_power, label_text, si
from iftplan.report.libraries import missing
from iftplan.runs.results.configurations import ConfigurationResult
from iftplan.runs.results.tables import iso_flop, readings
from iftplan.runs.results.tradeoff import TradeOff

_SYMBOLS = dict(
    zip(
        MARKERS,
        (
            "circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "pentagon",
            "triangle-left", "triangle-right", "hexagon", "star",
        ),
        strict=True,
    )
)  # fmt: skip

_SCRIPT = """
const drawn = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
function coloured() {
  const theme = dark.matches ? drawn.themes.dark : drawn.themes.light;
  const axis = {color: theme.ink, gridcolor: theme.grid, linecolor: theme.muted, zerolinecolor: theme.grid};
  const traces = drawn.traces.map(t => {
    const color = t.colour < 0 ? (t.colour === -1 ? theme.ink : theme.muted)
                               : theme.palette[t.colour % theme.palette.length];
    const outline = t.hollow ? color : theme.background;
    return {...t, line: {...t.line, color},
      ...(t.marker && {marker: {...t.marker, color, line: {width: 1, color: outline}}}),
      ...(t.error_y && {error_y: {...t.error_y, color}})};
  });
  const layout = {...drawn.layout, paper_bgcolor: theme.background, plot_bgcolor: theme.background,
    font: {color: theme.ink, family: "system-ui, sans-serif"},
    shapes: drawn.layout.shapes.map(s => ({...s, line: {...s.line, color: theme.muted}})),
    ...Object.fromEntries(Object.entries(drawn.layout).filter(([name]) => /^[xy]axis/.test(name))
      .map(([name, own]) => [name, {automargin: true, ...own, ...axis}]))};
  Plotly.react("figure", traces, layout, {responsive: true, displaylogo: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]]});
}
coloured();
dark.addEventListener("change", coloured);
"""

_STYLE = """
body { margin: 1rem; font-family: system-ui, sans-serif; background: #ffffff; color: #1a1a1a; }
.wide { overflow-x: auto; }
#figure { height: 75vh; min-height: 24rem; min-width: 42rem; }
table { border-collapse: collapse; font-size: .85rem; }
td, th { padding: .15rem .7rem; text-align: right; } td:first-child, th:first-child { text-align: left; }
@media (prefers-color-scheme: dark) { body { background: #16181d; color: #f0f0f0; } }
"""


def pareto_page(found: TradeOff, *, title: str = "") -> str:
    """The trade-off as a self-contained HTML document, dark or light as the reader's system is.

    Raises:
        InputError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise missing("An interactive figure", "plotly") from error
    library = get_plotlyjs().replace("</script", "<\\/script")
    data = json.dumps(_data(found), sort_keys=True, allow_nan=False).replace("<", "\\u003c")
    name = title or f"{found.y.name} against {found.x.name}"
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in (library, _SCRIPT))
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1 style="font-size:1.1rem">{escape(name)}</h1>
<div class="wide"><div id="figure" role="img" aria-label="{escape(describe(found), quote=True)}"></div></div>
{_words(found)}
<script type="application/json" id="data">{data}</script>
<script>{library}</script>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _hash(script: str) -> str:
    return b64encode(sha256(script.encode()).digest()).decode()


def _words(found: TradeOff) -> str:
    """The frontier and its readings without any script."""
    rows = "".join(
        f"<tr><td>{escape(e.name)}</td><td>{si(e.x.mean)}</td><td>{e.y.mean:.6g}</td></tr>"
        for e in (found.entries[i] for i in found.frontier)
    )
    said = "".join(f"<p>{escape(line)}</p>" for line in (*readings(found), *iso_flop(found), *found.notes))
    head = (
        f"<tr><th>on the frontier</th><th>{escape(found.x.title)}</th><th>{escape(found.y.title)}</th></tr>"
    )
    return f"{said}\n<details><summary>The frontier as a table</summary><table>{head}{rows}</table></details>"


def _data(found: TradeOff) -> dict[str, Any]:
    names = list(dict.fromkeys(entry.series for entry in found.entries))
    themes = {
        name: {
            "background": t.background,
            "ink": t.ink,
            "muted": t.muted,
            "grid": t.grid,
            "palette": t.palette,
        }
        for name, t in THEMES.items()
        if name != "print"
    }
    beside = crowds(found)
    traces = [_line(found), *(_trace(found, name, names) for name in names)]
    for number, crowd in enumerate(beside, 2):
        traces += [_in_column(found, name, names, entries, f"x{number}") for name, entries in crowd.columns]
    return {"traces": traces, "layout": _layout(found, beside), "themes": themes}


def _trace(found: TradeOff, series: str, names: Sequence[str]) -> dict[str, Any]:
    """Configurations of a series, each at its cost."""
    entries = [e for e in found.entries if e.series == series]
    unit = 10 ** _power(found)
    return _markers(found, series, names, entries) | {"x": [e.x.mean / unit for e in entries]}


def _in_column(
    found: TradeOff, series: str, names: Sequence[str], entries: Sequence[ConfigurationResult], axis: str
) -> dict[str, Any]:
    """Configurations of a series that cost the same as others, in a column of their own."""
    column = {
        "x": [plain_text(series, 40)] * len(entries), "xaxis": axis, "showlegend": False,
        "mode": "markers+text", "text": _apart(entries, found), "textposition": "middle right",
        "textfont": {"size": 10},
    }  # fmt: skip
    return _markers(found, series, names, entries) | column


def _apart(entries: Sequence[ConfigurationResult], found: TradeOff) -> list[str]:
    """Texts beside points, but for those that would lie over the one below; pointing at a point tells its name."""
    ys = [e.y.mean for e in found.entries]
    least, last, told = 0.025 * (max(ys) - min(ys)), float("-inf"), {}
    for e in sorted(entries, key=lambda e: e.y.mean):
        if e.y.mean - last >= least:
            told[id(e)], last = place_in_column(e), e.y.mean
    return [told.get(id(e), "") for e in entries]


def _markers(
    found: TradeOff, series: str, names: Sequence[str], entries: Sequence[ConfigurationResult]
) -> dict[str, Any]:
    dense = series in ("dense", "paper: dense")
    place = [n for n in names if n not in ("dense", "paper: dense")].index(series) if not dense else -1
    hollow = series.startswith("paper:")
    symbol = "star" if dense else _SYMBOLS[MARKERS[place % (len(MARKERS) - 1)]]
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": plain_text(series, 40),
        "legendgroup": plain_text(series, 40),
        "colour": place,
        "hollow": hollow,
        "y": [e.y.mean for e in entries],
        "hovertext": [_hover(e, found) for e in entries],
        "hoverinfo": "text",
        "marker": {
            "symbol": symbol + ("-open" if hollow else ""),
            "size": 7 if len(found.entries) > MANY else 10,
        },
    }
    if any(e.y.error is not None for e in entries):
        trace["error_y"] = {"type": "data", "array": [e.y.error or 0.0 for e in entries], "thickness": 1}
    return trace


def _power(found: TradeOff) -> int:
    """Power of ten that costs are drawn in."""
    costs = [e.x.mean for e in found.entries]
    return common_power(min(costs), max(costs))


def _hover(entry: ConfigurationResult, found: TradeOff) -> str:
    error = "" if entry.y.error is None else f" ± {entry.y.error:.2g}"
    lines = (
        entry.name,
        f"{found.y.title}: {entry.y.mean:.6g}{error}",
        f"{found.x.title}: {si(entry.x.mean)}",
        entry.what.source if entry.y.count == 1 else f"{entry.y.count} seeds",
    )
    return "<br>".join(map(plain_text, lines))


def _line(found: TradeOff) -> dict[str, Any]:
    points = [found.entries[i].point for i in found.frontier]
    unit = 10 ** _power(found)
    return {
        "type": "scatter", "mode": "lines", "name": "frontier", "colour": -2, "hoverinfo": "skip",
        "x": [p.x / unit for p in points], "y": [p.y for p in points], "line": {"shape": "hv", "width": 1.5},
    }  # fmt: skip


def _layout(found: TradeOff, beside: Sequence[Crowd]) -> dict[str, Any]:
    power = _power(found)
    xs, ys = [e.x.mean / 10**power for e in found.entries], [e.y.mean for e in found.entries]
    widths = [8.0, *(2.0 + len(crowd.columns) for crowd in beside)]
    ends = [sum(widths[: i + 1]) / sum(widths) for i in range(len(widths))]
    starts = [0.0, *(end + 0.02 for end in ends[:-1])]
    x_title = axis_name(plain_text(found.x.title), power, log=spans(xs, WIDE_X))
    y_title = axis_name(plain_text(found.y.title), log=spans(ys, WIDE_Y))
    panels = {
        f"xaxis{number}": {
            "type": "category", "title": {"text": plain_text(crowd.title)}, "domain": [starts[number - 1], ends[number - 1]],
            "tickangle": -40, "showgrid": False, "range": [-0.6, len(crowd.columns) - 0.2],
        }
        for number, crowd in enumerate(beside, 2)
    }  # fmt: skip
    return {
        "xaxis": {"title": {"text": x_title}, "domain": [0.0, ends[0]], **_scale(xs, WIDE_X)},
        "yaxis": {"title": {"text": y_title}, **_scale(ys, WIDE_Y)},
        **panels,
        "hovermode": "closest",
        "legend": {"tracegroupgap": 0},
        "margin": {"t": 20},
        "shapes": [
            {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dot", "width": 1}}
            for x in (guide / 10**power for guide in guides(found))
        ],
    }  # fmt: skip


def _scale(values: Sequence[float], factor: float) -> dict[str, Any]:
    """Kind of axis and its ticks, with SI prefixes where numbers are large, and powers of ten where they are larger."""
    large = (
        {}
        if max(values) < 10_000
        else {"tickformat": "~s"}
        if max(values) < 1e15
        else {"exponentformat": "power"}
    )
    if min(values) == max(values):  # a range of nothing has no ticks
        spread = abs(values[0]) * 0.1 or 1.0
        return {"type": "linear", "nticks": 8, "range": [values[0] - spread, values[0] + spread], **large}
    if not spans(values, factor):
        return {"type": "linear", "nticks": 8, **large}
    ratio = max(values) / min(values)
    return {
        "type": "log",
        **({"nticks": 8} if ratio < 10 else {"dtick": "D2" if ratio < 200 else 1}),
        **large,
    }


def plain_text(text: str, longest: int = 120) -> str:
    """Text that plotly cannot read as markup.

    Example:
        >>> plain_text("<b>")
        '‹b›'
    """
    return label_text(text, longest).translate(_LOOKALIKES)


_LOOKALIKES = {
    ord("<"): "‹",
    ord(">"): "›",
    ord("&"): "&\u200b",
}  # no entity goes on after a zero-width space
