"""What a computation read from its surroundings, so that it need not be repeated while all of that is as it was.

The system tells which files are opened, whether by Python or by a library that is not (`opened_files`). An audit hook tells
imports from other listings of folders; loaded modules and looked-up environment variables are added. The interpreter's
library, the system's own libraries, and the packages that were loaded before are left out: `environment` names what is
installed there. Of other installed packages the files count, for people mend those in place.
"""

from __future__ import annotations

import ctypes.util
import importlib
import os
import platform
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from types import FrameType
from typing import Any

from iftplan.cache.opened_files import Opened, watch


def _folders(*keys: str) -> tuple[str, ...]:
    """Folders of the installation, as they are written and as they are."""
    written = dict.fromkeys(sysconfig.get_paths()[key] for key in keys)
    return tuple(dict.fromkeys(form + os.sep for path in written for form in (path, os.path.realpath(path))))


_PACKAGES = _folders("purelib", "platlib")
_LIBRARY = _folders("stdlib", "platstdlib")
_ELSEWHERE = (*_LIBRARY, "/proc/", "/sys/", "/dev/")
_MEMORY = "/dev/shm/"  # files like others
_LIBRARIES = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/", f"{sys.base_prefix}/lib/")
_SYSTEM = (*_LIBRARIES, "/etc/ld.so.", "/etc/nsswitch.conf", "/etc/passwd")
"""What the C library opens to find shared libraries and the names of users."""

_OWN = frozenset(
    {"fvcore", "iopath", "lazy_loader", "mpmath", "numpy", "pydantic", "sympy", "tabulate", "torch", "yacs"}
)
"""Packages that this one brings and loads when it needs them: their versions decide."""
_ABOUT = (".dist-info", ".egg-info", ".pth")
_GPUS = "/proc/driver/nvidia/gpus"

_SOURCES = (".py", ".pyc", ".so", ".pyd")
_ACCESS = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
_READABLE = (os.O_RDONLY, os.O_RDWR)
_LISTINGS = ("os.listdir", "os.scandir")
_QUESTIONS = ("stat", "access")
_OF_THE_MACHINE = (
    (platform, "uname"),
    *((os, name) for name in ("uname", "cpu_count", "sched_getaffinity") if hasattr(os, name)),
)
_OUTWARD = frozenset(
    {
        "socket.connect",
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "sqlite3.connect",
    }
)
"""What reaches for something that cannot be looked at again."""


def environment() -> str:
    """Digest of what runs a model: the interpreter, its search path, what is installed beside it, and the kind of machine."""
    installed = sorted({name for path in _PACKAGES for name in _names(path) if name.endswith(_ABOUT)})
    named = (os.environ.get(name, "") for name in ("PYTHONPATH", "CUDA_VISIBLE_DEVICES"))
    machine = (platform.machine(), sorted(_names(_GPUS)))
    return _digest(sys.version, sys.platform, sys.prefix, *named, *map(str, machine), *installed)


def _digest(*parts: str) -> str:
    return sha256("\0".join(parts).encode()).hexdigest()


