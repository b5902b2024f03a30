"""Models as strangers write them: every plan that is made passes its audit, every refusal has a name and a reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest

from tests.support.cli_runs import Run, many

NETS = '''
import torch
from torch import nn

def linear(): return nn.Linear(8, 4)

def convolution(): return nn.Conv2d(3, 8, 3)

def weightless(): return nn.ReLU()

def empty(): return nn.Sequential()

def mlp(): return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))

class Twice(nn.Module):
    """One module that is called twice."""
    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.middle(self.middle(self.first(x)).relu()).relu())

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.middle = nn.Embedding(50, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.middle(self.embedding(tokens)).relu())

class Outputs(nn.Module):
    """A dictionary with a tuple in it."""
    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        hidden = self.middle(self.first(x).relu())
        return {"hidden": hidden, "answer": (self.last(hidden), None, [hidden])}

class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, *, image, mask=None):
        return self.last(self.middle(self.first(image)).relu())

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 32), nn.Linear(32, 5)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.middle = nn.Linear(32, 32)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.middle(x + self.attention(x, x, x, need_weights=False)[0]))

def encoder():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return nn.Sequential(nn.Linear(8, 32), nn.TransformerEncoder(layer, 2), nn.Linear(32, 3))

class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.first, self.memory, self.last = nn.Linear(8, 16), kind(16, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        return self.last(self.memory(self.first(x))[0])

def gated(): return Recurrent(nn.GRU)

def convolutions():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(), nn.Conv2d(16, 64, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )

def flattened():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 20), nn.ReLU(), nn.Linear(20, 10)
    )

def transposed():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 8, 2, stride=2), nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 2, stride=2), nn.Conv2d(8, 3, 1),
    )

def one_dimension():
    return nn.Sequential(nn.Conv1d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 8, 3, padding=1), nn.Conv1d(8, 4, 1))

class Bare(nn.Module):
    """Parameters that no layer holds."""
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Parameter(torch.zeros(8, 8)), nn.Parameter(torch.zeros(8, 8))
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        return self.last((x @ self.up).relu() @ self.down)

class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.side, self.joined = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(16, 8)
        self.last = nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.joined(torch.cat([x, self.side(x).relu()], -1)) + x)

class Undecided(nn.Module):
    """Its path depends on its data."""
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = self.first(x)
        return self.last(-x if x.sum() > 0 else x)

class Again(nn.Module):
    """One module under two names."""
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)
        self.cells = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.cells.append(self.cells[0])

    def forward(self, x):
        x = self.first(x)
        for cell in self.cells:
            x = cell(x).relu()
        return self.last(x)

class Squeeze(nn.Module):
    """Channels gated by themselves, and grouped."""
    def __init__(self):
        super().__init__()
        self.first, self.grouped = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=4)
        self.reduce, self.expand, self.last = nn.Linear(16, 4), nn.Linear(4, 16), nn.Linear(16, 3)
        self.norm = nn.GroupNorm(4, 16)

    def forward(self, x):
        x = self.first(x)
        gate = self.expand(self.reduce(x.mean((2, 3))).relu()).sigmoid()
        return self.last(self.norm(self.grouped(x * gate[:, :, None, None])).mean((2, 3)))

class Decoder(nn.Module):
    """Grouped queries and a gated network, written out."""
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(30, 32), nn.Linear(32, 30)
        self.q, self.k, self.v, self.o = nn.Linear(32, 32), nn.Linear(32, 16), nn.Linear(32, 16), nn.Linear(32, 32)
        self.gate, self.down = nn.Linear(32, 128), nn.Linear(64, 32)

    def forward(self, tokens):
        x = self.embedding(tokens)
        n, t, _ = x.shape
        q, k, v = (p(x).view(n, t, h, 8).transpose(1, 2) for p, h in ((self.q, 4), (self.k, 2), (self.v, 2)))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).reshape(n, t, 32))
        a, b = self.gate(x).chunk(2, -1)
        return self.head(x + self.down(a * b.sigmoid()))

def compiled(): return torch.compile(mlp())

def normed():
    middle = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))
    return nn.Sequential(nn.Linear(8, 16), middle, nn.Linear(16, 4))
'''

INPUTS = {
    "linear": "2x8",
    "convolution": "1x3x8x8",
    "weightless": "1x8",
    "empty": "1x8",
    "mlp": "5x8",
    "Twice": "5x8",
    "Tied": "1x7:int64",
    "Outputs": "2x8",
    "Keywords": "image=2x8",
    "Attention": "1x6x8",
    "encoder": "1x6x8",
    "Recurrent": "1x6x8",
    "gated": "1x6x8",
    "convolutions": "1x3x8x8",
    "flattened": "1x3x8x8",
    "transposed": "1x3x4x4",
    "one_dimension": "1x3x9",
    "Bare": "3x8",
    "Branches": "3x8",
    "Undecided": "2x8",
    "Again": "3x8",
    "Squeeze": "1x3x9x9",
    "Decoder": "1x5:int64",
    "compiled": "2x8",
    "normed": "2x8",
}

REQUESTS = (
    "--transform wide --sparsity 0.75",
    "--transform parallel --sparsity 0.75",
    "--transform factorized --sparsity 0.5",
    "--transform doped --sparsity 0.5 --keep-dense none",
    "--transform none --sparsity 0.5 --distribution erk",
)
MORE_REQUESTS = (
    "--transform wide --sparsity 0",
    "--transform wide --sparsity 0.5 --keep-dense none --scope model --distribution erk",
    "--transform wide --sparsity 0.5 --close width",
    "--transform wide --sparsity 0.5 --heads size",
    "--transform wide --sparsity 0.5 --keep-dense none --round-to 8",
    "--transform parallel --sparsity 0.98 --keep-dense none",
    "--transform lowrank --sparsity 0.5",
    "--transform none --sparsity 0.999999 --keep-dense none",
)

REFUSALS = {
    "Undecided": "first adds most, 128 → 256 (reads the model's input)",
    "normed": "original1",
}
"""Models that are too small for what grows without a mask, and what their refusal must name."""


Results = dict[tuple[str, str], tuple[Run, Run, Path]]


def _results(folder: Path, requests: Sequence[str]) -> Results:
    """Every model planned in every way, and each plan audited by three engines, in one process."""
    (folder / "nets.py").write_text(NETS)
    wanted = [(net, request) for net in INPUTS for request in requests]
    commands: list[list[str]] = []
    for i, (net, request) in enumerate(wanted):
        commands += [
            ["plan", f"nets.py:{net}", "--input", INPUTS[net], *request.split(), "-o", f"{i}.json"],
            ["audit", f"{i}.json", "--trust", "--cross-check", "--format", "json"],
        ]
    runs = many(commands, folder)
    return {key: (runs[2 * i], runs[2 * i + 1], folder / f"{i}.json") for i, key in enumerate(wanted)}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return _results(tmp_path_factory.mktemp("nets"), REQUESTS)


@pytest.fixture(scope="module")
def more_results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return _results(tmp_path_factory.mktemp("nets"), MORE_REQUESTS)


@pytest.mark.parametrize("asked", REQUESTS)
@pytest.mark.parametrize("net", INPUTS)
def test_a_plan_is_refused_by_name_or_passes_its_audit(results: Results, net: str, asked: str) -> None:
    refused_or_exact(*results[net, asked])


@pytest.mark.slow
@pytest.mark.parametrize("asked", MORE_REQUESTS)
@pytest.mark.parametrize("net", INPUTS)
def test_so_does_a_plan_of_a_rarer_kind(more_results: Results, net: str, asked: str) -> None:
    refused_or_exact(*more_results[net, asked])


def refused_or_exact(planned: Run, audited: Run, path: Path) -> None:
    """A refusal says what can be done; a plan closes its scope and costs the same in every engine."""
    assert "Traceback" not in planned.err
    assert "of our own" not in planned.err
    if planned.code:
        assert planned.code == 2, planned.err
        assert not path.exists()
        ways_out = ("nearest feasible sparsity is", "cannot be widened", "No sparsity")
        assert any(way in planned.err for way in ways_out)
        return
    assert audited.code == 0, audited.err
    plan, report = json.loads(path.read_text()), json.loads(audited.out)
    assert len(set(report["counters"].values())) == 1, report["counters"]
    assert report["measured_macs"] == report["expected_macs"]
    if plan["scope"] and plan["residual_macs"] == 0:
        assert Fraction(plan["ratio_exact"][plan["scope"]]) == 1
    elif plan["scope"]:
        assert plan["residual_macs"] > 0, "a plan may leave MACs unspent, and says so, but never overspends"
        assert any("unspent" in note for note in plan["notes"])


@pytest.mark.parametrize("net", REFUSALS)
def test_what_no_mask_can_thin_is_named(results: Results, net: str) -> None:
    planned, _, _ = results[net, REQUESTS[0]]
    assert planned.code == 2
    assert "the parts without a mask already cost" in planned.message
    assert REFUSALS[net] in planned.message


@pytest.mark.parametrize("net", [net for net in INPUTS if net not in ("weightless", "empty")])
def test_plain_sparsity_closes_nothing_and_costs_less(results: Results, net: str) -> None:
    _, _, path = results[net, "--transform none --sparsity 0.5 --distribution erk"]
    plan = json.loads(path.read_text())
    assert plan["scope"] is None
    masked = [row for row in plan["layers"] if row["role"] == "transformed"]
    assert (plan["planned"]["model"] < plan["dense"]["model"]) is bool(masked)
    assert sum(row["nnz"] for row in masked) * 2 == pytest.approx(
        sum(row["capacity"] for row in masked), abs=len(masked)
    )


def test_a_shared_module_is_counted_at_both_of_its_calls(
    results: Results,
) -> None:
    plan = json.loads(results["Twice", REQUESTS[0]][2].read_text())
    (middle,) = [row for row in plan["layers"] if row["name"] == "middle"]
    assert middle["dense_macs"] == 2 * 5 * 8 * 8


def test_a_compiled_model_is_the_model_that_was_compiled(results: Results) -> None:
    plain, wrapped = (json.loads(results[n, REQUESTS[1]][2].read_text()) for n in ("mlp", "compiled"))
    assert plain["fingerprint"] == wrapped["fingerprint"]


@pytest.mark.parametrize("net", ["linear", "convolution"])
@pytest.mark.parametrize("asked", REQUESTS)
def test_a_model_that_is_one_layer_is_never_replaced(results: Results, net: str, asked: str) -> None:
    plan = json.loads(results[net, asked][2].read_text())
    assert all(
        "branches" not in row["structure"] and "rank" not in row["structure"] for row in plan["layers"]
    )


@pytest.mark.parametrize(
    "asked",
    ["--transform factorized --sparsity 0.5", "--transform doped --sparsity 0.5 --keep-dense none"],
)
def test_a_transposed_convolution_is_factorized_at_its_input_positions(results: Results, asked: str) -> None:
    plan = json.loads(results["transposed", asked][2].read_text())
    rows = [row for row in plan["layers"] if "transpose" in row["kind"]]
    assert len(rows) == 2
    for row in rows:  # 8 → 8 channels, 2×2: U is 8·r and V is r·32, both at the input positions
        pair = 40 * row["structure"]["rank"]
        assert pair == (row["capacity"] if "factorized" in asked else row["dense_weights"])
