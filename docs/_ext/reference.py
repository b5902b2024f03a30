"""`{reference}`: Python names from their docstrings; `module.*` stands for every public name of a module."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def expanded(line: str) -> Iterator[str]:
    """The names that a line stands for; a package among them has lines of its own."""
    module, _, name = line.strip().rpartition(".")
    if name != "*":
        yield line.strip()
        return
    found = import_module(module)
    yield from (f"{module}.{n}" for n in public(found) if not hasattr(getattr(found, n), "__path__"))


def public(module: ModuleType) -> list[str]:
    """What a module says is public, or else its own classes and functions without an underscore."""
    own = (n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__)
    return getattr(module, "__all__", None) or [n for n in own if not n.startswith("_")]


def instruction(name: str) -> str:
    """What autodoc is told: how to show a module, a class, an exception, a function or a value."""
    module, _, short = name.rpartition(".")
    found = getattr(import_module(module), short)
    if inspect.ismodule(found):
        return f".. automodule:: {found.__name__}\n   :members:\n"
    if not inspect.isclass(found):
        return f".. {'autofunction' if callable(found) else 'autodata'}:: {name}\n"
    kind = "autoexception" if issubclass(found, BaseException) else "autoclass"
    return f".. {kind}:: {name}\n   :members:\n"


class Reference(SphinxDirective):
    """One description for each name."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Whatever autodoc makes of them."""
        names = [name for line in self.content if line.strip() for name in expanded(line)]
        instructions = "\n".join(instruction(name) for name in names)
        return self.parse_text_to_nodes(f"```{{eval-rst}}\n{instructions}\n```")


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directive known."""
    app.add_directive("reference", Reference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
