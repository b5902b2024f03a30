"""Whatever a computation read is noticed when it changes, and nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from iftplan.cache import dependencies
from iftplan.cache.dependencies import Footprint, environment

RECORD = """
import json, runpy, sys
from pathlib import Path
from iftplan.cache.dependencies import Footprint, Reads
reads = Reads()
sys.path.insert(0, "")
runpy.run_path("main.py")
print(json.dumps([reads.states(Footprint(Path.cwd())), list(reads.outward)]))
"""

MAIN = """
import glob, os
from pathlib import Path
import direct
try:
    import optional
except ImportError:
    pass
Path("data.txt").read_text()
try:
    open("overrides.txt").read()
except OSError:
    pass
if Path("big.flag").exists():
    pass
os.path.getsize("weights.bin")
os.path.isdir("extra")
sorted(glob.glob("parts/*.yaml"))
os.environ.get("WIDTH")
os.environb.get(b"DEPTH")
os.access("readable", os.R_OK)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "main.py": MAIN,
        "direct.py": "import package.deep\n",
        "package/__init__.py": "",
        "package/deep.py": "X = 1\n",
        "data.txt": "1",
        "weights.bin": "0000",
        "parts/a.yaml": "a",
        "unread.txt": "1",
        "notes/readme.md": "1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def recorded(folder: Path) -> tuple[dict[str, str], list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", RECORD], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    states, outward = json.loads(done.stdout)
    return states, outward


