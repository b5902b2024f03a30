"""Zeros among the activations of a GPT of bytes with ReLU, trained here, and its loss when small activations are left out.

    python benchmarks/training/dynamic.py --data shakespeare.txt [--steps 600] [--run runs/relu-gpt] [--batches 4]

The network is that of the recipe shakespeare-gpt with ReLU in the place of GELU, trained dense (six minutes of one core for 600
steps; a finished run in --run is used again). Everything is measured on the test part of the text, in windows of 128 bytes;
thresholds are found on the training part. Three tables:

layers       share of non-zero inputs of each matrix, nothing left out
thresholds   CETT (arXiv 2411.02335) of the products behind the ReLU, and the largest whose perplexity grows by 1 %
selections   TEAL and WINA (arXiv 2505.19427) at equal shares, in all matrices of the blocks

Effective MACs are products whose activation is not zero. The head and attention are part of the total and count in full.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from math import exp, log
from pathlib import Path

import torch
from torch import nn

from iftplan.base.units import count, share
from iftplan.models.dynamic.activations import ActivationSparsity
from iftplan.models.dynamic.feed_forward import feed_forward_share
from iftplan.models.dynamic.selection import InputSelection, parse_selection
from iftplan.nn import activation_sparsity, checkpoints
from iftplan.nn.sources.zoo.gpt2 import gpt_char
from iftplan.nn.training.data.batches import EvaluationBatches
from iftplan.nn.training.data.opening import open_data
from iftplan.nn.training.data.samples import Batch, Samples
from iftplan.nn.training.measures.activity import largest_error
from iftplan.report.table import Table
from iftplan.report.terminal import print_table
from iftplan.runs.settings import DataConfig

BEHIND_RELU = "*.mlp.c_proj"
IN_BLOCKS = "transformer.h.*"
ERRORS = ("0.01", "0.02", "0.05", "0.1", "0.2", "0.3", "0.4", "0.5")
SHARES = ("0.25", "0.4", "0.5", "0.65", "0.8")


def relu_gpt() -> nn.Module:
    """The network, for `iftplan train` too."""
    return gpt_char(nn.ReLU)


def train(run: Path, data: str, steps: int) -> None:
    settings = {
        "plan.model": f"{Path(__file__).resolve()}:relu_gpt",
        "plan.input": "1x128:int64",
        "training.eval_interval": steps,
        "training.checkpoint_interval": steps,
    }
    words = ["train", "--recipe", "shakespeare-gpt", "--method", "dense", "--trust", "--data", data]
    words += ["--steps", str(steps), "--out", str(run)]
    words += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    subprocess.run([sys.executable, "-m", "iftplan", *words], check=True)


def trained(run: Path) -> nn.Module:
    found = checkpoints.newest(run, print)
    assert found is not None
    network = relu_gpt()
    network.load_state_dict(found[1]["model"])
    return network


def first_batches(samples: Samples, batches: int, size: int = 32) -> list[Batch]:
    make = EvaluationBatches(samples, size, 0, 1)
    return [make(number) for number in range(min(batches, len(make)))]


class Measured:
    """The network on both parts of the text; thresholds come from the one, everything else from the other."""

    def __init__(self, network: nn.Module, train: list[Batch], test: list[Batch]) -> None:
        self.network, self.train, self.test = network, train, test
        self.plain = self.on_test(InputSelection())

    def on_test(self, selection: InputSelection) -> ActivationSparsity:
        return activation_sparsity(self.network, self.test, selection=selection)

    def by_error(self, error: Fraction) -> ActivationSparsity:
        selection = replace(parse_selection("cett:0"), value=error, layers=(BEHIND_RELU,))
        known = activation_sparsity(self.network, self.train, selection=selection).thresholds
        return self.on_test(replace(selection, thresholds=known))

    def row(self, name: str, found: ActivationSparsity) -> tuple[str, ...]:
        behind = [layer for layer in found.layers if layer.name.endswith(".mlp.c_proj")]
        active = Fraction(sum(x.nonzeros for x in behind), sum(x.elements for x in behind))
        errors = [layer.cett for layer in found.layers if layer.cett is not None]
        assert found.loss is not None and self.plain.loss is not None
        assert found.effective_macs is not None and found.effective_share is not None
        return (
            name,
            share(active),
            f"{sum(errors) / len(errors):.4f}" if errors else "",
            count(round(Fraction(found.effective_macs, found.samples))),
            share(found.effective_share),
            f"{found.loss:.4f}",
            f"{exp(found.loss - self.plain.loss):.4f}",
        )


COLUMNS = (
    "selection",
    ">active behind ReLU",
    ">CETT",
    ">effective MACs a sample",
    ">of static",
    ">loss",
    ">perplexity over dense",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--run", type=Path, default=Path("runs/relu-gpt"))
    parser.add_argument("--batches", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not (given.run / "result.json").exists():
        train(given.run, given.data, given.steps)
    task = open_data(DataConfig(kind="text", path=given.data), print)
    parts = (first_batches(part, given.batches) for part in (task.train, task.test))
    measured = Measured(trained(given.run), *parts)
    plain = measured.plain
    print_table(
        Table(
            (
                "layer",
                ">non-zero inputs",
                ">static MACs a sample",
                ">effective MACs a sample",
                ">feed-forward block",
            ),
            tuple(
                (
                    layer.name,
                    share(layer.activation_ratio),
                    count(layer.macs // plain.samples),
                    count(round(Fraction(layer.effective_macs, plain.samples))),
                    share(feed_forward_share(layer.activation_ratio))
                    if layer.name.endswith(".mlp.c_proj")
                    else "",
                )
                for layer in plain.layers
            ),
            f"Layers, on {count(plain.samples)} windows of 128 bytes; {count(plain.macs // plain.samples)} static MACs a window",
        )
    )
    rows = [measured.row("none", plain)]
    rows += [measured.row(f"CETT {error}", measured.by_error(Fraction(error))) for error in ERRORS]
    assert plain.loss is not None
    limit = plain.loss + log(1.01)
    largest = largest_error(lambda error: measured.by_error(error).loss or 0.0, limit, steps=7)
    rows.append(measured.row(f"CETT-PPL-1 %, {float(largest):.4f}", measured.by_error(largest)))
    print_table(Table(COLUMNS, tuple(rows), "Thresholds behind the ReLU"))
    rows = [
        measured.row(f"{rule} {part}", measured.on_test(parse_selection(f"{rule}:{part}@{IN_BLOCKS}")))
        for part in SHARES
        for rule in ("teal", "wina")
    ]
    print_table(Table(COLUMNS, tuple(rows), "Selections in all matrices of the blocks"))


if __name__ == "__main__":
    main()
