"""Paired seeds of dense and sparse training: runs what is missing, prints the table.

    python benchmarks/training/results.py cifar10 --data DIR [--seeds 5] [--out runs]
    python benchmarks/training/results.py shakespeare --data input.txt
    python benchmarks/training/results.py table2 --data DIR --seeds 5
    python benchmarks/training/results.py table3 --data DIR --seeds 5
    python benchmarks/training/results.py controls --data DIR --seeds 3
    python benchmarks/training/results.py resnet20 --data DIR --seeds 3
    python benchmarks/training/results.py shakespeare-2000 --data input.txt --seeds 3
    python benchmarks/training/results.py structures --data DIR --seeds 3
    python benchmarks/training/results.py places --data input.txt --seeds 3
    python benchmarks/training/results.py places-cifar10 --data DIR --seeds 3
    python benchmarks/training/results.py places-vit --data DIR --seeds 3
    python benchmarks/training/results.py execution --data DIR --seeds 3

`cifar10` and `shakespeare` have dense, static, SET and RigL with every seed, and each other family with the first one;
`table2` and `table3` are those tables of arXiv 2303.11525 at ten epochs: methods by sparsities, and families by
sparsities, each with the spectra of its masks; `controls` are tables 4 and 11 at 3/4 beside them, with masks that
hardware can use and low-rank layers; `resnet20` is 3/4 of table 2 in a network of five times the depth and twice the
width; `shakespeare-2000` is `shakespeare` eight times as long, with the loss on the way; `structures` is `cifar10` with
structured masks and with low-rank layers; `places` are places where one budget can go: dense, wide, Monarch layers and,
where there are feed-forward blocks, experts, `places-vit` in a small ViT on CIFAR-10; `execution` trains in float32
with dense operators on masked weights and with sparse kernels. Every run is one `iftplan train` in a process of its
own, printed before it starts; a run that has its result.json is not made again, and an interrupted one is continued.
`--record` writes what the runs found into docs/results/runs, from where tables are made too: a run that stands there is
not made again. Seeds are paired: the same seed is the same order of the data in every arm, so that differences to the
dense control are taken seed by seed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from iftplan.base.documents import write_text

_CIFAR10 = "--recipe cifar10-resnet8 --epochs 3 --set method.interval=30"
_TEN_EPOCHS = "--recipe cifar10-resnet8 --epochs 10 --set training.spectra=evaluation"
_RESNET20 = f"{_TEN_EPOCHS} --set plan.model=zoo:resnet20-cifar"
_SHAKESPEARE = (
    "--recipe shakespeare-gpt --steps 250 --set method.interval=8 --set training.batch_size=16 "
    "--set data.test_fraction=0.05 --set training.eval_interval=250 --set training.checkpoint_interval=250"
)
_SHAKESPEARE_500 = _SHAKESPEARE.replace("--steps 250", "--steps 500")

_SHAKESPEARE_2000 = (
    "--recipe shakespeare-gpt --steps 2000 --set method.interval=50 --set training.batch_size=16 "
    "--set data.test_fraction=0.05 --set training.eval_interval=200 --set training.checkpoint_interval=1000 "
    "--set training.spectra=evaluation"
)

_VIT = (
    f"--recipe cifar10-resnet8 --steps 300 --set plan.model={Path(__file__).with_name('small_vit.py')}:vit "
    "--set plan.input=1x3x32x32 --set plan.scope=model --set plan.init=model --set method.interval=12 "
    "--set optimizer.name=adamw --set optimizer.lr=0.001 --set optimizer.weight_decay=0.05 --set optimizer.clip=1 "
    "--set training.batch_size=64 --set training.zero_init_residual=false"
)

MEASURES = ("delta_r", "delta_s", "imdb", "weighted_gap")
TITLES = {"delta_r": "Δr", "imdb": "IMDB", "weighted_gap": "weighted gap", "churn": "churn"}
"""Measures of masks that the table shows, where runs have them."""

RECORDS = Path(__file__).parents[2] / "docs" / "results" / "runs"
"""A file for each task, a row for each run."""

COLUMNS = (
    "arm", "seed", "method", "sparsity", "metric_name", "metric", "nnz", "maskable_weights", "forward_macs", "train_macs",
    "train_ratio", "itop", *MEASURES, "churn", "curve",
)  # fmt: skip
"""Of a record, as far as a run has them."""

SPARSITY = "3/4"
"""Of every arm that says nothing else, as in the recipes."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One kind of run.

    Attributes:
        method: as `iftplan train --method` has it; "densified" for members that have no masks.
        transform: the family.
        mask: what masks may look like; empty for unstructured.
        nonlinear: whether a norm and an activation stand inside members.
        sparsity: as `--sparsity` has it.
        execution: of masked layers; empty for dense operators.
    """

    method: str
    transform: str = "wide"
    mask: str = ""
    nonlinear: bool = True
    sparsity: str = SPARSITY
    execution: str = ""

    @property
    def title(self) -> str:
        if self.method == "dense":
            return "dense"
        family = f"{self.transform} {self.mask}".strip()
        family = family if self.nonlinear else f"{family} linear"
        family = family if self.sparsity == SPARSITY else f"{family} at {self.sparsity}"
        family = family if self.method == "densified" else f"{family}, {self.method}"
        return f"{family}, {self.execution} execution" if self.execution else family

    @property
    def folder(self) -> str:
        return self.title.replace(", ", "-").replace(" ", "-").replace(":", "of").replace("/", "of")

    @property
    def options(self) -> list[str]:
        settings = {
            "plan.transform": "" if self.transform == "wide" else self.transform,
            "plan.mask": self.mask,
            "plan.nonlinear": "" if self.nonlinear else "false",
            "plan.sparsity": "" if self.sparsity == SPARSITY else self.sparsity,
            "training.execution": self.execution,
        }
        given = [part for key, value in settings.items() if value for part in ("--set", f"{key}={value}")]
        return ["--method", self.method, *given]


DENSE = Arm("dense")
METHODS = (DENSE, *(Arm(method) for method in ("static", "set", "rigl")))
FAMILIES = (
    *(Arm("rigl", family) for family in ("parallel", "factorized", "doped")),
    Arm("densified", "lowrank"),
)
SPARSITIES = ("3/4", "1/2", "9/10")
TABLE_2 = (DENSE, *(Arm(method, sparsity=s) for s in SPARSITIES for method in ("static", "set", "rigl")))
TABLE_3 = (
    DENSE,
    *(
        Arm("rigl", family, sparsity=s)
        for s in SPARSITIES
        for family in ("wide", "parallel", "factorized", "doped")
    ),
)
STRUCTURES = (
    DENSE,
    Arm("rigl"),
    Arm("transposable", mask="2:8T"),
    Arm("srste", mask="2:8"),
    Arm("srigl", mask="fan-in"),
    Arm("densified", "lowrank"),
    Arm("densified", "lowrank", nonlinear=False),
)
CONTROLS = (
    DENSE,
    Arm("rigl"),
    Arm("srste", mask="2:8"),
    Arm("densified", "lowrank"),
    Arm("densified", "lowrank", nonlinear=False),
    Arm("transposable", mask="2:8T"),
)
MONARCH, EXPERTS = Arm("densified", "monarch"), Arm("densified", "experts:8x2")
EXECUTION = (DENSE, *(Arm(method, execution=e) for method in ("static", "rigl") for e in ("dense", "sparse")))


@dataclass(frozen=True, slots=True)
class Experiment:
    """Arms under the same settings.

    Attributes:
        task: what its runs' folders are named after; experiments of one task share runs.
        settings: options of `iftplan train`.
        every: arms that every seed has.
        first: arms that only the first seed has.
    """

    task: str
    settings: str
    every: tuple[Arm, ...]
    first: tuple[Arm, ...] = ()

    def arms(self, seed: int) -> Iterator[Arm]:
        yield from self.every
        yield from self.first if seed == 0 else ()


EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "cifar10": Experiment("cifar10", _CIFAR10, METHODS, FAMILIES),
        "shakespeare": Experiment("shakespeare", _SHAKESPEARE, METHODS, FAMILIES),
        "table2": Experiment("cifar10-ten", _TEN_EPOCHS, TABLE_2),
        "table3": Experiment("cifar10-ten", _TEN_EPOCHS, TABLE_3),
        "controls": Experiment("cifar10-ten", _TEN_EPOCHS, CONTROLS),
        "resnet20": Experiment("cifar10-resnet20", _RESNET20, METHODS),
        "shakespeare-2000": Experiment("shakespeare-2000", _SHAKESPEARE_2000, METHODS),
        "structures": Experiment("cifar10", _CIFAR10, STRUCTURES),
        "places": Experiment("shakespeare-500", _SHAKESPEARE_500, (DENSE, Arm("rigl"), MONARCH, EXPERTS)),
        "places-cifar10": Experiment("cifar10", _CIFAR10, (DENSE, Arm("rigl"), MONARCH)),
        "places-vit": Experiment("vit-cifar10", _VIT, (DENSE, Arm("rigl"), MONARCH, EXPERTS)),
        "execution": Experiment("cifar10-float32", f"{_CIFAR10} --set training.precision=32-true", EXECUTION),
    }
)


def read(experiment: Experiment, arm: Arm, seed: int, out: Path) -> dict[str, Any] | None:
    """The result of one run, from its folder or from the record; None where it has none yet."""
    directory = out / f"{experiment.task}-{arm.folder}-{seed}"
    record = directory / "result.json"
    if not record.exists():
        return recorded(experiment.task).get((arm.title, seed))
    return {"arm": arm.title, "seed": seed, **json.loads(record.read_text()), **measures(directory)}


@cache
def recorded(task: str) -> Mapping[tuple[str, int], dict[str, Any]]:
    """Results that are on record, by arm and seed."""
    path = RECORDS / f"{task}.jsonl"
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["arm"], row["seed"]): row for row in rows}


def record(experiment: Experiment, found: Sequence[dict[str, Any]]) -> None:
    """Put results into the record, beside those of other runs."""
    rows = {**recorded(experiment.task), **{(row["arm"], row["seed"]): row for row in found}}
    lines = [
        json.dumps({name: rows[key][name] for name in COLUMNS if name in rows[key]}) for key in sorted(rows)
    ]
    RECORDS.mkdir(exist_ok=True)
    write_text("".join(f"{line}\n" for line in lines), str(RECORDS / f"{experiment.task}.jsonl"))


def measures(directory: Path) -> dict[str, Any]:
    """What was measured on the way: test loss by training MACs, spectra of masks at the end, the mean churn of updates."""
    if not (directory / "metrics.csv").exists():
        return {}
    rows = pd.read_csv(directory / "metrics.csv")
    curve = [
        [int(macs), float(loss)] for macs, loss in zip(rows["train_macs"], rows["test_loss"], strict=True)
    ]
    if not (directory / "spectra.csv").exists():
        return {"curve": curve}
    spectra = {name: float(rows[name].iloc[-1]) for name in MEASURES}
    return {**spectra, "churn": float(rows["churn"].mean()), "curve": curve}


def run(experiment: Experiment, data: str, arm: Arm, seed: int, out: Path) -> None:
    """Make one run, or continue it where it was begun."""
    directory = out / f"{experiment.task}-{arm.folder}-{seed}"
    command = [sys.executable, "-m", "iftplan", "train", "--trust", "--out", str(directory)]  # our own models
    if (directory / "run.json").exists():
        command.append("--resume")
    else:
        command += [*shlex.split(experiment.settings), "--data", data, "--seed", str(seed), *arm.options]
    print("$ iftplan", shlex.join(command[3:]), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def results(experiment: Experiment, seeds: int, out: Path, data: str | None) -> list[dict[str, Any]]:
    """What the runs found, those that are missing made from `data`; without it, what there is."""
    found = []
    for seed in range(seeds):
        for arm in experiment.arms(seed):
            if data is not None and read(experiment, arm, seed, out) is None:
                run(experiment, data, arm, seed, out)
            found.append(read(experiment, arm, seed, out))
    return [result for result in found if result is not None]


def table(results: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Mean ± standard error of each arm, and of its difference to the dense run of the same seed."""
    frame = pd.DataFrame(results)
    name = frame["metric_name"].iloc[0]
    scale = 100 if name == "accuracy" else 1
    frame["value"] = frame["metric"] * scale
    dense = frame[frame["method"] == "dense"].set_index("seed")["value"]
    frame["difference"] = frame["value"] - frame["seed"].map(dense)
    rows = []
    for title, group in frame.groupby("arm", sort=False):
        rows.append(
            {
                "arm": title,
                "seeds": len(group),
                name: mean_and_error(group["value"]),
                "against dense": "" if title == "dense" else mean_and_error(group["difference"], signed=True),
                "non-zeros": group["nnz"].iloc[0] or "all",
                "of": group["maskable_weights"].iloc[0] or "",
                "forward MACs": f"{group['forward_macs'].iloc[0]:,}".replace(",", " "),
                "training MACs": f"{group['train_ratio'].mean():.4f}×",
                "ITOP": f"{group['itop'].mean():.3f}",
                **{title: _mean(group[name]) for name, title in TITLES.items() if name in group},
            }
        )
    return pd.DataFrame(rows)


