"""Docstrings that a reader can use: first lines that name something, every argument, every exception.

What a check cannot see (units, shapes, sources) is for whoever reads the change.
"""

import ast
import builtins
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import iftplan
from iftplan.base import errors

PACKAGE = Path(iftplan.__file__).parent
ROOMS = sorted(p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists())

MANY = 3
"""Parameters from which on each one is described."""

PRONOUNS = ("it", "its", "they", "them", "their")
"""Words for a noun that came before: nothing comes before a first line, so neither of its first two words may be one."""

NAMELESS = """This That These Those Such Of As From In At By For To With Under Through Before After
What Which Whose Where When Why How Whatever Once Never""".split()  # noqa: SIM905  (two lines)
"""First words that name nothing: pointers and prepositions whose noun is somewhere else, and questions."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example|Examples):$")
ENTRY = re.compile(r"^    (\*{0,2}[A-Za-z_][\w.]*(?:, \*{0,2}[A-Za-z_][\w.]*)*): \S")


@dataclass(frozen=True)
class Documented:
    """A public function, method or class."""

    name: str
    node: Definition
    owner: ast.ClassDef | None = None
    makers: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def is_command(self) -> bool:
        """A command of the command line: its docstring is its `--help`, its options describe themselves, and what
        it refuses it ends with, with a status."""
        return self.name == "command" and isinstance(self.node, Function)

    @property
    def constructor(self) -> Function | None:
        """The function whose parameters these are: of a class its `__init__`, which has no docstring of its own."""
        if isinstance(self.node, Function):
            return self.node
        return next((n for n in self.node.body if isinstance(n, Function) and n.name == "__init__"), None)

    def section(self, title: str) -> list[str]:
        """Names that a section has entries for; one entry may have several."""
        names: list[str] = []
        inside = False
        for line in self.text.splitlines():
            if SECTION.match(line):
                inside = line == f"{title}:"
            elif inside and (entry := ENTRY.match(line)):
                names += entry.group(1).split(", ")
        return names


def public(tree: ast.Module) -> Iterator[Documented]:
    """Definitions without an underscore in their dotted name; functions inside of functions are nobody's to call."""
    makers = {n.name: ast.unparse(n.returns) for n in ast.walk(tree) if isinstance(n, Function) and n.returns}

    def walk(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[Documented]:
        for child in statements(node):
            if isinstance(child, Definition) and not child.name.startswith("_") and not told_elsewhere(child):
                owner = node if isinstance(node, ast.ClassDef) else None
                yield Documented(prefix + child.name, child, owner, makers)
                if isinstance(child, ast.ClassDef):
                    yield from walk(child, f"{prefix}{child.name}.")

    yield from walk(tree, "")


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Statements of a body, and of conditions and attempts in it."""
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.If | ast.Try | ast.ExceptHandler | ast.With):
            yield from statements(child)


def told_elsewhere(node: Definition) -> bool:
    """An overload, or the setter of a property: the function itself says what there is to say."""
    decorators = [ast.unparse(d) for d in node.decorator_list]
    return any(d.endswith(("overload", ".setter", ".deleter")) for d in decorators)


def parameters(found: Documented) -> list[str]:
    """Names of the parameters, with the stars of those that take several; neither self nor cls."""
    node = found.constructor
    if node is None:
        return []
    a = node.args
    names = [x.arg for x in (*a.posonlyargs, *a.args)]
    static = any(ast.unparse(d) == "staticmethod" for d in node.decorator_list)
    if (found.owner or node is not found.node) and not static:
        names = names[1:]
    names += [f"*{a.vararg.arg}"] if a.vararg else []
    names += [x.arg for x in a.kwonlyargs]
    names += [f"**{a.kwarg.arg}"] if a.kwarg else []
    return [name for name in names if not name.strip("*").startswith("_")]


def attributes(node: ast.ClassDef) -> set[str]:
    """Names that a class body or its methods write; nothing where it inherits some that are not seen here."""
    if any(ast.unparse(base) not in ("Protocol", "ABC") for base in node.bases):
        return set()
    written = (n for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute))
    names = {n.id if isinstance(n, ast.Name) else n.attr for n in written if isinstance(n.ctx, ast.Store)}
    return names | {n.name for n in node.body if isinstance(n, Function)}


def first_line_faults(found: Documented) -> Iterator[str]:
    line = found.text.partition("\n")[0]
    if not line:
        if found.owner is None or found.node.name not in Documented("", found.owner).section("Attributes"):
            yield "no docstring"
        return
    opening = [word.strip(",:;.") for word in line.split()[:2]]
    if opening[0] in NAMELESS or any(word.lower() in PRONOUNS for word in opening):
        yield f"its first line names nothing: {line}"
    if not line.endswith((".", ":", "?")):
        yield f"its first line is no sentence: {line}"
    if len(line.split()) < 2:
        yield f"its first line is a word: {line}"


def argument_faults(found: Documented) -> Iterator[str]:
    wanted, said = parameters(found), found.section("Args")
    yield from (f"no argument {n}" for n in said if n not in wanted)
    yield from (f"argument {n} twice" for n in dict.fromkeys(said) if said.count(n) > 1)
    if said or (len(wanted) >= MANY and not found.is_command):
        yield from (f"argument {n} not described" for n in wanted if n not in said)
    if isinstance(found.node, ast.ClassDef) and (known := attributes(found.node)):
        yield from (f"no attribute {n}" for n in found.section("Attributes") if n not in known)


def exception_faults(found: Documented) -> Iterator[str]:
    if found.is_command:
        return
    making = ("__init__", "__post_init__")
    bodies = (
        [found.node.body]
        if isinstance(found.node, Function)
        else [n.body for n in found.node.body if isinstance(n, Function) and n.name in making]
    )
    said = {name.split(".")[-1] for name in found.section("Raises")}
    names = dict.fromkeys(name for body in bodies for name in raised(body, found.makers))
    yield from (f"{name} not described" for name in names if name not in said)


def raised(
    body: list[ast.stmt], makers: Mapping[str, str], caught: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Classes of exceptions that statements raise themselves and let out, those of functions inside left out.

    Args:
        body: statements of a function, or of a part of it.
        makers: function → its return annotation, for exceptions that a function of the module makes.
        caught: classes that a handler around takes.
    """
    for node in body:
        if isinstance(node, ast.Raise) and (name := class_raised(node, makers)):
            if not caught & ancestors(name):
                yield name
        elif isinstance(node, ast.Try | ast.TryStar):
            here = caught | {ast.unparse(t) for h in node.handlers for t in types_of(h)}
            yield from raised(node.body, makers, here)
            for part in ([*node.orelse, *node.finalbody], *(h.body for h in node.handlers)):
                yield from raised(part, makers, caught)
        elif isinstance(node, ast.Match):
            for case in node.cases:
                yield from raised(case.body, makers, caught)
        elif not isinstance(node, Definition):
            suppressed = [i.context_expr for i in getattr(node, "items", []) if "suppress" in ast.dump(i)]
            here = caught | {ast.unparse(a) for c in suppressed if isinstance(c, ast.Call) for a in c.args}
            yield from raised([*getattr(node, "body", []), *getattr(node, "orelse", [])], makers, here)


def class_raised(node: ast.Raise, makers: Mapping[str, str]) -> str:
    """The class of an exception; nothing where one is raised again, or where a subclass is meant to raise another."""
    made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    whole = ast.unparse(made) if made else ""
    name = whole.split(".")[-1]
    if isinstance(node.exc, ast.Call) and name in makers:
        name = makers[name]
    return name if name[:1].isupper() and name != "NotImplementedError" and whole != "typer.Exit" else ""


def types_of(handler: ast.ExceptHandler) -> list[ast.expr]:
    if isinstance(handler.type, ast.Tuple):
        return handler.type.elts
    return [handler.type or ast.Name("BaseException")]


def ancestors(name: str) -> set[str]:
    """The class and its bases, those of Python and those of `base/errors`."""
    kind = getattr(errors, name, None) or getattr(builtins, name, None)
    return {name} | {c.__name__ for c in getattr(kind, "__mro__", ())}


def faults_of(source: str) -> Iterator[str]:
    for found in public(ast.parse(source)):
        for faults in (first_line_faults, argument_faults, exception_faults):
            yield from (f"{found.node.lineno} {found.name}: {fault}" for fault in faults(found))


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_say_what_they_give_take_and_refuse(room: str) -> None:
    files = sorted((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]
    found = [f"{p.relative_to(PACKAGE)}:{fault}" for p in files for fault in faults_of(p.read_text("utf-8"))]
    assert not found, "\n".join(found)


SOUND = '''
def spread(shape, budget, *names, power=1, **more):
    """Densities of layers.

    Args:
        shape, budget: of a weight.
        *names: for messages.
        power: 1 by default,
            as published: it is seldom another.
        **more: unused.

    Raises:
        InputError: no such thing.
        InfeasibleError: it cannot be.
    """
    for name in names:
        if name:
            raise InputError("no")
    try:
        raise KeyError(shape)
    except LookupError as error:
        if power:
            raise
        raise _none() from error


def _none() -> InfeasibleError:
    return InfeasibleError("none")


def _whatever(a, b, c):
    raise ValueError(a)


class Rows(Protocol):
    """Rows of a table.

    Attributes:
        count: how many.
    """

    @property
    def count(self) -> int: ...
'''


def test_sound_docstrings_pass() -> None:
    assert list(faults_of(SOUND)) == []


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("Densities of layers.", "Of all layers.", "names nothing"),
        ("Densities of layers.", "It, as a number.", "names nothing"),
        ("Densities of layers.", "What a layer keeps.", "names nothing"),
        ("Densities of layers.", "Whether it is a layer.", "names nothing"),
        ("Densities of layers.", "Densities.", "is a word"),
        ("Densities of layers.", "Densities of layers", "no sentence"),
        ("        power: 1", "        exponent: 1", "no argument exponent"),
        ("        power: 1", "        exponent: 1", "argument power not described"),
        ("        *names:", "        names:", "argument [*]names not described"),
        ("        **more:", "        **more, power:", "argument power twice"),
        ("        InputError: no such thing.\n", "", "InputError not described"),
        ("        InfeasibleError: it cannot be.\n", "", "InfeasibleError not described"),
        ("except LookupError", "except TypeError", "KeyError not described"),
        ("        count: how many.", "        number: how many.", "no attribute number"),
        ("        count: how many.", "        number: how many.", "no docstring"),
    ],
)
def test_each_fault_is_seen(before: str, after: str, fault: str) -> None:
    assert before in SOUND
    found = list(faults_of(SOUND.replace(before, after)))
    assert any(re.search(fault, one) for one in found), found
