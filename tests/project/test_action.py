"""The action, the hook: what they run is run here, in repositories of somebody's own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from iftplan.base.units import count
from iftplan.report.markdown import MARKER
from tests.support.places import ROOT, page_named
from tests.support.processes.repositories import AFTER, git, repository

ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))

GH = """#!{python}
import json, pathlib, sys
arguments = sys.argv[1:]
folder = pathlib.Path(__file__).parent
body = [pathlib.Path(a.removeprefix("body=@")).read_text() for a in arguments if a.startswith("body=@")]
with (folder / "calls.jsonl").open("a") as file:
    file.write(json.dumps({{"arguments": arguments, "body": body}}) + "\\n")
if (folder / "refuses").exists():
    sys.exit("HTTP 403: Resource not accessible by integration")
if "--paginate" in arguments and (folder / "earlier").exists():
    print((folder / "earlier").read_text())
"""


@dataclass(frozen=True)
class Job:
    """A folder in which a job runs, with the files that GitHub gives it."""

    repository: Path
    files: Path

    def file(self, name: str) -> str:
        path = self.files / name
        return path.read_text(encoding="utf-8") if path.exists() else ""

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file("calls.jsonl").splitlines()]

    def run(
        self, inputs: Mapping[str, str] | None = None, *, base: str = "main", event: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run the action's check step as GitHub would, its expressions filled in from the inputs' defaults."""
        (step,) = [s for s in STEPS if s.get("id") == "check"]
        filled = {name: str(value.get("default", "")) for name, value in ACTION["inputs"].items()} | dict(
            inputs or {}
        )
        known = {f"inputs.{name}": value for name, value in filled.items()}
        known |= {"github.action_path": str(ROOT), "github.token": "secret"}
        own = {name: expression(value, known) for name, value in step["env"].items()}
        (self.files / "event.json").write_text(json.dumps({"pull_request": {"number": 7}} if event else {}))
        github = {
            "GITHUB_STEP_SUMMARY": str(self.files / "summary"),
            "GITHUB_OUTPUT": str(self.files / "output"),
            "GITHUB_EVENT_PATH": str(self.files / "event.json"),
            "GITHUB_REPOSITORY": "some/repository",
            "GITHUB_BASE_REF": base,
            "RUNNER_TEMP": str(self.files),
            "PATH": f"{self.files}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        assert step["shell"] == "bash"
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
            cwd=self.repository, env=os.environ | github | own, capture_output=True, text=True, timeout=300,
        )  # fmt: skip


def expression(text: str, known: Mapping[str, str]) -> str:
    """Fill in `${{ … }}`, twice: an input's default may hold one itself."""
    for _ in range(2):
        text = re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda match: known[match[1]], text)
    return text


def job(tmp_path: Path, *, widened: bool) -> Job:
    files = tmp_path / "runner"
    files.mkdir()
    (files / "gh").write_text(GH.format(python=sys.executable))
    (files / "gh").chmod(0o755)
    return Job(repository(tmp_path / "repository", widened=widened), files)


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, subprocess.CompletedProcess[str]]:
    """A pull request that widens a layer."""
    found = job(tmp_path_factory.mktemp("refused"), widened=True)
    return found, found.run()


@pytest.mark.slow
def test_a_pull_request_that_widens_a_layer_is_refused(
    refused: tuple[Job, subprocess.CompletedProcess[str]],
) -> None:
    found, done = refused
    assert done.returncode == 1, done.stderr
    told = f"{count(AFTER)} MACs, 700 allowed"
    annotations = [line for line in done.stdout.splitlines() if line.startswith("::")]
    (error,) = annotations
    assert error.startswith("::error file=net.py,line=6,title=iftplan%3A cost::small: ")
    assert told in error
    assert "layer stem 512 → 768 (+256)" in error, "which layer and by how much"
    summary = found.file("summary")
    assert summary.startswith(f"{MARKER}\n\n### ❌ small: over its budget of MACs\n")
    assert (
        f"| ❌ | <code>small</code> | MACs | {count(AFTER)} | +320\u00a0(+50\u00a0%) | 700 | 137.1\u00a0% |"
        in summary
    )
    assert f"Over budget by {AFTER - 700}\u00a0MACs." in summary
    assert "| <code>stem</code> | 768 | +256 | 80.0\u00a0% | 816 | +272 |" in summary


