"""What the action runs: one check, told to the log, the job summary and the pull request.

Everything comes from the environment that GitHub gives a step, and iftplan and gh do the work; so a test can run
this file with files of its own. Only the standard library is imported.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MARKER = "<!-- iftplan report -->"  # how a report of ours begins
ANNOTATION = re.compile(r"::(error|warning|notice) [^:]*title=iftplan")
REPORTS = ("summary.md", "report.html", "junit.xml", "report.sarif", "report.json")


def main(env: Mapping[str, str] = os.environ) -> int:
    """Check, tell, and end with the status of the check."""
    folder = Path(env.get("RUNNER_TEMP", ".")) / "iftplan-report"
    folder.mkdir(parents=True, exist_ok=True)
    for name in REPORTS:
        (folder / name).unlink(missing_ok=True)
    done = subprocess.run(command(env, folder), capture_output=True, text=True)
    sys.stderr.write("".join(map(inert, done.stderr.splitlines(keepends=True))))
    sys.stdout.write(
        "".join(
            line if ANNOTATION.match(line) else inert(line) for line in done.stdout.splitlines(keepends=True)
        )
    )
    summary = folder / REPORTS[0]
    if not all((folder / name).exists() for name in REPORTS):  # a summary alone could say that all is well
        explain(done.stderr, summary)
    append(env.get("GITHUB_STEP_SUMMARY"), summary.read_text(encoding="utf-8"))
    append(env.get("GITHUB_OUTPUT"), f"status={done.returncode}\nreports={folder}\n")
    if env.get("IFTPLAN_COMMENT") == "true":
        comment(env, summary, worth_telling(done.returncode, folder / REPORTS[-1]))
    return done.returncode


def inert(line: str) -> str:
    """A line that the runner takes for no command: models print what they like, and stderr is read for commands too."""
    return re.sub(r"^(\s*):(?=:)", r"\1\\x3a", line).replace("##[", "#\\x23[")


def command(env: Mapping[str, str], folder: Path) -> list[str]:
    """The one call of iftplan."""
    written = [part for name in REPORTS for part in ("--report", str(folder / name))]
    config = env.get("IFTPLAN_CONFIG", "")
    base = base_revision(env)
    return [
        *(sys.executable, "-m", "iftplan", "check", *env.get("IFTPLAN_MODELS", "").split()),
        *(("--config", config) if config else ()),
        *(("--base", base) if base else ()),
        *("--format", "github", *written),
    ]


def base_revision(env: Mapping[str, str]) -> str:
    """The revision to compare with, fetched if this checkout lacks it; empty if nothing is to be compared."""
    asked = env.get("IFTPLAN_BASE") or env.get("GITHUB_BASE_REF", "")
    if asked in ("", "none"):
        return ""
    for name in (f"origin/{asked}", asked):
        if git("rev-parse", "--quiet", "--verify", f"{name}^{{commit}}"):
            return name
    branch = f"refs/remotes/origin/{asked}"
    if git("fetch", "--quiet", "--no-tags", "--depth=1", "origin", f"+refs/heads/{asked}:{branch}"):
        return f"origin/{asked}"
    return asked  # iftplan says what is wrong with it


def git(*arguments: str) -> bool:
    """Whether a git command succeeds."""
    return subprocess.run(["git", *arguments], capture_output=True, check=False).returncode == 0


def explain(message: str, summary: Path) -> None:
    """A check that ended without a report, as an annotation and as a summary."""
    last = (message.strip().splitlines() or ["iftplan check ended without a word"])[-1]
    print(f"::error title=iftplan::{last.replace('%', '%25')}")  # one line, as all of splitlines
    fenced = "\n".join(f"    {line}" for line in last.splitlines())
    summary.write_text(f"{MARKER}\n\n### ❌ iftplan could not check\n\n{fenced}\n", encoding="utf-8")


def append(path: str | None, text: str) -> None:
    """Add to one of the files that GitHub reads after a step."""
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


def worth_telling(status: int, report: Path) -> bool:
    """Whether anyone would want a comment: the check did not pass, or the cost changed."""
    if status or not report.exists():
        return True
    models: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["models"]
    drifts = [model["drift"] for model in models if model["drift"]]
    return any(drift[quantity]["layers"] for drift in drifts for quantity in ("macs", "parameters"))


def comment(env: Mapping[str, str], summary: Path, worth: bool) -> None:
    """Write the comment, or write over the one that an earlier run left; never fail because of it."""
    number, repository = pull_request(env), env.get("GITHUB_REPOSITORY", "")
    if number is None:
        return
    chosen = f'.[] | select(.user.type == "Bot" and (.body | startswith("{MARKER}"))) | .id'
    comments = f"repos/{repository}/issues/{number}/comments"
    try:
        earlier = gh("api", "--paginate", comments, "--jq", chosen).split()
        if earlier:
            place = ("--method", "PATCH", f"repos/{repository}/issues/comments/{earlier[-1]}")
        elif worth:
            place = ("--method", "POST", comments)
        else:
            return
        gh("api", *place, "-F", f"body=@{summary}", "--silent")
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        print(
            f"::warning title=iftplan::no comment was written ({' '.join(said.split())}); grant the job pull-requests: write"
        )


def pull_request(env: Mapping[str, str]) -> int | None:
    """The number of the pull request that started the job, if one did."""
    path = env.get("GITHUB_EVENT_PATH", "")
    try:
        event = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
        number = (event.get("pull_request") or {}).get("number")
    except (OSError, ValueError, AttributeError):  # as runners other than GitHub's may leave it
        return None
    return number if isinstance(number, int) else None


def gh(*arguments: str) -> str:
    """What a gh command prints."""
    run: Sequence[str] = ("gh", *arguments)
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
