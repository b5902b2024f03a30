"""Models whose work tensor values decide: counted for the input given, on the CPU, with values of a fixed seed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import iftplan as ift
from iftplan.base.errors import MeasureError
from iftplan.models.counting import ENGINES, cross_check
from iftplan.models.spec import InputSpec
from iftplan.nn import apply, measure_applied, measure_step, read_model
from iftplan.nn.counting.measure import measure
from iftplan.nn.counting.passes.data import ASSUMED_ITEM, FOR_THIS_INPUT
from iftplan.nn.meta import cpu_copy
from iftplan.nn.meta.inputs import random_inputs

ROWS = (InputSpec((6, 8)),)


class Chosen(nn.Module):
    """A layer on every row, a second one on the rows that `choose` keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.all, self.some = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.some(self.choose(self.all(x), x))


class ByMask(Chosen):
    def choose(self, h: Tensor, x: Tensor) -> Tensor:
        return h[x.sum(1) > 0]


class ByNonzero(Chosen):
    def choose(self, h: Tensor, x: Tensor) -> Tensor:
        return h[(x.sum(1) > 0).nonzero().flatten()]


class ByWhere(Chosen):
    def choose(self, h: Tensor, x: Tensor) -> Tensor:
        (rows,) = torch.where(x.sum(1) > 0)
        return h.index_select(0, rows)


class BySelect(Chosen):
    def choose(self, h: Tensor, x: Tensor) -> Tensor:
        keep = (x.sum(1, keepdim=True) > 0).expand_as(h)
        return h.masked_select(keep).view(-1, 8)


class ByItem(Chosen):
    def choose(self, h: Tensor, x: Tensor) -> Tensor:
        return h[: int((x.sum(1) > 0).sum())]


class ByList(Chosen):
    def choose(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.stack([row for row, keep in zip(h, (x.sum(1) > 0).tolist(), strict=True) if keep])


class ByNumpy(Chosen):
    def choose(self, h: Tensor, x: Tensor) -> Tensor:
        return h[torch.from_numpy((x.sum(1) > 0).numpy().nonzero()[0])]


class ByUnique(Chosen):
    def choose(self, h: Tensor, x: Tensor) -> Tensor:
        return h[: len(torch.unique(torch.cat([torch.arange(6)[x.sum(1) > 0]] * 2)))]


class ByRepeats(Chosen):
    def choose(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.repeat_interleave(h, (x.sum(1) > 0).long(), dim=0)


class ByLoop(Chosen):
    def choose(self, h: Tensor, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        while len(kept) < int((x.sum(1) > 0).sum()):
            kept.append(h[len(kept)])
        return torch.stack(kept)


class ByBranches(Chosen):
    def choose(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.stack([h[i] for i in range(6) if x[i].sum() > 0])


KINDS = (
    ByMask,
    ByNonzero,
    ByWhere,
    BySelect,
    ByItem,
    ByList,
    ByNumpy,
    ByUnique,
    ByRepeats,
    ByLoop,
    ByBranches,
)


def kept_rows() -> int:
    """How many of the rows that the seed draws have a positive sum."""
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(cpu_copy.SEED))
    return int((x.sum(1) > 0).sum())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_values_decide_is_counted_for_the_input_given(kind: type[Chosen], engine: str) -> None:
    table = measure(kind(), ROWS, engine=engine)
    assert 0 < kept_rows() < 6
    assert table.by_weight() == {"all.weight": 6 * 64, "some.weight": kept_rows() * 32}
    assert table.assumptions == (FOR_THIS_INPUT,)


@pytest.mark.parametrize("kind", [ByMask, ByItem])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_on_the_meta_device_is_counted_for_the_same_input(kind: type[Chosen], engine: str) -> None:
    with torch.device("meta"):
        model = kind()
    assert measure(model, ROWS, engine=engine).by_weight() == measure(kind(), ROWS).by_weight()


def test_gradients_and_layers_are_read_on_the_same_input() -> None:
    step = measure_step(ByMask(), ROWS)
    every, some = 6 * 64, kept_rows() * 32
    assert (step.forward, step.backward) == (every + some, every + 2 * some)
    assert step.assumptions == (FOR_THIS_INPUT,)
    read = read_model(ByMask(), ROWS)
    assert [(row.weight, row.layer.dense_macs) for row in read.layers] == [
        ("all.weight", every),
        ("some.weight", some),
    ]
    assert FOR_THIS_INPUT in read.assumptions


@pytest.mark.parametrize("family", ["parallel", "factorized", "doped"])
def test_families_that_keep_outer_sizes_are_planned_and_audited(family: str) -> None:
    model = Deep()
    plan = ift.plan(read_model(model, ROWS), family, "1/2")
    report = measure_applied(plan, apply(plan, model), engines=ENGINES)
    assert report.passed, report.problems
    assert FOR_THIS_INPUT in " ".join(report.assumptions)


class Deep(ByMask):
    def __init__(self) -> None:
        super().__init__()
        self.add_module("all", nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 8)))
        self.add_module("some", nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 4)))


