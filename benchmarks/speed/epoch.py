"""What an epoch of CIFAR-10 takes: dense, masked-dense and in sparse execution, one thread.

    python benchmarks/speed/epoch.py [--models resnet8-cifar:128,resnet18-cifar:16] [--sparsities 3/4,0.9] [--executions dense,masked-dense,sparse,compact] [--rounds 5]

Each model is named with its batch. Training steps as `iftplan train` takes them (SGD with Nesterov momentum, RigL with ΔT = 100, masks held
after every step) on random images, in interleaved rounds of processor time; steps that update masks are timed apart, as they compute
dense gradients; those of "compact" include the ways to dense weights and back. An epoch is 50 000 images, with neither data nor
evaluation.
"""

import argparse
import copy
import os
from collections.abc import Callable, Sequence

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch  # noqa: E402
from torch import nn  # noqa: E402

import iftplan as ift  # noqa: E402
import iftplan.nn as ift_nn  # noqa: E402
from iftplan.nn.execution.turns import Turns  # noqa: E402
from iftplan.nn.timing.interleaving import race  # noqa: E402
from iftplan.plans.plan import Plan  # noqa: E402
from iftplan.report.table import Table  # noqa: E402
from iftplan.report.terminal import print_table  # noqa: E402
from iftplan.runs.schedules import Updates  # noqa: E402

IMAGES, INTERVAL = 50_000, 100
NEVER, ALWAYS = Updates(end=10**9, interval=10**8), Updates(end=10**9, interval=1, at_begin=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="resnet8-cifar:128,resnet18-cifar:16")
    parser.add_argument("--sparsities", default="3/4,0.9")
    parser.add_argument("--executions", default="dense,masked-dense,sparse,compact", help="dense among them")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for named in given.models.split(","):
        model, _, batch = named.partition(":")
        spec = ift.read_model(f"zoo:{model}")
        for sparsity in given.sparsities.split(","):
            plan = ift.plan(spec, "wide", sparsity)
            epoch(
                f"{model}, wide at {sparsity}",
                plan,
                spec.source,
                int(batch or 128),
                given.rounds,
                given.executions.split(","),
            )


def epoch(title: str, plan: Plan, source: str, batch: int, rounds: int, asked: Sequence[str]) -> None:
    dense = ift_nn.build(source, device="cpu").to(memory_format=torch.channels_last).train()
    masked = ift_nn.apply(plan, dense).to(memory_format=torch.channels_last).train()
    made = {
        "dense": lambda: dense,
        "masked-dense": lambda: masked,
        "sparse": lambda: ift_nn.execute_sparse_(copy.deepcopy(masked)),
        "compact": lambda: ift_nn.execute_sparse_(copy.deepcopy(masked)),
    }
    networks = {name: made[name]() for name in asked}
    images = torch.randn(batch, 3, 32, 32).to(memory_format=torch.channels_last)
    ordinary = {name: stepping(name, net, images, NEVER) for name, net in networks.items()}
    if "compact" in networks:  # whose layers are compact by now
        networks["compact"] = made["compact"]()
    updating = {name: stepping(name, net, images, ALWAYS) for name, net in networks.items()}
    none = dict.fromkeys(networks, 0)
    found = {timing.backend: timing for timing in race(ordinary, none, {}, rounds, 1)}
    updates = {timing.backend: timing for timing in race(updating, none, {}, max(rounds // 2, 1), 1)}
    rows = []
    base = 0.0
    for name, timing in found.items():
        update = updates[name].seconds
        seconds = IMAGES / batch * (timing.seconds + (update - timing.seconds) / INTERVAL)
        base = base or seconds
        rows.append(
            (
                name, f"{timing.seconds * 1e3:.0f}", f"{timing.ratio:.2f}", f"{timing.low:.2f}–{timing.high:.2f}",
                "" if name == "dense" else f"{update * 1e3:.0f}", f"{seconds:.0f}", f"{seconds / base:.2f}",
            )
        )  # fmt: skip
    columns = (
        "execution", ">step ms", ">× dense", ">quartiles", ">step with update ms", ">epoch s", ">× dense epoch",
    )  # fmt: skip
    print_table(Table(columns, tuple(rows), f"{title}, batches of {batch}, {rounds} rounds"))


def stepping(name: str, network: nn.Module, images: torch.Tensor, updates: Updates) -> Callable[[], None]:
    """One step of training after another, in one execution."""
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9, nesterov=True, weight_decay=5e-4)
    masked = bool(list(ift_nn.masked_weights(network)))
    masks = ift_nn.Masking(network, optimizer, ift_nn.RigL(updates)) if masked else None
    turns = Turns(network, optimizer) if name == "compact" else None

    def step() -> None:
        if masks is not None:
            if turns is not None:
                (turns.expand_ if masks.changes_masks else turns.compact_)()
            ift_nn.dense_gradients_(network, masks.wants_dense_gradient)
        output = network(images)
        getattr(output, "logits", output).square().mean().backward()
        if masks is not None:
            masks.step()
        optimizer.step()
        optimizer.zero_grad()
        if turns is not None:
            turns.compact_()

    return step


if __name__ == "__main__":
    main()
