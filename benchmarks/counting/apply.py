"""Every plan made real: built on the meta device, audited in its closed scope, run forward and backward.

    python benchmarks/counting/apply.py [--models resnet18,gpt3-small] [--families wide,parallel] [--sparsities 0.5,0.75,0.9]

Without --models and --families: every zoo model in the families wide and parallel, and ResNet-18 (both forms),
BERT Small and GPT-3 Small in all families. Scope layers; where it cannot be closed, scope matrices, and the table says
so. Each plan is applied on the meta device and audited by all engines; then, where it is estimated to need less than
--gigabytes for weights, gradients and activations, applied to real tensors and audited again on its own masks after
one forward and one backward pass: the default input in a batch of two, texts cut to 128 tokens.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import nn

import iftplan as ift
from iftplan.base.errors import InfeasibleError
from iftplan.base.units import decimal
from iftplan.models.spec import InputSpec, ModelSpec
from iftplan.models.zoo.entries import ZOO
from iftplan.nn import apply_, build, enforce_, measure_applied
from iftplan.nn.meta.inputs import make_inputs
from iftplan.plans.audit.audit import AuditReport
from iftplan.plans.plan import Plan
from iftplan.report.table import Table
from iftplan.report.terminal import print_table

ENGINES = ("meta", "flop_counter", "fvcore")
IN_ALL = ("resnet18-cifar", "resnet18", "bert-small", "gpt3-small")
FAMILIES = ("wide", "parallel", "factorized", "doped", "lowrank")
BATCH, TOKENS = 2, 128
COLUMNS = (
    "model", "family", ">sparsity", "scope", ">ratio", ">seconds", ">MB added", "audit", "on real tensors",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="")
    parser.add_argument("--families", default="")
    parser.add_argument("--sparsities", default="0.5,0.75,0.9")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="skip real tensors beyond; 0 skips all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in given.models.split(",") if given.models else ZOO:
        spec = ift.read_model(f"zoo:{name}")
        families = given.families.split(",") if given.families else _families(name)
        for family in families:
            for sparsity in given.sparsities.split(","):
                rows.append((name, family, sparsity, *outcome(spec, family, sparsity, given.gigabytes)))
                print(*rows[-1], sep=" | ", flush=True)
    print_table(
        Table(
            COLUMNS,
            tuple(rows),
            "seconds of apply_() on the meta device, and the memory that it added at its peak",
        )
    )
    print(f"{sum('passed' in row[7] for row in rows)} of {len(rows)} plans pass at 1e-6")


def _families(name: str) -> tuple[str, ...]:
    return FAMILIES if name in IN_ALL else FAMILIES[:2]


def outcome(spec: ModelSpec, family: str, sparsity: str, gigabytes: float) -> tuple[str, ...]:
    plans = list(_plans(spec, family, sparsity))
    if isinstance(plans[-1], str):
        return "", "", "", "", "infeasible", plans[-1]
    plan = plans[-1]
    assert plan.scope is not None
    model = build(spec.source)
    before = _memory_mb("VmRSS", reset=True)
    started = time.perf_counter()
    model = apply_(plan, model)
    seconds, peak = time.perf_counter() - started, _memory_mb("VmHWM") - before
    report = measure_applied(plan, model, engines=ENGINES)
    return (
        str(plan.scope),
        decimal(plan.ratio(plan.scope), 9),
        f"{seconds:.1f}",
        f"{max(peak, 0):.0f}",
        verdict(report),
        _on_real_tensors(plan, model, gigabytes),
    )


def _plans(spec: ModelSpec, family: str, sparsity: str) -> Iterator[Plan | str]:
    """The plan in the first scope that can be closed; a sentence if none can."""
    for scope in ("layers", "matrices"):
        try:
            yield ift.plan(spec, family, sparsity, scope=scope)
            return
        except InfeasibleError as error:
            yield f"scope {scope}: {error}"


def _memory_mb(key: str, *, reset: bool = False) -> float:
    """What Linux says this process holds, or held at most since `reset`."""
    if reset:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{key}:")[2].split()[0]) / 1024


def verdict(report: AuditReport) -> str:
    agreed = "equal" if len(set(report.counters.values())) == 1 else "different"
    exact = sum(layer.agrees for layer in report.layers)
    problems = f": {report.problems[0]}" if report.problems else ""
    return f"{report.verdict}{problems}; {len(report.counters) - 1} engines {agreed}; {exact}/{len(report.layers)} layers"


def _on_real_tensors(plan: Plan, shapes: nn.Module, gigabytes: float) -> str:
    needed = _gigabytes(plan, shapes)
    if needed > gigabytes:
        return f"not run: about {needed:.0f} GB"
    gc.collect()
    model = apply_(plan, build(plan.model, device="cpu")).train()
    torch.manual_seed(0)
    args, kwargs = make_inputs([_cut(spec) for spec in plan.inputs], "cpu")
    args = tuple(torch.randn_like(x) if x.is_floating_point() else x for x in args)
    started = time.perf_counter()
    output = model(*args, **kwargs)
    output = getattr(output, "logits", output)
    output.float().square().mean().backward()
    seconds = time.perf_counter() - started
    finite = all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    enforce_(model)
    report = measure_applied(plan, model)
    return f"{'ran' if finite else 'NOT FINITE'} in {seconds:.1f} s, {report.verdict} on its masks"


def _cut(spec: InputSpec) -> InputSpec:
    """A small batch; texts of few tokens."""
    rest = spec.shape[1:]
    return replace(spec, shape=(BATCH, *(rest if len(rest) > 1 else (min(TOKENS, rest[0]),))))


def _gigabytes(plan: Plan, model: nn.Module) -> float:
    """Weights, gradients and as much again to draw them, and the activations that a backward pass keeps."""
    weights = sum(p.numel() for p in model.parameters()) * 4 * 3
    kept = sum(layer.positions * _outputs(model, layer.weight) for layer in plan.layers)
    scores = sum(layer.macs for layer in plan.layers if layer.role.value == "activation") / 64
    share = prod(_cut(plan.inputs[0]).shape) / prod(plan.inputs[0].shape)
    return float(weights + share * 4 * 3 * (kept + scores)) / 1e9


def _outputs(model: nn.Module, weight: str) -> int:
    found = dict(model.named_parameters()).get(weight)
    return 0 if found is None else found.shape[0]


if __name__ == "__main__":
    main()
