"""Growing networks beside networks of one width, on digits, at equal training MACs.

    python benchmarks/training/growth.py [--seeds 5] [--steps 400]

Three 3×3 convolutions; the width between the last two is 8, 16 or 32 all along, or grows from 8 over 16 to 32 in the middle of
training: by GradMax, by random outgoing weights, or by replicas. Each arm takes as many training MACs as width 16 does in
`--steps` steps of 64 samples, growth steps included: narrow networks take more steps, wide ones fewer, and growing ones as many
as width 16. SGD with momentum, without norms and with batch norms. Errors are standard errors over seeds.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from statistics import mean, stdev

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

import iftplan.nn as ift_nn  # noqa: E402
from iftplan.models.spec import Couplings, InputSpec  # noqa: E402
from iftplan.nn.training.data.digits import read_digits  # noqa: E402
from iftplan.report.table import Table  # noqa: E402
from iftplan.report.terminal import print_table  # noqa: E402
from iftplan.runs import growth_costs, within_steps  # noqa: E402
from iftplan.runs.costs.growth import forward_macs  # noqa: E402

BATCH, RATE, WIDTHS = 64, 0.05, (8, 16, 32)
ARMS = (*(f"width {width}" for width in WIDTHS), "gradmax", "random", "replicas")
INPUT = (InputSpec((1, 1, 8, 8)),)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run reached.

    Attributes:
        accuracy: on held-out digits, at the end.
        steps: of the run.
        part: training MACs over the budget.
    """

    accuracy: float
    steps: int
    part: float


def network(width: int, norms: bool) -> nn.Module:
    def norm(size: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(size)] if norms else []

    made = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), *norm(16), nn.ReLU()),
        *(nn.Conv2d(16, width, 3, 2, 1), *norm(width), nn.ReLU()),
        *(nn.Conv2d(width, 16, 3, 2, 1), *norm(16), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    )
    ift_nn.unit_slopes_(made)
    return made


@cache
def traced(norms: bool) -> tuple[Couplings, str]:
    """What moves together with the width, and its symbol."""
    couplings = ift_nn.read_model(network(4, norms), INPUT, widths=True).couplings
    assert couplings is not None
    return couplings, str(couplings.shapes["3.weight" if norms else "2.weight"][0])


@cache
def data() -> tuple[Tensor, ...]:
    train, test = read_digits(0.2)
    return *((train[0].float() / 255 - 0.3) / 0.37, train[1]), *(
        (test[0].float() / 255 - 0.3) / 0.37,
        test[1],
    )


def batch(seed: int, step: int) -> tuple[Tensor, Tensor]:
    x, y, *_ = data()
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(100_000 * seed + step))[:BATCH]
    return x[chosen], y[chosen]


def run(arm: str, norms: bool, seed: int, steps: int) -> Outcome:
    """Train one arm to the end of its budget."""
    torch.manual_seed(seed)
    couplings, symbol = traced(norms)
    budget = 3 * BATCH * steps * forward_macs(couplings, {symbol: 16})
    stages: list[Mapping[str, int]] = [{symbol: width} for width in WIDTHS]
    grows: dict[int, Mapping[str, int]] = {}
    if arm.startswith("width"):
        width = int(arm.removeprefix("width "))
        a_step = 3 * BATCH * forward_macs(couplings, {symbol: width})
        steps, macs = budget // a_step, budget // a_step * a_step
    else:
        width = WIDTHS[0]
        costs, growths = growth_costs(couplings, stages, BATCH, arm)  # type: ignore[arg-type]
        schedule = within_steps(costs, budget, steps, growths=growths)
        grows = dict(zip(schedule.begins[1:], stages[1:], strict=True))
        macs = schedule.macs
    model = network(width, norms)
    optimizer = torch.optim.SGD(model.parameters(), RATE, 0.9)
    for step in range(steps):
        x, y = batch(seed, step)
        if step in grows:
            loss = (lambda x=x, y=y: cross_entropy(model(x), y)) if arm == "gradmax" else None
            ift_nn.grow_(
                model, couplings, grows[step], INPUT, how=arm, loss=loss, optimizer=optimizer, seed=seed
            )
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    *_, x, y = data()
    with torch.no_grad():
        accuracy = float((model.eval()(x).argmax(1) == y).float().mean())
    return Outcome(accuracy, steps, macs / budget)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for arm in ARMS:
        cells = [arm]
        for norms in (False, True):
            found = [run(arm, norms, seed, given.steps) for seed in range(given.seeds)]
            values = [100 * x.accuracy for x in found]
            error = f" ± {stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.2f}{error}")
        rows.append((*cells, str(found[0].steps), f"{found[0].part:.4f}"))
    columns = ("arm", ">accuracy", ">with batch norm", ">steps", ">training MACs")
    print_table(Table(columns, tuple(rows), f"digits, {given.seeds} seeds, equal budgets"))


if __name__ == "__main__":
    main()
