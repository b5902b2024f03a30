"""The documentation site builds without a warning, offline, and everything in it leads somewhere."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import iftplan.nn
from iftplan.cli.main import app
from iftplan.families.builtin import FAMILIES
from tests.support.pages.site_links import Page, broken, external, pages, read_page
from tests.support.places import PAGES, ROOT

sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from contents import toctrees
from docstrings import escaped


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; strict, from nothing, and with every connection refused."""
    folder = tmp_path_factory.mktemp("site")
    blocked = tmp_path_factory.mktemp("offline")
    (blocked / "sitecustomize.py").write_text(
        "import socket\n\ndef refuse(*_):\n    raise OSError('the build asked for the network')\n\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n",
        encoding="utf-8",
    )
    environment = os.environ | {"PYTHONPATH": f"{blocked}{os.pathsep}{ROOT}", "PYTHONUTF8": "1"}
    command = ["-m", "sphinx", "--fail-on-warning", "--keep-going", "--nitpicky", "--quiet", "--fresh-env"]
    done = subprocess.run(
        [sys.executable, *command, "-d", str(blocked / "trees"), "-c", "docs", ".", str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder.resolve()


@pytest.mark.slow
def test_everything_on_the_site_leads_somewhere(site: Path) -> None:
    found = pages(site)
    assert len(found) > 20
    assert list(broken(found, site)) == []


@pytest.mark.slow
def test_links_to_the_web_are_few_and_encrypted(site: Path) -> None:
    addresses = sorted(external(pages(site)))
    print(*addresses, sep="\n")  # listed, never fetched
    assert addresses
    assert all(address.startswith("https://") for address in addresses)


@pytest.mark.slow
def test_styles_load_nothing_from_the_web(site: Path) -> None:
    for style in site.rglob("*.css"):
        loaded = re.findall(r"@import[^;]+|url\(([^)]+)\)", style.read_text(encoding="utf-8"))
        assert not [u for u in loaded if "//" in u and not u.strip("\"'").startswith("data:")], style.name


@pytest.mark.slow
def test_every_page_is_on_the_site_and_in_its_contents(site: Path) -> None:
    front = read_page(site / "docs" / "index.html")
    linked = {address for _, address in front.targets}
    sources = [*PAGES, *(ROOT / "notebooks").glob("*.ipynb")]
    assert len(sources) > 15
    for source in sources:
        page = site / source.relative_to(ROOT).with_suffix(".html")
        assert page.is_file(), source.name
        assert source.stem == "index" or os.path.relpath(page, site / "docs") in linked, source.name


@pytest.mark.slow
def test_every_public_name_key_and_command_is_described(site: Path) -> None:
    names = {f"iftplan.{n}" for n in dir(iftplan)} | {f"iftplan.nn.{n}" for n in dir(iftplan.nn)}
    # modules, whose functions are described
    names -= {"iftplan.nn.checkpoints", "iftplan.nn.states"}
    names -= {f"iftplan.{name}" for name in dir(iftplan) if inspect.ismodule(getattr(iftplan, name))}
    assert names <= read_page(site / "docs/reference/api.html").anchors
    commands = {f"iftplan-{name}" for name in get_command(app).commands}  # type: ignore[attr-defined]
    assert commands <= read_page(site / "docs/reference/commands.html").anchors
    derived = (site / "docs/concepts/mathematics.html").read_text(encoding="utf-8")
    assert derived.count("<math") > 60
    assert all(family.definition.title in derived for family in FAMILIES.values())


# --- the checks themselves can fail ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('<a href="gone.html">x</a>', "there is no such file"),
        ('<a href="other.html#gone">x</a>', "there is no such anchor"),
        ('<a href="#gone">x</a>', "there is no such anchor"),
        ('<img src="gone.png">', "there is no such file"),
        ('<a href="../elsewhere.html">x</a>', "it leads out of the site"),
        ('<script src="https://cdn.example/x.js"></script>', "it is fetched from the network"),
        ('<a href="javascript:alert(1)">x</a>', "the scheme javascript is no page's"),
        (
            '<a href="other.html#here">x</a><a href="https://example.org/">y</a><i id="z"></i><a href="#z">z</a>',
            "",
        ),
    ],
)
def test_broken_links_are_found(tmp_path: Path, body: str, complaint: str) -> None:
    (tmp_path / "page.html").write_text(body, encoding="utf-8")
    (tmp_path / "other.html").write_text('<p id="here"></p>', encoding="utf-8")
    (tmp_path.parent / "elsewhere.html").write_text("", encoding="utf-8")
    complaints = list(broken(pages(tmp_path), tmp_path))
    assert len(complaints) == bool(complaint)
    assert all(c.endswith(complaint) for c in complaints)


def test_addresses_on_the_web_are_listed() -> None:
    page = Page(
        frozenset(), (("a", "https://example.org/"), ("a", "x.html"), ("img", "https://example.org/i.png"))
    )
    assert external({Path("p"): page}) == {"https://example.org/"}


# --- how pages are made ----------------------------------------------------------------------------------


def test_the_contents_are_the_lists_of_the_front_page() -> None:
    page = "# T\n\n## Do\n\n- [Plan](plans.md): it, with [a link](gone.md)\n- [Tour](../README.md)\n\n## Read\n\ntext\n"
    trees = toctrees(page, "docs")
    assert trees.count("{toctree}") == 1
    assert ":caption: Do\n\nPlan </docs/plans>\nTour </README>\n" in trees


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("b*m*n and |theta|", r"b\*m\*n and \|theta\|"),
        ("call enforce_ after", r"call enforce\_ after"),
        ("`k**e` stays, snake_case too", "`k**e` stays, snake_case too"),
        (">>> b * m", ">>> b * m"),
    ],
)
def test_formulas_in_docstrings_are_no_markup(line: str, expected: str) -> None:
    assert list(escaped([line])) == [expected]


def test_what_an_example_prints_is_left_alone_up_to_a_blank_line() -> None:
    assert list(escaped([">>> x", "a|b", "", "a|b"])) == [">>> x", "a|b", "", r"a\|b"]
