"""What a shell may complete: models, layers, and the names that options take; nothing of the user's is run for it."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from typer import Context

from iftplan.base.errors import IftplanError

_LIBRARIES = ("hf:", "timm:", "torchvision:")
_LAYERS = ("linear", "conv3x3", "conv1x1", "conv1d3", "dwconv3x3", "convt4x4", "attention", "embedding")


def models(incomplete: str) -> Iterator[str]:
    """`zoo:NAME` of every bundled model, the other libraries' prefixes, and the factories in a file."""
    from iftplan.models.zoo.entries import ZOO

    path, colon, name = incomplete.rpartition(":")
    if colon and path.endswith(".py"):
        yield from (f"{path}:{found}" for found in _factories(path) if found.startswith(name))
    names = (*(f"zoo:{name}" for name in ZOO), *_LIBRARIES)
    yield from (name for name in names if name.startswith(incomplete))


def _factories(path: str) -> Iterator[str]:
    """Functions and classes of a file, which is parsed and never run."""
    import ast

    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return
    kinds = (ast.FunctionDef, ast.ClassDef)
    yield from (x.name for x in tree.body if isinstance(x, kinds) and not x.name.startswith("_"))


def layers(ctx: Context, incomplete: str) -> Iterator[str]:
    """`first`, `last`, `none` and the layers of the model on the line, where they are known without running it.

    Args:
        ctx: the words before.
        incomplete: the word, after whose commas a name is completed.
    """
    names = [name for source in ctx.args for name in _layers_of(source)]  # an unfinished line is all `args`
    yield from _after_commas(("first", "last", "none", *names), incomplete)


def _layers_of(source: str) -> list[str]:
    from iftplan.base.documents import loads, read_text
    from iftplan.models.document import parse_spec
    from iftplan.models.zoo.specs import zoo_spec

    try:
        is_file = source.endswith(".json") and not source.startswith("hf:")
        spec = parse_spec(loads(read_text(source), source), source) if is_file else zoo_spec(source)
    except IftplanError:
        return []
    return [row.layer.name for row in spec.layers] if spec else []


def scopes(incomplete: str) -> Iterator[str]:
    """Scopes that a plan can close; behind `module:` stands a module's name."""
    from iftplan.plans.plan import WHOLE

    names = (*(scope.value for scope in WHOLE), "module:")
    yield from (name for name in names if name.startswith(incomplete))


def layer_kinds(incomplete: str) -> Iterator[str]:
    """Kinds of layers, each with its usual kernel."""
    yield from (name for name in _LAYERS if name.startswith(incomplete))


def is_requested(environ: Mapping[str, str]) -> bool:
    """Whether a shell asks what a word could become."""
    return "_IFTPLAN_COMPLETE" in environ


@contextmanager
def whole_words(environ: MutableMapping[str, str]) -> Iterator[None]:
    """Undo that bash divides words at colons: join them before they are read, and answer from the colon on."""
    words, at = environ.get("COMP_WORDS", "").split(), environ.get("COMP_CWORD", "")
    if environ.get("_IFTPLAN_COMPLETE") != "complete_bash" or ":" not in words or not at.isdecimal():
        yield
        return
    joined: list[str] = []
    current = int(at)
    for i, word in enumerate(words):
        if i > 0 and (word == ":" or words[i - 1] == ":"):
            joined[-1] += word
            current -= i <= int(at)
        else:
            joined.append(word)
    environ.update(COMP_WORDS=" ".join(joined), COMP_CWORD=str(current))
    try:
        with redirect_stdout(io.StringIO()) as found:
            yield
    finally:
        sys.stdout.writelines(f"{line.rpartition(':')[2]}\n" for line in found.getvalue().splitlines())


def _after_commas(names: Iterable[str], incomplete: str) -> Iterator[str]:
    """Names that the last part of a comma-separated word could become, after the parts that are there."""
    before, comma, last = incomplete.rpartition(",")
    given = set(before.split(","))
    yield from (f"{before}{comma}{name}" for name in names if name.startswith(last) and name not in given)


def transforms(incomplete: str) -> Iterator[str]:
    """Names of families, `none` and `all`, after the commas that are there."""
    from iftplan.families.builtin import FAMILIES

    yield from _after_commas((*FAMILIES, "none", "all"), incomplete)


def distributions(incomplete: str) -> Iterator[str]:
    """Names of distributions of density."""
    from iftplan.masks.distributions import Distribution

    yield from _after_commas(Distribution, incomplete)


def structures(incomplete: str) -> Iterator[str]:
    """Mask structures as they are written."""
    from iftplan.masks.structures import STRUCTURES

    names = (notation.partition(" ")[0] for each in STRUCTURES for notation in each.notations)
    yield from _after_commas(names, incomplete)


def methods(incomplete: str) -> Iterator[str]:
    """Names of training methods."""
    from iftplan.runs.methods import METHODS

    yield from _after_commas(METHODS, incomplete)


def paper(incomplete: str) -> list[str]:
    """Tables and figures of the Sparse-IFT paper."""
    from iftplan.runs.results.published.entries import PAPER

    return [name for name in PAPER if name.startswith(incomplete)]


def recipes(incomplete: str) -> Iterator[str]:
    """Names of bundled recipes."""
    from iftplan.runs.recipes.files import recipe_files

    yield from (name for name in recipe_files() if name.startswith(incomplete))


def loggers(incomplete: str) -> Iterator[str]:
    """Names of loggers."""
    yield from (name for name in ("tensorboard", "mlflow") if name.startswith(incomplete))


def backends(incomplete: str) -> Iterator[str]:
    """Names of backends that layers are timed in."""
    from iftplan.plans.speed.timings import BACKENDS

    yield from _after_commas(BACKENDS, incomplete)


def laws(incomplete: str) -> Iterator[str]:
    """Names of scaling laws."""
    from iftplan.runs.laws.named import FITS

    yield from (name for name in FITS if name.startswith(incomplete))


def law_fits(ctx: Context, incomplete: str) -> Iterator[str]:
    """Names of fits of the scaling law that is named already, by default of the sparse one.

    Args:
        ctx: the words before.
        incomplete: what is there of the name.
    """
    from iftplan.runs.laws.named import FITS

    fits = FITS.get(ctx.params.get("law") or "sparse", {})
    yield from (name for name in fits if name.startswith(incomplete))


def tasks(incomplete: str) -> Iterator[str]:
    """Data sets of published results."""
    from iftplan.runs.results.published.results import published_results

    names = dict.fromkeys(result.task for result in published_results())
    yield from (name for name in names if name.startswith(incomplete))


def configured(incomplete: str) -> Iterator[str]:
    """Names of the models in the nearest configuration."""
    from iftplan.checks.configuration_file import find_config, read_config

    try:
        found = read_config(find_config(Path.cwd()))
    except IftplanError:
        return
    yield from (model.name for model in found.models if model.name.startswith(incomplete))
