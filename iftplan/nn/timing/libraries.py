"""Libraries that somebody installed, here or in another environment: found, and timed in a process of their own.

None is imported here: some need another Python or another NumPy, and some take the process down with them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from shutil import copyfile
from tempfile import TemporaryDirectory
from threading import Thread
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from iftplan.base.errors import InputError, one_line
from iftplan.models.spec import Kind
from iftplan.nn.timing import library_server
from iftplan.nn.timing.work import Candidates, Lost, as_function, largest_difference, padding_of
from iftplan.plans.speed.timings import LayerPair

_START_SECONDS: Final = 180.0  # importing and compiling
_RUN_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Abilities:
    """Layers and passes that a library can compute.

    Attributes:
        convolutions: besides linear layers.
        steps: gradients, besides forward passes.
    """

    convolutions: bool
    steps: bool

    def lacks(self, kind: Kind, step: bool) -> str:
        """Reason why a layer cannot be timed in the library; empty if it can."""
        if step and not self.steps:
            return "computes inference alone"
        return "has linear layers alone" if kind is not Kind.LINEAR and not self.convolutions else ""


LIBRARIES: Final[Mapping[str, Abilities]] = MappingProxyType(
    {
        "sparselab": Abilities(convolutions=False, steps=True),
        "deepsparse": Abilities(convolutions=True, steps=False),
    }
)

_PROBE = f"""
import importlib.metadata, importlib.util, json
found = {{}}
for name in {list(LIBRARIES)}:
    if importlib.util.find_spec(name) is not None:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Library:
    """Library that was found: the interpreter that has it, and its version.

    Attributes:
        python: the interpreter that has it.
        version: of the library; empty where its package does not say.
    """

    python: str
    version: str


def installed_libraries(environments: Sequence[str] = ()) -> dict[str, Library]:
    """Libraries that can be timed, by name; those of environments that are named come first.

    Args:
        environments: interpreters, or folders of virtual environments, besides the one that this runs in.

    Raises:
        InputError: one of them does not run.
    """
    found: dict[str, Library] = {}
    for environment in (*environments, sys.executable):
        python = _interpreter(environment)
        try:
            done = subprocess.run(
                [python, "-c", _PROBE], capture_output=True, text=True, timeout=60, check=True
            )
            versions = json.loads(done.stdout.splitlines()[-1])
        except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
            raise InputError(
                f"{environment!r} is not a Python interpreter that can list its libraries ({type(error).__name__}); "
                "give an interpreter, or the folder of a virtual environment."
            ) from error
        for name, version in versions.items():
            found.setdefault(name, Library(python, version))
    return found


def _interpreter(environment: str) -> str:
    path = Path(environment)
    if not path.is_dir():
        return environment
    return str(path / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


class LibraryRun:
    """A layer in a library, waiting in another process.

    Args:
        library: its name.
        python: the interpreter that has it.
        arrays: "input", and "weight" but for a network, float32.
        settings: see `iftplan.nn.timing.library_server`.
        network: a file in ONNX in place of a weight.
        start: seconds that it may take to be ready.
        limit: seconds that an answer may take.

    Raises:
        Lost: it is not ready, or computes something else.
    """

    def __init__(
        self,
        library: str,
        python: str,
        arrays: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        *,
        network: str | None = None,
        start: float = _START_SECONDS,
        limit: float = _RUN_SECONDS,
    ) -> None:
        self.limit = limit
        self.folder = TemporaryDirectory(prefix="iftplan-")
        held = Path(self.folder.name)
        for name, tensor in arrays.items():
            np.save(held / f"{name}.npy", tensor.contiguous().numpy())
        if network is not None:
            copyfile(network, held / "network.onnx")
        (held / "layer.json").write_text(json.dumps(dict(settings)), encoding="utf-8")
        threads = str(settings["threads"])
        quiet = {"NM_DISABLE_ANALYTICS": "1", "DO_NOT_TRACK": "1"}
        counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        with (held / "said.txt").open("wb") as said:
            self.process = subprocess.Popen(
                [python, str(Path(library_server.__file__)), library, str(held)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env={**os.environ, **counts, **quiet},
                text=True,
            )
        self._answers: Queue[str] = Queue()
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self.prepared = float(self._answer(start)["ready"])
        except Lost:
            self.close()
            raise

    def output(self) -> Tensor:
        """Output that the library computed from the input."""
        return torch.from_numpy(np.load(Path(self.folder.name, "output.npy")))

    def seconds(self, repeats: int) -> float:
        """Mean seconds of one run: processor time of the other process with one thread, else elapsed.

        Raises:
            Lost: it ended, failed, or did not answer in time.
        """
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps({"run": repeats}) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended; why is found out below
        return float(self._answer(self.limit)["seconds"])

    def close(self) -> None:
        """End the process and remove what it was given."""
        self.process.kill()
        self.process.wait()
        self._listener.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what could not be written to it any longer
                pipe.close()
        self.folder.cleanup()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _answer(self, limit: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=limit)
        except Empty:
            raise Lost(f"gave no answer in {limit:g} s") from None
        if not line:
            status = self.process.wait()
            said = Path(self.folder.name, "said.txt").read_text(errors="replace").split("\n")
            last = next((text.strip() for text in reversed(said) if text.strip()), "")
            raise Lost(f"ended with status {status}{f': {last[:80]}' if last else ''}")
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            raise Lost(one_line(told["error"], 120))
        return told


def add_libraries(
    found: Candidates,
    pair: LayerPair,
    x: Tensor,
    weight: Tensor,
    *,
    step: bool,
    macs: int,
    libraries: Mapping[str, Library],
) -> None:
    """Add a run for every library that can compute the layer, and the reason for each that cannot.

    Args:
        found: where they are added.
        pair: the layer.
        x: its input.
        weight: masked.
        step: forward and backward.
        macs: of one run.
        libraries: as `installed_libraries` finds them.
    """
    kind, padding = pair.dense.kind, padding_of(pair.wide)
    settings = {
        "threads": torch.get_num_threads(), "step": step, "padding": None if kind is Kind.LINEAR else padding,
    }  # fmt: skip
    for name, abilities in LIBRARIES.items():
        if not found.wants(name):
            continue
        reason = abilities.lacks(kind, step)
        if name not in libraries:
            reason = "not installed; if another environment has it, name that (--python)"
        if reason:
            found.left_out[name] = reason
            continue
        try:
            run = LibraryRun(name, libraries[name].python, {"weight": weight, "input": x}, settings)
        except Lost as lost:
            found.left_out[name] = str(lost)
            continue
        distance = largest_difference(run.output(), as_function(pair.wide)(x, weight))
        if distance < 1e-3:
            found.add(name, run, macs, run.prepared)
        else:
            run.close()
            found.left_out[name] = f"its output is not the layer's (apart by {distance:.1e})"
