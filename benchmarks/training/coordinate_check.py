"""Coordinate check: does the activation scale stay flat as width and sparsity grow at equal FLOPs?

    python benchmarks/training/coordinate_check.py [--seeds 10] [--steps 5] [--plot coordinate_check.svg]

A perceptron of four hidden layers in Sparse Wide, 1/sqrt(density) times as wide, trained with Adam. For each
parametrization and density: the root mean square of the last hidden layer's activations before training, after
the steps, and of their change, over the dense model's (mean over seeds).

fixed σ    every weight at the dense model's deviation, every rate the dense model's
1/fan-in   the usual initialisation of the wide layer, which counts masked inputs
μP         the plan with --parametrization mup
SμPar      the plan with --parametrization supar
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from math import sqrt
from statistics import mean

import torch
from torch import Tensor, nn

import iftplan as ift
from iftplan.nn import apply, enforce_, masked_weights, parameter_groups
from iftplan.nn.layers.initial_weights import Fans, fans_of, initialise_
from iftplan.nn.masks.masked_weights import stream
from iftplan.plans.plan import Plan
from iftplan.report.table import Table
from iftplan.report.terminal import print_table

HIDDEN, WIDTH, INPUTS, OUTPUTS, SAMPLES = 4, 128, 32, 16, 64
DENSITIES = ("1", "1/2", "1/4", "1/10")


@dataclass(frozen=True)
class Scales:
    """Root mean squares of the last hidden layer's activations."""

    initial: float
    trained: float
    change: float


def perceptron(seed: int = 0) -> nn.Sequential:
    hidden = [layer for _ in range(HIDDEN) for layer in (nn.ReLU(), nn.Linear(WIDTH, WIDTH, bias=False))]
    ends = nn.Linear(INPUTS, WIDTH, bias=False), nn.Linear(WIDTH, OUTPUTS, bias=False)
    model = nn.Sequential(ends[0], *hidden, nn.ReLU(), ends[1])
    return drawn_as(model, model, seed)


def drawn_as(model: nn.Sequential, reference: nn.Sequential, seed: int) -> nn.Sequential:
    """Every weight anew, at He's deviation for the fan-in that it has in the reference."""
    masks = {weight.name: weight.mask for weight in masked_weights(model)}
    for name, weight in model.named_parameters():
        sigma = he(fans_of(nn.Linear(1, 1), reference.get_parameter(name)), 1.0)
        initialise_(weight, masks.get(name), sigma, stream(seed, f"{name} values"))
    return model


@cache
def planned(density: str, parametrization: str = "standard") -> Plan:
    spec = ift.read_model(perceptron(), f"{SAMPLES}x{INPUTS}")
    sparsity = 1 - ift.base.units.parse_fraction(density, "density")
    return ift.plan(spec, "wide", sparsity, scope="matrices", parametrization=parametrization)


def he(fans: Fans, density: float) -> float:
    return sqrt(2 / fans.fan_in)


Made = tuple[nn.Sequential, list[dict]]
"""A model and its optimizer's parameter groups."""


def fixed(density: str, seed: int, lr: float) -> Made:
    dense = perceptron(seed)
    model = drawn_as(apply(planned(density), dense, seed=seed), dense, seed)
    return model, [{"params": list(model.parameters()), "lr": lr}]


def by_fan_in(density: str, seed: int, lr: float) -> Made:
    model = apply(planned(density), perceptron(seed), seed=seed)
    return drawn_as(model, model, seed), [{"params": list(model.parameters()), "lr": lr}]


def by_plan(parametrization: str, density: str, seed: int, lr: float) -> Made:
    plan = planned(density, parametrization)
    model = apply(plan, perceptron(seed), seed=seed, init=he)
    return model, parameter_groups(plan, model, lr)


Setup = Callable[[str, int, float], Made]
PARAMETRIZATIONS: Mapping[str, Setup] = {
    "fixed σ": fixed,
    "1/fan-in": by_fan_in,
    "μP": partial(by_plan, "mup"),
    "SμPar": partial(by_plan, "supar"),
}


def rms(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


def check(density: str, setup: Setup, seed: int, steps: int, lr: float = 1e-3) -> Scales:
    model, groups = setup(density, seed, lr)
    optimizer = torch.optim.Adam(groups)
    data = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, INPUTS, generator=data)
    y = torch.randn(SAMPLES, OUTPUTS, generator=data)
    hidden = model[:-2]
    with torch.no_grad():
        before = hidden(x)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        enforce_(model)
    with torch.no_grad():
        after = hidden(x)
    return Scales(rms(before), rms(after), rms(after - before))


def over_dense(seeds: int, steps: int) -> dict[tuple[str, str], Scales]:
    """(parametrization, density) → scales over those of the dense model."""
    found = {}
    for density in DENSITIES:
        for name, setup in PARAMETRIZATIONS.items():
            runs = [check(density, setup, seed, steps) for seed in range(seeds)]
            found[name, density] = tuple(
                mean(getattr(run, part) for run in runs) for part in Scales.__dataclass_fields__
            )
    return {
        (name, density): Scales(*(a / b for a, b in zip(scales, found[name, "1"], strict=True)))
        for (name, density), scales in found.items()
    }


def plot(ratios: Mapping[tuple[str, str], Scales], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3.4), sharey=True, layout="constrained")
    widths = [float(ift.base.units.parse_fraction(d, "density")) ** -0.5 for d in DENSITIES]
    titles = {"initial": "at initialisation", "trained": "after training steps", "change": "their change"}
    for axis, (part, title) in zip(axes, titles.items(), strict=True):
        for name, marker in zip(PARAMETRIZATIONS, "os^D", strict=True):
            axis.plot(widths, [getattr(ratios[name, d], part) for d in DENSITIES], marker=marker, label=name)
        axis.axhline(1, color="grey", linewidth=0.8, linestyle=":")
        axis.set(title=title, xlabel="width multiplier, at density 1/k²", xscale="log", yscale="log")
        axis.set_xticks(widths, [f"{k:.2f}\nρ={d}" for k, d in zip(widths, DENSITIES, strict=True)])
        axis.minorticks_off()
    axes[0].set_ylabel("activation scale, over dense (rms)")
    axes[0].legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--plot", help="a file of matplotlib's formats: .svg, .png, .pdf")
    given = parser.parse_args()
    torch.set_num_threads(1)
    ratios = over_dense(given.seeds, given.steps)
    rows = tuple(
        (name, density, *(f"{getattr(scales, part):.2f}" for part in Scales.__dataclass_fields__))
        for (name, density), scales in sorted(ratios.items(), key=lambda item: item[0][0])
    )
    columns = ("parametrization", ">density", ">initial", ">trained", ">change")
    print_table(Table(columns, rows, "Last hidden layer's activations over the dense model's"))
    if given.plot:
        plot(ratios, given.plot)


if __name__ == "__main__":
    main()
