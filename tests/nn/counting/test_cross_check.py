"""Every audit hears fvcore too: a disagreement fails and says where, a silence is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iftplan.models.counting import cross_check
from iftplan.models.notation import parse_input
from iftplan.nn.counting.cross_check import measure_by
from tests.support.cli_runs import iftplan

INPUTS = (parse_input("2x8"),)

NETS = """
import torch
from torch import nn

plain = lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


class TwoFaced(nn.Module):
    '''Runs a layer more whenever PyTorch's tracer looks at it.'''

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = self.second(self.first(x))
        return self.second(x) if torch.jit.is_tracing() else x


class Untraceable(nn.Linear):
    '''Does not run where PyTorch's tracer looks at it.'''

    def forward(self, x):
        if torch.jit.is_tracing():
            raise RuntimeError("no tracing here")
        return super().forward(x)


untraceable = lambda: Untraceable(8, 8)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")
    return tmp_path


def audit(folder: Path, factory: str, *more: str) -> tuple[int, dict[str, Any], str]:
    run = iftplan("audit", f"nets.py:{factory}", "--input", "2x8", "--format", "json", *more, cwd=folder)
    return run.code, json.loads(run.out or "{}"), run.err


def test_two_engines_count_every_audit(folder: Path) -> None:
    code, report, _ = audit(folder, "plain", "--budget", "384")
    assert code == 0
    assert report["counters"] == {"meta": 2 * (8 * 16 + 16 * 4), "fvcore": 384}


def test_one_engine_counts_alone_where_it_is_named(folder: Path) -> None:
    assert audit(folder, "plain", "--engine", "meta")[1]["counters"] == {"meta": 384}
    assert audit(folder, "plain", "--engine", "fvcore")[1]["counters"] == {"fvcore": 384}


def test_a_disagreement_fails_and_names_the_weight_and_the_operator(folder: Path) -> None:
    code, report, err = audit(folder, "TwoFaced", "--budget", "256")
    assert code == 1
    assert report["counters"] == {"meta": 2 * 2 * 64, "fvcore": 3 * 2 * 64}
    assert "weight second.weight: 128 by linear against 256 by" in err


def test_a_missing_second_opinion_is_told_and_fails_nothing(folder: Path) -> None:
    code, report, _ = audit(folder, "untraceable", "--budget", "128")
    assert code == 0
    assert report["counters"] == {"meta": 128}
    (sentence,) = report["assumptions"]
    assert sentence.startswith(
        "Only meta counted this model. fvcore did not check it, because it could not run the model: "
    )
    assert "no tracing here" in sentence


def test_an_engine_that_was_asked_for_has_to_answer(folder: Path) -> None:
    code, _, err = audit(folder, "untraceable", "--budget", "128", "--cross-check")
    assert code == 3
    assert "no tracing here" in err


def test_a_second_opinion_without_a_formula_contradicts_nobody() -> None:
    class Mixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]
            return torch.fft.fft(x @ x.mT).real if tracing else x @ x.mT

    (table,) = measure_by(Mixed(), INPUTS, ("meta",), second="fvcore")
    assert table.macs == 2 * 2 * 8
    assert any("no formula for aten::fft_fft" in sentence for sentence in table.assumptions)


def test_real_weights_are_not_copied_for_a_second_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: set[str] = set()
    forward = nn.Linear.forward

    def watched(module: nn.Linear, x: Tensor) -> Tensor:
        devices.add(x.device.type)
        return forward(module, x)

    monkeypatch.setattr(nn.Linear, "forward", watched)  # a model's own notes would be put back
    tables = measure_by(nn.Linear(8, 8), INPUTS, ("meta",), second="fvcore")
    assert [t.macs for t in tables] == [128, 128]
    assert cross_check(tables) == ()
    assert devices == {"meta"}


@pytest.mark.parametrize("where", ["", "net"], ids=["every model", "one model"])
def test_check_hears_it_too_where_the_configuration_says_so(folder: Path, where: str) -> None:
    keys = ["", ""]
    keys[bool(where)] = "cross_check = true\n"
    (folder / "iftplan.toml").write_text(
        f'{keys[0]}[models.net]\nsource = "nets.py:TwoFaced"\ninputs = ["2x8"]\nbudget.macs = 256\n{keys[1]}',
        encoding="utf-8",
    )
    run = iftplan("check", cwd=folder)
    assert run.code == 3
    assert "meta counts 256 MACs, fvcore 384" in run.out + run.err
