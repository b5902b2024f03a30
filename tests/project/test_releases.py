"""What a release is: the version that a tag decides, one address everywhere, and what stands against publishing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from runpy import run_path

import pytest
import yaml

from tests.support.places import ROOT
from tests.support.processes.repositories import git

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCE = PROJECT["urls"]["Source"]
reasons_against = run_path(str(ROOT / ".ci" / "check_release.py"))["reasons_against"]
TRIALS = run_path(str(ROOT / ".ci" / "try_extras.py"))

# --- the version -----------------------------------------------------------------------------------------


ARCHIVAL = """\
node: $Format:%H$
node-date: $Format:%cI$
describe-name: $Format:%(describe:tags=true,match=v[0-9]*)$
"""
"""What `git archive` fills in; the repository's own is filled in already where these tests run in an archive."""


def copied(folder: Path) -> Path:
    """A folder with what decides a version, outside git."""
    folder.mkdir()
    for name in ("pyproject.toml", ".gitattributes"):
        shutil.copy(ROOT / name, folder)
    (folder / ".git_archival.txt").write_text(ARCHIVAL)
    return folder


def committed(folder: Path) -> Path:
    """A repository with one commit and no tag."""
    copied(folder)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=first")
    return folder


def tagged(folder: Path) -> Path:
    """A repository whose only commit is a release."""
    git(committed(folder), "tag", "v1.2.3")
    return folder


def worked_on(folder: Path) -> Path:
    """A commit after a release."""
    git(tagged(folder), "commit", "--quiet", "--allow-empty", "--message=second")
    return folder


def archived(folder: Path) -> Path:
    """What GitHub gives for a release to those who want no repository: an action is installed from it."""
    file = folder.with_suffix(".zip")
    git(tagged(folder.with_name("repository")), "archive", f"--output={file}", "HEAD")
    shutil.unpack_archive(file, folder)
    return folder


@pytest.mark.parametrize(
    ("made", "version"),
    [
        (copied, r"0\.dev0"),
        (committed, r"0\.dev1\+g[0-9a-f]+"),
        (tagged, r"1\.2\.3"),
        (worked_on, r"1\.2\.4\.dev1\+g[0-9a-f]+"),
        (archived, r"1\.2\.3"),
    ],
)
def test_the_tag_decides_the_version(made: Callable[[Path], Path], version: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "setuptools_scm"], cwd=made(tmp_path / "source"), capture_output=True, text=True, timeout=120, check=True
    )  # fmt: skip
    assert re.fullmatch(version, done.stdout.strip())


