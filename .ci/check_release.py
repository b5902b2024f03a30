"""Whether what was built may be published: one wheel and one sdist of the version that the tag names, written down as released.

`python .ci/check_release.py dist --tag v1.2.3 --source https://github.com/NAME/iftplan`
"""

from __future__ import annotations

import argparse
import re
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path


def main() -> None:
    """Print every reason against the release, and exit with 1 where there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path)
    parser.add_argument("--tag", required=True)
    parser.add_argument("--source", required=True, help="address of the repository that is released")
    given = parser.parse_args()
    changes = (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    if problems := list(reasons_against(given.dist, given.tag, given.source, changes)):
        sys.exit("\n".join(problems))
    print(f"{given.tag} may be published.")


def reasons_against(dist: Path, tag: str, source: str, changes: str) -> Iterator[str]:
    """What stands against publishing, a sentence each.

    Args:
        dist: folder of what was built.
        tag: name of the release's tag.
        source: address of the repository that is released.
        changes: text of CHANGELOG.md.
    """
    if not (match := re.fullmatch(r"v(\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?)", tag)):
        yield f"The tag {tag!r} names no version; write v1.2.3, or v1.2.3rc1."
        return
    version = match[1]
    expected = {f"iftplan-{version}-py3-none-any.whl", f"iftplan-{version}.tar.gz"}
    if (found := {path.name for path in dist.iterdir()}) != expected:
        yield f"{dist} holds {', '.join(sorted(found)) or 'nothing'}; expected {' and '.join(sorted(expected))}."
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changes, re.M):
        yield f"CHANGELOG.md has no heading `## [{version}] - YEAR-MONTH-DAY`."
    for wheel in dist.glob("*.whl"):
        stated = address_of_source(metadata(wheel))
        if stated != source:
            yield f"{wheel.name} says that its source is {stated}, and it is released from {source}; see [project.urls] in pyproject.toml."


def metadata(wheel: Path) -> Message:
    """The METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def address_of_source(about: Message) -> str:
    """The project URL that is called Source; empty where there is none."""
    urls = dict(line.split(", ", 1) for line in about.get_all("Project-URL", []))
    return urls.get("Source", "")


if __name__ == "__main__":
    main()
