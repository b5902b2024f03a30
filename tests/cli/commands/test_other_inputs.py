"""Options that a document has answered already are refused instead of dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli_runs import Run, iftplan, many

PLAN = ("plan", "zoo:digits-cnn", "--transform", "wide", "--sparsity", "3/4", "-o", "wide.json")
WINDOW = (
    "plan", "zoo:gpt-char", "--sparsity", "0.5", "--scope", "model", "--attention", "window:16", "-o", "window.json",
)  # fmt: skip
OTHER, OWN = ("--input", "1x1x16x16"), ("--input", "1x1x8x8")
COMMANDS = {
    "plan": PLAN,
    "window": WINDOW,
    "spec": ("spec", "zoo:gpt-char", "-o", "gpt.json"),
    "audit": ("audit", "wide.json", *OTHER),
    "audit, own": ("audit", "wide.json", *OWN),
    "audit, redistributed": ("audit", "zoo:digits-cnn", "--redistributed", "--budget", "1G"),
    "diff": ("diff", "wide.json", "zoo:digits-cnn", *OTHER),
    "diff, own": ("diff", "wide.json", "zoo:digits-cnn", *OWN),
    "diff, threshold": ("diff", "--base", "HEAD", "--threshold", "1"),
    "heads": ("plan", "gpt.json", "--heads", "size", "--sparsity", "0.75"),
    "allow": ("plan", "gpt.json", "--allow", "my::op=0", "--sparsity", "0.75"),
    "check": ("check", "other"),
    "check, own": ("check", "own"),
    "check, window": ("check", "window"),
    "budget": ("audit", "zoo:digits-cnn", "--budget", "1G"),
    "budget again": ("audit", "zoo:digits-cnn", "--budget", "1G"),
}
REFUSED = {
    "audit": "wide.json is a plan for input 1x1x8x8, and a plan holds for one input.",
    "audit, redistributed": "--redistributed says how a plan's weights moved, so it needs --against PLAN.",
    "diff": "wide.json is a plan for input 1x1x8x8, and a plan holds for one input.",
    "diff, threshold": "--base compares costs",
    "heads": "--heads size was asked for, but this spec was read with the number of heads kept.",
    "allow": "gpt.json is a spec, which was read already, so --allow does not apply.",
    "check": "wide.json is a plan for input 1x1x8x8, and a plan holds for one input.",
}
CONFIGURATION = """
[models.other]
source = "wide.json"
inputs = ["1x1x16x16"]
budget.macs = "1G"

[models.own]
source = "wide.json"
inputs = ["1x1x8x8"]

[models.window]
source = "window.json"
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "iftplan.toml").write_text(CONFIGURATION, encoding="utf-8")
    return dict(zip(COMMANDS, many(list(COMMANDS.values()), folder), strict=True))


@pytest.mark.parametrize("command", REFUSED)
def test_what_a_document_has_answered_is_refused(runs: dict[str, Run], command: str) -> None:
    assert REFUSED[command] in runs[command].err
    assert runs[command].code == 2


@pytest.mark.parametrize("command", ["audit, own", "diff, own", "check, own"])
def test_its_own_answer_may_be_said_again(runs: dict[str, Run], command: str) -> None:
    assert runs[command].code == 0, runs[command].err


def test_a_check_counts_the_attention_of_a_plan_in_full(runs: dict[str, Run]) -> None:
    """Its bound is what the plan costs with every query and every key, and so must the measured cost be."""
    assert runs["window"].code == 0
    assert runs["check, window"].code == 0, runs["check, window"].out


def test_a_kept_audit_against_a_budget_reads_as_it_did(runs: dict[str, Run]) -> None:
    first, again = runs["budget"], runs["budget again"]
    assert "at most" in first.out
    assert (first.out, first.code) == (again.out, again.code)


def test_inputs_of_another_model_on_the_command_line_are_not_those_of_the_configuration(
    tmp_path: Path,
) -> None:
    toml = '[models.net]\nsource = "zoo:digits-cnn"\n'
    (tmp_path / "iftplan.toml").write_text(toml, encoding="utf-8")
    run = iftplan("diff", "--base", "HEAD", "net", *OTHER, cwd=tmp_path)
    assert run.code == 2
    assert "--input does not apply to net, which iftplan.toml gives inputs" in run.err
