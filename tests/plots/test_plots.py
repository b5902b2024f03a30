"""Figures: what is drawn, what axes say, bytes that do not change, names that do no harm, colours that can be told apart."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.patches import Rectangle

import iftplan as ift
from iftplan.base.units import Convention
from iftplan.models.notation import parse_layer
from iftplan.plans.search_spaces import layer_spaces, model_spaces
from iftplan.plots.files import FORMS, Picture, encode
from iftplan.plots.interactive import pareto_page, plain_text
from iftplan.plots.layers import density_picture, macs_picture
from iftplan.plots.pareto import pareto_picture
from iftplan.plots.scaling import advice_picture
from iftplan.plots.search_spaces import cardinality_picture
from iftplan.plots.style import THEMES, label_text
from iftplan.plots.updates import updates_picture
from iftplan.runs.history import History
from iftplan.runs.results.observations import Observation
from iftplan.runs.results.tradeoff import TradeOff, tradeoff
from iftplan.runs.scaling_law import LAWS
from iftplan.runs.scaling_tables import Advice
from tests.support.hand_specs import chain
from tests.support.places import ROOT

HOSTILE = "_$\\frac$ <script>alert(1)</script><b>&lt;i&gt;\x1b[31m\n{x} " + "long" * 40
FAMILIES = ("none", "wide", "parallel", "factorized", "doped")


def seen(i: int, **changes: Any) -> Observation:
    family = FAMILIES[i % 5]
    given = Observation(
        f"r{i}", f"net{i}", family, 0.0 if family == "none" else 0.75, method="dense" if family == "none" else "rigl",
        macs=10**6 * (i + 1), train_macs=10**9 * (i + 1), metric="accuracy", value=0.5 + 0.4 * (i * 7 % 11) / 11, log2_masks=10.0 * i,
    )  # fmt: skip
    return replace(given, **changes)


def found(count: int) -> TradeOff:
    return tradeoff([o for i in range(count) for o in (seen(i, seed=0), seen(i, seed=1, value=0.6))])


def pictures(theme: str = "light") -> dict[str, Picture]:
    plan = ift.plan(chain(), "wide", "3/4")
    return {
        "pareto": pareto_picture(found(12), theme=theme),
        "macs": macs_picture(plan, theme=theme),
        "density": density_picture(plan, theme=theme),
        "cardinality": cardinality_picture(layer_spaces(parse_layer("linear:16-16")), "linear", theme=theme),
        "updates": updates_picture([History("r", (1, 2), (0.2, 0.3), (0.1, 0.0), (0.25, 0.25))], theme=theme),
        "advice": advice_picture(Advice(LAWS["t5-c4"], 1e8, 1e20), theme=theme),
    }


LABELS = {
    "pareto": ("training MACs, whole run; log scale", "accuracy (%)"),
    "macs": ("MACs of one sample", ""),
    "density": ("density (nnz over weights)", ""),
    "cardinality": ("sparsity", "search space, log2 of the number of masks (bits)"),
    "updates": ("step", "part of the weights (ITOP), of the active ones (churn)"),
    "advice": ("training compute (FLOPs, two for each MAC)", "optimal sparsity"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_axes_name_quantity_convention_and_unit(kind: str) -> None:
    axes = pictures()[kind].figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == LABELS[kind]


def test_flops_are_named_where_they_are_drawn() -> None:
    plan = ift.plan(chain(), "wide", "3/4")
    assert macs_picture(plan, convention=Convention.FLOP).figure.axes[0].get_xlabel() == "FLOPs of one sample"


@pytest.mark.parametrize("count", [1, 10, 300])
def test_every_configuration_is_a_point_and_the_frontier_a_line(count: int) -> None:
    trade = found(count)
    axes = pareto_picture(trade).figure.axes[0]
    assert (
        sum(len(np.asarray(c.get_offsets())) for c in axes.collections if c.get_label() in _series(trade))
        == count
    )
    lines = [line for line in axes.lines if line.get_label() == "frontier"]
    assert len(lines) == (len(trade.frontier) > 1)
    if lines:
        corners = set(zip(*map(np.asarray, lines[0].get_data()), strict=True))
        assert {(e.x.mean, e.y.mean) for e in (trade.entries[i] for i in trade.frontier)} <= corners


def _series(trade: TradeOff) -> set[str]:
    return {entry.series for entry in trade.entries}


@pytest.mark.parametrize("count", [1, 10, 300])
def test_no_label_covers_another(count: int) -> None:
    figure = pareto_picture(found(count)).figure
    figure.draw_without_rendering()
    texts = [t for t in figure.axes[0].texts if t.get_rotation() == 0 and t.get_text()]
    boxes = [t.get_window_extent() for t in texts]
    assert texts
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_errors_over_seeds_are_drawn() -> None:
    axes = pareto_picture(found(4)).figure.axes[0]
    assert any(type(c).__name__ == "ErrorbarContainer" for c in axes.containers)
    assert not pareto_picture(tradeoff([seen(1)])).figure.axes[0].containers


def test_every_layer_is_a_row_and_a_thousand_are_a_skyline() -> None:
    plan = ift.plan(chain(), "wide", "3/4")
    axes = macs_picture(plan).figure.axes[0]
    assert len(axes.patches) == 2 * len(plan.layers)
    assert sorted(p.get_width() for p in axes.patches if isinstance(p, Rectangle)) == sorted(
        float(m) for x in plan.layers for m in (x.macs, x.dense_macs)
    )
    many = replace(
        plan, layers=tuple(replace(plan.layers[i % len(plan.layers)], name=f"l{i}") for i in range(1000))
    )
    skyline = macs_picture(many).figure.axes[0]
    assert len(skyline.patches) == 2
    assert skyline.get_xlim() == (0, 1000)
    assert "mean of 7 layers at a time" in skyline.get_ylabel()


def test_a_model_has_a_line_for_each_family_and_plain_sparsity() -> None:
    curves = model_spaces(chain())
    assert {"wide", "parallel", "sparse, same width"} <= set(curves)
    wide = dict(curves["wide"])
    assert wide[0.75] == ift.plan(chain(), "wide", "3/4").cardinality.log2_masks
    assert len(cardinality_picture(curves, "chain").figure.axes[0].lines) == len(curves)


# --- files --------------------------------------------------------------------------------------------------


def test_svg_says_what_it_shows() -> None:
    picture = pareto_picture(found(6), title="Ours & <theirs>")
    root = ElementTree.fromstring(encode(picture, "svg"))
    name = {"s": "http://www.w3.org/2000/svg"}
    assert root.get("role") == "img"
    assert root.findtext("s:title", namespaces=name) == "Ours & <theirs>"
    assert root.findtext("s:desc", namespaces=name) == picture.description
    assert "6 configurations" in picture.description


MAKE = """
import sys, hashlib
sys.path.insert(0, {root!r})
from tests.plots.test_plots import FORMS, encode, found, pareto_page, pareto_picture
for form in FORMS:
    print(hashlib.sha256(encode(pareto_picture(found(9)), form)).hexdigest())
