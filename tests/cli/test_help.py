"""Help at the terminal's width and in words; completion of names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from iftplan.cli.commands import MODULES, SUMMARIES
from iftplan.cli.group import command_named
from iftplan.cli.help import WIDEST
from iftplan.cli.main import app
from tests.support.places import PACKAGE

NAMES = list(get_command(app).commands)  # type: ignore[attr-defined]


def shown(*words: str, cwd: Path | None = None, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "iftplan", *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
        env={**os.environ, **env},
    )
    return done.stdout


def test_every_summary_is_whole_on_a_line_of_a_narrow_terminal() -> None:
    lines = shown("--help", COLUMNS="80").partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert dict(line.split(maxsplit=1) for line in lines) == SUMMARIES


@pytest.mark.parametrize("name", NAMES)
def test_a_summary_is_the_first_sentence_of_its_command(name: str) -> None:
    first = (command_named(name).help or "").splitlines()[0]
    assert first.partition(". ")[0].partition("; ")[0].rstrip(".") == SUMMARIES[name]


def test_every_command_is_listed() -> None:
    entries = {path.stem for path in (PACKAGE / "cli/commands").glob("[a-z]*/[a-z]*")}
    assert set(NAMES) == set(MODULES) == entries


def test_an_unknown_command_is_refused_with_the_nearest() -> None:
    done = subprocess.run([sys.executable, "-m", "iftplan", "pla"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "iftplan: no such command 'pla'. Did you mean 'plan'? See iftplan --help.\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("apply", "iftplan.nn.apply(plan, model)"),
        ("show x.json", "iftplan spec MODEL"),
        ("count zoo:resnet18", "iftplan audit MODEL"),
    ],
)
def test_what_is_no_command_is_said_to_be_elsewhere(words: str, says: str) -> None:
    done = subprocess.run([sys.executable, "-m", "iftplan", *words.split()], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"no such command {words.split()[0]!r}" in done.stderr and says in done.stderr


@pytest.mark.parametrize("width", [60, 100, 140])
def test_lines_are_as_wide_as_the_terminal(width: int) -> None:
    text = shown("plan", "--help", COLUMNS=str(width)).partition("Example")[0]
    longest = max(map(len, text.splitlines()))
    assert longest <= width and longest > min(width, WIDEST) - 12


@pytest.mark.parametrize("name", NAMES)
def test_placeholders_and_defaults_are_words(name: str) -> None:
    text = shown(name, "--help", COLUMNS="100").partition("Example")[0]
    assert not re.search(r"<(str|int|float|int range|float range)>|TEXT|x>=", text)
    assert "[default: (" not in text and "{" not in text
    assert max(map(len, text.splitlines())) <= 100
    reports = name in ("audit", "check", "diff")
    if "--format" in text:
        assert ("sarif" in text) == reports, "a format is offered where it applies"


@pytest.mark.parametrize(
    ("name", "panels"),
    [
        (
            "plan",
            "Arguments Options, Reading the model, Initial scales and learning rates, Plans for time, Several devices, Output",
        ),
        ("train", "Arguments Options, Run, Reading the model"),
        ("sweep", "Arguments Options, Training (with --train), Search, Reading the model, Output"),
        ("models", "Options, Output"),
    ],
)
def test_options_stand_in_panels(name: str, panels: str) -> None:
    text = shown(name, "--help", COLUMNS="100").partition("Example")[0]
    found = re.findall(r"^(\w.*):$", text, re.M)
    assert ", ".join(found).replace("Arguments, ", "Arguments ") == panels
    options = {o for p in command_named(name).params for o in p.opts if o.startswith("--")}
    assert options - set(re.findall(r"--[\w-]+", text)) == set(), "none is lost"


@pytest.mark.parametrize("name", NAMES)
def test_every_choice_is_explained(name: str) -> None:
    for option in command_named(name).params:
        offered = getattr(option.type, "choices", ())
        if "--format" in option.opts and "|" in (option.metavar or ""):
            offered = option.metavar.strip("<>").split("|")
        for choice in offered:
            value = getattr(choice, "value", choice)
            assert re.search(rf"\b{re.escape(value)}\b", getattr(option, "help", "")), (
                f"{option.opts}: {value}"
            )


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (
            "plan zoo:res",
            "zoo:resnet18-cifar zoo:resnet34-cifar zoo:resnet8-cifar zoo:resnet20-cifar zoo:resnet18 zoo:resnet34 zoo:resnet50",
        ),
        ("plan zoo : mob", "mobilenetv2-cifar mobilevit-s-cifar mobilenetv2 mobilevit-s"),
        ("audit zoo:bot", "zoo:botnet50-cifar zoo:botnet50"),
        ("sweep zoo:bot", "zoo:botnet50-cifar zoo:botnet50"),
        ("diff zoo:resnet18 zoo:bot", "zoo:botnet50-cifar zoo:botnet50"),
        ("plan x --transform w", "wide"),
        ("solve --transform wide,pa", "wide,parallel"),
        ("plan zoo:digits-cnn --keep-dense first,1", "first,11"),
        ("plan --transform wide zoo:resnet18 --keep-dense cl", "classifier.1"),
        ("sweep zoo:digits-cnn --keep-dense n", "none"),
        ("plan net.py:b", "net.py:build"),
        ("plan net.py : b", "build"),
        ("audit wide.json --model net.py:B", "net.py:Big"),
        ("audit zoo:resnet18 --against zoo:bot", "zoo:botnet50-cifar zoo:botnet50"),
        ("plan t", "timm: torchvision:"),
        ("plan x --scope mo", "model module:"),
        ("plan x --structure block", "block4x4 blockdiag4 blockdiag4+shuffle"),
        ("sweep x --distributions uniform,", "uniform,er uniform,erk"),
        ("sweep x --methods static,ri", "static,rigl"),
        ("solve --layer dw", "dwconv3x3"),
        ("bench --backends dense,dense-b", "dense,dense-best"),
        ("pareto --task CIF", "CIFAR-100"),
        ("advise --data v", "vit-jft"),
        ("advise --law jo", "joint-moe"),
        ("advise --law routed --data h", "hash"),
        ("train --logger m", "mlflow"),
        ("train --method rig", "rigl"),
        ("check b", "big"),
        ("sweep x --transforms no", "none"),
        (
            "train --recipe c",
            "cifar10-resnet8 cifar100-botnet50 cifar100-mobilenetv2 cifar100-mobilevit-s cifar100-resnet18 cifar100-resnet18-linear cifar100-resnet18-lowrank cifar100-resnet18-transposable cifar100-resnet34",
        ),
        ("sweep x --recipe dig", "digits"),
        ("pl", "plan plot"),
    ],
)
def test_names_are_completed(tmp_path: Path, words: str, found: str) -> None:
    (tmp_path / "net.py").write_text("raise SystemExit\n\n\ndef build(): ...\n\n\nclass Big: ...\n")
    (tmp_path / "iftplan.toml").write_text("[models.big]\nsource = 'net.py:build'\n")
    asked = {"COMP_WORDS": f"iftplan {words}", "COMP_CWORD": str(len(words.split()))}
    text = shown(cwd=tmp_path, **asked, _IFTPLAN_COMPLETE="complete_bash")
    assert text.split() == found.split()


@pytest.mark.parametrize(
    ("shell", "words", "found"),
    [
        ("zsh", "iftplan plan zoo:mobilenet", r"""_arguments '*: :(("zoo\\:mobilenetv2-cifar" "zoo\\:mobilenetv2"))'"""),
        ("zsh", "iftplan plan zoo:resnet18 --keep-dense first,cl", """_arguments '*: :(("first,classifier.1"))'"""),
        ("fish", "iftplan audit zoo:bot", "zoo:botnet50-cifar\nzoo:botnet50"),
    ],
)  # fmt: skip
def test_other_shells_complete_too(shell: str, words: str, found: str) -> None:
    asked = {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    text = shown(cwd=None, **asked, _IFTPLAN_COMPLETE=f"complete_{shell}")
    assert text.split() == found.split()
