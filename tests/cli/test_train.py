"""`iftplan train` as users run it: records, ledger, controls, resume, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil, cos, floor, pi
from pathlib import Path

import pytest

from iftplan.base.documents import digest
from iftplan.cli.main import main
from tests.support.cli_runs import Run, document, many
from tests.support.places import page_named

pytestmark = pytest.mark.slow

STEPS, BATCH, INTERVAL = 22, 64, 3
SETTINGS = f"--steps {STEPS} --set training.batch_size={BATCH} --set optimizer.lr=0.3 --set method.interval={INTERVAL} --set training.threads=1 --set training.precision=32-true --set training.eval_interval=6 --set training.checkpoint_interval=4"
METHODS = (
    "dense",
    "static",
    "set",
    "rigl",
    "gradual",
    "snip",
    "grasp",
    "force",
    "synflow",
    "mest",
    "granet",
    "snfs",
)
SPECTRA = {"gradual": "--set training.spectra=evaluation", "rigl": "--set training.spectra=update"}
OPTIONS = {
    **SPECTRA,
    "mest": "--set method.soft=true",
    "granet": "--set method.initial=0.5",
    "force": "--set method.rounds=3",
    "synflow": "--set method.rounds=5",
}

# zoo:digits-cnn by hand: convolutions 1-16-32-32 at 8×8, 8×8 and 4×4, a classifier of 32-10
DENSE = 16 * 9 * 64 + 16 * 32 * 9 * 64 + 32 * 32 * 9 * 16 + 32 * 10
# twice as wide, first and last kept dense, the two convolutions between under masks that close the budget
KEPT = 2 * 16 * 9 * 64 + 2 * 32 * 10
OPEN = KEPT + 4 * 16 * 32 * 9 * 64 + 4 * 32 * 32 * 9 * 16
SPARSE = DENSE
END = round(0.75 * STEPS)
UPDATES = [t for t in range(1, STEPS) if t % INTERVAL == 0 and t < END]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Run]:
    commands = {"plan": "plan zoo:digits-cnn -o wide.json"}
    commands |= {
        name: f"train wide.json --method {name} {settings_of(name)} --out {name}" for name in METHODS
    }
    commands["again"] = f"train wide.json --method rigl {settings_of('rigl')} --out again"
    commands["other seed"] = f"train wide.json --method rigl {SETTINGS} --seed 1 --out other"
    commands["recipe"] = f"train {SETTINGS} --steps 2 --out recipe"
    commands["several"] = "plan zoo:digits-cnn --transform 3=parallel --transform wide -o several.json"
    commands["mixed"] = f"train several.json --method rigl {SETTINGS} --out mixed"
    commands["half"] = "plan zoo:digits-cnn --sparsity 1/2 --transform factorized -o half.json"
    commands["double"] = "plan zoo:digits-cnn --input 2x1x8x8 -o double.json"
    commands["factorized"] = f"train half.json {SETTINGS} --steps 2 --out factorized"
    commands["dry"] = "train half.json --dry-run --out planned"
    commands["lowrank"] = "plan zoo:digits-cnn --transform lowrank --sparsity 1/2 -o lowrank.json"
    commands["moved"] = f"train --resume --method rigl {SETTINGS} --data digits --out again"
    done = many([text.split() for text in commands.values()], folder)
    return dict(zip(commands, done, strict=True))


def settings_of(method: str) -> str:
    return f"{SETTINGS} {OPTIONS.get(method, '')}"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def gradual_macs(folder: Path) -> int:
    """Gradual pruning's by the cubic, from each masked layer's own counts: an update counts from the next step on."""
    layers = [x for x in document(folder / "gradual/plan.json")["layers"] if x["maskable"]]
    kept = {x["name"]: x["capacity"] for x in layers}
    total = 0
    for step in range(STEPS):
        total += 3 * (KEPT + sum(x["positions"] * kept[x["name"]] for x in layers))
        if step in UPDATES or step == END:
            for x in layers:
                left = (1 - step / END) ** 3
                kept[x["name"]] = x["nnz"] + ceil(left * (x["capacity"] - x["nnz"]))
    return BATCH * total


def granet_macs(folder: Path) -> int:
    """From half of all weights, in proportion to the plan's counts; updates look at the dense gradient."""
    layers = [x for x in document(folder / "granet/plan.json")["layers"] if x["maskable"]]
    times = sum(x["capacity"] for x in layers) / 2 / sum(x["nnz"] for x in layers)
    kept = {x["name"]: ceil(round(x["nnz"] * times, 6)) for x in layers}
    begun, total = dict(kept), 0
    for step in range(STEPS):
        forward = KEPT + sum(x["positions"] * kept[x["name"]] for x in layers)
        total += 3 * forward
        if step in UPDATES or step == END:
            total += OPEN - forward
            for x in layers:
                kept[x["name"]] = x["nnz"] + ceil((1 - step / END) ** 3 * (begun[x["name"]] - x["nnz"]))
    return BATCH * total


