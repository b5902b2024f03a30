"""Counting time of ten models, and time and memory of a 70-billion-parameter Llama: `python benchmarks/counting/counting.py`.

Ratios of CPU time in one run on one thread; every round visits every way once, so that all see the same
machine. "fvcore" is FlopCountAnalysis on real tensors as people use it; "fvcore here" is our engine around it
on the meta device.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from math import exp, log
from pathlib import Path
from statistics import median

GOALS = {"meta forward": 4.0, "FlopCounterMode": 5.0, "fvcore": 25.0}  # times faster than these
BASELINES = ("meta forward", "FlopCounterMode", "fvcore", "fvcore here")


def published() -> dict[str, tuple[object, object, str]]:
    """Name → (model class, configuration, input)."""
    import transformers as hf

    image, text = "1x3x224x224", "1x128"
    resnet50 = hf.ResNetConfig(num_labels=1000)
    llama = hf.LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
    )
    return {
        "ResNet-50": (hf.ResNetForImageClassification, resnet50, image),
        "MobileNetV2": (hf.MobileNetV2ForImageClassification, hf.MobileNetV2Config(), image),
        "MobileViT-S": (hf.MobileViTForImageClassification, hf.MobileViTConfig(), "1x3x256x256"),
        "ViT-B/16": (hf.ViTForImageClassification, hf.ViTConfig(), image),
        "Swin-T": (hf.SwinForImageClassification, hf.SwinConfig(), image),
        "ConvNeXt-T": (hf.ConvNextForImageClassification, hf.ConvNextConfig(), image),
        "BERT-base": (hf.BertForMaskedLM, hf.BertConfig(), text),
        "GPT-2": (hf.GPT2LMHeadModel, hf.GPT2Config(), text),
        "GPT-2 medium": (hf.GPT2LMHeadModel, hf.GPT2Config(n_embd=1024, n_layer=24, n_head=16), text),
        "Llama 1B": (hf.LlamaForCausalLM, llama, text),
    }


def ways(model_class: type, config: object, shape: str) -> dict[str, Callable[[], int]]:
    """Our engine and what it is measured against, each answering with its MACs."""
    import torch
    from fvcore.nn import FlopCountAnalysis
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    from iftplan.models.spec import InputSpec
    from iftplan.nn.counting.measure import measure
    from iftplan.nn.meta.inputs import make_inputs

    sizes = tuple(map(int, shape.split("x")))
    specs = (InputSpec(sizes, "float32" if len(sizes) == 4 else "int64"),)
    with torch.device("meta"):
        model = model_class(config).eval()

    class Logits(nn.Module):  # fvcore takes tensors only
        def __init__(self) -> None:
            super().__init__()
            self.model = model_class(config).eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x).logits

    real = Logits()
    (on_meta,), _ = make_inputs(specs)
    (on_cpu,), _ = make_inputs(specs, "cpu")
    answers = answering(model, on_meta)

    def forward() -> int:
        with torch.no_grad(), answers:
            model(on_meta)
        return 0

    def flop_counter() -> int:
        with torch.no_grad(), answers, FlopCounterMode(display=False) as counter:
            model(on_meta)
        return int(counter.get_total_flops()) // 2

    def fvcore() -> int:
        with torch.no_grad():
            return int(FlopCountAnalysis(real, on_cpu).total())

    return {
        "iftplan": lambda: measure(model, specs).macs,
        "meta forward": forward,
        "FlopCounterMode": flop_counter,
        "fvcore": fvcore,
        "fvcore here": lambda: measure(model, specs, engine="fvcore").macs,
    }


def answering(model: Callable[..., object], on_meta: object) -> AbstractContextManager[object]:
    """Nothing, if the model runs on the meta device as it is; otherwise what answers its `.item()` calls."""
    import torch

    from iftplan.nn.counting.passes.dispatch import DatalessAnswers
    from iftplan.nn.counting.passes.ledger import Ledger, Names

    try:
        with torch.no_grad():
            model(on_meta)
    except RuntimeError:
        return DatalessAnswers(Ledger(Names(model)))
    return nullcontext()


def medians(calls: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each way, interleaved; fvcore runs in every third round only."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # imports and first-use caches are not what is compared
    for turn in range(rounds):
        for name, call in calls.items():
            if "fvcore" in name and turn % 3:
                continue
            gc.collect()  # nobody pays for another's garbage
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    return {name: median(values) for name, values in seconds.items()}


def geometric_mean(values: list[float]) -> float:
    return exp(sum(map(log, values)) / len(values))


def compare(rounds: int) -> bool:
    """Print the table of ten models and say whether the goals are met."""
    ratios: dict[str, list[float]] = {name: [] for name in BASELINES}
    print(f"{'counting one forward pass':26s}{'iftplan':>10s}" + "".join(f"{b:>17s}" for b in BASELINES))
    for name, (model_class, config, shape) in published().items():
        times = medians(ways(model_class, config, shape), rounds)
        for baseline in BASELINES:
            ratios[baseline].append(times[baseline] / times["iftplan"])
        row = "".join(f"{ratios[b][-1]:>16.1f}x" for b in BASELINES)
        print(f"{name:26s}{times['iftplan'] * 1e3:>7.1f} ms{row}", flush=True)
    means = {b: geometric_mean(r) for b, r in ratios.items()}
    print(f"{'geometric mean':26s}{'':10s}" + "".join(f"{means[b]:>16.1f}x" for b in BASELINES))
    print(f"{'goal':26s}{'':10s}" + "".join(f"{GOALS[b]:>15.0f}x+" if b in GOALS else "" for b in BASELINES))
    print(f"iftplan takes {1 / means['meta forward']:.3f} of a plain meta forward pass (goal: 0.25 at most).")
    return all(means[b] >= goal for b, goal in GOALS.items())


def peak_mb() -> float:
    """Peak resident memory; the kernel's own mark, for getrusage also counts the process that forked us."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def large() -> None:
    """Count Llama-70B at 2048 tokens in this process and print what it took, as JSON."""
    import torch
    import transformers as hf

    from iftplan.models.spec import InputSpec
    from iftplan.nn.counting.measure import measure

    config = hf.LlamaConfig(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=128256,
    )
    torch.set_num_threads(1)
    start = time.perf_counter()
    with torch.device("meta"):
        model = hf.LlamaForCausalLM(config)
    built = time.perf_counter()
    table = measure(model, (InputSpec((1, 2048), "int64"),))
    first = time.perf_counter()
    measure(model, (InputSpec((1, 2048), "int64"),))
    print(
        json.dumps(
            {
                "parameters": sum(p.numel() for p in model.parameters()),
                "macs": table.macs,
                "build_seconds": built - start,
                "count_seconds": first - built,
                "again_seconds": time.perf_counter() - first,
                "peak_mb": peak_mb(),
            }
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds of every way")
    parser.add_argument("--large", action="store_true", help="only count the 70B model, in this process")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)  # fvcore logs every operator that it does not know
    if options.large:
        large()
        return 0
    import torch

    torch.set_num_threads(1)
    met = compare(options.rounds)
    command = [sys.executable, str(Path(__file__).resolve()), "--large"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = json.loads(answer.splitlines()[-1])
    print(
        f"Llama 70B ({result['parameters']:,} parameters, 2048 tokens): {result['macs']:,} MACs in "
        f"{result['count_seconds']:.2f} s, again in {result['again_seconds']:.2f} s (goal: 0.3 s); peak memory of "
        f"the process {result['peak_mb']:.0f} MB (goal: 450 MB); built in {result['build_seconds']:.1f} s."
    )
    met = met and result["count_seconds"] <= 0.3 and result["peak_mb"] <= 450
    print("all goals met" if met else "not every goal met")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
