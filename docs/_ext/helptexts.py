"""`{helptexts}`: what `iftplan COMMAND --help` prints, for every command, as the program itself says it."""

from __future__ import annotations

import os
from unittest import mock

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_PLAIN = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}


def help_texts() -> dict[str, str]:
    """Command → its help."""
    from typer.main import get_command
    from typer.testing import CliRunner

    from iftplan.cli.main import app

    with mock.patch.dict(os.environ, _PLAIN):
        names = list(get_command(app).commands)  # type: ignore[attr-defined]
        return {
            name: CliRunner().invoke(app, [name, "--help"], prog_name="iftplan").stdout.strip()
            for name in names
        }


class HelpTexts(SphinxDirective):
    """A section for each command."""

    def run(self) -> list[nodes.Node]:
        """Title and text."""
        return [self._section(name, text) for name, text in help_texts().items()]

    def _section(self, name: str, text: str) -> nodes.section:
        section = nodes.section(ids=[f"iftplan-{name}"], names=[f"iftplan {name}"])
        section += nodes.title("", "", nodes.literal("", f"iftplan {name}"))
        section += nodes.literal_block(text, text, language="text")
        self.state.document.note_explicit_target(section)
        return section


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directive known."""
    app.add_directive("helptexts", HelpTexts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