class Footprint:
    """Digests of files and folders that were read, seen from one folder; each is looked at once.

    A key is a kind and a place: `file:PATH` for content, `modules:FOLDER` for what can be imported from it,
    `names:FOLDER` for everything in it, `variables:A,B` for environment variables. Paths inside the folder are
    relative to it, so that a footprint holds in another checkout. `there:PATH` is whether something is there and how
    large it is, for what was asked about without being opened; `link:PATH` is where a path with symbolic links leads;
    `machine:` is the machine's name and number of processors.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(os.path.realpath(folder))
        self._states: dict[str, str] = {}

    def key(self, kind: str, path: str) -> str:
        """Name of a place in cache entries."""
        return f"{kind}:{self._inside(os.path.realpath(path))}"

    def link(self, path: str) -> str:
        """Name of a path that leads somewhere else, in cache entries."""
        return f"link:{self._inside(os.path.abspath(path))}"  # noqa: PTH100  (Path.resolve would follow it)

    def _inside(self, place: str) -> Path:
        """A path relative to the folder, where it lies in it."""
        path = Path(place)
        return path.relative_to(self._folder) if path.is_relative_to(self._folder) else path

    def state(self, key: str) -> str:
        """Digest of what is in a place now; empty where nothing is."""
        if key not in self._states:
            self._states[key] = self._look(key)
        return self._states[key]

    def unchanged(self, states: Mapping[str, str]) -> bool:
        """Whether every place is as it was."""
        return all(self.state(key) == state for key, state in states.items())

    def changed_since(self, moment: float, key: str) -> bool:
        """Whether a file was written after a moment, so that what was read of it may be older."""
        kind, _, place = key.partition(":")
        path = self._folder / place
        return kind == "file" and path.exists() and path.stat().st_mtime > moment

    def _look(self, key: str) -> str:
        kind, _, place = key.partition(":")
        if kind == "variables":
            return _digest(*(f"{name}={os.environ.get(name)!r}" for name in place.split(",")))
        if kind == "machine":
            return _digest(*platform.uname(), str(os.cpu_count()))
        path = self._folder / place
        if kind == "link":
            return _digest(str(self._inside(os.path.realpath(path))))
        if kind == "there":
            return "folder" if path.is_dir() else str(path.stat().st_size) if path.exists() else ""
        if kind == "file":
            try:
                with path.open("rb") as file:
                    return file_digest(file, "sha256").hexdigest() if path.is_file() else ""
            except OSError:
                return ""
        names = _names(str(path))
        seen = [n for n in names if kind == "names" or _importable(path, n)]
        return _digest(*sorted(seen)) if names else ""


class Reads:
    """Record of what this process reads from now on; it cannot be ended, so it is for workers.

    Attributes:
        outward: what reached for something that cannot be looked at again.
        complete: whether what libraries open that are not Python is seen too; else only Python's own files are.
    """

    def __init__(self) -> None:
        self._opens = watch()  # before all else, as long as there is one thread and nothing was opened
        self.complete = self._opens is not None
        self._listens = True
        self._since = time.time()
        self._seen: dict[tuple[str, str], None] = {}
        self._listed: set[str] = set()
        self._variables: dict[str, None] = {}
        self.outward: dict[str, None] = {}
        self._machine = False
        self._known = _OWN | {name.partition(".")[0] for name in sys.modules}
        importlib.invalidate_caches()  # what was listed before has to be listed again to be heard
        sys.addaudithook(self._hear)
        for environ in (os.environ, getattr(os, "environb", None)):
            if environ is not None:
                environ.__class__ = self._listening(type(environ))
        for name in _QUESTIONS:  # to ask whether a file exists is no event of its own
            setattr(os, name, self._asked(getattr(os, name)))
        for module, name in _OF_THE_MACHINE:
            setattr(module, name, self._asked_of_the_machine(getattr(module, name)))

    def states(self, footprint: Footprint) -> dict[str, str]:
        """Present state of everything that was read up to now, with every module that is loaded."""
        self._listens = False  # to look at what was read is not to read it
        try:
            if self._opens is not None:
                self._take(self._opens.pause())
            keys = list(self._keys(footprint))
            if any(footprint.changed_since(self._since, key) for key in keys):
                self.outward["changed while it was read"] = None
            return {key: footprint.state(key) for key in keys}
        finally:
            self._listens = True
            if self._opens is not None:
                self._opens.resume()

    def _take(self, opened: Opened) -> None:
        """What the system saw; a folder that Python listed is for the audit hook to judge."""
        self._seen |= dict.fromkeys(("file", path) for path in opened.files if not path.startswith(_SYSTEM))
        self._seen |= dict.fromkeys(("names", path) for path in opened.folders if path not in self._listed)
        self.outward |= dict.fromkeys(opened.outward)

    def _keys(self, footprint: Footprint) -> Iterator[str]:
        files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        seen = dict.fromkeys((*self._seen, *(("file", f) for f in files if f)))
        for kind, path in list(seen):
            if self._is_known(path):
                continue
            real = os.path.realpath(path)
            if self._elsewhere(kind, real) or "__pycache__" in real:
                continue
            there = Path(real)
            if kind == "file" and there.exists() and not (there.is_file() or there.is_dir()):
                self.outward["read what is no file"] = None  # and to look at a pipe would be to wait for it
            else:
                yield footprint.key(kind, path)
                if real != os.path.abspath(path):  # noqa: PTH100
                    yield footprint.link(path)
        for (
            folder
        ) in sys.path:  # what is there first is imported, and what was loaded already was not looked for
            if not self._elsewhere("modules", os.path.realpath(folder)):
                yield footprint.key("modules", folder)
        if self._machine:
            yield "machine:"
        if self._variables:
            yield f"variables:{','.join(sorted(self._variables))}"

    def _is_known(self, path: str) -> bool:
        """Whether a path as it is written is of a package whose version decides: most are, and links cost time to follow."""
        for folder in _PACKAGES:
            if path.startswith(folder):
                return path[len(folder) :].partition(os.sep)[0] in self._known and f"{os.sep}.." not in path
        return False

    def _elsewhere(self, kind: str, real: str) -> bool:
        """Whether a place is of what `environment` names, or no file at all."""
        for folder in _PACKAGES:
            if f"{real}{os.sep}".startswith(folder):
                package = real[len(folder) :].partition(os.sep)[0]
                return kind != "file" or package.endswith(_ABOUT) or package.partition(".")[0] in self._known
        return f"{real}{os.sep}".startswith(_ELSEWHERE) and not real.startswith(_MEMORY)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._listens:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes | os.PathLike) and (flags & _ACCESS) in _READABLE:
                self._seen["file", os.path.abspath(os.fsdecode(path))] = None  # noqa: PTH100  (no work in a hook)
        elif event in _LISTINGS:
            path = arguments[0]
            if path is None or isinstance(path, str | bytes | os.PathLike):
                importing = sys._getframe(1).f_code.co_filename.startswith("<frozen importlib")
                place = os.path.abspath(os.fsdecode(path or "."))  # noqa: PTH100
                self._listed.add(place)
                if importing or _asked_by_the_project(sys._getframe(1)):
                    self._seen["modules" if importing else "names", place] = None
        elif event == "socket.gethostname":
            self._machine = self._machine or _asked_by_the_project(sys._getframe(1))
        elif event in _OUTWARD and not _finds_a_library(sys._getframe(1)):
            self.outward[event] = None

    def _asked(self, question: Callable[..., Any]) -> Any:
        def heard(path: Any, *arguments: Any, **named: Any) -> Any:
            place = path if isinstance(path, str | bytes | os.PathLike) else None
            if self._listens and place is not None and _asked_by_the_project(sys._getframe(1)):
                self._seen["there", os.path.abspath(os.fsdecode(place))] = None  # noqa: PTH100
            return question(path, *arguments, **named)

        return heard

    def _asked_of_the_machine(self, question: Callable[..., Any]) -> Any:
        def heard(*arguments: Any, **named: Any) -> Any:
            self._machine = self._machine or (self._listens and _asked_by_the_project(sys._getframe(1)))
            return question(*arguments, **named)

        return heard

    def _listening(self, kind: type) -> type:
        variables = self._variables

        class Listening(kind):  # type: ignore[misc]
            def __getitem__(self, name: Any) -> Any:
                if isinstance(name, str | bytes) and _asked_by_the_project(sys._getframe(1)):
                    variables[os.fsdecode(name)] = None
                return super().__getitem__(name)

        return Listening


def _finds_a_library(frame: FrameType | None) -> bool:
    """Whether a process is started to ask the system's linker for a shared library, as builds of torch with CUDA do."""
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARY):
        if frame.f_code.co_filename == ctypes.util.__file__:
            return True
        frame = frame.f_back
    return False


def _asked_by_the_project(frame: FrameType | None) -> bool:
    """Whether what the standard library does here is done for code that is not installed."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_PACKAGES):
            return False
        if not file.startswith(("<frozen", *_LIBRARY)):
            return True
        frame = frame.f_back
    return False


def _names(folder: str) -> list[str]:
    try:
        return [path.name for path in Path(folder).iterdir()]
    except OSError:
        return []


def _importable(folder: Path, name: str) -> bool:
    hidden = name.startswith((".", "__pycache__"))
    return not hidden and (name.endswith(_SOURCES) or any(map(_may_be_imported, _names(str(folder / name)))))


def _may_be_imported(name: str) -> bool:
    """Whether a folder with this in it may be a package; one of reports and data is none."""
    return name.endswith(_SOURCES) or ("." not in name and name != "__pycache__")
