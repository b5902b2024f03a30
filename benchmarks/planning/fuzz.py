"""Hostile documents: mutated and sealed again, through the commands that read them.

    python benchmarks/planning/fuzz.py [--count 1000] [--seed 0]

Every kind of document that a command reads is made here, mutated in one or two places (numbers, texts, keys, rows, types, depths)
and sealed with a digest that agrees, or broken as text. Then the command runs in this process. Counted are answers, refusals with a
sentence, and what must never be: tracebacks, "an error of our own", more than ten seconds (forty where a process with PyTorch starts), and forged documents that are taken: a
row, a total or a ratio was changed, and the command answered all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import os
import random
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import iftplan as ift
from iftplan.base.documents import Document, dumps, loads, with_digest
from iftplan.checks.baseline import Baseline, baseline_document
from iftplan.cli.main import main as command
from iftplan.report.table import Table
from iftplan.report.terminal import print_table

LIMIT = 10
HOSTILE: tuple[Any, ...] = (
    -1, 0, 1, 2**63, 10**59, 10**4000, -(10**9), 1.5, -0.0, 1e308, float("inf"), float("nan"), True, None, "", "x", "-3/1", "1/0",
    "1e999999999", "\0", "\ud800", "::add-mask::B", [], {}, [[]], "a" * 100_000, "../../etc/passwd", "linear:3-4@1000000000000",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of input: how it is made, and the command that reads it from a folder.

    Attributes:
        name: as the table shows it.
        file: where in the folder it lies.
        arguments: of the command.
        follows: keys anywhere in it that follow from others; a change of one of them must be refused.
        starts: whether the command starts a process with PyTorch, which takes its time on a busy machine whatever is given.
    """

    name: str
    file: str
    arguments: str
    follows: frozenset[str] = frozenset()
    starts: bool = False


_PLAN = frozenset(
    [
        "sparsity",
        "sparsity_exact",
        "dense",
        "planned",
        "ratio",
        "ratio_exact",
        "residual_macs",
        "cardinality",
        "closing_sparsity",
        "closing_sparsity_exact",
        "nnz",
        "capacity",
        "positions",
        "density",
        "density_exact",
        "dense_macs",
        "macs",
        "maskable",
        "log2_masks",
        "dense_weights",
        "before",
        "after",
    ]
)
KINDS = (
    Kind("plan, pareto", "plan.json", "pareto plan.json --y log2_masks", _PLAN),
    Kind("plan, diff", "plan.json", "diff plan.json plan0.json", _PLAN),
    Kind("plan, train --dry-run", "plan.json", "train plan.json --model net.py:net --dry-run --out planned", _PLAN),
    Kind("plan, bench", "plan.json", "bench plan.json --rounds 0", _PLAN),
    Kind("spec, plan", "spec.json", "plan spec.json --transform wide --sparsity 1/2", frozenset({"positions", "coefficient"})),
    Kind("spec, diff", "spec.json", "diff spec.json plan0.json", frozenset({"positions", "coefficient"})),
    Kind(
        "audit, diff", "audit.json", "diff audit.json plan0.json",
        frozenset(["measured_macs", "ratio", "ratio_exact", "deviation", "deviation_exact", "agrees", "passed", "verdict"]),
    ),
    Kind("result, pareto", "run/result.json", "pareto run", frozenset({"train_ratio", "train_ratio_exact", "plan_digest", "seed"})),
    Kind("run record, pareto", "run/run.json", "pareto run", frozenset({"plan_digest", "seed"})),
    Kind("metrics, plot updates", "run/metrics.csv", "plot updates run -o x.svg"),
    Kind("sweep table, pareto", "sweep.csv", "pareto sweep.csv --y log2_masks"),
    Kind("profile, plan", "profile.json", "plan spec.json --transform wide --sparsity 1/2 --objective wallclock --profile profile.json"),
    Kind("baseline, check", "iftplan-baseline.json", "check --jobs 1", frozenset({"macs", "parameters"}), starts=True),
    Kind("configuration, check", "iftplan.toml", "check --jobs 1", starts=True),
    Kind("run settings, train", "run.toml", "train --config run.toml --model net.py:net --dry-run --out planned2"),
)  # fmt: skip


