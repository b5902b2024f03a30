"""Modules beside a user's file: each folder has its own, and functions may import them as well as files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path

import pytest

import iftplan as ift
from iftplan.base.factories.factory import file_factory
from iftplan.checks.assertions import iso_flop
from tests.support.cli_runs import iftplan

NET = """
from torch import nn
from {module} import W


def build():
    return nn.Linear(W, W)


def flat():
    return nn.Linear(8, W)


def late():
    from {module}.deep import V
    return nn.Linear(V, V)
"""


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """Modules that the tests write are forgotten."""
    yield
    for name in list(sys.modules):
        if any(part in name for part in ("layers_of_it", "registers_once", "iftplan_source_")):
            del sys.modules[name]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """Two files, each with a package of the same name beside it, of other widths."""
    for folder, width in (("old", 8), ("new", 64)):
        package = tmp_path / folder / "layers_of_it"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"W = {width}\n", encoding="utf-8")
        (package / "deep.py").write_text(f"V = {2 * width}\n", encoding="utf-8")
        (tmp_path / folder / "net.py").write_text(NET.format(module="layers_of_it"), encoding="utf-8")
    return str(tmp_path / "old" / "net.py"), str(tmp_path / "new" / "net.py")


def test_each_folder_has_its_own(folders: tuple[str, str]) -> None:
    old, new = folders

    def macs(source: str, width: int) -> int:
        return ift.read_model(source, f"1x{width}").macs

    assert macs(f"{old}:build", 8) == 64
    assert macs(f"{new}:build", 64) == 4096
    assert macs(f"{new}:late", 128) == 128**2
    assert macs(f"{old}:late", 16) == 256
    assert macs(f"{old}:build", 8) == 64
    with pytest.raises(AssertionError, match="512 MACs"):
        iso_flop(f"{new}:flat", f"{old}:flat", "1x8")


def test_a_difference_between_folders_is_seen(folders: tuple[str, str], tmp_path: Path) -> None:
    run = iftplan(
        "diff", *(f"{file}:flat" for file in folders), "--exit-code", "--input", "1x8", cwd=tmp_path
    )
    assert run.code == 1
    assert "448" in run.out


def test_what_only_one_folder_has_is_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that registers operators cannot be run again."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "registers_once.py").write_text(
        "import builtins\nbuiltins.counted_runs = getattr(builtins, 'counted_runs', 0) + 1\n",
        encoding="utf-8",
    )
    code = "import registers_once\nfrom torch import nn\n\n\ndef build():\n    return nn.Linear(8, 8)\n"
    for place in ("a.py", "inner/b.py"):
        (tmp_path / place).write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("builtins.counted_runs", 0, raising=False)
    assert iso_flop(f"{tmp_path}/a.py:build", f"{tmp_path}/inner/b.py:build", "1x8").passed
    assert sys.modules["builtins"].counted_runs == 1


def test_sizes_of_a_factory_can_still_be_read(folders: tuple[str, str]) -> None:
    """Functions for JAX say their widths by the defaults of their arguments."""
    (Path(folders[0]).parent / "sized.py").write_text(
        "def net(width=64):\n    return width\n", encoding="utf-8"
    )
    made = file_factory(str(Path(folders[0]).parent / "sized.py"), "net", lambda _: False)
    assert [(p.name, p.default) for p in signature(made).parameters.values()] == [("width", 64)]
    assert made(width=8) == 8