@pytest.mark.slow
def test_it_leaves_every_report_and_says_where(refused: tuple[Job, subprocess.CompletedProcess[str]]) -> None:
    found, _ = refused
    output = dict(line.split("=", 1) for line in found.file("output").splitlines())
    assert output["status"] == "1"
    folder = Path(output["reports"])
    assert {path.name for path in folder.iterdir()} == {
        "summary.md",
        "report.html",
        "junit.xml",
        "report.sarif",
        "report.json",
    }
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert 'failures="1"' in (folder / "junit.xml").read_text()
    assert json.loads((folder / "report.json").read_text())["models"][0]["measured_macs"] == AFTER


@pytest.mark.slow
def test_it_comments_once(refused: tuple[Job, subprocess.CompletedProcess[str]]) -> None:
    found, _ = refused
    look, write = found.calls
    assert look["arguments"][:3] == ["api", "--paginate", "repos/some/repository/issues/7/comments"]
    assert MARKER in look["arguments"][-1]
    assert write["arguments"][:4] == ["api", "--method", "POST", "repos/some/repository/issues/7/comments"]
    assert write["body"] == [found.file("summary")]


@pytest.mark.slow
def test_a_later_run_writes_over_its_comment_and_needs_no_permission_to_refuse(tmp_path: Path) -> None:
    found = job(tmp_path, widened=True)
    (found.files / "earlier").write_text("11\n12\n")
    assert found.run().returncode == 1
    assert found.calls[-1]["arguments"][:4] == [
        "api",
        "--method",
        "PATCH",
        "repos/some/repository/issues/comments/12",
    ]
    (found.files / "refuses").write_text("")
    done = found.run()
    assert done.returncode == 1
    assert "::warning title=iftplan::no comment was written (HTTP 403" in done.stdout


@pytest.mark.slow
def test_a_change_that_costs_nothing_passes_without_a_comment(tmp_path: Path) -> None:
    found = job(tmp_path, widened=False)
    done = found.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "nothing is to be done, so nothing is annotated"
    assert len(found.calls) == 1, "it looks for a comment to correct, and writes none"
    assert "status=0" in found.file("output")
    assert "### ✅ small: cost unchanged, within its budget" in found.file("summary")


@pytest.mark.slow
def test_outside_a_pull_request_nothing_is_compared_and_nobody_told(tmp_path: Path) -> None:
    found = job(tmp_path, widened=True)
    done = found.run(base="", event=False)
    assert done.returncode == 1
    assert "→" not in done.stdout, "nothing to compare with"
    assert found.calls == []


@pytest.mark.slow
def test_the_base_branch_is_fetched_where_the_checkout_lacks_it(tmp_path: Path) -> None:
    origin = job(tmp_path, widened=True)
    clone = tmp_path / "clone"
    url = origin.repository.as_uri()
    git(tmp_path, "clone", "--quiet", "--depth=1", "--branch=change", url, str(clone))
    assert "origin/main" not in git(clone, "branch", "--all")
    done = Job(clone, origin.files).run()
    assert done.returncode == 1
    assert "layer stem 512 → 768 (+256)" in done.stdout


@pytest.mark.slow
def test_a_configuration_that_cannot_be_read_is_told_too(tmp_path: Path) -> None:
    found = job(tmp_path, widened=False)
    (found.repository / "iftplan.toml").write_text('[models.small]\nsorce = "net.py:Small"\n')
    done = found.run()
    assert done.returncode == 2
    assert "::error title=iftplan::iftplan: " in done.stdout
    assert "sorce" in found.file("summary")
    assert "status=2" in found.file("output")


@pytest.mark.slow
def test_a_report_that_is_not_written_is_said_and_never_shown_as_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = job(tmp_path, widened=False)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "jinja2.py").write_text("raise ImportError('half installed')\n")
    path = os.environ.get("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'broken'}{os.pathsep}{path}")
    done = found.run(base="", event=False)
    assert done.returncode == 2
    assert "::error title=iftplan::iftplan: HTML needs jinja2" in done.stdout
    assert "✅" not in found.file("summary")
    assert "HTML needs jinja2" in found.file("summary")