_NETWORK = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
"""


def originals(folder: Path) -> None:
    """Write one good input of every kind."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[2]))
    from iftplan.models.cost import ModelCost
    from iftplan.models.document import spec_document
    from iftplan.plans.document.plan import plan_document
    from iftplan.plans.speed.document import profile_document
    from iftplan.runs.document import run_digest, run_object
    from iftplan.runs.settings import RunConfig
    from tests.support.hand_profiles import profile  # type: ignore[import-not-found]

    (folder / "net.py").write_text(_NETWORK)
    spec = ift.read_model("net.py:net", "1x10")
    plan = ift.plan(spec, "wide", "3/4")
    planned, dense = plan_document(plan), plan_document(ift.plan(spec, None, "0"))
    rows = [(layer.name, layer.macs) for layer in plan.layers]
    total = sum(macs for _, macs in rows)
    audit = {
        "schema": "iftplan.audit/1", "convention": "mac", "subject": "net", "reference": "plan", "scope": "model",
        "tolerance": 0.001, "tolerance_exact": "1/1000", "verdict": "passed", "passed": True, "problems": [],
        "dense_macs": total, "expected_macs": total, "measured_macs": total, "ratio": 1.0, "ratio_exact": "1/1",
        "deviation": 0.0, "deviation_exact": "0/1", "counters": {"meta": total}, "elementwise": {"aten::relu": 5},
        "unknown_ops": {}, "uncalled_modules": [], "assumptions": [],
        "layers": [{"name": n, "expected_macs": m, "measured_macs": m, "agrees": True} for n, m in rows],
    }  # fmt: skip
    run = RunConfig()
    record = {
        "schema": "iftplan.run/1", "config": run_object(run), "seed": 0, "plan_digest": planned["digest"], "steps": 9,
        "precision": "32-true", "device": "cpu", "processes": 1, "versions": {"python": "3"},
    }  # fmt: skip
    result = {
        "schema": "iftplan.result/1", "convention": "mac", "scope": "model", "model": "zoo:digits-cnn", "transform": "wide",
        "sparsity": 0.75, "distribution": "uniform", "method": "rigl", "data": "digits", "seed": 0, "metric_name": "accuracy",
        "plan_digest": planned["digest"], "run_digest": run_digest(run), "steps": 9, "samples": 90, "metric": 0.9, "loss": 0.1,
        "test_loss": 0.2, "train_macs": 3000, "dense_train_macs": 4000, "train_ratio": 0.75, "train_ratio_exact": "3/4",
        "forward_macs": 1000, "dense_forward_macs": 1000, "nnz": 25, "maskable_weights": 100, "density": 0.25, "itop": 0.5,
        "degree_of_constraint": 0.1, "mask_updates": 3, "weights_digest": "0",
    }  # fmt: skip
    documents = {
        "plan.json": planned, "plan0.json": dense, "spec.json": spec_document(spec), "audit.json": with_digest(audit),
        "run/run.json": with_digest(record), "run/result.json": with_digest(result), "profile.json": profile_document(profile()),
        "iftplan-baseline.json": baseline_document(Baseline("b", {"a": ModelCost({"0": 100}, {"0": 100})}, {"a": ("1x10",)})),
    }  # fmt: skip
    (folder / "run").mkdir()
    for name, document in documents.items():
        (folder / name).write_text(dumps(document))
    columns = "step,epoch,loss,test_loss,metric,train_macs,density,itop,degree_of_constraint,churn,lr"
    (folder / "run/metrics.csv").write_text(
        f"{columns}\n0,0,1.0,1.0,0.1,0,0.25,0.25,0.25,0.0,0.1\n9,1,0.5,0.6,0.9,3000,0.25,0.5,0.1,0.1,0.1\n"
    )
    (folder / "sweep.csv").write_text(
        "model,transform,sparsity,macs,dense_macs,nnz,maskable_weights,log2_masks\nnet,wide,0.5,1000,1000,50,100,96.3\nnet,none,0,1000,1000,,,\n"
    )
    (folder / "iftplan.toml").write_text(
        '[models.a]\nsource = "net.py:net"\ninputs = ["1x10"]\n[models.a.budget]\nmacs = "20k"\n'
    )
    (folder / "run.toml").write_text('seed = 0\n[plan]\nfile = "plan.json"\n[optimizer]\nlr = 0.1\n')


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything inside a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def mutated(document: Document, chance: random.Random) -> tuple[str, tuple[Any, ...]]:
    """The document's text with one place changed and sealed again, and the place; an empty one where its text was broken."""
    changed = copy.deepcopy(document)
    path = chance.choice([place for place in places(changed) if place not in (("digest",), ("schema",))])
    *parents, last = path
    inside: Any = changed
    for key in parents:
        inside = inside[key]
    old = inside[last]
    way = chance.randrange(8)
    match way:
        case 0:
            del inside[last]
        case 1 if isinstance(inside, list):
            inside.append(old)
        case 1:
            inside[f"{last}x"] = old
        case 2 if isinstance(old, int | float):
            inside[last] = old + chance.choice((1, -1, 10**6, -(10**6)))
        case 3 if isinstance(old, int | float):
            inside[last] = -old or 7
        case 4 if isinstance(old, str) and re.fullmatch(r"-?\d+/\d+", old):
            inside[last] = chance.choice(("-3/1", "7/2", f"-{old}", "1/3"))
        case _:
            inside[last] = chance.choice(HOSTILE)
    try:
        return dumps(
            with_digest(changed)
        ), path if way > 1 else ()  # a key more or less is no forgery of a value
    except (ValueError, UnicodeEncodeError):  # what no writer of ours writes: as other programs would
        import json

        return json.dumps({**changed, "digest": "0"}), ()