class Detector(nn.Module):
    """Boxes of every cell, the best of them after a threshold and a suppression, each with a head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
        self.score, self.box = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 4, 1)
        self.head = nn.Linear(8, 5)
        self.anchors = [torch.tensor([-4.0, -4.0, 4.0, 4.0])]  # neither parameter nor buffer

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        h = self.features(image)
        height, width = h.shape[-2:]
        ys, xs = torch.meshgrid(torch.arange(height) * 4.0, torch.arange(width) * 4.0, indexing="ij")
        centers = torch.stack([xs, ys, xs, ys], -1).view(-1, 4).to("cpu")
        boxes = self.box(h).flatten(2)[0].t() + centers + self.anchors[0]
        scores = self.score(h).flatten().sigmoid()
        candidates = torch.where(scores > scores.median())[0]
        kept = suppressed(boxes[candidates], scores[candidates], 0.3)
        rows = h.flatten(2)[0].t()[candidates[kept]]
        return {"boxes": boxes[candidates[kept]], "labels": self.head(rows)}


def suppressed(boxes: Tensor, scores: Tensor, most: float) -> Tensor:
    """Non-maximum suppression, written out."""
    order, kept = scores.argsort(descending=True).tolist(), []
    while order:
        best = order.pop(0)
        kept.append(best)
        order = [i for i in order if overlap(boxes[best], boxes[i]).item() <= most]
    return torch.tensor(kept)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    sides = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
    inner = sides.prod()
    return inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner)


def test_a_detector_counts_what_flop_counter_sees_on_the_same_run() -> None:
    torch.manual_seed(0)
    model, specs = Detector().eval(), (InputSpec((1, 3, 32, 32)),)
    tables = [measure(model, specs, engine=engine) for engine in ENGINES]
    assert cross_check(tables) == ()
    args, _ = random_inputs(specs, model, generator=torch.Generator().manual_seed(cpu_copy.SEED))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        found = model(*args)
    assert counter.get_total_flops() == 2 * tables[0].macs
    assert tables[0].by_weight()["head.weight"] == len(found["labels"]) * 40


def test_two_processes_count_the_same(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)\n        self.table = [torch.randn(8)]\n\n"
        "    def forward(self, x):\n        h = self.a(x) + self.table[0] + torch.rand(8)\n        return self.b(h[h.sum(1) > 0])\n"
    )
    code = (
        "import json\nfrom iftplan.models import InputSpec\nfrom iftplan.nn import read_model\n"
        "m = read_model('net.py:Net', widths=False, inputs=[InputSpec((64, 8))])\n"
        "print(json.dumps([l.layer.dense_macs for l in m.layers]))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    first, second = (json.loads(run.stdout) for run in runs)
    assert first == second
    assert first[0] == 64 * 64
    assert 0 < first[1] < 64 * 32


def test_too_large_for_values_is_refused_with_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        model = ByMask()
        model.add_module("all", nn.Sequential(nn.Linear(8, 1 << 28), nn.Linear(1 << 28, 8)))
    with pytest.raises(MeasureError, match=r"weights and inputs alone need 17\.0 GiB.*the limit is 4\.0 GiB"):
        measure(model, ROWS)


def test_a_tensor_made_on_the_way_counts_against_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Growing(ByMask):
        def forward(self, x: Tensor) -> Tensor:
            kept = super().forward(x)
            return (
                kept.view(-1, 1, 1, 1) * torch.ones(1 << 12)[:, None, None] * torch.ones(1 << 10)[:, None]
            ) * (torch.ones(1 << 10))

    with pytest.raises(MeasureError, match=r"at aten::mul it would need .* GiB; the limit is 4\.0 GiB"):
        measure(Growing(), ROWS)


def test_tensors_that_are_gone_do_not_count_against_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_copy, "LIMIT", 100_000)

    class Long(ByMask):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(20):
                x = x + torch.zeros(6, 1000).sum()  # 24 kB each
            return super().forward(x)

    assert measure(Long(), ROWS).by_weight()["all.weight"] == 6 * 64


def test_a_question_whose_answer_does_not_matter_needs_no_data() -> None:
    class Asking(Chosen):
        def choose(self, h: Tensor, x: Tensor) -> Tensor:
            return h * 2 if x.sum() > 0 else h

    table = measure(Asking(), ROWS)
    assert table.by_weight() == {"all.weight": 6 * 64, "some.weight": 6 * 32}
    assert table.assumptions == (ASSUMED_ITEM,)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_recurrent_layer_counts_with_data_what_it_counts_without(engine: str) -> None:
    class Recurrent(ByMask):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 5, bidirectional=True)

        def choose(self, h: Tensor, x: Tensor) -> Tensor:
            self.lstm(h)
            return super().choose(h, x)

    table = measure(Recurrent(), ROWS, engine=engine)
    assert table.macs == 6 * 64 + kept_rows() * 32 + 6 * 2 * 4 * 5 * (8 + 5)
    assert table.unknown == {}


def test_what_fails_with_data_too_says_what_failed() -> None:
    class Broken(ByMask):
        def choose(self, h: Tensor, x: Tensor) -> Tensor:
            return F.pad(super().choose(h, x), (0, 1))

    with pytest.raises(MeasureError, match=r"Broken could not be run on 6x8: .*cannot be multiplied"):
        measure(Broken(), ROWS)
