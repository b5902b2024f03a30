"""`iftplan pareto` and `iftplan plot` as users run them: files, exit statuses, and the published figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import iftplan as ift
from iftplan.base.documents import digest
from iftplan.models.spec import ModelSpec
from iftplan.runs.results.published.costs import published_observations
from iftplan.runs.results.published.results import published_results
from iftplan.runs.results.tradeoff import tradeoff
from tests.support.cli_runs import Run, many
from tests.support.hand_specs import chain
from tests.support.runs.directories import run_directory

MAGIC = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".html": b"<!doctype html>"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pareto")
    for seed, metric in enumerate((0.9, 0.92)):
        run_directory(home / "runs", f"wide-{seed}", seed=seed, metric=metric)
    dense = {"transform": "none", "sparsity": 0.0, "method": "dense", "maskable_weights": 0, "nnz": 0}
    run_directory(home / "runs", "dense", metric=0.91, train_macs=6 * 10**20, **dense)
    run_directory(home / "runs", "cheap", metric=0.8, train_macs=10**20, sparsity=0.5)
    run_directory(home, "one", data="cifar10")
    run_directory(home, "two", data="cifar100")
    run_directory(home / "other", "text", metric_name="perplexity", metric=5.0, data="book")
    for i, sparsity in enumerate(("1/2", "3/4")):
        ift.save(ift.plan(chain(), "wide", sparsity), str(home / f"plan{i}.json"))
    (home / "runs" / "wide-0" / "metrics.csv").write_text(
        "step,itop,churn,density,test_loss,train_macs\n1,0.3,0.1,0.25,2,300\n2,0.4,0.1,0.25,1.5,600\n"
    )
    return home


COMMANDS = {
    "table": "pareto runs",
    "json": "pareto runs --format json",
    "flop": "pareto runs --format json --convention flop",
    "mixed": "pareto runs other/text",
    "nothing": "pareto",
    "lost": "pareto nowhere.json",
    "untrained": "pareto plan0.json plan1.json",
    "plans": "pareto plan0.json plan1.json --y log2_masks --format csv",
    "digits": "pareto runs --paper --task ImageNet",
    "both": "pareto one two --paper --task CIFAR-100",
    "whose": "pareto runs --paper",
    "unwritable": "pareto runs -o nowhere/a.png",
    "macs": "plot macs plan0.json -o macs.svg",
    "density": "plot density plan0.json -o density.pdf --theme dark",
    "space": "plot space plan0.json plan1.json -o space.png --theme print",
    "updates": "plot updates runs/wide-0 -o updates.png",
    "loss": "plot loss runs/wide-0 -o loss.svg --convention flop",
    "lossless": "plot loss runs/wide-1 -o x.png",
    "cardinality": "plot cardinality linear:16-16 -o cardinality.png",
    "gif": "plot macs plan0.json -o macs.gif",
    "two": "plot macs plan0.json plan1.json -o two.png",
    "noplan": "plot density zoo:resnet18 -o x.png",
    "norun": "plot updates plan0.json -o x.png",
    **{f"figure{suffix}": f"pareto runs -o figure{suffix}" for suffix in MAGIC},
}


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Run]:
    return dict(zip(COMMANDS, many([text.split() for text in COMMANDS.values()], folder), strict=True))


def test_the_frontier_is_a_table_with_its_reading(runs: dict[str, Run]) -> None:
    lines = runs["table"].out.splitlines()
    assert lines[0].split()[:3] == ["on", "the", "frontier"]
    assert [line.split()[:2] for line in lines[2:4]] == [["wide", "0.5"], ["wide", "0.75"]]
    assert "91 ± 1" not in runs["table"].out
    assert lines[3].split()[-3:] == ["91", "1", "2"]
    assert any(line.startswith("dense, accuracy 91 at 6e20: the same for 2× less") for line in lines)


def test_the_document_has_every_point_and_is_sealed(runs: dict[str, Run]) -> None:
    found = json.loads(runs["json"].out)
    assert found["schema"] == "iftplan.pareto/1"
    assert found["digest"] == digest(found)
    assert found["frontier"] == ["wide 0.5", "wide 0.75"]
    assert {p["name"]: p["on_frontier"] for p in found["points"]} == {
        "wide 0.5": True,
        "wide 0.75": True,
        "dense": False,
    }
    assert found["x"] == {"name": "training MACs, whole run", "unit": "", "better": "lower"}
    [reading] = found["readings"]
    assert (reading["reference"], reading["ratio"]) == ("dense", pytest.approx(2.0))


def test_flops_are_twice_the_macs(runs: dict[str, Run]) -> None:
    macs, flops = (json.loads(runs[name].out) for name in ("json", "flop"))
    assert [p["x"] for p in flops["points"]] == [2 * p["x"] for p in macs["points"]]
    assert flops["convention"] == "flop"


@pytest.mark.parametrize(
    "name, says",
    [
        ("mixed", "has 'digits' and other/text has 'book'|'accuracy' and other/text has 'perplexity'"),
        ("nothing", "--paper"),
        ("lost", "cannot be read"),
        ("untrained", "--y log2_masks"),
        ("digits", "was trained on digits, and --task is ImageNet"),
        ("whose", "needs their data set: --task ImageNet"),
        ("unwritable", "cannot be written"),
        ("gif", ".png, .svg, .pdf"),
        ("two", "draws one subject, and 2 are given"),
        ("noplan", "is not a plan file"),
        ("norun", "has no column step, itop, churn, density"),
        ("lossless", "metrics.csv does not exist"),
    ],
)
def test_what_cannot_be_drawn_ends_with_2_and_a_reason(runs: dict[str, Run], name: str, says: str) -> None:
    assert runs[name].code == 2, runs[name].err
    assert any(part in runs[name].message for part in says.split("|"))
    assert runs[name].out == ""


@pytest.mark.parametrize("suffix", MAGIC)
def test_figures_are_written_in_the_form_of_their_name(
    runs: dict[str, Run], folder: Path, suffix: str
) -> None:
    assert runs[f"figure{suffix}"].code == 0
    assert (folder / f"figure{suffix}").read_bytes().startswith(MAGIC[suffix])
    assert "on the frontier" in runs[f"figure{suffix}"].err


def test_every_kind_of_picture_is_written(runs: dict[str, Run], folder: Path) -> None:
    for name in ("macs", "density", "space", "loss", "updates", "cardinality"):
        file = COMMANDS[name].partition("-o ")[2].split()[0]
        assert runs[name].code == 0, runs[name].err
        assert (folder / file).read_bytes().startswith(MAGIC[Path(file).suffix])
    assert not list(folder.glob("*.gif"))


def test_plans_are_compared_by_their_search_space(runs: dict[str, Run]) -> None:
    header, *rows = runs["plans"].out.splitlines()
    assert "log2_of_the_number_of_masks_bits" in header
    assert [row.split(",")[0] for row in rows] == ["wide 0.5", "wide 0.75"]


@pytest.mark.slow
def test_published_costs_are_counted_here() -> None:
    """ResNet-18 on ImageNet: 90 epochs of 1 281 167 images; the whole figure is made by docs/guides/pareto.md."""
    rows = [r for r in published_results("ImageNet") if r.model == "ResNet-18"]
    found = tradeoff(published_observations(rows, ift.read_model))
    points = {entry.name: entry for entry in found.entries}
    samples = 90 * 1_281_167
    assert points["dense"].x.mean == 3 * 1_814_073_344 * samples
    assert points["wide 0.9"].y.mean == 74.4
    assert points["parallel 0.5"].what.macs == 1_814_073_344
    # RigL, ΔT = 100, to 75 % of training; f_D is twice f_S where masks are: not in the first and the last layer
    masked = (1_814_073_344 - 118_013_952 - 512_000) / 1_814_073_344
    ratio = points["parallel 0.5"].x.mean / points["dense"].x.mean
    assert ratio == pytest.approx(0.25 + 0.75 * (300 + 2 + 1 + masked) / 303, rel=1e-9)


def test_vision_closes_all_layers_as_the_paper_does() -> None:
    """Appendix B.2: dense first and last layers are paid for, so the whole forward pass costs what it did."""
    rows = [
        r
        for r in published_results("CIFAR-100")
        if r.model == "ResNet-18" and r.transform in ("wide", "parallel") and not r.mask
    ]
    found = published_observations(rows, ift.read_model)
    assert {o.sparsity for o in found} >= {0.5, 0.75, 0.9}
    for one in found:
        assert one.scope == "layers"
        assert one.dense_macs == 555_468_800  # published.csv has its source
        # a weight of the last stage is applied at 4·4 positions, so 15 MACs are the most that can stay
        assert 0 <= one.dense_macs - one.macs < 16


def test_what_was_fine_tuned_with_every_weight_costs_every_weight() -> None:
    rows = [
        r
        for r in published_results("WikiText-103")
        if r.model == "GPT-3 Small (Pile)" and r.transform == "wide"
    ]
    found = {(o.method, o.sparsity): o for o in published_observations(rows, ift.read_model)}
    dense = found["dense-finetune", 0.75]
    sparse = next(o for (method, s), o in found.items() if s == 0.75 and method != "dense-finetune")
    assert dense.macs is not None and sparse.macs is not None and sparse.nnz and dense.nnz
    assert dense.nnz == dense.maskable_weights == sparse.maskable_weights
    # every masked weight is applied at each of 2048 positions
    assert dense.macs - sparse.macs == 2048 * (dense.nnz - sparse.nnz)


def test_everything_published_on_cifar100_has_a_cost() -> None:
    """The fifteen points of table 10 among them; their dense costs are the closed forms of tests/nn/sources/test_zoo.py."""
    found = published_observations(published_results("CIFAR-100"), ift.read_model)
    assert len(found) == 54
    assert all(one.train_macs for one in found)
    dense = {one.model: one for one in found if one.transform == "dense"}
    assert {name: one.macs for name, one in dense.items()} == {
        "ResNet-18": 555_468_800,
        "MobileNetV2": 88_091_648,
        "MobileViT-S": 441_688_576,
        "BotNet-50": 1_265_639_424,
    }
    samples = 200 * 50_000
    assert all(one.train_macs == 3 * one.macs * samples for one in dense.values() if one.macs)


def test_networks_that_are_not_in_the_zoo_have_no_costs() -> None:
    rows = [r for r in published_results("SQuADv1.1") if r.model == "BERT Small"]
    assert rows
    assert all(o.macs is o.train_macs is None for o in published_observations(rows, _unread))


def _unread(source: str) -> ModelSpec:
    raise AssertionError(f"{source} is not needed")


def test_one_name_for_two_folders_is_told(runs: dict[str, Run]) -> None:
    run = runs["both"]
    assert run.code == 0
    assert "note: runs on cifar10, cifar100 are all taken for CIFAR-100" in run.err
