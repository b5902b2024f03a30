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

from iftplan.plots.pareto import MANY, WIDE_X, WIDE_Y, describe, guides, spans
from iftplan.plots.style import MARKERS, THEMES, label_text, si
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
    xaxis: {...drawn.layout.xaxis, ...axis}, yaxis: {...drawn.layout.yaxis, ...axis}};
  Plotly.react("figure", traces, layout, {responsive: true, displaylogo: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]]});
}
coloured();
dark.addEventListener("change", coloured);
"""

_STYLE = """
body { margin: 1rem; font-family: system-ui, sans-serif; background: #ffffff; color: #1a1a1a; }
#figure { height: 75vh; min-height: 24rem; }
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
<div id="figure" role="img" aria-label="{escape(describe(found), quote=True)}"></div>
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
    traces = [_line(found), *(_trace(found, name, names) for name in names)]
    return {"traces": traces, "layout": _layout(found), "themes": themes}


def _trace(found: TradeOff, series: str, names: Sequence[str]) -> dict[str, Any]:
    entries = [e for e in found.entries if e.series == series]
    dense = series in ("dense", "paper: dense")
    place = [n for n in names if n not in ("dense", "paper: dense")].index(series) if not dense else -1
    hollow = series.startswith("paper:")
    symbol = "star" if dense else _SYMBOLS[MARKERS[place % (len(MARKERS) - 1)]]
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": plain_text(series, 40),
        "colour": place,
        "hollow": hollow,
        "x": [e.x.mean for e in entries],
        "y": [e.y.mean for e in entries],
        "text": [_hover(e, found) for e in entries],
        "hoverinfo": "text",
        "marker": {
            "symbol": symbol + ("-open" if hollow else ""),
            "size": 7 if len(found.entries) > MANY else 10,
        },
    }
    if any(e.y.error is not None for e in entries):
        trace["error_y"] = {"type": "data", "array": [e.y.error or 0.0 for e in entries], "thickness": 1}
    return trace


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
    return {
        "type": "scatter", "mode": "lines", "name": "frontier", "colour": -2, "hoverinfo": "skip",
        "x": [p.x for p in points], "y": [p.y for p in points], "line": {"shape": "hv", "width": 1.5},
    }  # fmt: skip


def _layout(found: TradeOff) -> dict[str, Any]:
    xs, ys = [e.x.mean for e in found.entries], [e.y.mean for e in found.entries]
    return {
        "xaxis": {"title": {"text": _named(found.x.title, xs, WIDE_X)}, **_scale(xs, WIDE_X)},
        "yaxis": {"title": {"text": _named(found.y.title, ys, WIDE_Y)}, **_scale(ys, WIDE_Y)},
        "hovermode": "closest",
        "margin": {"t": 20},
        "shapes": [
            {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dot", "width": 1}}
            for x in guides(found)
        ],
    }  # fmt: skip


def _named(title: str, values: Sequence[float], factor: float) -> str:
    """An axis' name, which says where the axis is logarithmic."""
    return plain_text(title) + ("; log scale" if spans(values, factor) else "")


def _scale(values: Sequence[float], factor: float) -> dict[str, Any]:
    """Kind of axis and its ticks, with SI prefixes where numbers are large."""
    large = {"tickformat": "~s"} if max(values) >= 10_000 else {}
    if min(values) == max(values):  # a range of nothing has no ticks
        spread = abs(values[0]) * 0.1 or 1.0
        return {"type": "linear", "nticks": 8, "range": [values[0] - spread, values[0] + spread], **large}
    if not spans(values, factor):
        return {"type": "linear", "nticks": 8, **large}
    return {"type": "log", "dtick": "D2" if max(values) < 200 * min(values) else 1, **large}


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
