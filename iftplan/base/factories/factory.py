"""Factories that a user names: a function or class in a module or file, called without arguments."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType

from iftplan.base.errors import InputError, error_text
from iftplan.base.factories.neighbours import importing_from
from iftplan.base.suggestions import did_you_mean

_VERSION = "__iftplan_version__"


def module_factory(name: str, attribute: str, is_model: Callable[[object], bool]) -> Callable[..., object]:
    """The factory in an importable module; the working directory can be imported from.

    Args:
        name: of the module.
        attribute: name of the factory in it.
        is_model: whether what stands there is a model already, which its factory then gives.

    Raises:
        InputError: the module cannot be imported, or has no such callable.
    """
    folder = Path.cwd()
    with importing_from(folder):
        try:
            module = import_module(name)
        except (Exception, SystemExit) as error:
            raise InputError(
                f"module {name} cannot be imported: {error_text(error)}{_near_module(error) or _elsewhere(error, Path.cwd())}"
            ) from error
    return _callable(module, attribute, name, is_model, folder)


def file_factory(path: str, attribute: str, is_model: Callable[[object], bool]) -> Callable[..., object]:
    """The factory in a Python file, which is run; it can import its neighbours.

    Args:
        path: of the file.
        attribute: name of the factory in it.
        is_model: whether what stands there is a model already, which its factory then gives.

    Raises:
        InputError: there is no such file, it fails when run, or has no such callable.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no Python file {path}{_near_file(file)}")
    name = f"iftplan_source_{file.stem}"
    version = (str(file.resolve()), sha256(file.read_bytes()).hexdigest())
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, _VERSION, None) == version:
        # a file that registers operators can be run only once
        return _callable(loaded, attribute, path, is_model, file.resolve().parent)
    spec = spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None, "a .py file always has a loader"
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up here
    with importing_from(file.resolve().parent):
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            hint = (
                _in_its_package(file, attribute) if _is_relative(error) else _elsewhere(error, file.resolve())
            )
            raise InputError(f"running {path} failed with {error_text(error)}{hint}") from error
    setattr(module, _VERSION, version)
    return _callable(module, attribute, path, is_model, file.resolve().parent)


def _callable(
    module: ModuleType, attribute: str, where: str, is_model: Callable[[object], bool], folder: Path
) -> Callable[..., object]:
    factory = getattr(module, attribute, None)
    if is_model(factory):
        return lambda: factory
    if not callable(factory):
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        what = (
            f"{attribute} in {where} is of type {type(factory).__name__}"
            if factory is not None
            else (f"{where} has no {attribute}")
        )
        raise InputError(f"{what}.{did_you_mean(attribute, names, most=3, cutoff=0.6) or _there(names)}")
    if needed := _required(factory):
        raise InputError(
            f"{where}:{attribute} cannot be called without {', '.join(needed)}; write a function without arguments that calls it, such as def build(): return {attribute}(…), and name that."
        )

    def called(*arguments: object, **named: object) -> object:
        with importing_from(folder):  # which functions may do as well as files
            return factory(*arguments, **named)

    with suppress(TypeError, ValueError):  # some are written in C
        called.__signature__ = signature(factory)  # type: ignore[attr-defined]  # whose defaults are sizes that may be changed
    return called


def _there(names: list[str]) -> str:
    return f" It has {', '.join(names[:8])}." if names else " It defines no function or class."


def _near_module(error: BaseException) -> str:
    """What the folder of a module that is not there has instead."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    parent, _, last = error.name.rpartition(".")
    folder = Path(*parent.split(".")) if parent else Path()
    begin = f"{parent}." if parent else ""
    names = [begin + path.stem for path in folder.glob("*.py")] if folder.is_dir() else []
    meant = did_you_mean(begin + last, names, cutoff=0.7)
    return f".{meant}" if meant else ""


def _elsewhere(error: BaseException, near: Path) -> str:
    """What to do about a module that is not installed, where a folder around the file or below src is called like it."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    package = error.name.partition(".")[0]
    around = [folder.parent for folder in near.parents if folder.name == package]
    root = next((folder for folder in (*around, Path.cwd() / "src") if (folder / package).is_dir()), None)
    if root is None:
        return f"; install {package} in the environment that iftplan runs in."
    shown = root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root
    return f"; {package} lies in {shown}: install your project (pip install -e .), or set PYTHONPATH={shown}."


def _required(factory: Callable[..., object]) -> list[str]:
    """Arguments that a factory cannot be called without."""
    try:
        parameters = signature(factory).parameters.values()
    except (TypeError, ValueError):  # some are written in C
        return []
    optional = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is Parameter.empty and p.kind not in optional]


def _near_file(file: Path) -> str:
    siblings = map(str, file.parent.glob("*.py")) if file.parent.is_dir() else ()
    return f".{did_you_mean(str(file), siblings, cutoff=0.7)}"


def _is_relative(error: BaseException) -> bool:
    return isinstance(error, ImportError) and "relative import" in str(error)


def _in_its_package(file: Path, attribute: str) -> str:
    """The form that a file with relative imports is named by."""
    file, here = file.resolve(), Path.cwd()
    folder, parts = file.parent, [file.stem]
    while folder.name.isidentifier() and (
        (folder / "__init__.py").exists() or (folder.is_relative_to(here) and folder != here)
    ):
        parts.insert(0, folder.name)
        folder = folder.parent
    if len(parts) == 1:
        return f"; relative imports need a package, and {file.name} is in none: write its imports without the leading dot."
    name = ".".join(parts[:-1] if file.stem == "__init__" else parts)
    where = "" if folder == Path.cwd() or str(folder) in sys.path else f" in the folder {folder}"
    return f"; a file with relative imports belongs to a package: name it as {name}:{attribute}{where}."
