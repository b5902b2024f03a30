"""Figures: what is drawn, what axes say, bytes that do not change, names that do no harm, colours that can be told apart."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.patches import Rectangle

import iftplan as ift
from iftplan.base.errors import InputError
from iftplan.base.units import Convention
from iftplan.models.notation import parse_layer
from iftplan.plans.search.spaces import model_spaces
from iftplan.plots.files import FORMS, Picture, encode
from iftplan.plots.interactive import pareto_page, plain_text
from iftplan.plots.layers import density_picture, macs_picture
from iftplan.plots.learning import learning_picture
from iftplan.plots.pareto import pareto_picture
from iftplan.plots.scaling import advice_picture, families_picture
from iftplan.plots.search_spaces import cardinality_picture
from iftplan.plots.spectra import spectra_picture
from iftplan.plots.style import THEMES, label_text, si
from iftplan.plots.updates import updates_picture
from iftplan.runs.histories.learning import LearningHistory
from iftplan.runs.histories.masks import History, read_history
from iftplan.runs.laws.advice.sparse import Advice
from iftplan.runs.laws.sparse import LAWS
from iftplan.runs.results.observations import Observation
from iftplan.runs.results.tradeoff import TradeOff, tradeoff
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
        "cardinality": cardinality_picture("linear:16-16", theme=theme),
        "loss": learning_picture(
            [
                LearningHistory("r", (1, 2), (10**9, 2 * 10**9), {"test": (2.0, loss)}, ("alike",))
                for loss in (1.0, 1.2)
            ],
            theme=theme,
        ),
        "updates": updates_picture([History("r", (1, 2), (0.2, 0.3), (0.1, 0.0), (0.25, 0.25))], theme=theme),
        "advice": advice_picture(Advice(LAWS["t5-c4"], 1e8, 1e20), theme=theme),
        "families": families_picture(theme=theme),
    }


LABELS = {
    "pareto": ("training MACs, whole run, log scale", "accuracy (%)"),
    "macs": ("MACs of a forward pass, input 1x3x8x8", ""),
    "density": ("density (nonzero weights over all)", ""),
    "cardinality": ("sparsity", "search space: log2 of the number of masks (bits)"),
    "loss": ("training MACs", "test loss"),
    "updates": ("training step", "ITOP: fraction of all weights;\nchurn: fraction of active weights"),
    "advice": ("training compute (FLOPs, two for each MAC), log scale", "optimal sparsity"),
    "families": ("training compute (FLOPs), log scale", "loss"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_axes_name_quantity_convention_and_unit(kind: str) -> None:
    axes = pictures()[kind].figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == LABELS[kind]


def test_what_a_law_extrapolates_is_dotted() -> None:
    left, right = families_picture(params=8e7).figure.axes
    dense, dotted, *_ = left.lines
    computes, losses = np.array(dense.get_xdata(), float), np.array(dense.get_ydata(), float)
    tokens = computes / (6 * 8e7)
    assert np.array_equal(np.isfinite(losses), (tokens >= 16.384e9) & (tokens <= 65.536e9))
    assert dotted.get_linestyle() == ":"
    assert np.isfinite(np.array(dotted.get_ydata(), float)).sum() > 80
    assert not any(np.isnan(np.array(line.get_ydata(), float)).any() for line in right.lines[::2])
    outside = families_picture(params=3e9).figure.axes[1]
    assert np.isnan(np.array(outside.lines[0].get_ydata(), float)).all(), (
        "more parameters than the runs of the fit had"
    )


def test_flops_are_named_where_they_are_drawn() -> None:
    plan = ift.plan(chain(), "wide", "3/4")
    assert (
        macs_picture(plan, convention=Convention.FLOP).figure.axes[0].get_xlabel()
        == "FLOPs of a forward pass, input 1x3x8x8"
    )


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.5, "0.5"), (1234, "1.234 k"), (1.8e9, "1.8 G"), (6.33e17, "6.33·10¹⁷"), (1e18, "10¹⁸"), (1.27e21, "1.27·10²¹")],
)  # fmt: skip
def test_large_numbers_of_figures_are_powers_of_ten(value: float, told: str) -> None:
    assert si(value) == told


def test_an_axis_of_large_numbers_has_its_power_in_its_name() -> None:
    trade = tradeoff([seen(i, train_macs=(6 + i) * 10**17) for i in range(8)])
    figure = pareto_picture(trade).figure
    figure.draw_without_rendering()
    axes = figure.axes[0]
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert axes.get_xlabel() == "training MACs, whole run (10¹⁸)"
    assert "0.8" in ticks
    assert "1.2" in ticks


def alike(count: int = 36) -> TradeOff:
    """As many at nearly one cost, of nine series, beside two that cost more."""
    methods = ("static", "set", "rigl")
    at_cost = [
        seen(i, model="net", transform=FAMILIES[1 + i % 3], method=methods[i // 3 % 3], sparsity=0.5 + i / 100,
             train_macs=10**16 + i * 10**12, value=0.7 + i / 1000, error=0.002)
        for i in range(count)
    ]  # fmt: skip
    dear = [
        seen(1, model="net", train_macs=n * 10**16, value=0.8, method="dear", sparsity=n / 10) for n in (3, 5)
    ]
    return tradeoff([*at_cost, *dear])


def test_points_of_equal_cost_stand_at_their_cost_and_in_a_column_for_each_series() -> None:
    trade = alike()
    main, columns = pareto_picture(trade).figure.axes
    drawn = {
        tuple(p)
        for c in main.collections
        if isinstance(c, PathCollection)
        for p in np.asarray(c.get_offsets())
    }
    assert drawn == {(e.x.mean, e.y.mean) for e in trade.entries}, "nothing is moved aside"
    crowd = {e.series for e in trade.entries if e.x.mean < 2e16}
    assert len(crowd) == 9
    names = [label.get_text() for label in columns.get_xticklabels()]
    assert set(names) == crowd
    for place, name in enumerate(names):
        placed = [
            y
            for c in columns.collections
            if c.get_label() == name
            for x, y in np.asarray(c.get_offsets())
            if x == place
        ]
        assert sorted(placed) == sorted(e.y.mean for e in trade.entries if e.series == name), name
    assert columns.get_title("left") == "the 36 at equal cost, ≈ 1.002·10¹⁶"
    assert len(pareto_picture(found(12)).figure.axes) == 1


@pytest.mark.parametrize(
    "trade", [alike(), tradeoff([seen(i, method=f"m{i}", transform="wide") for i in range(40)])]
)
def test_every_series_is_named_in_the_legend_or_under_its_column(trade: TradeOff) -> None:
    figure = pareto_picture(trade).figure
    legend = {text.get_text() for one in figure.legends for text in one.get_texts()}
    columns = {label.get_text() for axes in figure.axes[1:] for label in axes.get_xticklabels()}
    assert {e.series for e in trade.entries} <= legend | columns
    figure.draw_without_rendering()
    frame = figure.bbox
    for one in figure.legends:
        box = one.get_window_extent()
        assert box.x0 >= frame.x0 - 1 and box.x1 <= frame.x1 + 1 and box.y0 >= frame.y0 - 1, (
            "within the picture"
        )


def test_no_label_lies_over_a_point() -> None:
    for trade in (found(10), alike()):
        figure = pareto_picture(trade).figure
        figure.draw_without_rendering()
        for axes in figure.axes:
            boxes = [t.get_window_extent() for t in axes.texts if t.get_rotation() == 0 and t.get_text()]
            offsets = [np.asarray(c.get_offsets()) for c in axes.collections if isinstance(c, PathCollection)]
            points = axes.transData.transform(np.concatenate(offsets))
            assert not [(x, y) for x, y in points for box in boxes if box.contains(x, y)]


def test_no_bar_is_cut_by_the_frame() -> None:
    plan = ift.plan(chain(), "wide", "3/4")
    many = replace(plan, layers=tuple(replace(plan.layers[i % 6], name=f"l{i}") for i in range(80)))
    for drawn in (plan, many):
        axes = macs_picture(drawn).figure.axes[0]
        top = max(axes.get_xlim()[1], axes.get_ylim()[1])
        assert top > max(float(layer.macs) for layer in drawn.layers)


def test_a_trade_off_is_drawn_from_plans_and_frames() -> None:
    import pandas as pd

    plans = [ift.plan(chain(), family, "3/4") for family in ("wide", "parallel")]
    assert "search space" in pareto_picture(plans).figure.axes[0].get_ylabel()
    rows = [
        {"model": "m", "macs": 10**6, "train_macs": 10**9 * n, "metric": "accuracy", "value": n / 10}
        for n in (1, 2)
    ]
    assert pareto_picture(pd.DataFrame(rows)).figure.axes[0].get_ylabel() == "accuracy (%)"
    with pytest.raises(InputError, match="the data frame has the columns a; a table of a sweep"):
        pareto_picture(pd.DataFrame({"a": [1]}))
    with pytest.raises(InputError, match="a int is nothing that can be compared"):
        pareto_picture([3])  # type: ignore[list-item]


def test_a_picture_is_saved_by_its_suffix(tmp_path: Path) -> None:
    picture = pareto_picture(found(2), title="Two")
    picture.save(tmp_path / "two.svg")
    assert (tmp_path / "two.svg").read_bytes() == encode(picture, "svg")
    assert repr(picture) == "Picture('Two')"
    with pytest.raises(InputError, match="'png', 'svg', 'pdf'"):
        picture.save(tmp_path / "two.jpg")


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
    assert len(cardinality_picture(chain()).figure.axes[0].lines) == len(curves)


def test_a_search_space_is_drawn_of_whatever_has_one() -> None:
    layer = cardinality_picture("linear:16-16")
    assert layer.title == cardinality_picture(parse_layer("linear:16-16")).title
    by_name, of_plan = (
        cardinality_picture(subject)
        for subject in ("zoo:digits-cnn", ift.plan("zoo:digits-cnn", "wide", "3/4"))
    )
    assert by_name.description == of_plan.description
    assert len(by_name.figure.axes[0].lines) == 5
    refused: list[tuple[Any, str]] = [
        (ift.plan(chain(), "wide", "3/4"), "Give it the model: cardinality_picture"),
        ("zoo:digit-cnn", "Did you mean 'zoo:digits-cnn'"),
        ("nonsense", "nonsense"),
        ({"wide": [(0.5, 3.0)]}, "cardinality_picture: subject is a dict, but it must be a ModelSpec"),
    ]
    for subject, message in refused:
        with pytest.raises(InputError, match=message):
            cardinality_picture(subject)


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


def test_a_theme_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"'light', 'dark', 'print'.* Did you mean 'dark'"):
        pareto_picture(found(3), theme="drak")


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


METRICS = "step,itop,churn,density,test_loss,train_macs\n1,0.2,0.1,0.25,2,300\n2,0.3,0,0.25,1.5,600\n"
SPECTRA = "step,layer,sigma1,sigma2,delta_r,delta_s,imdb,weighted_gap\n0,a,4,3,1,1,,1\n5,a,4,3,2,1,1,1\n"


def test_runs_are_drawn_from_their_directories(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("one", "two")]
    for run in runs:
        run.mkdir()
        (run / "metrics.csv").write_text(METRICS, encoding="utf-8")
        (run / "spectra.csv").write_text(SPECTRA, encoding="utf-8")
    names = [str(run) for run in runs]
    expected = encode(updates_picture([read_history(name) for name in names]), "svg")
    assert encode(updates_picture(names), "svg") == encode(updates_picture(runs), "svg") == expected
    assert "one ends at 0.300" in updates_picture(names[0]).description
    assert learning_picture(names).description == (
        "test loss of 2 configurations: one ends at 1.500; two ends at 1.500."
    )
    assert "2 runs" in spectra_picture(runs).description
    assert "masks of 1 run against" in spectra_picture(names[0]).description
    with pytest.raises(InputError, match=r"Runs in .*: .*one, .*two\."):
        updates_picture(tmp_path)
    with pytest.raises(InputError, match="no runs were given"):
        spectra_picture([])
