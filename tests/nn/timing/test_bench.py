"""`iftplan bench`: what is timed, how ratios come about, and what is written; never how fast anything is."""

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
import torch

import iftplan as ift
from iftplan.base.documents import loads
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.masks import Block, ConstantFanIn, Unstructured
from iftplan.models.notation import parse_layer
from iftplan.nn.timing import interleaving as timing
from iftplan.nn.timing.bench import bench
from iftplan.nn.timing.candidates import candidates
from iftplan.nn.timing.copies import copies_of, in_turn
from iftplan.nn.timing.dense import has_onednn, onednn_step
from iftplan.plans.speed.profiles import grid
from iftplan.plans.speed.tables import bench_document, bench_table
from iftplan.plans.speed.timings import (
    Bench,
    LayerPair,
    Measured,
    Timing,
    network_ratio,
    pair_of_layer,
    pairs_of_plan,
)
from iftplan.plots.timings import bench_picture
from tests.support.cli_runs import many
from tests.support.hand_specs import mlp

pytest.importorskip("numba", reason="numba, of the extra bench, is not installed")

NINETY = Fraction(9, 10)


def test_the_planned_layer_has_the_work_of_the_dense_one() -> None:
    pair = pair_of_layer("linear:768-3072@512", NINETY, Unstructured())
    assert (pair.wide.in_channels, pair.wide.out_channels) == (2429, 9715)  # ceil(√10·768), ceil(√10·3072)
    assert pair.nnz == 768 * 3072 and pair.work == 1
    assert pair.density == pytest.approx(0.1, rel=1e-3)
    conv = pair_of_layer("conv3x3:64-64@16x16", Fraction(3, 4), Unstructured())
    assert (conv.wide.in_channels, conv.nnz, conv.image) == (128, 9 * 64 * 64, (16, 16))


def test_structures_get_sizes_that_they_divide_and_leave_little() -> None:
    blocks = pair_of_layer("linear:768-3072@512", NINETY, Block(4, 4))
    assert blocks.wide.in_channels % 4 == blocks.wide.out_channels % 4 == 0
    fan = pair_of_layer("linear:100-30", NINETY, ConstantFanIn())
    assert fan.nnz % fan.wide.out_channels == 0 and 0.9 < fan.work <= 1


@pytest.mark.parametrize("text", ["conv1d3:8-8@9", "conv3x3:8-8@4x4,groups=2", "embedding:10-8", "linear"])
def test_layers_that_are_not_timed(text: str) -> None:
    with pytest.raises(InputError, match="cannot be timed"):
        pair_of_layer(text, NINETY, Unstructured())


def test_a_structure_that_keeps_nothing() -> None:
    with pytest.raises(InfeasibleError):
        pair_of_layer("linear:2-2", Fraction(1, 2), Block(64, 64))


@pytest.mark.parametrize("positions", [1, 7, 12, 256])
def test_images_are_as_square_as_positions_divide(positions: int) -> None:
    layer = parse_layer(f"conv3x3:4-4@{positions}")
    height, width = LayerPair("", layer, layer, 1, NINETY, "unstructured").image
    assert height * width == positions and height <= width
    assert not any(positions % h == 0 for h in range(height + 1, int(positions**0.5) + 1))


