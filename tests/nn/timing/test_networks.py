"""Whole networks: what is timed, that it is the plan's network, and what is refused; never how fast anything is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import iftplan as ift
from iftplan.base.documents import loads
from iftplan.nn.execution.layers import CompactLayer, SparseLayer
from iftplan.nn.timing import networks
from iftplan.nn.timing.networks import bench_network
from iftplan.plans.speed.tables import network_document, network_table
from tests.support.cli_runs import many

pytest.importorskip("numba", reason="numba, of the extra bench, is not installed")

NET = (
    "from torch import nn\n"
    "def net(): return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))\n"
)


def test_every_backend_computes_what_the_plan_s_network_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are built from the same masked network, and in a step all are in training."""
    seen = dict[str, dict[str, nn.Module]]()
    outputs = dict[str, torch.Tensor]()

    def race(work: Any, macs: Any, prepared: Any, rounds: int, threads: int) -> tuple[()]:
        kind = "step" if "compact" in work else "forward"
        seen[kind] = {name: run.args[0] for name, run in work.items()}
        for name, run in work.items():
            run()
            net, ((x,), _) = run.args
            if name != "dense" and kind == "forward":
                outputs[name] = net(x).logits if hasattr(net(x), "logits") else net(x)
            assert x.shape == (6, 16) and net.training == (kind == "step")
        return ()

    monkeypatch.setattr(networks, "race", race)
    plan = ift.plan(ift.read_model("zoo:gpt-char", "2x16:int64"), "wide", "0.75", scope="matrices")
    found = bench_network(plan, batch=3, passes=("forward", "step"), threads=(1,))
    assert [(one.passes, one.threads) for one in found.measured] == [("forward", 1), ("step", 1)]
    torch.testing.assert_close(outputs["sparse"], outputs["masked-dense"])
    assert list(seen["step"]) == ["dense", "masked-dense", "sparse", "compact"]
    kinds = {"sparse": SparseLayer, "compact": CompactLayer}
    for name, net in seen["step"].items():
        layers = [module for module in net.modules() if isinstance(module, (SparseLayer, CompactLayer))]
        assert len(layers) == (16 if name in kinds else 0)
        assert all(isinstance(layer, kinds[name]) for layer in layers)
    frozen = [m.frozen for m in seen["forward"]["sparse"].modules() if isinstance(m, SparseLayer)]
    assert all(one is not None for one in frozen)


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    asked = ["plan", "net.py:net", "--transform", "wide", "--sparsity", "0.75", "--input", "1x3x4x4"]
    once = ["--network", "--rounds", "2", "--batch", "3"]
    made, ran, untrusted, nothing, both, layers = many(
        [
            [*asked, "-o", "plan.json"],
            ["bench", "plan.json", *once, "--trust", "--format", "json"],
            ["bench", "plan.json", *once],
            ["bench", *once],
            ["bench", "plan.json", *once, "--backends", "dense,sparse"],
            ["bench", "plan.json", "--trust", "--dry-run"],
        ],
        tmp_path,
    )
    assert made.code == 0 and ran.code == 0, ran.err
    document = loads(ran.out, "bench")
    assert document["network"] == {"model": "net.py:net", "sparsity": 0.75, "structure": "unstructured"}
    assert (document["batch"], document["rounds"], document["layers"]) == (3, 2, [])
    names = {one["pass"]: [t["backend"] for t in one["timings"]] for one in document["passes"]}
    assert names == {
        "forward": ["dense", "masked-dense", "sparse"],
        "step": ["dense", "masked-dense", "sparse", "compact"],
    }
    assert all(t["seconds"] > 0 for one in document["passes"] for t in one["timings"])
    for run, says in (
        (untrusted, "trust"), (nothing, "Give it a plan file"), (both, "leave --layer, --sparsity, --structures"),
        (layers, "--trust is for --network"),
    ):  # fmt: skip
        assert run.code == 2 and says in run.message


def test_tables_and_documents_say_the_same() -> None:
    plan = ift.plan(ift.read_model("zoo:gpt-char", "1x8:int64"), "wide", "0.75", scope="matrices")
    found = bench_network(plan, passes=("forward",), rounds=1)
    table, document = network_table(found), network_document(found)
    assert [row[2] for row in table.rows] == ["dense", "masked-dense", "sparse"]
    assert table.rows[0][4] == "1.00"
    for row, timing in zip(table.rows, document["passes"][0]["timings"], strict=True):
        assert row[3] == f"{timing['seconds'] * 1e3:.2f}" and "gflops" not in timing
