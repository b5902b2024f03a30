"""The whole network of a plan, timed from its input to its output in every way that it is computed here."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Generator, Tensor, nn

from iftplan.nn.application.apply import apply
from iftplan.nn.application.dense_model import dense_model
from iftplan.nn.execution.compaction import compact_
from iftplan.nn.execution.execute import execute_sparse_
from iftplan.nn.execution.kernels.registers import instructions_here
from iftplan.nn.meta.inputs import random_inputs
from iftplan.nn.sources import build
from iftplan.nn.timing.bench import on_threads
from iftplan.nn.timing.interleaving import race
from iftplan.nn.torch_internals import tree_leaves
from iftplan.plans.plan import Pass, Plan
from iftplan.plans.speed.machine import processor
from iftplan.plans.speed.timings import MeasuredNetwork, NetworkBench

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def bench_network(
    plan: Plan,
    *,
    batch: int = 1,
    passes: Sequence[Pass] = ("forward",),
    threads: Sequence[int] = (1,),
    rounds: int = 9,
    trust: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> NetworkBench:
    """Time the network of a plan against the dense one.

    Args:
        plan: wide, or of the same widths.
        batch: how many of the plan's input are computed together.
        passes: "forward" without gradients, in evaluation mode; "step" for forward and backward, without an optimizer.
        threads: numbers of threads; 0 for all.
        rounds: of the race.
        trust: whether Python that the plan names may run.
        say: hears which pass is next.

    Raises:
        InputError: numba is missing, no masked layer can run sparse, or the plan names Python and is not trusted.
    """
    instructions, measured = instructions_here(), []
    dense_model(plan, trust=trust)  # refuses what is not to be run, and another network
    dense = build(plan.model, device="cpu")
    masked = apply(plan, dense)
    if any(isinstance(module, nn.Conv2d) for module in dense.modules()):
        for net in (dense, masked):
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # in place; torch's stubs lack it
    specs = [
        replace(one, shape=(one.shape[0] * batch, *one.shape[1:])) if one.shape else one
        for one in plan.inputs
    ]
    inputs = random_inputs(specs, dense, generator=Generator().manual_seed(0))
    for count in on_threads(threads):
        for kind in passes:
            say(f"timing {plan.model}, {kind} …")
            work, prepared = _candidates(dense, masked, inputs, step=kind == "step")
            timings = race(work, dict.fromkeys(work, 0), prepared, rounds, count)
            measured.append(MeasuredNetwork(kind, count, timings))
    return NetworkBench(
        plan.model,
        float(plan.sparsity),
        plan.mask,
        f"{processor()}, {instructions}",
        batch,
        rounds,
        tuple(measured),
    )


def _candidates(
    dense: nn.Module, masked: nn.Module, inputs: Inputs, *, step: bool
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Runs of the network, and seconds of what was done once for each."""
    makers: dict[str, Callable[[], nn.Module]] = {"dense": lambda: dense, "masked-dense": lambda: masked}
    if step:
        makers["sparse"] = lambda: execute_sparse_(copy.deepcopy(masked))
        makers["compact"] = lambda: compact_(copy.deepcopy(masked))
    else:
        makers["sparse"] = lambda: execute_sparse_(copy.deepcopy(masked), frozen=True)
    work, prepared = dict[str, Callable[[], object]](), dict[str, float]()
    for name, make in makers.items():
        begin = perf_counter()
        net = make().train(step)
        prepared[name] = perf_counter() - begin
        work[name] = partial(_step if step else _forward, net, inputs)
    return work, prepared


@torch.no_grad()
def _forward(net: nn.Module, inputs: Inputs) -> None:
    net(*inputs[0], **inputs[1])


def _step(net: nn.Module, inputs: Inputs) -> None:
    output = net(*inputs[0], **inputs[1])
    leaves = tree_leaves(getattr(output, "logits", output))
    loss = sum(leaf.square().mean() for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad)
    assert isinstance(loss, Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    net.zero_grad()