def broken(text: str, chance: random.Random) -> bytes:
    """The text as disks, editors and strangers leave it."""
    data = text.encode()
    at = chance.randrange(len(data) + 1)
    match chance.randrange(9):
        case 0:
            return data[:at]
        case 1:
            return b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")
        case 2:
            return text.encode("utf-16")
        case 3:
            return data[:at] + chance.randbytes(9) + data[at:]
        case 4:
            return b"[" * 100_000
        case 5:
            return re.sub(
                rb"\d+", lambda found: chance.choice((b"1e999", b"9" * 5000, found[0])), data, count=3
            )
        case 6:
            return data[:at] + b"\0" + data[at:]
        case 7:
            return data.replace(b",", b",,", 1) + data
        case _:
            return re.sub(rb"\d+", lambda _: b"-" + str(chance.randrange(10**6)).encode(), data, count=1)


def told(kind: Kind) -> tuple[int, str, float]:
    """Status, what was written, and seconds of a command, here; 124 where it does not end."""
    limit = LIMIT * (4 if kind.starts else 1)
    out, err = io.StringIO(), io.StringIO()
    began = time.perf_counter()

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    status = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            command(kind.arguments.split())
    except SystemExit as end:
        status = int(end.code or 0)
    except TimeoutError:
        status = 124
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    seconds = time.perf_counter() - began
    return (124 if seconds >= limit else status), out.getvalue() + err.getvalue(), seconds


def verdict(status: int, text: str, forged: bool) -> str:
    """One word for how a command took what it was given."""
    if status == 124:
        return "no end"
    if "Traceback" in text or "error of our own" in text:
        return "broke"
    if status in (0, 1):
        return "forgery taken" if forged else "answered"
    return "refused" if "iftplan: " in text else "silent"


BAD = ("forgery taken", "silent", "broke", "no end")


def fuzz(
    count: int, seed: int, watch: Callable[[str], None], kinds: Sequence[Kind] = KINDS
) -> dict[str, Counter[str]]:
    """Verdicts of `count` hostile inputs, kind after kind in turn."""
    chance = random.Random(seed)
    found: dict[str, Counter[str]] = {kind.name: Counter() for kind in kinds}
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.chdir(folder)
        try:
            os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # a model that stays is measured once
            originals(folder)
            for kind in kinds:  # what is not mutated has to be read, or nothing is tried
                status, text, _ = told(kind)
                if status not in (0, 1) and kind.arguments[:5] != "bench":
                    watch(f"the original of {kind.name} is refused: {text[-300:]}")
            for i in range(count):
                kind = kinds[i % len(kinds)]
                file = folder / kind.file
                good = file.read_bytes()
                path: tuple[Any, ...] = ()
                if kind.file.endswith(".json") and chance.random() < 0.75:
                    text, path = mutated(loads(good.decode(), kind.file), chance)
                    file.write_text(text)
                else:
                    file.write_bytes(broken(good.decode(), chance))
                forged = bool(path) and path[-1] in kind.follows and file.read_bytes() != good
                status, text, seconds = told(kind)
                outcome = verdict(status, text, forged)
                found[kind.name][outcome] += 1
                if outcome in BAD:
                    watch(
                        f"{outcome}: {kind.name}, {i}, at {'.'.join(map(str, path))} in {seconds:.1f} s: {text[-400:]}"
                    )
                file.write_bytes(good)
        finally:
            os.chdir(here)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = fuzz(given.count, given.seed, lambda text: print(text, flush=True))
    columns = ("answered", "refused", *BAD)
    rows = tuple((name, *(str(seen[column]) for column in columns)) for name, seen in found.items())
    total = ("all", *(str(sum(seen[column] for seen in found.values())) for column in columns))
    print_table(
        Table(("read by", *(f">{c}" for c in columns)), (*rows, total), f"{given.count} hostile inputs")
    )


if __name__ == "__main__":
    main()