@pytest.mark.slow
def test_the_action_and_the_hook_at_a_tag_are_that_release(tmp_path: Path) -> None:
    """GitHub unpacks the tag's archive, from which the action installs itself; pre-commit clones the tag."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("iftplan", "action"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "action.yml",
        ".pre-commit-hooks.yaml",
        ".gitattributes",
    ):
        shutil.copy(ROOT / name, source)
    (source / ".git_archival.txt").write_text(ARCHIVAL)
    git(source, "init", "--quiet")
    git(source, "add", "--all")
    git(source, "commit", "--quiet", "--message=release")
    git(source, "tag", "v1.2.3")
    git(source, "archive", f"--output={tmp_path / 'tag.zip'}", "v1.2.3")
    unpacked = tmp_path / "action"
    shutil.unpack_archive(tmp_path / "tag.zip", unpacked)
    action = yaml.safe_load((unpacked / "action.yml").read_text(encoding="utf-8"))
    assert action["inputs"]["install"]["default"].startswith("${{ github.action_path }}[")
    (command,) = re.findall(
        r'"\$ACTION/([\w/.]+)"', "\n".join(s.get("run", "") for s in action["runs"]["steps"])
    )
    assert (unpacked / command).is_file()
    offline = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    for folder in (unpacked, source):  # pre-commit has the repository itself
        wheels = tmp_path / f"wheel of {folder.name}"
        build = [sys.executable, "-m", "pip", "wheel", *offline, "-w", str(wheels), str(folder)]
        subprocess.run(build, check=True, timeout=300)
        assert [file.name for file in wheels.iterdir()] == ["iftplan-1.2.3-py3-none-any.whl"]
    (hook,) = yaml.safe_load((unpacked / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert hook["entry"].split()[0] in PROJECT["scripts"]


def test_an_archive_is_told_its_tag() -> None:
    own = (ROOT / ".git_archival.txt").read_text(encoding="utf-8")
    assert [line.partition(":")[0] for line in own.splitlines()] == ["node", "node-date", "describe-name"]
    assert own == ARCHIVAL or "$Format" not in own


def test_no_file_states_a_version_beside_the_tag() -> None:
    assert "version" not in PROJECT
    assert PROJECT["dynamic"] == ["version"]
    assert "version" not in yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


# --- what may be published -------------------------------------------------------------------------------

CHANGES = "# Changes\n\n## [1.2.3] - 2026-11-29\n\n- Something.\n"


def dist(folder: Path, version: str = "1.2.3", source: str = "https://example.org/iftplan") -> Path:
    """A folder with a wheel, of nothing but its metadata, and an empty sdist."""
    folder.mkdir()
    about = (
        f"Metadata-Version: 2.4\nName: iftplan\nVersion: {version}\nProject-URL: Source, {source}\n\nText.\n"
    )
    with zipfile.ZipFile(folder / f"iftplan-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"iftplan-{version}.dist-info/METADATA", about)
    (folder / f"iftplan-{version}.tar.gz").write_bytes(b"")
    return folder


def against(folder: Path, tag: str = "v1.2.3", changes: str = CHANGES) -> list[str]:
    return list(reasons_against(folder, tag, "https://example.org/iftplan", changes))


def test_what_was_built_from_its_tag_may_be_published(tmp_path: Path) -> None:
    assert against(dist(tmp_path / "dist")) == []
    early = CHANGES.replace("1.2.3", "2.0.0rc1")
    assert against(dist(tmp_path / "early", "2.0.0rc1"), "v2.0.0rc1", early) == []


def test_a_release_is_refused_with_every_reason(tmp_path: Path) -> None:
    built = dist(tmp_path / "dist", "1.2.4.dev1+gabc", "https://example.org/another")
    (version, heading, address) = against(built, changes="## [1.2.3] - unreleased\n")
    assert version.endswith("expected iftplan-1.2.3-py3-none-any.whl and iftplan-1.2.3.tar.gz.")
    assert heading == "CHANGELOG.md has no heading `## [1.2.3] - YEAR-MONTH-DAY`."
    assert (
        "its source is https://example.org/another, and it is released from https://example.org/iftplan"
        in address
    )
    assert against(built, "release-1") == [
        "The tag 'release-1' names no version; write v1.2.3, or v1.2.3rc1."
    ]
    (tmp_path / "empty").mkdir()
    assert "empty holds nothing; expected" in against(tmp_path / "empty")[0]


# --- what was built is used ------------------------------------------------------------------------------

OURS = {"docs", "dev", "release"}
"""Extras for work on the project itself."""


def test_every_extra_is_tried_in_an_environment_of_its_own() -> None:
    assert set(TRIALS["EXTRAS"]) == {"bare", *PROJECT["optional-dependencies"]} - OURS
    commands = [
        *TRIALS["BARE"],
        *TRIALS["TOOLS"].values(),
        *(c for found in TRIALS["EXTRAS"].values() for c in found),
    ]
    assert all(re.match(r"(! )?(iftplan|python|uv|pipx) ", command) for command in commands)


@pytest.mark.parametrize(
    ("command", "good"),
    [
        ("python -c 'print(1)'", True),
        ("python -c 'raise SystemExit(3)'", False),
        ("! python -c 'print(1)'", False),
        ("""! python -c 'import sys; sys.exit(2)'""", False),
        ("! python refused.py", True),
    ],
)
def test_a_trial_fails_where_a_command_does(
    command: str, good: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    advice = "pip install 'iftplan[torch]'"
    (tmp_path / "refused.py").write_text(f"import sys; print({advice!r}, file=sys.stderr); sys.exit(2)")
    assert TRIALS["ran"](command, tmp_path) is good
    assert ("FAILED" in capsys.readouterr().out) is not good


# --- who it is and where it is ---------------------------------------------------------------------------


def test_the_repository_has_one_address() -> None:
    """Whoever publishes it changes `owner` in these files; the release asks whether pyproject.toml has it."""
    owner, name = re.fullmatch(r"https://github\.com/([\w-]+)/([\w-]+)", SOURCE).groups()
    assert PROJECT["urls"]["Documentation"] == f"https://{owner}.github.io/{name}/"
    files = ("pyproject.toml", "CITATION.cff", "SECURITY.md", "docs/guides/ci.md")
    for file in files:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert set(re.findall(rf"(?:github\.com/|uses: )([\w-]+)/{name}\b", text)) == {owner}, file


def test_the_citation_names_the_tool_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], citation["type"], citation["title"]) == ("1.2.0", "software", "iftplan")
    assert citation["message"] and citation["authors"] == PROJECT["authors"]
    assert (citation["license"], citation["keywords"]) == (PROJECT["license"], PROJECT["keywords"])
    assert citation["repository-code"] == SOURCE
    (paper,) = citation["references"]
    assert paper["url"] == PROJECT["urls"]["Paper"]
    assert [author["family-names"] for author in paper["authors"]] == ["Thangarasa", "Saxena", "Gupta", "Lie"]