def mest_macs(folder: Path) -> int:
    """Beside the plan's weights those of the last update: a part of them that falls along half a cosine to none."""
    layers = [x for x in document(folder / "mest/plan.json")["layers"] if x["maskable"]]
    more, total = dict.fromkeys((x["name"] for x in layers), 0), 0
    for step in range(STEPS):
        total += 3 * (KEPT + sum(x["positions"] * (x["nnz"] + more[x["name"]]) for x in layers))
        if step in UPDATES or step == END:
            share = 0.15 * (1 + cos(pi * step / END))
            more = {x["name"]: floor(x["nnz"] * share + 1e-9) for x in layers}
    return BATCH * total


def left(folder: Path, method: str, done: int, rounds: int) -> int:
    """MACs of a forward pass after a round of pruning at the start: n·(k/n)^(t/T) of each layer's weights, whole ones."""
    layers = [x for x in document(folder / method / "plan.json")["layers"] if x["maskable"]]
    counts = (ceil(x["capacity"] * (x["nnz"] / x["capacity"]) ** (done / rounds) - 1e-9) for x in layers)
    return KEPT + sum(x["positions"] * count for x, count in zip(layers, counts, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_the_ledger_equals_the_closed_form_to_the_mac(
    runs: dict[str, Run], folder: Path, method: str
) -> None:
    assert runs[method].code == 0, runs[method].err
    expected = {
        "dense": 3 * DENSE * STEPS * BATCH,
        "static": 3 * SPARSE * STEPS * BATCH,
        "set": 3 * SPARSE * STEPS * BATCH,
        "rigl": (3 * SPARSE * STEPS + (OPEN - SPARSE) * len(UPDATES)) * BATCH,
        "gradual": gradual_macs(folder),
        "granet": granet_macs(folder),
        "mest": mest_macs(folder),
        "snfs": (3 * SPARSE * STEPS + (OPEN - SPARSE) * END) * BATCH,  # counts move, MACs stay
        "snip": (3 * OPEN + 3 * SPARSE * (STEPS - 1)) * BATCH,
        "grasp": (9 * OPEN + 3 * SPARSE * (STEPS - 1)) * BATCH,
        "force": sum(2 * left(folder, "force", t, 3) + OPEN for t in range(3)) * BATCH
        + 3 * SPARSE * (STEPS - 3) * BATCH,
        "synflow": (3 * OPEN + 3 * SPARSE * (STEPS - 1)) * BATCH
        + 3 * sum(left(folder, "synflow", t, 5) for t in range(5)),
    }[method]
    found = document(folder / method / "result.json")
    assert found["train_macs"] == expected
    assert found["dense_train_macs"] == 3 * DENSE * STEPS * BATCH
    assert int(rows(folder / method / "metrics.csv")[-1]["train_macs"]) == expected
    assert found["forward_macs"] == (DENSE if method == "dense" else SPARSE)
    assert found["mask_updates"] == {
        "set": len(UPDATES),
        "rigl": len(UPDATES),
        "gradual": len({*UPDATES, END}),
        "snfs": len(UPDATES),
        "mest": len({*UPDATES, END}),
        "granet": len({*UPDATES, END}),
        "snip": 1,
        "grasp": 1,
        "force": 3,
        "synflow": 1,
    }.get(method, 0)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_falls_and_the_records_agree(runs: dict[str, Run], folder: Path, method: str) -> None:
    table, found = rows(folder / method / "metrics.csv"), document(folder / method / "result.json")
    assert [int(row["step"]) for row in table] == [6, 12, 18, 22]
    assert float(table[-1]["loss"]) < 0.6 * float(table[0]["loss"])
    assert float(table[-1]["metric"]) == found["metric"] > 0.3
    assert f"{found['metric']:.4f}" in runs[method].out
    run = document(folder / method / "run.json")
    assert run["config"]["method"]["name"] == method
    assert run["plan_digest"] == found["plan_digest"] == document(folder / method / "plan.json")["digest"]
    for name in ("run.json", "result.json"):
        one = document(folder / method / name)
        assert one["digest"] == digest(one)
    assert document(folder / method / "timing.json")["wall_seconds"] > 0


def test_a_run_repeated_is_the_same_to_the_bit_and_another_seed_is_not(
    runs: dict[str, Run], folder: Path
) -> None:
    for name in ("metrics.csv", "spectra.csv", "result.json", "run.json", "plan.json"):
        assert (folder / "rigl" / name).read_bytes() == (folder / "again" / name).read_bytes()
    first, other = (document(folder / name / "result.json") for name in ("rigl", "other"))
    assert first["weights_digest"] != other["weights_digest"]
    assert first["plan_digest"] == other["plan_digest"]


def test_data_go_to_stdout_and_progress_to_stderr(runs: dict[str, Run]) -> None:
    assert "step 22/22" in runs["rigl"].err and "step" not in runs["rigl"].out.replace("22 steps", "")
    assert "note: Masks change 5 times in 22 steps" in runs["rigl"].err
    assert "note:" not in runs["static"].err


STOP = """
import json, sys
from contextlib import contextmanager
from pathlib import Path
from iftplan.cli import progress
from iftplan.cli.main import main

@contextmanager
def stopping(*_, **__):
    def watch(moment):
        if moment.step == 10:
            raise SystemExit(9)
    yield watch

def run(command):
    try:
        main(command.split())
    except SystemExit as ended:
        return ended.code

whole = progress.watching
for name, command in json.load(sys.stdin).items():
    progress.watching = stopping
    assert run(f"train {command} --out {name}") == 3, "nothing may pass because something called sys.exit"
    assert not Path(name, "result.json").exists()
    rows = Path(name, "metrics.csv").read_text()
    assert len(rows.splitlines()) == 2, "a row of step 6"
    # what a kill between a row and its checkpoint leaves
    Path(name, "metrics.csv").write_text(rows + rows.splitlines()[1].replace("6,", "10,", 1) + chr(10))
    progress.watching = whole
    assert run(f"train --resume --out {name}") == 0
"""


def test_an_interrupted_run_resumed_is_the_same_to_the_bit(runs: dict[str, Run], folder: Path) -> None:
    """Stopped after step 10: the newest checkpoint is of step 8, and what was recorded since is recorded again."""
    methods = ("rigl", "gradual", "snip", "grasp", "force", "synflow", "mest", "granet", "snfs")
    commands = {f"{m}-half": f"wide.json --method {m} {settings_of(m)}" for m in methods}
    commands["mixed-half"] = f"several.json --method rigl {SETTINGS}"
    done = subprocess.run(
        [sys.executable, "-c", STOP],
        cwd=folder,
        input=json.dumps(commands),
        capture_output=True,
        timeout=300,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for method in (*methods, "mixed"):
        for name in ("metrics.csv", "result.json"):
            assert (folder / f"{method}-half" / name).read_bytes() == (folder / method / name).read_bytes()
        for half in (folder / f"{method}-half").glob("spectra.csv"):
            assert half.read_bytes() == (folder / method / "spectra.csv").read_bytes()


def test_a_plan_of_several_families_trains_at_its_cost(runs: dict[str, Run], folder: Path) -> None:
    result, plan = document(folder / "mixed/result.json"), document(folder / "several.json")
    assert runs["mixed"].code == 0
    assert result["transform"] == plan["transform"] == "3=parallel, wide"
    assert [x.get("transform") for x in plan["layers"]] == [None, "parallel", "wide", None]
    assert plan["residual_macs"] == 0
    assert result["forward_macs"] == plan["planned"]["model"] == plan["dense"]["model"]


def test_a_result_says_what_the_run_held_and_its_timing_what_it_used(
    runs: dict[str, Run], folder: Path
) -> None:
    result, plan = document(folder / "rigl/result.json"), document(folder / "rigl/plan.json")
    weights = sum(x["capacity"] + x["dense_weights"] for x in plan["layers"])
    others = result["parameter_bytes"] // 4 - weights  # of norms and biases
    assert 0 < others < 1000
    assert result["gradient_bytes"] == result["optimizer_bytes"] == result["parameter_bytes"]
    assert result["mask_bytes"] == result["maskable_weights"]
    masked = [x for x in plan["layers"] if x["maskable"]]
    assert result["index_bits"] == sum(x["capacity"] for x in masked), "a bitmap is least at that density"
    assert result["activation_bytes"] > 4 * BATCH * 8 * 8 * (1 + 32 + 64)
    dense = document(folder / "dense/result.json")
    assert (dense["mask_bytes"], dense["index_bits"]) == (0, 0)
    timing = document(folder / "rigl/timing.json")
    assert timing["train_macs"] == result["train_macs"]
    assert timing["executed_macs"] == 3 * OPEN * BATCH * STEPS
    assert 0 < timing["step_seconds"] < timing["wall_seconds"]
    assert "mfu" not in timing


def test_spectra_are_measured_at_the_start_then_when_the_setting_says(
    runs: dict[str, Run], folder: Path
) -> None:
    steps = {
        m: list(dict.fromkeys(int(r["step"]) for r in rows(folder / m / "spectra.csv"))) for m in SPECTRA
    }
    assert steps["gradual"] == [0, *(int(r["step"]) for r in rows(folder / "gradual/metrics.csv"))]
    assert steps["rigl"] == [0, *(t + 1 for t in UPDATES), STEPS]
    for method in SPECTRA:
        at_end = [
            float(r["delta_r"]) for r in rows(folder / method / "spectra.csv") if r["step"] == str(STEPS)
        ]
        assert float(rows(folder / method / "metrics.csv")[-1]["delta_r"]) == sum(at_end) / len(at_end)
    assert not (folder / "set" / "spectra.csv").exists()


def test_a_plan_file_is_trained(runs: dict[str, Run], folder: Path) -> None:
    found = document(folder / "factorized/result.json")
    assert found["transform"] == "factorized"
    assert found["plan_digest"] == document(folder / "half.json")["digest"]
    assert found["train_macs"] == 2 * BATCH * 3 * DENSE  # two steps, none of them an update
    assert "training MACs a sample" in runs["dry"].out and not (folder / "planned").exists()


def test_the_recipe_plans_what_the_plan_command_does(runs: dict[str, Run], folder: Path) -> None:
    assert runs["recipe"].code == 0, runs["recipe"].err
    assert (folder / "recipe/plan.json").read_bytes() == (folder / "wide.json").read_bytes()


def test_a_finished_run_resumed_changes_nothing(runs: dict[str, Run], folder: Path) -> None:
    assert runs["moved"].code == 0, runs["moved"].err
    assert runs["moved"].out == runs["again"].out


def test_every_key_of_the_records_is_explained(runs: dict[str, Run], folder: Path) -> None:
    page = page_named("run-directory.md").read_text(encoding="utf-8")
    keys = {*document(folder / "rigl/run.json"), *document(folder / "rigl/result.json")}
    keys |= {*rows(folder / "rigl/metrics.csv")[0], *document(folder / "rigl/timing.json")}
    keys -= {"schema", "digest", "train_ratio_exact"}  # as in every document
    assert {key for key in keys if f"`{key}`" not in page} == set()
    config = document(folder / "rigl/run.json")["config"]
    settings = {key for section in config.values() if isinstance(section, dict) for key in section}
    page = page_named("settings.md").read_text(encoding="utf-8")
    named = {name for code in re.findall(r"`([^`\n]+)`", page) for name in re.findall(r"\w+", code)}
    assert settings | set(config) <= named


def test_whoever_interrupts_a_run_is_told_how_to_continue_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def watching(*_: object, **__: object) -> Iterator[Callable[[object], None]]:
        def interrupt(moment: object) -> None:
            raise KeyboardInterrupt

        yield interrupt

    monkeypatch.setattr("iftplan.cli.progress.watching", watching)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--steps", "2", "--set", "training.batch_size=8", "--out", "a run"])
    assert ended.value.code == 130
    assert "iftplan train --resume --out 'a run'" in capsys.readouterr().err


# --- what is refused ----------------------------------------------------------------------------------

REFUSED = {
    f"wide.json --method rigl {SETTINGS} --out rigl": "iftplan train --resume --out rigl",
    "--resume --out rigl --seed 5": "started with seed = 0, and 5 is asked for",
    "--resume --out rigl --set optimizer.lr=0.2": "optimizer.lr = 0.3",
    "--resume --out nowhere": "there is no run in nowhere to resume",
    "--resume": "needs the directory of the run",
    "--set optimizer.weight_decai=0": "optimizer.weight_decai; [optimizer] takes",
    "--set optimiser.lr=1": "Did you mean 'optimizer'",
    "--set optimizer.lr=fast": "optimizer.lr = 'fast'",
    "--set optimizer=3": "optimizer is 3, but it must be a section",
    "--set training.precision=32": "'32-true'",
    "--set nothing": "--set optimizer.lr=0.05",
    "--recipe digit": "Did you mean 'digits'",
    "wide.json --data nowhere.txt": "there is nothing at 'nowhere.txt'",
    "wide.json --data nowhere": "there is nothing at 'nowhere'",
    "wide.json --set data.kind=auto": "name them with --data",
    "--config bad.toml": "bad.toml is not TOML",
    "--config wrong.toml": "wrong.toml: there is no setting method.intervall",
    "--config none.toml": "none.toml' cannot be read",
    "wide.json --set training.batch_size=5000": "has only 1438 training samples",
    "wide.json --set training.batch_size=33 --set training.accumulate=2": "a multiple of 2",
    "wide.json --data text.txt": "cannot be run on samples of text.txt",
    "double.json": "counts MACs for an input of 2x1x8x8, and one sample of digits is 1x1x8x8",
    "--recipe shakespeare-gpt --data text.txt --set data.context=64": "set data.context=128, or make the plan with --input 1x64:int64",
    "wide.json --logger printer": "tensorboard, mlflow",
    "nothing.json": "nothing.json' cannot be read",
    "--resume --out rigl --set plan.sparsity=1/2": "plan.sparsity = '3/4', and '1/2' is asked for",
    "lowrank.json": "masks no weights, so there are no masks for the method rigl",
    "wide.json --steps 2 --set optimizer.lr=1e30 --out diverged": "training diverged: ",
    "wide.json --steps 6 --set optimizer.lr=1e30 --set optimizer.clip=1 --out clipped": "training diverged: ",
    "zoo:digits-cnn": "is not a plan file",
}
STALE = ("half.json --resume --out rigl", "--resume --out swapped")


@pytest.fixture(scope="module")
def refusals(runs: dict[str, Run], folder: Path) -> dict[str, Run]:
    (folder / "bad.toml").write_text("[optimizer\nlr = 1")
    (folder / "wrong.toml").write_text("[method]\nintervall = 5\n")
    (folder / "text.txt").write_text("a line of text, again and again\n" * 1000)
    shutil.copytree(folder / "again", folder / "swapped")
    shutil.copy(folder / "half.json", folder / "swapped/plan.json")
    commands = [
        ["train", *text.split(), *([] if "--out" in text or "--resume" in text else ["--out", "bad"])]
        for text in (*REFUSED, *STALE)
    ]
    return dict(zip((*REFUSED, *STALE), many(commands, folder), strict=True))


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_is_said_in_one_paragraph(refusals: dict[str, Run], arguments: str) -> None:
    run = refusals[arguments]
    assert run.code == 2, run.err
    assert run.out == ""
    (line,) = (line for line in run.message.splitlines() if line.startswith("iftplan: "))
    assert REFUSED[arguments] in line


@pytest.mark.parametrize("arguments", STALE)
def test_another_plan_is_stale(refusals: dict[str, Run], arguments: str) -> None:
    assert refusals[arguments].code == 4, refusals[arguments].err
    assert re.search(
        "not the plan that the run was started with|started with another plan", refusals[arguments].message
    )


def test_nothing_that_was_refused_left_a_trace(refusals: dict[str, Run], folder: Path) -> None:
    assert not (folder / "bad").exists()
    assert (folder / "rigl/result.json").read_bytes() == (folder / "again/result.json").read_bytes()