print(hashlib.sha256(pareto_page(found(9)).encode()).hexdigest())
"""


def test_bytes_are_the_same_in_another_process() -> None:
    runs = {
        subprocess.run(
            [sys.executable, "-c", MAKE.format(root=str(ROOT))], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(runs) == 1
    assert len(set(next(iter(runs)).split())) == len(FORMS) + 1


@pytest.mark.parametrize("form", FORMS)
def test_hostile_names_become_text(form: str, recwarn: pytest.WarningsRecorder) -> None:
    trade = tradeoff([seen(i, model=HOSTILE + str(i), transform=HOSTILE, method=HOSTILE) for i in range(5)])
    data = encode(pareto_picture(trade, title=HOSTILE), form)
    assert len(data) > 1000
    if form == "svg":
        assert not [e for e in ElementTree.fromstring(data).iter() if e.tag.endswith("script")]
    assert not [w for w in recwarn if "Glyph" in str(w.message) or "legend" in str(w.message)]


def test_hostile_names_stay_text_in_the_interactive_page() -> None:
    trade = tradeoff([seen(i, model=HOSTILE + str(i), transform=HOSTILE, method=HOSTILE) for i in range(5)])
    page = pareto_page(trade, title=HOSTILE)
    assert page.count("<script>") == 2
    assert page.count("</script>") == 3
    assert "alert(1)</script>" not in page
    assert "<b>&" not in page
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert "<" not in data
    assert "Content-Security-Policy" in page
    assert "src=" not in page.partition('id="data">')[0]


def test_text_for_plotly_has_neither_tags_nor_entities() -> None:
    assert plain_text("<b>x</b>&lt;") == "‹b›x‹/b›&\u200blt;"


def test_labels_are_one_short_line_and_never_hidden() -> None:
    assert label_text("a\nb\x07" + "c" * 100, 10) == "a b\\x07cc…"
    assert not label_text("_private").startswith("_"), "matplotlib leaves such labels out of legends"


# --- colours ------------------------------------------------------------------------------------------------


def _luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", THEMES)
def test_everything_stands_out_from_its_background(name: str) -> None:
    theme = THEMES[name]
    assert _contrast(theme.ink, theme.background) >= 7
    assert _contrast(theme.muted, theme.background) >= 4.5
    assert all(_contrast(color, theme.background) >= 3 for color in theme.palette)


def _as_seen(color: str, kind: str) -> tuple[float, ...]:
    """Machado, Oliveira and Fernandes 2009, severity 1, on linear light."""
    matrices = {
        "protan": (
            (0.152286, 1.052583, -0.204868),
            (0.114503, 0.786281, 0.099216),
            (-0.003882, -0.048116, 1.051998),
        ),
        "deutan": (
            (0.367322, 0.860646, -0.227968),
            (0.280085, 0.672501, 0.047413),
            (-0.01182, 0.04294, 0.968881),
        ),
    }
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    seen_light = [max(0.0, sum(a * b for a, b in zip(row, linear, strict=True))) for row in matrices[kind]]
    return tuple(c ** (1 / 2.4) for c in seen_light)


@pytest.mark.parametrize("kind", ["protan", "deutan"])
@pytest.mark.parametrize("name", ["light", "dark"])
def test_the_first_colours_are_told_apart_by_everyone(name: str, kind: str) -> None:
    colors = [_as_seen(c, kind) for c in THEMES[name].palette[:3]]
    for a, b in combinations(colors, 2):
        assert sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5 > 0.15


@pytest.mark.parametrize("theme", THEMES)
def test_a_theme_reaches_the_whole_picture(theme: str) -> None:
    for picture in pictures(theme).values():
        from matplotlib.colors import to_hex

        assert to_hex(picture.figure.get_facecolor()) == THEMES[theme].background
        assert to_hex(picture.figure.axes[0].xaxis.label.get_color()) == THEMES[theme].ink
