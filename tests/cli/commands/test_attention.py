"""Attention patterns on the command line: planned, audited, counted on request, and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli_runs import Run, document, many

NET = """
import torch
from torch import nn


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        q = self.first(x)[:, None]
        mask = torch.ones(16, 16, dtype=torch.bool)
        return self.last(nn.functional.scaled_dot_product_attention(q, q, q, mask)[:, 0])
"""
GPT, ASKED = (
    "plan zoo:gpt-char --sparsity 0.5 --scope model",
    "--transform none --sparsity 0.5 --input 1x16x8",
)
COMMANDS = {
    "plan": f"{GPT} --attention window:32 -o window.json",
    "audit": "audit window.json --cross-check -o report.json",
    "own": "audit zoo:gpt-char --attention own -o own.json",
    "over": "audit zoo:gpt-char --attention window:32 --budget 10M",
    "diff": "diff zoo:gpt-char window.json",
    "alike": "diff window.json report.json",
    "unknown pattern": f"{GPT} --attention windows:3",
    "no attention": "plan zoo:digits-cnn --attention causal",
    "mask": f"plan net.py:Masked {ASKED} --attention window:4",
    "stated": f"plan net.py:Masked {ASKED} --attention window:4 --attention-before causal -o stated.json",
    "before alone": f"{GPT} --attention-before causal",
    "mask counted": "audit net.py:Masked --input 1x16x8 --attention own",
    "plan counted": "audit window.json --attention own",
    "engine": "audit zoo:gpt-char --attention own --engine fvcore",
}
MACS = 4 * (128 * 12 * 128 * 128) + 128 * 128 * 256
"""Of the weights of the byte GPT: four blocks of width 128 and the head of 256 bytes, at 128 tokens."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attention")
    (folder / "net.py").write_text(NET)
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Run]:
    return dict(zip(COMMANDS, many([words.split() for words in COMMANDS.values()], folder), strict=True))


def test_a_window_is_planned_and_audited(runs: dict[str, Run], folder: Path) -> None:
    assert (runs["plan"].code, runs["audit"].code) == (0, 0), (runs["plan"].err, runs["audit"].err)
    plan, report = document(folder / "window.json"), document(folder / "report.json")
    dense = MACS + 4 * 2 * 128 * (128 * 129 // 2)
    assert plan["dense"]["model"] == plan["planned"]["model"] == report["measured_macs"] == dense
    assert plan["attention"]["dense_full"]["model"] == MACS + 4 * 2 * 128 * 128 * 128
    assert plan["attention"]["planned_full"]["model"] == report["attention"]["measured_full"]
    assert set(report["counters"].values()) == {dense} and len(report["counters"]) == 4
    assert "(planned, not measured): the network computes causal" in runs["audit"].err


def test_models_are_counted_by_pairs_on_request(runs: dict[str, Run], folder: Path) -> None:
    assert runs["own"].code == 0
    own = document(folder / "own.json")
    assert own["measured_macs"] == MACS + 4 * 2 * 128 * (128 * 129 // 2)
    assert own["attention"] == {
        "convention": "pairs",
        "pattern": "own",
        "measured_full": MACS + 4 * 2 * 128 * 128 * 128,
    }
    assert runs["over"].code == 1 and "failed: " in runs["over"].err


def test_a_difference_names_the_convention(runs: dict[str, Run]) -> None:
    assert "one of the two counts attention by pairs" in runs["diff"].err
    assert "(wide zoo:gpt-char, attention window:32 by pairs)" in runs["diff"].out
    assert "MACs, +0 (ratio 1.000000), scope model" in runs["alike"].out
    assert "one of the two" not in runs["alike"].err


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("unknown pattern", 2, "unknown attention pattern 'windows:3'. Patterns are full, causal"),
        ("no attention", 2, "--attention causal: zoo:digits-cnn has no attention products"),
        ("mask", 2, "Say what the mask keeps, such as --attention-before causal"),
        (
            "before alone",
            2,
            "--attention-before causal needs a pattern that attention is to keep. Give --attention too.",
        ),
        ("mask counted", 3, "is called with a mask whose values shapes do not tell"),
        ("plan counted", 2, "--attention and --nonzeros do not apply"),
        ("engine", 2, "--engine fvcore counts every query with every key"),
    ],
)
def test_what_cannot_be_is_refused(runs: dict[str, Run], name: str, code: int, told: str) -> None:
    assert runs[name].code == code, runs[name].err
    assert told in runs[name].message


def test_a_mask_is_stated_where_shapes_do_not_tell(runs: dict[str, Run], folder: Path) -> None:
    assert runs["stated"].code == 0, runs["stated"].err
    plan = document(folder / "stated.json")
    assert (plan["attention"]["pattern"], plan["attention"]["before"]) == ("window:4", "causal")
    assert plan["dense"]["model"] == 2 * 16 * 8 * 8 + 2 * 8 * (16 * 17 // 2)
    assert plan["layers"][-1]["macs"] == 2 * 8 * (16 * 4 - 4 * 3 // 2)
