"""A whole Sparse Wide ResNet-18 (CIFAR form) against its dense baseline and against masked-dense, one thread.

    python benchmarks/speed/wallclock_network.py [--sparsities 0.75,0.9] [--batch 16] [--rounds 5] [--deepsparse-python PATH]

Inference and one training step (forward, backward) in interleaved rounds; everything is channels-last. DeepSparse takes part in
inference where this environment has it, or the one that is named; it is at its best with multiples of 16 images.
"""

import argparse
import copy
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch  # noqa: E402

import iftplan as ift  # noqa: E402
import iftplan.nn as ift_nn  # noqa: E402
from iftplan.nn.timing.interleaving import race  # noqa: E402
from iftplan.nn.timing.libraries import LibraryRun, installed_libraries  # noqa: E402
from iftplan.nn.timing.work import Lost  # noqa: E402
from iftplan.plans.speed.timings import Timing  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="zoo:resnet18-cifar")
    parser.add_argument("--sparsities", default="0.75,0.9")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--deepsparse-python", help="an interpreter, or the folder of a virtual environment")
    given = parser.parse_args()
    environments = [given.deepsparse_python] if given.deepsparse_python else []
    deepsparse = installed_libraries(environments).get("deepsparse")
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
            outputs = {name: logits(frozen[name](x)) for name in ("masked-dense", "sparse")}
        work = {name: partial(infer, net, x) for name, net in frozen.items()}
        left_out = {} if deepsparse else {"deepsparse": "not installed"}
        if deepsparse:
            try:
                run = in_deepsparse(ift_nn.finalize(masked).eval(), x, deepsparse.python)
                work["deepsparse"], outputs["deepsparse"] = run, run.output()
            except Lost as lost:
                left_out["deepsparse"] = str(lost)
        show("inference", sparsity, timed(work, given.rounds, left_out), outputs, left_out)
        if "deepsparse" in work:
            work["deepsparse"].close()
        for net in networks.values():
            net.train()
        work = {name: partial(step, net, x) for name, net in networks.items()}
        show("step", sparsity, timed(work, given.rounds, {}), outputs, {})


def in_deepsparse(net: torch.nn.Module, x: torch.Tensor, python: str) -> LibraryRun:
    """The network in another process, by way of ONNX."""
    settings = {"threads": 1, "step": False, "padding": None}
    with TemporaryDirectory() as folder:
        path = str(Path(folder, "network.onnx"))
        # the old exporter: DeepSparse reads nothing as new as the other writes
        torch.onnx.export(Logits(net), (x,), path, dynamo=False, opset_version=13, input_names=["x"])
        return LibraryRun("deepsparse", python, {"input": x}, settings, network=path)


class Logits(torch.nn.Module):
    """A network that gives nothing else."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return logits(self.net(x))


def logits(output: object) -> torch.Tensor:
    return getattr(output, "logits", output)


@torch.no_grad()
def infer(net: torch.nn.Module, x: torch.Tensor) -> None:
    net(x)


def step(net: torch.nn.Module, x: torch.Tensor) -> None:
    logits(net(x)).square().mean().backward()
    net.zero_grad()


def timed(work: dict[str, Callable], rounds: int, left_out: dict[str, str]) -> dict[str, Timing]:
    """Interleaved, in processor time; MACs are not looked at."""
    found = race(work, dict.fromkeys(work, 0), {}, rounds, 1, left_out)
    return {timing.backend: timing for timing in found}


def show(
    what: str,
    sparsity: str,
    found: dict[str, Timing],
    outputs: dict[str, torch.Tensor],
    left_out: dict[str, str],
) -> None:
    expected = outputs["masked-dense"]
    apart = max(float((y - expected).abs().max() / expected.abs().max()) for y in outputs.values())
    told = [f"{name} {t.seconds * 1e3:.0f} ms ({t.ratio:.2f})" for name, t in found.items()]
    told += [f"no {name}: {why}" for name, why in left_out.items()]
    gain = found["masked-dense"].seconds / found["sparse"].seconds
    print(
        f"{what} at {sparsity}: {', '.join(told)}; {gain:.1f}× over masked-dense; outputs apart {apart:.1e}",
        flush=True,
    )


if __name__ == "__main__":
    main()