def _mean(values: pd.Series) -> str:
    return "" if values.isna().all() else f"{values.mean():.2f}"


def curves(results: Sequence[dict[str, Any]], rows: int = 5) -> pd.DataFrame | None:
    """Mean test loss ± standard error of each arm at some training MACs, those of the dense run; None without curves.

    Between two evaluations the loss is taken to fall in a straight line, so that arms are compared at equal MACs although
    updates that look at the dense gradient cost more.
    """
    drawn = [result for result in results if result.get("curve")]
    dense = next((result["curve"] for result in drawn if result["method"] == "dense"), None)
    if dense is None:
        return None
    places = [macs for macs, _ in dense][:: -max(len(dense) // rows, 1)][::-1]
    frame = pd.DataFrame(
        {
            "arm": result["arm"],
            "macs": macs,
            "loss": _loss_at(macs, result["curve"]),
        }
        for result in drawn
        for macs in places
    )
    found = frame.groupby(["macs", "arm"], sort=False)["loss"].apply(_to_thousandths).unstack()
    found.index = [f"{macs / 1e12:.2f} T" for macs in found.index]
    return found.rename_axis("training MACs")[list(dict.fromkeys(frame["arm"]))]


def _loss_at(macs: int, curve: Sequence[tuple[int, float]]) -> float:
    """Loss of an arm at some training MACs; at its end also where whole weights left it a part in a thousand short of the dense run."""
    last = curve[-1][0]
    place = min(macs, last) if macs <= 1.001 * last else macs
    return float(np.interp(place, *zip(*curve, strict=True), left=np.nan, right=np.nan))


def _to_thousandths(values: pd.Series) -> str:
    if values.isna().any():  # before an arm's first evaluation
        return ""
    return f"{values.mean():.3f} ± {values.sem():.3f}" if len(values) > 1 else f"{values.mean():.3f}"


def correlations(results: Sequence[dict[str, Any]]) -> pd.DataFrame | None:
    """Rank correlation over masked runs of each measure of their masks with what they gained; None where none was measured.

    Spearman's, for the measures have different scales; in all runs, and within each sparsity, whose networks have equal sizes.
    """
    frame = pd.DataFrame(results)
    found = [name for name in (*MEASURES, "itop", "churn") if name in frame]
    dense = frame[frame["method"] == "dense"].set_index("seed")["metric"]
    frame["gain"] = frame["metric"] - frame["seed"].map(dense)
    masked = frame[frame["nnz"] > 0].dropna(subset=["gain"])
    if MEASURES[0] not in frame or len(masked) < 3:
        return None
    groups = {"all": masked, **{f"sparsity {s}": group for s, group in masked.groupby("sparsity")}}
    return pd.DataFrame(
        {
            "runs": {name: len(group) for name, group in groups.items()},
            **{
                measure: {
                    name: group[measure].corr(group["gain"], method="spearman")
                    for name, group in groups.items()
                }
                for measure in found
            },
        }
    )


def mean_and_error(values: pd.Series, *, signed: bool = False) -> str:
    mean = f"{values.mean():+.2f}" if signed else f"{values.mean():.2f}"
    return f"{mean} ± {values.sem():.2f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=sorted(EXPERIMENTS))
    parser.add_argument("--data", help="without it, the table of the runs that there are")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--record", action="store_true", help="keep the results in docs/results/runs")
    given = parser.parse_args()
    found = results(EXPERIMENTS[given.experiment], given.seeds, given.out, given.data)
    if not found:
        raise SystemExit(f"no runs of {given.experiment} in {given.out}; give --data to make them")
    if given.record:
        record(EXPERIMENTS[given.experiment], found)
    print(table(found).to_markdown(index=False, disable_numparse=True))
    losses = curves(found)
    if losses is not None:
        print("\nTest loss at equal training MACs:\n")
        print(losses.to_markdown())
    ranks = correlations(found)
    if ranks is not None:
        print("\nRank correlation with the gain over dense:\n")
        print(ranks.to_markdown(floatfmt=".2f"))


if __name__ == "__main__":
    main()
