"""A whole Sparse Wide ResNet-18 (CIFAR form) against its dense baseline and against masked-dense, one thread.

    python benchmarks/wallclock_network.py [--sparsities 0.75,0.9] [--batch 16] [--rounds 5]

Inference and one training step (forward, backward) in interleaved rounds; everything is channels-last.
"""

import argparse
import copy
import os
from statistics import median
from time import thread_time

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch  # noqa: E402

import iftplan as ift  # noqa: E402
import iftplan.nn as ift_nn  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="zoo:resnet18-cifar")
    parser.add_argument("--sparsities", default="0.75,0.9")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    dense = ift_nn.build(given.model, device="cpu").to(memory_format=torch.channels_last)
    spec = ift.read_model(given.model)
    x = torch.randn(given.batch, 3, 32, 32).to(memory_format=torch.channels_last)
    for sparsity in given.sparsities.split(","):
        plan = ift.plan(spec, "wide", sparsity)
        masked = ift_nn.apply(plan, dense).to(memory_format=torch.channels_last)
        networks = {
            "dense": dense,
            "masked-dense": masked,
            "sparse": ift_nn.execute_sparse_(copy.deepcopy(masked)),
            "compact": ift_nn.compact_(copy.deepcopy(masked)),
        }
        frozen = {
            "dense": dense.eval(),
            "masked-dense": copy.deepcopy(masked).eval(),
            "sparse": ift_nn.execute_sparse_(ift_nn.finalize(masked).eval(), frozen=True),
        }
        with torch.no_grad():
            outputs = [logits(frozen[name](x)) for name in ("masked-dense", "sparse")]
        apart = float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())
        show("inference", sparsity, timed(frozen, lambda net: infer(net, x), given.rounds), apart)
        for net in networks.values():
            net.train()
        show("step", sparsity, timed(networks, lambda net: step(net, x), given.rounds), apart)


def logits(output: object) -> torch.Tensor:
    return getattr(output, "logits", output)


@torch.no_grad()
def infer(net: torch.nn.Module, x: torch.Tensor) -> None:
    net(x)


def step(net: torch.nn.Module, x: torch.Tensor) -> None:
    logits(net(x)).square().mean().backward()
    net.zero_grad()


def timed(networks, run, rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds, and the median over the rounds of their ratio to the dense network's."""
    times = {name: [] for name in networks}
    for net in networks.values():
        run(net)
    for _ in range(rounds):
        for name, net in networks.items():
            begin = thread_time()
            run(net)
            times[name].append(thread_time() - begin)
    return {
        name: (median(found), median(t / d for t, d in zip(found, times["dense"], strict=True)))
        for name, found in times.items()
    }


def show(what: str, sparsity: str, found: dict[str, tuple[float, float]], apart: float) -> None:
    told = ", ".join(
        f"{name} {seconds * 1e3:.0f} ms ({ratio:.2f})" for name, (seconds, ratio) in found.items()
    )
    gain = found["masked-dense"][0] / found["sparse"][0]
    print(
        f"{what} at {sparsity}: {told}; {gain:.1f}× over masked-dense; outputs apart {apart:.1e}", flush=True
    )


if __name__ == "__main__":
    main()