@pytest.mark.parametrize(
    "event", [None, "", "[]", '{"pull_request": null}', '{"pull_request": {"number": "7"}}']
)
def test_an_event_that_tells_of_no_pull_request_changes_no_status(tmp_path: Path, event: str | None) -> None:
    """A traceback here would end with 1, which says that a cost was refused."""
    from runpy import run_path

    place = tmp_path / "event.json"
    if event is not None:
        place.write_text(event)
    pull_request = run_path(str(ROOT / "action" / "check.py"))["pull_request"]
    assert pull_request({"GITHUB_EVENT_PATH": str(place)}) is None
    place.write_text('{"pull_request": {"number": 7}}')
    assert pull_request({"GITHUB_EVENT_PATH": str(place)}) == 7


def test_what_users_type_never_becomes_a_command() -> None:
    """Expressions are filled in before bash reads a script, so they may stand in `env` only."""
    assert [step["run"] for step in STEPS if "${{" in step.get("run", "")] == []
    assert all(step["shell"] == "bash" for step in STEPS if "run" in step)


def test_the_install_step_installs_an_extra_that_exists() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    asked = re.search(r"\[([\w,]+)\]$", ACTION["inputs"]["install"]["default"])
    assert asked
    assert set(asked[1].split(",")) <= set(extras)


# --- the pre-commit hook -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("widened", [True, False])
def test_the_hook_runs_what_it_says(tmp_path: Path, widened: bool) -> None:
    home = repository(tmp_path / "repository", widened=widened)
    assert (HOOK["language"], HOOK["pass_filenames"]) == ("system", False)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        shlex.split(HOOK["entry"]), cwd=home, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == int(widened), done.stderr
    assert ("700 allowed" in done.stderr) == widened


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("pre-commit", path=str(Path(sys.executable).parent)) is None,
    reason="pre-commit is not installed",
)
def test_pre_commit_stops_the_commit(tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
    git(hooks, "init", "--quiet")
    git(hooks, "add", "--all")
    git(hooks, "commit", "--quiet", "--message=hooks")
    home = repository(tmp_path / "repository", widened=True)
    own = Path(sys.executable).parent
    done = subprocess.run(
        [own / "pre-commit", "try-repo", str(hooks), "iftplan-check", "--all-files"],
        cwd=home, capture_output=True, text=True, timeout=300,
        env=os.environ | {"PATH": f"{own}{os.pathsep}{os.environ['PATH']}", "PRE_COMMIT_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "700 allowed" in done.stdout


# --- what the page tells people to write -------------------------------------------------------------


def written(name: str) -> Any:
    """A YAML file that the page lets its reader write."""
    page = page_named("ci.md").read_text(encoding="utf-8")
    (text,) = re.findall(rf"^cat > {re.escape(name)} <<'END'\n(.*?)^END$", page, re.M | re.S)
    return yaml.safe_load(text)


def test_the_workflow_on_the_page_may_comment_and_names_no_input_that_is_not_there() -> None:
    workflow = written(".github/workflows/cost.yml")
    assert workflow["permissions"]["pull-requests"] == "write"
    (use,) = [s for s in workflow["jobs"]["cost"]["steps"] if "/iftplan@" in s.get("uses", "")]
    assert set(use.get("with", {})) <= set(ACTION["inputs"])
    page = page_named("ci.md").read_text(encoding="utf-8")
    inputs = page.split("| input | meaning |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", inputs, re.M)) == set(ACTION["inputs"])


def test_the_hook_on_the_page_is_ours() -> None:
    (repo,) = written(".pre-commit-config.yaml")["repos"]
    assert repo["hooks"] == [{"id": HOOK["id"]}]


@pytest.mark.slow
def test_the_gitlab_job_on_the_page_refuses_and_leaves_its_reports(tmp_path: Path) -> None:
    job = written(".gitlab-ci.yml")["cost"]
    home = repository(tmp_path / "repository", widened=True)
    given = {
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": git(home, "rev-parse", "main").strip(),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    (script,) = job["script"]
    done = subprocess.run(
        ["bash", "-c", script], cwd=home, env=os.environ | given, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1, done.stderr
    assert "layer stem 512 → 768 (+256)" in done.stderr
    assert 'failures="1"' in (home / job["artifacts"]["reports"]["junit"]).read_text()
    assert all((home / path).exists() for path in job["artifacts"]["paths"])
