"""The project's own workflows and hooks: what they run exists, on every Python that is promised, with no more rights than needed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.support.places import ROOT, pins

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS: dict[str, dict[Any, Any]] = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.yml"))
}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([\w-]+):", MAKEFILE, re.M))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
PINNED = re.compile(r"[\w./-]+@(v\d+|release/v\d+|[0-9a-f]{40})")
RIGHTS = {
    ("docs.yml", "deploy"): {"pages": "write", "id-token": "write"},
    ("release.yml", "publish"): {"id-token": "write"},
}
"""What a job may do beside reading the repository."""


def complaints(name: str, workflow: Mapping[Any, Any]) -> Iterator[str]:
    """What is wrong with a workflow, a sentence each."""
    if workflow.get("permissions") != {"contents": "read"}:
        yield "it may do more than read the repository"
    if "group" not in workflow.get("concurrency", {}):
        yield "two runs of it may work on the same thing"
    if not workflow[True]:  # YAML 1.1 reads the key `on` as true
        yield "nothing starts it"
    for job_name, job in workflow["jobs"].items():
        yield from (f"{job_name}: {said}" for said in _of_job(job, RIGHTS.get((name, job_name))))


def _of_job(job: Mapping[str, Any], rights: Mapping[str, str] | None) -> Iterator[str]:
    if job.get("permissions") != rights:
        yield f"its permissions are {job.get('permissions')}, not {rights}"
    if "uses" in job:
        called = WORKFLOWS.get(Path(job["uses"]).name, {True: {}})
        if "workflow_call" not in called[True]:
            yield f"{job['uses']} cannot be called"
        return
    if job.get("runs-on") != "ubuntu-latest" or not job.get("timeout-minutes"):
        yield "it runs elsewhere, or without an end"
    matrix = job.get("strategy", {}).get("matrix", {})
    if matrix and matrix != {"python": PYTHONS}:
        yield f"its matrix is {matrix}, and the classifiers promise {PYTHONS}"
    for step in job["steps"]:
        yield from _of_step(step, matrix)


def _of_step(step: Mapping[str, Any], matrix: Mapping[str, Any]) -> Iterator[str]:
    command = step.get("run", "")
    if command and not (re.fullmatch(r"make [\w-]+", command) and command.split()[1] in TARGETS):
        yield f"`{command}` is no target of the Makefile"
    action = step.get("uses", "")
    if action and not PINNED.fullmatch(action):
        yield f"{action} has no version"
    given = step.get("with", {})
    if action.startswith("actions/checkout@") and given.get("persist-credentials") is not False:
        yield "the checkout leaves its credentials to whatever runs later"
    if action.startswith("actions/setup-python@"):
        python = given["python-version"]
        if python not in PYTHONS and not (python == "${{ matrix.python }}" and matrix):
            yield f"Python {python} is not among those that the classifiers promise"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_keeps_the_rules(name: str) -> None:
    assert list(complaints(name, WORKFLOWS[name])) == []


def test_there_is_a_workflow_for_changes_one_for_releases_and_one_for_the_site() -> None:
    assert set(WORKFLOWS) == {"ci.yml", "release.yml", "docs.yml"}


def _step(command: str) -> Callable[[dict[Any, Any]], None]:
    return lambda workflow: workflow["jobs"]["lint"]["steps"].append({"run": command})


BREACHES: dict[str, Callable[[dict[Any, Any]], Any]] = {
    "it may do more": lambda w: w["permissions"].update(contents="write"),
    "two runs of it": lambda w: w.pop("concurrency"),
    "nothing starts it": lambda w: w[True].clear(),
    "lint: its permissions": lambda w: w["jobs"]["lint"].update(permissions={"packages": "write"}),
    "x: ./docs.yml cannot be called": lambda w: w["jobs"].update(x={"uses": "./docs.yml"}),
    "lint: it runs elsewhere": lambda w: w["jobs"]["lint"].pop("timeout-minutes"),
    "test: its matrix": lambda w: w["jobs"]["test"]["strategy"]["matrix"].update(python=["3.11"]),
    "lint: `make everything`": _step("make everything"),
    "lint: `pip install x`": _step("pip install x"),
    "lint: `make lint; curl x`": _step("make lint; curl x"),
    "lint: actions/checkout@main": lambda w: w["jobs"]["lint"]["steps"].append({"uses": "actions/checkout@main", "with": {"persist-credentials": False}}),
    "lint: the checkout leaves": lambda w: w["jobs"]["lint"]["steps"][0].pop("with"),
    "lint: Python 3.7": lambda w: w["jobs"]["lint"]["steps"][1]["with"].update({"python-version": "3.7"}),
}  # fmt: skip


@pytest.mark.parametrize("said", BREACHES)
def test_every_breach_is_seen(said: str) -> None:
    workflow = deepcopy(WORKFLOWS["ci.yml"])
    BREACHES[said](workflow)
    found = list(complaints("ci.yml", workflow))
    assert len(found) == 1
    assert found[0].startswith(said)


def test_the_pythons_that_are_promised_are_those_that_are_required() -> None:
    required = SpecifierSet(PROJECT["requires-python"])
    minors = [int(version.partition(".")[2]) for version in PYTHONS]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert all(f"3.{minor}.0" in required for minor in minors)
    assert f"3.{minors[0] - 1}.0" not in required


def test_both_ends_of_every_range_are_tested() -> None:
    steps = {
        name: [step.get("run") or step["with"].get("python-version") for step in job["steps"]]
        for name, job in WORKFLOWS["ci.yml"]["jobs"].items()
    }
    assert steps["lowest"][1:] == [PYTHONS[0], "make test-lowest"]
    assert steps["newest"][1:] == [PYTHONS[-1], "make test-unpinned"]


def test_nothing_is_published_before_everything_was_checked_and_tried() -> None:
    jobs = WORKFLOWS["release.yml"]["jobs"]
    assert set(jobs["publish"]["needs"]) == set(jobs) - {"publish"}
    assert jobs["checks"]["uses"] == "./.github/workflows/ci.yml"
    assert WORKFLOWS["release.yml"][True] == {"push": {"tags": ["v*"]}}


def test_what_a_release_publishes_saw_no_cache() -> None:
    """Whoever can write a cache could write into the release."""
    assert "cache" not in (FOLDER / "release.yml").read_text(encoding="utf-8")
    for name in ("ci.yml", "docs.yml"):
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert text.count("cache: pip") == text.count("actions/setup-python@")


# --- ranges and pins -------------------------------------------------------------------------------------

EXTRAS_OF_DEVELOPERS = {"dev", "docs", "release", "all"}


def lowest(project: Mapping[str, Any]) -> dict[str, str]:
    """Package → the lowest release in its range, of everything that a user installs."""
    wanted = [*project["dependencies"]]
    for extra, lines in project["optional-dependencies"].items():
        wanted += lines if extra not in EXTRAS_OF_DEVELOPERS else ()
    ranges = [r for r in map(Requirement, wanted) if r.name != project["name"]]
    return {r.name: min(s.version for s in r.specifier if s.operator == ">=") for r in ranges}


def test_the_lowest_releases_are_the_lower_ends_of_the_ranges() -> None:
    ends, pinned = lowest(PROJECT), pins("constraints.txt")
    assert pins("constraints-lowest.txt") == {**pinned, **ends}
    raised = {**PROJECT, "dependencies": [*PROJECT["dependencies"], "something>=2.5,<3"]}
    assert lowest(raised) == {**ends, "something": "2.5"}


def test_the_pinned_releases_are_within_the_ranges() -> None:
    wanted = [
        *PROJECT["dependencies"],
        *(r for lines in PROJECT["optional-dependencies"].values() for r in lines),
    ]
    ranges = {r.name: r.specifier for r in map(Requirement, wanted)}
    for name in ("constraints.txt", "constraints-newest.txt"):
        outside = {
            p: release for p, release in pins(name).items() if p in ranges and release not in ranges[p]
        }
        assert outside == {}, name


def test_the_newest_pytorch_is_tested_with_everything_else_as_it_is() -> None:
    pinned, newest = pins("constraints.txt"), pins("constraints-newest.txt")
    assert {name for name in pinned if pinned[name] != newest.get(name)} == {"torch"}


# --- hooks before a commit -------------------------------------------------------------------------------

CONFIG = ROOT / ".pre-commit-config.yaml"
HOOKS = [
    hook for repo in yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["repos"] for hook in repo["hooks"]
]


def test_a_hook_says_what_the_suite_says() -> None:
    pinned = pins("constraints.txt")
    tools = {tool for hook in HOOKS for tool in hook.get("additional_dependencies", ())}
    assert {f"ruff=={pinned['ruff']}"} == {tool for tool in tools if tool.split("==")[0] in pinned}
    made = [hook["entry"].split()[1] for hook in HOOKS if hook["entry"].startswith("make ")]
    assert made and set(made) <= TARGETS


def test_pre_commit_takes_the_configuration(tmp_path: Path) -> None:
    def validated(path: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pre_commit", "validate-config", str(path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert validated(CONFIG).returncode == 0
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        CONFIG.read_text(encoding="utf-8").replace("language: python", "language: pyton"), encoding="utf-8"
    )
    assert validated(wrong).returncode == 1


# --- the site with versions ------------------------------------------------------------------------------


def test_the_hosted_site_is_built_as_make_docs_builds_it() -> None:
    jobs = yaml.safe_load((ROOT / ".readthedocs.yaml").read_text(encoding="utf-8"))["build"]["jobs"]
    (hosted,), (installed,) = jobs["build"]["html"], jobs["install"]
    built = next(line for line in MAKEFILE.splitlines() if "-m sphinx" in line)
    options = re.compile(r"-m sphinx (.*?) (?:-d \S+ )?-c docs \.")
    assert [found.group(1) for line in (hosted, built) if (found := options.search(line))] == [
        "-W --keep-going -n -q"
    ] * 2
    assert "-c constraints.txt" in installed
    (extras,) = re.findall(r"\.\[([\w,]+)\]", installed)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