CHANGES: Mapping[str, Callable[[Path], object]] = {
    "the source itself": lambda p: (p / "main.py").write_text(MAIN + "# more"),
    "a module it imports": lambda p: (p / "direct.py").write_text("import package.deep  # more\n"),
    "a module that its module imports": lambda p: (p / "package/deep.py").write_text("X = 2\n"),
    "the package around it": lambda p: (p / "package/__init__.py").write_text("Y = 2\n"),
    "a module that was not there": lambda p: (p / "optional.py").write_text(""),
    "a module that hides another": lambda p: (p / "glob.py").write_text("def glob(x): return []\n"),
    "a file it opened": lambda p: (p / "data.txt").write_text("2"),
    "a file it opened, now gone": lambda p: (p / "data.txt").unlink(),
    "a file it looked for in vain": lambda p: (p / "overrides.txt").write_text("2"),
    "a file it only asked about": lambda p: (p / "big.flag").write_text(""),
    "a folder it only asked about": lambda p: (p / "extra").mkdir(),
    "an access it only asked about": lambda p: (p / "readable").write_text(""),
    "a size it asked for": lambda p: (p / "weights.bin").write_text("00000"),
    "one more file in a folder it listed": lambda p: (p / "parts/b.yaml").write_text("b"),
    "one file fewer in it": lambda p: (p / "parts/a.yaml").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_was_read_is_noticed(project: Path, change: str) -> None:
    states, outward = recorded(project)
    assert not outward
    assert Footprint(project).unchanged(states)
    CHANGES[change](project)
    assert not Footprint(project).unchanged(states)


@pytest.mark.parametrize(
    ("link", "targets", "line"),
    [
        ("width.txt", ("eight.txt", "more.txt"), "Path('width.txt').read_text()"),
        ("current", ("v1", "v2"), "Path('current/width.txt').read_text()"),
        ("linked", ("v1", "v2"), "import linked.deep"),
    ],
)
def test_a_link_that_leads_elsewhere_is_noticed(
    project: Path, link: str, targets: tuple[str, str], line: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in ("eight.txt", "more.txt"):
        (project / name).write_text(name)
    for folder in ("v1", "v2"):
        (project / folder).mkdir()
        (project / folder / "width.txt").write_text(folder)
        (project / folder / "deep.py").write_text(f"X = {folder!r}")
    (project / link).symlink_to(targets[0])
    (project / "main.py").write_text(f"from pathlib import Path\n{line}\n")
    states, outward = recorded(project)
    assert not outward
    assert Footprint(project).unchanged(states)
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    subprocess.run(["cp", "-r", str(project), str(copy)], check=True)
    assert Footprint(copy).unchanged(states)
    (project / link).unlink()
    (project / link).symlink_to(targets[1])
    assert not Footprint(project).unchanged(states)


def test_to_look_for_a_shared_library_is_not_to_ask_the_world(project: Path) -> None:
    """Builds of torch with CUDA do so when they are imported; `find_library` starts a process of the system's."""
    look = "import ctypes.util; ctypes.util.find_library('c')"
    (project / "main.py").write_text(look)
    states, outward = recorded(project)
    assert not outward and Footprint(project).unchanged(states)
    (project / "main.py").write_text(f"{look}; import subprocess; subprocess.run(['true'])")
    assert recorded(project)[1] == ["subprocess.Popen"]


NATIVE: Mapping[str, str] = {
    "fopen": "c.fopen.restype = ctypes.c_void_p; c.fopen(b'w.bin', b'r')",
    "open": "c.open(b'w.bin', 0)",
    "openat": "import os; c.openat(os.open('.', os.O_RDONLY), b'w.bin', 0)",
    "from another thread": "import threading; t = threading.Thread(target=c.open, args=(b'w.bin', 0)); t.start(); t.join()",
    "in another folder of work": "import os; os.mkdir('in'); os.chdir('in'); c.open(b'../w.bin', 0); os.chdir('..')",
    "a file that is not there": "c.open(b'absent.bin', 0)",
    "torch, without Python's open": "import torch; torch.from_file('w.bin', size=1, dtype=torch.uint8)",
    "numpy": "import numpy; numpy.fromfile('w.bin', 'u1')",
    "numpy, as memory": "import numpy; numpy.memmap('w.bin', mode='r')",
    "safetensors": "import safetensors; safetensors.safe_open('w.safetensors', 'np').keys()",
    "safetensors, whole": "import safetensors.numpy as s; s.load_file('w.safetensors')",
}


@pytest.mark.parametrize("reader", NATIVE)
def test_what_a_library_opens_without_python_is_noticed(project: Path, reader: str) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    from numpy import zeros

    (project / "w.bin").write_bytes(b"1")
    numpy.save_file({"w": zeros(8)}, project / "w.safetensors")
    (project / "main.py").write_text(f"import ctypes; c = ctypes.CDLL(None); {NATIVE[reader]}")
    states, outward = recorded(project)
    assert not outward
    assert Footprint(project).unchanged(states)
    (project / "unread.txt").write_text("2")
    assert Footprint(project).unchanged(states)
    if "not there" in reader:
        (project / "absent.bin").write_bytes(b"1")
    elif "safetensors" in reader:
        numpy.save_file({"w": zeros(9)}, project / "w.safetensors")
    else:
        (project / "w.bin").write_bytes(b"2")
    assert not Footprint(project).unchanged(states)


def test_a_folder_that_is_listed_without_python_is_noticed(project: Path) -> None:
    listing = "import ctypes; c = ctypes.CDLL(None); c.opendir.restype = ctypes.c_void_p; c.opendir(b'parts')"
    (project / "main.py").write_text(listing)
    states, _ = recorded(project)
    assert Footprint(project).unchanged(states)
    (project / "parts/b.yaml").write_text("b")
    assert not Footprint(project).unchanged(states)


def test_a_file_outside_the_project_that_a_library_opens_is_noticed(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("elsewhere") / "w.bin"
    other.write_bytes(b"1")
    (project / "main.py").write_text(f"import ctypes; ctypes.CDLL(None).open({str(other)!r}.encode(), 0)")
    states, _ = recorded(project)
    assert Footprint(project).unchanged(states)
    other.write_bytes(b"2")
    assert not Footprint(project).unchanged(states)


def test_the_watcher_ends_with_what_it_watches_and_holds_no_pipe(project: Path) -> None:
    """`recorded` waits for the end of stdout: a watcher that kept it would hang here."""
    (project / "main.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    killed = subprocess.run([sys.executable, "-c", RECORD], cwd=project, capture_output=True, timeout=20)
    assert killed.returncode == -9


def test_where_nothing_tells_of_native_files_the_record_says_so(project: Path) -> None:
    code = "import iftplan.cache.opened_files, platform; platform.machine = lambda: 'vax'; from iftplan.cache.dependencies import Reads; print(Reads().complete)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_environment_variable_that_was_looked_up_is_noticed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states, _ = recorded(project)
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    assert Footprint(project).unchanged(states)
    monkeypatch.setenv("WIDTH", "64")
    assert not Footprint(project).unchanged(states)
    monkeypatch.delenv("WIDTH")
    monkeypatch.setenv("DEPTH", "2")
    assert not Footprint(project).unchanged(states)
    assert "WIDTH" in next(key for key in states if key.startswith("variables:"))


def test_what_was_not_read_may_change(project: Path) -> None:
    states, _ = recorded(project)
    (project / "unread.txt").write_text("2")
    (project / "notes/readme.md").write_text("2")
    (project / "report.json").write_text("{}")
    os.utime(project / "direct.py")  # a fresh checkout has new times and old contents
    assert Footprint(project).unchanged(states)


def test_a_footprint_holds_in_another_checkout(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    states, _ = recorded(project)
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    subprocess.run(["cp", "-r", str(project), str(copy)], check=True)
    assert Footprint(copy).unchanged(states)
    (copy / "package/deep.py").write_text("X = 3\n")
    assert not Footprint(copy).unchanged(states)


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import socket; s = socket.socket(); s.settimeout(0.01); s.connect_ex(('127.0.0.1', 9))",
        "import sqlite3; sqlite3.connect(':memory:')",
        "import ctypes; ctypes.CDLL(None).connect(99, (ctypes.c_uint16 * 8)(2), 16)",
        "import os; os.mkfifo('pipe'); os.open('pipe', os.O_RDONLY | os.O_NONBLOCK)",
    ],
)
def test_what_cannot_be_looked_at_again_is_told(project: Path, line: str) -> None:
    (project / "main.py").write_text(line)
    assert recorded(project)[1]


def test_the_installation_is_named_and_not_read(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "main.py").write_text("import numpy, json.tool\n")
    states, _ = recorded(project)
    assert not [key for key in states if "site-packages/numpy" in key or "json/" in key]
    before = environment()
    assert before == environment()
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert environment() != before


def test_an_installed_package_that_the_model_brings_counts_by_its_files(project: Path) -> None:
    """People mend those in place, and its version stays what it was."""
    (project / "main.py").write_text("import iniconfig\n")
    states, outward = recorded(project)
    assert not outward
    (mended,) = (key for key in states if key.endswith("iniconfig/__init__.py"))
    assert Footprint(project).unchanged(states)
    assert Footprint(project).state(mended) == states[mended] != ""


@pytest.mark.parametrize(
    "line",
    [
        "import os; os.cpu_count()",
        "import os; os.uname().nodename",
        "import platform; platform.node()",
        "import socket; socket.gethostname()",
    ],
)
def test_who_asks_for_the_machine_depends_on_it(project: Path, line: str) -> None:
    (project / "main.py").write_text(line)
    states, outward = recorded(project)
    assert "machine:" in states and not outward
    (project / "main.py").write_text("import numpy, multiprocessing")
    assert "machine:" not in recorded(project)[0]


def test_a_file_that_would_be_imported_first_is_noticed(project: Path) -> None:
    """What was loaded before is not looked for, and would be found there the next time."""
    (project / "main.py").write_text("import json")
    states, _ = recorded(project)
    (project / "json.py").write_text("")
    assert not Footprint(project).unchanged(states)


def test_another_version_of_what_is_installed_is_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net-1.0.dist-info").mkdir()
    monkeypatch.setattr(dependencies, "_PACKAGES", (f"{tmp_path}/",))
    before = environment()
    assert before == environment()
    (tmp_path / "net-1.0.dist-info").rename(tmp_path / "net-1.1.dist-info")
    assert environment() != before