def test_ratios_are_to_the_fastest_dense_of_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of our own: in each round the machine is slower than before, and no ratio changes."""
    now = [0.0]
    slowness = {"round": 1.0}

    def takes(seconds: float) -> Callable[[], None]:
        def run() -> None:
            now[0] += seconds * slowness["round"]

        return run

    def first() -> None:
        slowness["round"] *= 1.5
        now[0] += 0.02 * slowness["round"]

    monkeypatch.setattr(timing, "thread_time", lambda: now[0])
    work = {"dense": first, "dense-best": takes(0.01), "sparse": takes(0.025)}
    found = {t.backend: t for t in timing.race(work, dict.fromkeys(work, 10**9), {"sparse": 3.0}, 5, 1)}
    assert found["sparse"].ratio == pytest.approx(2.5) and found["dense-best"].ratio == 1
    assert found["dense"].ratio == pytest.approx(2)
    assert (found["sparse"].low, found["sparse"].high) == pytest.approx((2.5, 2.5))
    assert found["sparse"].gflops == pytest.approx(2 / found["sparse"].seconds)
    assert found["sparse"].prepared == 3


@pytest.mark.skipif(not has_onednn(), reason="this torch has no oneDNN")
def test_a_convolution_of_one_pixel_is_a_product_of_rows_at_best() -> None:
    found = candidates(pair_of_layer("conv1x1:8-12@9", Fraction(3, 4), Unstructured()), 2, step=False)
    rows, images = found.work["dense-best"](), found.work["dense"]()
    torch.testing.assert_close(rows, images.permute(0, 2, 3, 1).reshape(-1, 12))
    step = candidates(pair_of_layer("conv1x1:8-12@9", Fraction(3, 4), Unstructured()), 2, step=True)
    assert [tuple(x.shape) for x in step.work["dense-best"]()] == [(18, 12), (18, 8), (12, 8)]


def test_backends_compute_and_count_what_they_do() -> None:
    for text, step in (("linear:24-40@9", False), ("linear:24-40@9", True), ("conv3x3:8-8@5x5", True)):
        pair = pair_of_layer(text, Fraction(3, 4), Block(4, 4))
        found = candidates(pair, 2, step=step)
        times = (3 if step else 1) * 2 * pair.dense.positions
        assert found.macs["dense"] == times * pair.dense.weights
        assert found.macs["masked-dense"] == times * pair.wide.weights
        assert found.macs["sparse"] == times * pair.nnz
        assert {"dense", "masked-dense", "sparse"} <= set(found.work)
        assert ("compact" in found.work) == step and found.macs.get(
            "compact", times * pair.nnz
        ) == times * pair.nnz
        results = {name: run() for name, run in found.work.items()}
        if not step:
            close = abs(results["sparse"] - results["masked-dense"]).max()
            assert float(close) < 1e-4


@pytest.mark.skipif(not has_onednn(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 24), (18, 24, 40), (33, 17, 5)])
def test_the_best_dense_step_is_what_autograd_computes(shape: tuple[int, ...]) -> None:
    rows, inputs, outputs = shape
    x, weight = (
        torch.randn(rows, inputs, requires_grad=True),
        torch.randn(outputs, inputs, requires_grad=True),
    )
    gradient = torch.randn(rows, outputs)
    y = torch.nn.functional.linear(x, weight)
    expected = y, *torch.autograd.grad(y, (x, weight), gradient)
    for found, wanted in zip(onednn_step(x.detach(), weight.detach(), gradient), expected, strict=True):
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not has_onednn(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("step", [False, True])
def test_linear_layers_have_both_dense_backends(step: bool) -> None:
    found = candidates(pair_of_layer("linear:24-40@9", NINETY, Unstructured()), 2, step=step)
    assert found.macs["dense"] == found.macs["dense-best"] == (3 if step else 1) * 18 * 24 * 40


def sample(names: tuple[str, ...] = ("dense", "sparse"), ratio: float = 2.0) -> Bench:
    pair = pair_of_layer("linear:8-8@4", Fraction(1, 2), Unstructured())
    other = LayerPair("linear:4-4", pair.dense, pair.wide, pair.nnz, pair.sparsity, pair.structure, 3)
    timings = tuple(
        Timing(n, 1e-3 * (ratio if n == "sparse" else 1), ratio, ratio, ratio, 4.0) for n in names
    )
    measured = tuple(Measured(p, "forward", 1, timings, (("torch-csr", "why"),)) for p in (pair, other))
    return Bench("a machine", 1, 5, ((1, 8.0),), measured)


def test_tables_and_documents_say_the_same() -> None:
    bench = sample()
    table, document = bench_table(bench), bench_document(bench)
    assert [row[5] for row in table.rows] == ["dense", "sparse"] * 2
    assert table.rows[1][7] == "2.00" and table.rows[1][10] == "50%"
    assert "all layers, forward, 1 thread: dense 1.00, sparse 2.00" in table.notes
    assert "not measured: torch-csr: why" in table.notes
    assert document["layers"][1]["count"] == 3
    assert document["layers"][0]["timings"][1]["ratio"] == 2.0
    assert network_ratio(bench.measured, "torch-bsr") is None


def test_the_figure_has_a_panel_for_each_pass_and_ticks_that_can_be_read() -> None:
    bench = sample(("dense", "dense-best", "masked-dense", "sparse"), ratio=3.0)
    steps = tuple(replace(one, passes="step", threads=2) for one in bench.measured)
    both = replace(bench, measured=bench.measured + steps)
    picture = bench_picture(both)
    assert len(picture.figure.axes) == 2
    picture.figure.canvas.draw()
    ticks = [t.get_text() for t in picture.figure.axes[0].get_yticklabels() if t.get_text()]
    assert ticks and all(re.fullmatch(r"[\d.]+×", tick) for tick in ticks)
    (legend,) = picture.figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[:2] == ["ideal: as fast as dense", "masked-dense, by MACs"]
    assert sorted(names[2:]) == ["masked-dense", "sparse, unstructured"], "dense is what ratios are to"
    assert "forward, sparse, unstructured: 3.00 at 0.5" in picture.description
    threads = bench_picture(replace(bench, measured=(*bench.measured, replace(bench.measured[0], threads=2))))
    assert "sparse, unstructured, 2 threads" in threads.description


def test_stacks_of_experts_are_not_timed_as_one_layer() -> None:
    plan = ift.plan(mlp(), "wide", "3/4")
    assert len(pairs_of_plan(plan)) == 1
    one = next(layer for layer in plan.layers if layer.maskable)
    assert one.before is not None and one.after is not None
    stack = replace(one, before=replace(one.before, experts=4), after=replace(one.after, experts=4))
    with pytest.raises(InputError, match="nothing to time"):
        pairs_of_plan(replace(plan, layers=(stack,)))


def test_backends_that_are_asked_for_and_not_made_are_told() -> None:
    pairs = [pair_of_layer("linear:32-32@4", Fraction(3, 4), Unstructured())]
    (found,) = bench(pairs, passes=("forward",), rounds=1, backends=("dense", "compact")).measured
    assert found.left_out == (("compact", "it is not made for this layer, pass and device"),)
    with pytest.raises(InputError, match="none of the dense backends"):
        bench(pairs, rounds=1, backends=("dense-half", "sparse"))


def test_a_profile_has_each_layer_once() -> None:
    pairs = grid((Fraction(1, 2), Fraction(1, 2)), (Unstructured(), Unstructured()), (32, 32), (1, 1))
    assert len(pairs) == len(set(pairs)) == 3


@pytest.mark.parametrize(
    ("layer", "batch", "copies"),
    [
        ("linear:32-32@1", 1, 16),
        ("linear:1024-1024@8", 8, 4),
        ("linear:1024-1024@8", 9, 1),  # 72 columns
        ("linear:768-3072@64", 1, 2),
        ("linear:2048-2048@1", 1, 1),
    ],
)
def test_copies_hold_more_than_a_core_s_caches(layer: str, batch: int, copies: int) -> None:
    pair = pair_of_layer(layer, NINETY, Unstructured())
    assert copies_of(pair, batch) == copies
    assert copies in (1, 16) or copies * 4 * pair.dense.weights >= 2**24


@pytest.mark.parametrize("step", [False, True])
def test_copies_have_their_turns(step: bool) -> None:
    """Every run is the next copy's, whose weights are its own, and a round of all copies ends at the first."""
    pair = pair_of_layer("linear:6-5@2", Fraction(3, 4), Unstructured())
    made = partial(candidates, pair, 1, step=step, backends=("dense", "masked-dense", "sparse"))
    found = in_turn([made(seed=seed) for seed in range(3)])
    assert found.work.keys() == made().work.keys() and found.macs == made().macs
    if not step:
        for name, run in found.work.items():
            outputs = [run() for _ in range(4)]
            alone = made(seed=1).work[name]()
            assert torch.equal(outputs[1], alone) and torch.equal(outputs[0], outputs[3])  # type: ignore[arg-type]
            assert not torch.equal(outputs[0], outputs[1])  # type: ignore[arg-type]


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))\n"
    )
    once = ["--rounds", "1", "--pass", "forward", "--threads", "1,2"]
    made, parallel, ran, cold, layers, none, both, bad, wrong, threads, pythons = many(
        [
            [
                "plan",
                "net.py:net",
                "--transform",
                "wide",
                "--sparsity",
                "0.75",
                "--input",
                "3x8",
                "-o",
                "plan.json",
            ],
            [
                "plan",
                "net.py:net",
                "--transform",
                "parallel",
                "--sparsity",
                "0.75",
                "--input",
                "3x8",
                "-o",
                "parallel.json",
            ],
            ["bench", "plan.json", *once, "--format", "json", "--plot", "p.svg"],
            ["bench", "--layer", "linear:8-8@2", "--cold", "--rounds", "1", "--format", "json"],
            ["bench", "--layer", "linear:8-8", "--sparsity", "0.5,0.75", "--dry-run", "--format", "csv"],
            ["bench"],
            ["bench", "plan.json", "--layer", "linear:8-8"],
            ["bench", "parallel.json", "--dry-run"],
            ["bench", "--layer", "attention:8", "--dry-run"],
            ["bench", "--layer", "linear:8-8", "--threads", "none", "--dry-run"],
            ["bench", "--layer", "linear:8-8", "--cold", "--python", "python3"],
        ],
        tmp_path,
    )
    assert made.code == parallel.code == 0
    assert ran.code == 0, ran.err
    document = loads(ran.out, "bench")
    assert document["schema"] == "iftplan.bench/1"
    assert [(x["threads"], x["pass"]) for x in document["layers"][:1]] == [(1, "forward")]
    assert sum(x["count"] for x in document["layers"] if x["threads"] == 2) == 2
    assert all(t["seconds"] > 0 for x in document["layers"] for t in x["timings"])
    assert "</svg>" in (tmp_path / "p.svg").read_text()
    turns = loads(cold.out, "bench")
    assert (document["cold"], turns["cold"]) == (False, True)
    assert {t["backend"] for t in turns["layers"][0]["timings"]} >= {"dense", "masked-dense", "sparse"}
    assert len(layers.out.splitlines()) == 3
    for run, says in (
        (none, "bench needs a PLAN or layers"), (both, "bench needs a PLAN or layers"),
        (bad, "plan with --transform wide"), (wrong, "cannot be timed"), (threads, "is not a number of threads"),
        (pythons, "--cold times copies of single layers"),
    ):  # fmt: skip
        assert run.code == 2 and says in run.message
