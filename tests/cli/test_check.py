"""`iftplan check` and `iftplan diff --base` as teams use them: in a repository, in processes of their own."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from iftplan.base.documents import digest
from iftplan.models.zoo.entries import ZOO
from tests.support.cli_runs import Run, iftplan
from tests.support.places import ROOT

NET = """
import torch
from torch import nn
import sizes

print("a module may say something")


def build():
    return nn.Sequential(nn.Linear(16, sizes.WIDTH), nn.ReLU(), nn.Linear(sizes.WIDTH, 4))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 16)
        self.head = nn.Linear(16, 4)
        self.probe = nn.Linear(16, 2)

    def forward(self, tokens, scale):
        return {"logits": self.head(self.table(tokens)) * scale}


@torch.library.custom_op("checked::scan", mutates_args=())
def scan(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@scan.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Scanned(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(16, 16)

    def forward(self, x):
        return scan(self.mix(x))


def pruned():
    layer = nn.Linear(16, 4)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, :3] = 1
    return layer


def sleeps():
    import time
    time.sleep(600)


def leaves():
    import os
    os._exit(7)


def asks():
    return nn.Linear(len(input("how many? ")), 2)
"""

BUDGETS = """
[models.net]
source = "net.py:build"
inputs = ["4x16"]
budget.macs = 2560
budget.flops = "5120"
budget.parameters = 676

[models.named]
source = "net.py:Named"
inputs = { tokens = "2x8:int64", scale = "1" }
budget.parameters = 2000
budget.ratio = { net = "2/5" }
allow = [{ module = "probe", reason = "read out in training only" }]

[models.scanned]
source = "net.py:Scanned"
inputs = ["4x16"]
allow = [{ operator = "checked::scan", macs = "64*out", reason = "64 states" }]

[models.thin]
source = "thin.json"
model = "net.py:build"

[models.pruned]
source = "net.py:pruned"
inputs = ["4x16"]
nonzeros = true

[models.unknown]
source = "net.py:Scanned"
inputs = ["4x16"]
budget.macs = "1G"

[models.tight]
source = "net.py:build"
inputs = ["4x16"]
budget.macs = 2000

[models.absent]
source = "net.py:bulid"
inputs = ["4x16"]

[models.leaves]
source = "net.py:leaves"

[models.asks]
source = "net.py:asks"

[models.after]
source = "net.py:build"
inputs = ["1x16"]
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


def repository(folder: Path, config: str) -> Path:
    (folder / "net.py").write_text(NET)
    (folder / "sizes.py").write_text("WIDTH = 32\n")
    (folder / "iftplan.toml").write_text(config)
    return folder


def models_in(run: Run) -> dict[str, dict[str, Any]]:
    return {model["name"]: model for model in json.loads(run.out)["models"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = repository(tmp_path_factory.mktemp("check"), BUDGETS)
    thin = ("--transform", "none", "--sparsity", "3/4", "--keep-dense", "none", "-o", "thin.json")
    done = iftplan("plan", "net.py:build", "--input", "4x16", *thin, cwd=folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def first(home: Path) -> Run:
    return iftplan("check", "--format", "json", "--jobs", "1", cwd=home)


def test_every_model_ends_as_it_should(first: Run) -> None:
    assert first.code == 1  # one is over its budget, whatever else could not be told
    ends = {name: model["status"] for name, model in models_in(first).items()}
    assert ends == {
        "net": "passed",
        "named": "passed",
        "scanned": "passed",
        "thin": "passed",
        "pruned": "passed",
        "unknown": "could not measure",
        "tight": "failed",
        "absent": "bad input",
        "leaves": "could not measure",
        "asks": "bad input",
        "after": "passed",
    }


def test_costs_are_the_hand_derived_ones(first: Run) -> None:
    found = models_in(first)
    costs = {
        name: (found[name]["measured_macs"], found[name]["parameters"])
        for name in ("net", "named", "scanned", "thin", "pruned", "after")
    }
    assert costs == {
        "net": (4 * (16 * 32 + 32 * 4), 16 * 32 + 32 + 32 * 4 + 4),
        "named": (2 * 8 * 16 * 4, 100 * 16 + 16 * 4 + 4 + 16 * 2 + 2),
        "scanned": (4 * 16 * 16 + 64 * 4 * 16, 16 * 16 + 16),
        "thin": (4 * (16 * 32 + 32 * 4) // 4, (16 * 32 + 32 * 4) // 4 + 32 + 4),
        "pruned": (4 * (3 * 4), 3 * 4 + 4),
        "after": (16 * 32 + 32 * 4, 16 * 32 + 32 + 32 * 4 + 4),
    }
    assert found["named"]["limits"][1]["measured_exact"] == "2/5"
    assert "allowed: checked::scan costs 64*out MACs a call, because 64 states" in found["scanned"]["notes"]


def test_the_document_is_sealed(first: Run) -> None:
    found = json.loads(first.out)
    assert found["schema"] == "iftplan.check/1"
    assert found["digest"] == digest(found)


def test_what_went_wrong_is_said_on_stderr(first: Run) -> None:
    assert (
        "failed: tight: 2 560 MACs, 2 000 allowed (+28 %); the largest layers: 0: 2 048, 2: 512." in first.err
    )
    assert "could not measure: unknown: iftplan has no cost formula for checked::scan" in first.err
    assert "bad input: absent: net.py has no bulid. Did you mean 'build'?" in first.err
    assert "could not measure: leaves: building net.py:leaves ended the process with os._exit(7)" in first.err
    assert "EOFError" in first.err
    assert "a module may say something" in first.err
    assert "Traceback" not in first.err


@pytest.mark.parametrize(("name", "status"), [("net", 0), ("tight", 1), ("unknown", 3)])
def test_names_choose_models_and_what_is_known_is_not_measured(
    home: Path, first: Run, name: str, status: int
) -> None:
    run = iftplan("check", name, "--format", "csv", cwd=home)
    assert run.code == status
    assert "measuring" not in run.err
    assert [line.split(",")[0] for line in run.out.splitlines()] == ["name", name]


def test_a_model_that_changed_makes_its_plan_stale(home: Path, first: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(home, tmp_path / "copy")
    (copy / "sizes.py").write_text("WIDTH = 40\n")
    run = iftplan("check", "thin", cwd=copy)
    assert run.code == 4
    assert "stale plan: thin: net.py:build is not the model that thin.json was made for" in run.err


LOADED = """
import sys
from iftplan.cli.main import main
try:
    main(["check", "net", "named", "scanned", "thin"])
except SystemExit as ended:
    assert ended.code == 0, ended.code
print("loaded:", *sorted({"torch", "numpy", "sympy", "pandas", "matplotlib", "transformers"} & set(sys.modules)))
"""


def test_what_is_known_needs_no_torch(home: Path, first: Run) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=home, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "loaded:", done.stderr


BUNDLED = """
from iftplan.checks import check
from iftplan.cli.main import main
if {measured}:
    check.zoo_cost = lambda source, inputs: None
main(["check", "--no-cache", "--report", "report.md", "--report", "report.html", "--format", "{form}"])
"""


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that budgets every bundled model, four of them too little, where importing torch fails."""
    folder = tmp_path_factory.mktemp("bundled")
    budgets = ("macs", "560M"), ("parameters", "12M"), ("flops", "100T"), ("parameters", "3G")
    sections = [
        f"[models.{name.replace('.', '-')}]\nsource = 'zoo:{name}'\nbudget.{quantity} = '{most}'\n"
        for name, (quantity, most) in zip(ZOO, itertools.cycle(budgets), strict=False)
    ]
    (folder / "iftplan.toml").write_text("".join(sections))
    (folder / "without" / "torch").mkdir(parents=True)
    (folder / "without" / "torch" / "__init__.py").write_text("raise ImportError('there is no torch')")
    return folder


def bundled_check(folder: Path, form: str, *, measured: bool) -> tuple[int, str, str, list[str]]:
    """Status, output, messages and reports of a check where torch measures, or where it cannot be imported."""
    path = os.environ.get("PYTHONPATH", "")
    done = subprocess.run(
        [sys.executable, "-c", BUNDLED.format(measured=measured, form=form)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path if measured else f"{folder / 'without'}{os.pathsep}{path}"},
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("measuring")]
    reports = [(folder / f"report.{ending}").read_text() for ending in ("md", "html")]
    return done.returncode, done.stdout, "\n".join(said), reports


@pytest.mark.parametrize("form", ("json", "table"))
def test_bundled_models_are_checked_without_torch_as_with_it(bundled: Path, form: str) -> None:
    measured, kept = (bundled_check(bundled, form, measured=m) for m in (True, False))
    assert kept[0] == 1, kept[2]
    assert kept == measured
    if form == "json":
        assert len(json.loads(kept[1])["models"]) == len(ZOO)


def test_a_model_of_ones_own_asks_for_torch_in_one_sentence(bundled: Path, tmp_path: Path) -> None:
    (tmp_path / "iftplan.toml").write_text(
        "[models.own]\nsource = 'net.py:net'\n[models.net]\nsource = 'zoo:resnet18'\n"
    )
    run = iftplan("check", cwd=tmp_path, env={"PYTHONPATH": f"{bundled / 'without'}{os.pathsep}{ROOT}"})
    assert run.code == 2
    assert run.message == (
        "bad input: own: measuring net.py:net needs PyTorch, which cannot be imported (there is no torch). Install it with: pip install 'iftplan[torch]'."
    )
    assert "passed" in run.out


def test_other_formats_and_folders(home: Path, first: Run, tmp_path: Path) -> None:
    inner = home / "inner"
    inner.mkdir()
    run = iftplan("check", "tight", "--format", "markdown", cwd=inner)
    assert run.code == 1
    assert "| MACs | 2\u00a0560 | 2\u00a0000 | 128.0\u00a0% |" in run.out
    assert iftplan("check", "tight", "-o", str(tmp_path / "report.json"), cwd=inner).code == 1
    assert json.loads((tmp_path / "report.json").read_text())["status"] == "failed"
    inner.rmdir()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("check", "nett"), "iftplan.toml has no model 'nett'. Did you mean 'net'?"),
        (("check", "--config", "none.toml"), "none.toml' cannot be read"),
        (("check", "--save-baseline", "--base", "main"), "Give one of them"),
        (("check", "--base", "main"), "is in no git repository"),
        (
            ("check", "--report", "gone/x.md"),
            "--report gone/x.md cannot be written: there is no folder gone",
        ),
        (
            ("check", "--report", "cost.htm"),
            "'cost.htm' has no known ending. Name the file with one of .csv",
        ),
        (("check", "--report", "-"), "'-' has no known ending"),
        (("diff", "--base", "main"), "is in no git repository"),
        (("diff", "main", "zoo:resnet18"), "model 'main' is not a form that iftplan knows"),
        (("diff", "one.json"), "diff compares BASE with HEAD, and only 'one.json' is given"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_told_in_a_sentence(
    home: Path, first: Run, arguments: tuple[str, ...], says: str
) -> None:
    run = iftplan(*arguments, cwd=home)
    assert run.code == 2
    assert says in run.err
    assert "Traceback" not in run.err


def test_without_a_configuration_it_says_how_to_begin(tmp_path: Path) -> None:
    run = iftplan("check", cwd=tmp_path)
    assert run.code == 2
    assert "begin iftplan.toml with [models.net]" in run.err


# --- the cache -------------------------------------------------------------------------------------------

TWO = """
[models.net]
source = "net.py:build"
inputs = ["4x16"]
budget.macs = 3000

[models.named]
source = "net.py:Named"
inputs = { tokens = "2x8:int64", scale = "1" }
allow = [{ module = "probe", reason = "read out in training only" }]
"""


def test_a_touched_helper_is_measured_again_and_never_passes_stale(tmp_path: Path) -> None:
    home = repository(tmp_path, TWO)
    assert iftplan("check", "net", cwd=home).code == 0
    shutil.copytree(home / ".iftplan_cache", home / "elsewhere")
    assert "measuring" not in iftplan("check", "net", cwd=home).err
    (home / "sizes.py").write_text("WIDTH = 64\n")
    run = iftplan("check", "net", "--format", "json", cwd=home)
    assert run.code == 1
    assert "measuring 1 model" in run.err
    assert models_in(run)["net"]["measured_macs"] == 4 * (16 * 64 + 64 * 4)
    assert iftplan("check", "net", cwd=home).code == 1  # known, and still refused
    (home / "sizes.py").write_text("WIDTH = 32\n")
    run = iftplan("check", "net", "--cache-dir", "elsewhere", cwd=home)
    assert (run.code, "measuring" in run.err) == (0, False)  # what was measured then is true again
    for entry in (home / "elsewhere").glob("*.json"):
        entry.write_text("{")
    run = iftplan("check", "net", "--cache-dir", "elsewhere", cwd=home)
    assert (run.code, "measuring 1 model" in run.err) == (0, True)


def test_a_width_that_a_native_library_reads_is_measured_again(tmp_path: Path) -> None:
    """4 inputs, 16 features, a hidden width from the header of a file that Rust opens: 4·(16·w + w·16) MACs."""
    numpy = pytest.importorskip("safetensors.numpy")
    from numpy import zeros

    (tmp_path / "net.py").write_text(
        "import safetensors\nfrom torch import nn\n\n\ndef build():\n"
        "    with safetensors.safe_open('w.safetensors', 'np') as file:\n"
        "        width = file.get_slice('w').get_shape()[0]\n"
        "    return nn.Sequential(nn.Linear(16, width), nn.Linear(width, 16))\n"
    )
    budget = '[models.net]\nsource = "net.py:build"\ninputs = ["4x16"]\nbudget.macs = 2000\n'
    (tmp_path / "iftplan.toml").write_text(budget)
    numpy.save_file({"w": zeros(8)}, tmp_path / "w.safetensors")
    assert iftplan("check", cwd=tmp_path).code == 0
    assert "measuring" not in iftplan("check", cwd=tmp_path).err
    numpy.save_file({"w": zeros(64)}, tmp_path / "w.safetensors")
    run = iftplan("check", "--format", "json", cwd=tmp_path)
    assert run.code == 1
    assert models_in(run)["net"]["measured_macs"] == 4 * (16 * 64 + 64 * 16)


def seconds_of(command: list[str], folder: Path) -> float:
    """CPU seconds, of the process and of whatever it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
def test_ten_unchanged_models_take_less_than_a_second(tmp_path: Path) -> None:
    models = "".join(
        f'[models.m{i}]\nsource = "zoo:resnet18-cifar"\ninputs = ["{i + 1}x3x32x32"]\nbudget.macs = "9G"\n'
        for i in range(10)
    )
    home = repository(tmp_path, models)
    check = [sys.executable, "-m", "iftplan", "check"]
    assert iftplan("check", cwd=home).code == 0
    assert iftplan("check", "--save-baseline", cwd=home).code == 0
    interpreter = min(seconds_of([sys.executable, "-c", "pass"], home) for _ in range(3))
    work = min(seconds_of(check, home) for _ in range(3)) - interpreter
    assert work < 1


# --- baselines and revisions -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commits: the second widens a layer and adds a model."""
    folder = repository(tmp_path_factory.mktemp("repo"), TWO)
    (folder / ".gitignore").write_text(".iftplan_cache\n__pycache__\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    saved = iftplan("check", "--save-baseline", cwd=folder)
    assert saved.code == 0, saved.err
    assert "written: " in saved.err
    git(folder, "checkout", "--quiet", "-b", "wider")
    (folder / "sizes.py").write_text("WIDTH = 40\n")
    config = (
        (folder / "iftplan.toml")
        .read_text()
        .replace("budget.macs = 3000", 'budget.ratio = { baseline = "1.2" }')
    )
    (folder / "iftplan.toml").write_text(
        config + '\n[models.new]\nsource = "more.py:build"\ninputs = ["1x8"]\n'
    )
    (folder / "more.py").write_text("from torch import nn\n\n\ndef build():\n    return nn.Linear(8, 8)\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "two")
    return folder


def untouched(folder: Path) -> None:
    assert git(folder, "worktree", "list").count("\n") == 1
    assert git(folder, "status", "--porcelain") == ""
    assert git(folder, "branch", "--show-current") == "wider\n"


WIDENED = "+640 MACs since {} (2 560 → 3 200, +25 %) and +168 parameters (676 → 844, +24.9 %); layer 0 2 048 → 2 560 (+512), layer 2 512 → 640 (+128)"


def test_drift_from_a_saved_baseline_is_refused_by_layer(repo: Path) -> None:
    run = iftplan("check", "--format", "json", cwd=repo)
    assert run.code == 1
    assert f"failed: net: {WIDENED.format('iftplan-baseline.json')}." in run.err
    assert "1.25 times the MACs of baseline, 1.2 allowed" in run.err
    found = models_in(run)
    assert [(c["name"], c["change"], c["difference"]) for c in found["net"]["drift"]["macs"]["layers"]] == [
        ("0", "changed", 4 * 16 * 8),
        ("2", "changed", 4 * 8 * 4),
    ]
    assert found["named"]["drift"]["macs"]["layers"] == []
    assert found["new"]["drift"] is None
    assert found["new"]["status"] == "passed"


def test_a_revision_is_measured_beside_the_working_tree(repo: Path) -> None:
    run = iftplan("diff", "--base", "main", cwd=repo)
    assert run.code == 0, run.err
    assert "net: main → working tree" in run.out
    assert "layer   change    base MACs   head MACs   difference   parameters" in run.out
    assert "there is no Python file more.py" in run.out  # at main
    untouched(repo)
    again = iftplan("diff", "--base", "main", "--exit-code", "net", cwd=repo)
    assert again.code == 1
    assert "measuring" not in again.err
    assert "the working tree differs from main" in again.err
    assert iftplan("diff", "--base", "main", "--exit-code", "new", cwd=repo).code == 1  # it is not at main
    assert iftplan("diff", "--base", "HEAD", "--exit-code", cwd=repo).code == 0
    untouched(repo)


def test_two_revisions_are_told_that_one_has_to_be_checked_out(repo: Path) -> None:
    run = iftplan("diff", "main", "wider", cwd=repo)
    assert run.code == 2
    assert run.message.startswith("iftplan: main and wider are git revisions")
    assert run.message.endswith("git switch wider, then iftplan diff --base main.")


def test_a_revision_in_the_place_of_a_model_is_told_how_revisions_are_compared(repo: Path) -> None:
    run = iftplan("diff", "zoo:resnet8-cifar", "main", cwd=repo)
    assert run.code == 2
    assert run.message.startswith("iftplan: main is a git revision, and BASE and HEAD name models")
    assert run.message.endswith("iftplan diff --base main.")


def test_a_check_against_a_revision_fails_by_its_ratio_only(repo: Path) -> None:
    run = iftplan("check", "net", "--base", "main", "--format", "json", cwd=repo)
    assert run.code == 1
    assert [p.split(";")[0] for p in models_in(run)["net"]["problems"]] == [
        "1.25 times the MACs of baseline, 1.2 allowed (+4.17 %)"
    ]
    assert "since main: layer 0 2 048 → 2 560 (+512), layer 2 512 → 640 (+128)." in run.err
    untouched(repo)


def test_a_new_baseline_is_what_is_checked_from_then_on(repo: Path) -> None:
    run = iftplan("check", "net", "--save-baseline", cwd=repo)
    assert run.code == 0, run.err
    saved = json.loads((repo / "iftplan-baseline.json").read_text())
    assert {name: model["macs"] for name, model in saved["models"].items()} == {"net": 3200, "named": 1024}
    assert iftplan("check", cwd=repo).code == 0
    (repo / "iftplan-baseline.json").write_text(
        (repo / "iftplan-baseline.json").read_text().replace("3200", "3201")
    )
    run = iftplan("check", cwd=repo)
    assert run.code == 2
    assert "iftplan-baseline.json: its digest is" in run.err
    assert "iftplan check --save-baseline" in run.err
    git(repo, "checkout", "--quiet", ".")


@pytest.mark.slow
def test_a_model_without_a_cost_is_not_in_the_baseline_and_said_so(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\n\n\ndef build():\n    return nn.Linear(8, 8)\n")
    table = '[models.{0}]\nsource = "net.py:{1}"\ninputs = ["1x8"]\n'
    (tmp_path / "iftplan.toml").write_text(table.format("good", "build") + table.format("bad", "no"))
    run = iftplan("check", "bad", "--save-baseline", cwd=tmp_path)
    assert run.code == 2
    assert "no baseline written: bad could not be measured" in run.err
    assert not (tmp_path / "iftplan-baseline.json").exists()
    run = iftplan("check", "--save-baseline", cwd=tmp_path)
    assert run.code == 2
    assert "not in the baseline: bad could not be measured" in run.err
    assert list(json.loads((tmp_path / "iftplan-baseline.json").read_text())["models"]) == ["good"]


@pytest.mark.slow
def test_a_source_that_nobody_configured_is_compared_too(repo: Path) -> None:
    run = iftplan("diff", "--base", "main", "net.py:build", "--input", "1x16", "--format", "json", cwd=repo)
    (model,) = json.loads(run.out)["models"]
    assert model["drift"]["macs"]["difference"] == 16 * 8 + 8 * 4


def test_a_repository_of_somebody_else_is_told_with_what_git_advises(repo: Path) -> None:
    """As in a container, where another user has checked out."""
    run = iftplan("diff", "--base", "main", cwd=repo, env={"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"})
    assert run.code == 2
    assert "dubious ownership" in run.err
    assert "git config --global --add safe.directory" in run.err
    assert "is in no git repository" not in run.err


def test_an_unknown_revision_is_told_and_leaves_nothing(repo: Path) -> None:
    run = iftplan("diff", "--base", "mian", cwd=repo)
    assert run.code == 2
    assert "git knows no revision 'mian' here" in run.err
    run = iftplan("diff", "--base", "--output=x", cwd=repo)
    assert run.code == 2
    untouched(repo)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_comparison_leaves_nothing(repo: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "iftplan", "diff", "--base", "main", "net.py:sleeps", "--input", "1x16"]
    process = subprocess.Popen(command, cwd=repo, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while git(repo, "worktree", "list").count("\n") == 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    untouched(repo)
    assert not [
        p for p in Path(tempfile.gettempdir()).glob("iftplan-*/tree/net.py") if "sleeps" in p.read_text()
    ]


@pytest.mark.slow
def test_a_comparison_interrupted_while_git_still_writes_waits_for_it(tmp_path: Path) -> None:
    """Git checks out in a process of its own, which would write on into the folder that is being removed."""
    folder = repository(tmp_path, TWO)
    (folder / ".gitattributes").write_text("*.txt filter=slow\n")
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"{number}\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    written = tmp_path.parent / f"{tmp_path.name}-written"
    git(
        folder,
        "config",
        "filter.slow.smudge",
        f"echo begun >> {written}; sleep 0.2; cat; echo done >> {written}",
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "iftplan", "diff", "--base", "main", "net.py:build", "--input", "1x16"],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(temporary.glob("*/tree/1*.txt")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, told
    assert "stopped before there was a result" in told
    words = written.read_text().split()
    assert words.count("begun") == words.count("done"), "git is still writing"
    assert not list(temporary.iterdir())
    assert git(folder, "worktree", "list").count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_check_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    """A model that hangs must not go on when whoever waited for it has given up."""
    (tmp_path / "net.py").write_text(
        "import os, pathlib, time\n\n\n"
        "def build():\n    pathlib.Path('pid').write_text(str(os.getpid()))\n    time.sleep(100)\n"
    )
    (tmp_path / "iftplan.toml").write_text('[models.net]\nsource = "net.py:build"\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "iftplan", "check"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    worker = int((tmp_path / "pid").read_text())
    process.send_signal(number)
    try:
        assert process.wait(timeout=60) == 128 + number
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    finally:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def test_ctrl_c_says_what_is_measured_and_keeps_it(tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to every process of the command, and none of them may answer with a traceback."""
    (tmp_path / "net.py").write_text(
        "import pathlib, time\nfrom torch import nn\n\n\n"
        "def quick():\n    return nn.Linear(8, 8)\n\n\n"
        "def slow():\n    pathlib.Path('begun').touch()\n    time.sleep(100 if pathlib.Path('wait').exists() else 0)\n"
        "    return nn.Linear(8, 4)\n"
    )
    (tmp_path / "wait").touch()
    model = '[models.{0}]\nsource = "net.py:{0}"\ninputs = ["1x8"]\n'
    (tmp_path / "iftplan.toml").write_text(model.format("quick") + model.format("slow"))
    process = subprocess.Popen(
        [sys.executable, "-m", "iftplan", "check", "--jobs", "1"], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    said = "iftplan: stopped with 1 of 2 measured; the same command measures the rest.\n"
    assert err == f"measuring 2 models …\n{said}"
    (tmp_path / "wait").unlink()
    assert "measuring 1 model …" in iftplan("check", cwd=tmp_path).err


@pytest.mark.slow
def test_modules_on_the_path_are_taken_from_the_revision(repo: Path) -> None:
    """A package on PYTHONPATH, as an editable install puts it there, would hide what the revision has."""
    path = f"{repo}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    run = iftplan("diff", "--base", "main", "net", "--format", "json", cwd=repo, env={"PYTHONPATH": path})
    assert models_in(run)["net"]["drift"]["macs"]["difference"] == 640


@pytest.mark.slow
def test_a_revision_that_imports_from_the_working_tree_is_refused(repo: Path, tmp_path: Path) -> None:
    """What cannot be taken from the revision is said, not measured in its place."""
    (tmp_path / "sitecustomize.py").write_text(
        f"""
import importlib.util, sys

class Editable:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "sizes":
            return importlib.util.spec_from_file_location(name, {str(repo / "sizes.py")!r})

sys.meta_path.insert(0, Editable)
"""
    )
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    run = iftplan("diff", "--base", "main", "net", cwd=repo, env={"PYTHONPATH": path})
    assert run.code == 2
    assert "at main the models import sizes.py from the working tree" in run.err
    untouched(repo)
