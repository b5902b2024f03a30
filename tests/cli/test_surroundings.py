"""What is around a command: full disks, closed streams, links, modes, folders that are gone, and hostile names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iftplan.base.documents import write_text
from iftplan.base.errors import InputError
from iftplan.plans.speed.document import default_place
from iftplan.report.table import Table, printable, to_latex
from iftplan.report.terminal import to_text
from tests.support.cli_runs import iftplan
from tests.support.places import ROOT

SOLVE = "solve --layer linear:8-8 --sparsity 0.5"
BAD = "solve --layer bad"


def shell(line: str, cwd: Path, *, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = line.replace("iftplan", f"{sys.executable} -m iftplan")
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=60
    )


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_file_that_is_written_again_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    (tmp_path / "f").write_text("")
    (tmp_path / "f").chmod(mode)
    write_text("new", str(tmp_path / "f"))
    assert (tmp_path / "f").stat().st_mode & 0o777 == mode
    assert (tmp_path / "f").read_text() == "new"


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/real").write_text("old")
    (tmp_path / "link").symlink_to("there/real")
    (tmp_path / "dangling").symlink_to("there/new")
    for name in ("link", "dangling"):
        write_text("new", str(tmp_path / name))
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_text() == "new"
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["new", "real"]


def test_a_file_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_text("old")
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root, who may everything
    with pytest.raises(InputError, match="Permission denied"):
        write_text("new", str(tmp_path / "f"))
    assert (tmp_path / "f").read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is full")
@pytest.mark.parametrize(
    ("line", "status"),
    [
        (f"iftplan {BAD} 2>/dev/full", 2),
        ("iftplan nosuch 2>/dev/full", 2),
        (f"iftplan {SOLVE} >/dev/full", 2),
        ("iftplan --help >/dev/full", 2),
        (f"iftplan {BAD} 2>&-", 2),
        (f"iftplan {SOLVE} >&-", 2),
        (f"iftplan {SOLVE} 2>&-", 0),
        (f"iftplan {BAD} 2>&1 >/dev/null | true; exit ${{PIPESTATUS[0]}}", 2),
        (f"iftplan {SOLVE} -o /nowhere/f 2>/dev/full", 2),
    ],
)
def test_streams_that_take_nothing_change_no_status(tmp_path: Path, line: str, status: int) -> None:
    done = shell(line, tmp_path)
    assert done.returncode == status
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert "bad" not in done.stdout, "what is for stderr goes nowhere else"


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    done = shell("mkdir gone && cd gone && rmdir ../gone && iftplan check", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("iftplan: the current folder is not there any more;")


def test_no_home_is_told_with_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(
        Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory."))
    )
    with pytest.raises(InputError, match="XDG_CACHE_HOME"):
        default_place()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x\n::add-mask::B", "x\\n::add-mask::B"),
        ("::add-mask::B", "\\x3a:add-mask::B"),
        ("  ::stop-commands::x", "  \\x3a:stop-commands::x"),
        ("a ##[add-mask]B", "a #\\x23[add-mask]B"),
        ("\x1b[31mred\r\u202e", "\\x1b[31mred\\r\\u202e"),
        ("aten::bmm in module::x", "aten::bmm in module::x"),
        ("naïve × 2 · 10", "naïve × 2 · 10"),
    ],
)
def test_text_of_strangers_steers_nothing(text: str, shown: str) -> None:
    assert printable(text) == shown
    for lines in (
        to_text(Table(("a", "b"), ((text, text),), text, (text,))),
        to_latex(Table(("a",), (), text, (text,))),
    ):
        assert not [line for line in lines.splitlines() if line.lstrip().startswith("::")]
        assert "\x1b" not in lines and "##[" not in lines


HOSTILE = """
[models."x\\n::add-mask::B"]
source = "zoo:digits-cnn"
budget.macs = 7
[models."::add-mask::C"]
source = "\\u001b[31m.py:net"
[models."##[add-mask]D"]
source = "zoo:digits-cnn"
"""


@pytest.mark.parametrize("form", ["table", "github", "csv", "markdown", "latex"])
def test_a_hostile_name_begins_no_command(tmp_path: Path, form: str) -> None:
    (tmp_path / "iftplan.toml").write_text(HOSTILE)
    run = iftplan(
        "check", "--format", form, "--report", "r.md", "--report", "r.html", "--report", "r.xml", cwd=tmp_path
    )
    meant = [line for line in run.out.splitlines() if line.startswith(("::error file=", "::notice file="))]
    assert (form == "github") == bool(meant)
    for line in (*run.out.splitlines(), *run.err.splitlines()):
        assert line in meant or not line.lstrip().startswith("::"), line
        assert "##[" not in line and "\x1b" not in line
    for report in tmp_path.glob("r.*"):
        assert "\x1b" not in report.read_text()


def test_the_action_lets_no_model_begin_a_command(tmp_path: Path) -> None:
    """Neither a name in the configuration nor what the model's own code prints."""
    (tmp_path / "iftplan.toml").write_text(
        HOSTILE + '[models.loud]\nsource = "net.py:net"\ninputs = ["1x4"]\n'
    )
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef net():\n    print('::add-mask::E')\n    print(' ::add-mask::F ##[add-mask]G')\n    return nn.Linear(4, 4)\n"
    )
    script = ROOT / "action/check.py"
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "RUNNER_TEMP": str(tmp_path), "IFTPLAN_BASE": "none", "GITHUB_STEP_SUMMARY": str(tmp_path / "s")},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    for line in (*done.stdout.splitlines(), *done.stderr.splitlines()):
        assert line.startswith(("::error file=", "::notice file=")) or not line.lstrip().startswith("::"), (
            line
        )
        assert "##[" not in line
    assert "add-mask::E" in done.stderr, "it is shown, and is no command"
