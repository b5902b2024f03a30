"""What is asked for in almost the right words is answered with the words that work."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from iftplan.cli import main as cli
from iftplan.cli import process
from iftplan.cli.output import Interrupted
from iftplan.plans.audit.diff import LayerCosts, diff
from tests.support.cli_runs import Run, iftplan, many

WIDE = ("--transform", "wide", "--sparsity", "3/4")
EARLY = (
    "training.eval_interval=2", "training.patience=1", "data.validation_fraction=0.2", "optimizer.lr=2",
    "schedule.name=constant",
)  # fmt: skip
SWEEP = (
    "sweep", "zoo:digits-cnn", "--transforms", "none,wide", "--sparsities", "3/4", "--train", "--data", "nowhere",
    "--seeds", "0", "--out", "swept",
)  # fmt: skip
COMMANDS = {
    "scope": ("plan", "zoo:digits-cnn", *WIDE, "--scope", "stage"),
    "scope name": ("plan", "zoo:digits-cnn", *WIDE, "--scope", "module:stagee"),
    "scope kind": ("plan", "zoo:digits-cnn", *WIDE, "--scope", "modul:stage"),
    "method": ("train", "--method", "topkast", "--steps", "1"),
    "data": ("train", "--data", "nowhere", "--steps", "1"),
    "folder": ("train", "--data", "images", "--steps", "1"),
    "early": ("train", "--steps", "60", "--out", "early", *(w for key in EARLY for w in ("--set", key))),
    "finished": ("train", "--resume", "--out", "early"),
    "failed": SWEEP,
    "failed again": SWEEP,
    "check": ("check", "zoo:resnet18"),
    "save": ("check", "--save-baseline"),
    "drift": ("check",),
    "runs": ("plot", "updates", "runs", "-o", "updates.svg"),
}  # fmt: skip
SAID = {
    "scope": "iftplan: scope 'stage' is none of matrices, layers, model and module:NAME. Did you mean 'module:stage'?",
    "scope name": "iftplan: no layer of zoo:digits-cnn lies in a module 'stagee'",
    "scope kind": "iftplan: scope 'modul:stage' is none of matrices, layers, model and module:NAME. Did you mean 'module:stage'?",
    "method": "Did you mean 'top-kast'? See iftplan train --help.",
    "data": "iftplan: there is nothing at 'nowhere', where the training data should be.",
    "folder": "It has a folder train, and no folder test, val, valid or validation beside it.",
    "check": "which has net. To hold zoo:resnet18 to a budget: iftplan audit zoo:resnet18 --budget 1G.",
    "early": "of 60: 1 evaluation without a better loss on the validation data",
    "finished": "the run in early was finished already, so nothing was trained",
    "failed": "2 of 2 runs failed, and the same command does not try them again; --retry-failed does",
    "failed again": "none of 2 rows has a result. The first: ",
    "drift": "if the new cost is intended, accept it with iftplan check --save-baseline, and commit iftplan-baseline.json",
    "runs": "Runs in runs: runs/a, runs/b.",
}

STATUS = {"drift": 1, "early": 0, "finished": 0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("hints")
    toml = '[models.net]\nsource = "zoo:digits-cnn"\n'
    (folder / "iftplan.toml").write_text(toml, encoding="utf-8")
    (folder / "images/train/cat").mkdir(parents=True)
    for name in ("a", "b"):
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "metrics.csv").write_text(
            "step,itop,churn,density\n1,1,0,1\n", encoding="utf-8"
        )
    before = list(COMMANDS.values())[: list(COMMANDS).index("drift")]
    found = dict(zip(COMMANDS, many(before, folder), strict=False))
    (folder / "iftplan.toml").write_text(toml + 'inputs = ["2x1x8x8"]\n', encoding="utf-8")
    after = list(COMMANDS)[list(COMMANDS).index("drift") :]
    return found | dict(zip(after, many([COMMANDS[name] for name in after], folder), strict=True))


@pytest.mark.parametrize("command", SAID)
def test_the_answer_names_what_works(runs: dict[str, Run], command: str) -> None:
    assert SAID[command] in runs[command].message
    assert runs[command].code == STATUS.get(command, 2)


def test_missing_data_are_told_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemError('imported')", encoding="utf-8")
    run = iftplan(
        "train",
        "--data",
        "nowhere",
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{Path(cli.__file__).parents[2]}"},
    )
    assert "there is nothing at 'nowhere'" in run.message


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(process._process, "ours", True)
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("error", [Interrupted("stopped"), KeyboardInterrupt()])
def test_a_second_interruption_does_not_break_into_the_end(
    own: None, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", stopped)
    assert cli._run([]) == 130
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_layers_that_changed_alike_are_ordered_by_their_numbers() -> None:
    names = ("body.10", "body.2", "body.1")
    found = diff(LayerCosts("a", dict.fromkeys(names, 1)), LayerCosts("b", dict.fromkeys(names, 2)))
    assert [change.name for change in found.changes] == ["body.1", "body.2", "body.10"]
