"""Measures models, each in a process of its own: requests come in and answers go out, a line of JSON each.

PyTorch is loaded once, with the first model that needs it, and every model is measured in a copy of that process. Whoever
asks needs no torch, a model that takes its process down takes nobody else with it, and from the copy on, files that are
read for it are recorded.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from iftplan.base.errors import one_line
from iftplan.cache.dependencies import Footprint, Reads
from iftplan.models.spec import Framework

_CHUNK = 1 << 16


def main() -> None:
    """Answer every request on stdin, whichever is ready first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks hears Ctrl-C too, and ends us
    requests, answers = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what a user's module reads must not be our requests,
    os.dup2(2, 1)  # and what it prints must not end up among the answers
    if hasattr(os, "fork"):
        _Copies(requests, answers).serve()
        return
    _load_torch()
    with os.fdopen(requests, encoding="utf-8") as lines:
        reads = Reads()
        for line in lines:
            request = json.loads(line)
            _write(answers, {"id": request["id"], **_answer(request, reads)})


@dataclass(slots=True)
class _Copies:
    """The copies that measure at this moment.

    Attributes:
        requests: the descriptor that they come from.
        answers: where answers go.
        running: the pipe of a copy → its process, its request, and what it has said.
    """

    requests: int
    answers: int
    running: dict[int, tuple[int, Mapping[str, Any], bytearray]] = field(default_factory=dict)

    def serve(self) -> None:
        """Start requests as they arrive and forward their answers, until none is left."""
        signal.signal(signal.SIGTERM, self._end)
        unread = b""
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.requests, selectors.EVENT_READ)
            while waiting.get_map():
                for key, _ in waiting.select():
                    chunk = os.read(key.fd, _CHUNK)
                    if not chunk:
                        waiting.unregister(key.fd)
                    if key.fd != self.requests:
                        self._heard(key.fd, chunk)
                        continue
                    *lines, unread = (unread + chunk).split(b"\n")
                    for line in lines:
                        waiting.register(self._begin(json.loads(line)), selectors.EVENT_READ)

    def _begin(self, request: Mapping[str, Any]) -> int:
        if _framework(request) == "torch":
            _load_torch()
        mine, theirs = os.pipe()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for other in (mine, self.requests, self.answers, *self.running):
                os.close(other)
            _measure(request, theirs)
        os.close(theirs)
        self.running[mine] = pid, request, bytearray()
        return mine

    def _heard(self, pipe: int, chunk: bytes) -> None:
        pid, request, said = self.running[pipe]
        said += chunk
        if chunk:
            return
        os.close(pipe)
        del self.running[pipe]
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        answer = json.loads(said) if code == 0 and said else died(request["source"], code)
        _write(self.answers, {"id": request["id"], **answer})

    def _end(self, number: int, frame: FrameType | None) -> None:
        for pid, _, _ in self.running.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os._exit(128 + number)


@cache
def _load_torch() -> None:
    """Import what every model in PyTorch needs, once: it lasts, and copies share it."""
    gc.disable()
    with suppress(ImportError):  # which is told for each model
        import iftplan.nn.application.model_cost  # noqa: F401
    gc.freeze()
    gc.enable()


def _framework(request: Mapping[str, Any]) -> Framework:
    """Library of the model that a request names, or of the one that its plan names."""
    from iftplan.base.errors import IftplanError
    from iftplan.models.frameworks import framework_of

    source, folder = request["builds"] or request["source"], Path(request["folder"])
    if source.endswith(".json") and not source.startswith("hf:"):
        from iftplan.base.documents import loads, read_text

        try:
            source = str(loads(read_text(str(folder / source)), source).get("model", ""))
        except IftplanError:  # measuring it will say what is wrong
            return "torch"
    return framework_of(source, folder)


def died(source: str, code: int) -> dict[str, Any]:
    """The answer of a process that ended without one.

    Args:
        source: of the model.
        code: its exit status.
    """
    return {
        "error": f"the process that measured {source} ended with status {code} before it had an answer; what it said is above.",
        "exit_code": 3,
    }


def _measure(request: Mapping[str, Any], pipe: int) -> None:
    """What a copy does, and nothing after it."""
    try:
        _write(pipe, _answer(request, Reads()))
        sys.stdout.flush()
        sys.stderr.flush()
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(3)
    os._exit(0)


def _write(descriptor: int, answer: Mapping[str, Any]) -> None:
    rest = memoryview((json.dumps(answer) + "\n").encode())
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _answer(request: Mapping[str, Any], reads: Reads) -> dict[str, Any]:
    from iftplan.base.errors import IftplanError, MeasureError

    original, revision = request["paths"]
    framework = _framework(request)
    os.chdir(request["folder"])
    if original:  # what is installed from another checkout is imported from this one
        sys.path[:] = [_moved(path, original, revision) for path in sys.path]
    try:
        from iftplan.models.cost_document import measured_document

        if framework == "jax":
            from iftplan.jaxnn.application.model_cost import measure_model
        else:
            from iftplan.nn.application.model_cost import measure_model

        document = measured_document(measure_model(request))
    except IftplanError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    except ImportError as error:
        library = "JAX" if framework == "jax" else "PyTorch"
        return {
            "error": f"measuring {request['source']} needs {library}, which cannot be imported ({error}). Install it with: pip install 'iftplan[{framework}]'.",
            "exit_code": 2,
        }
    except Exception as error:
        told = one_line(error) or "no message"
        return {"error": f"{type(error).__name__}: {told}", "exit_code": MeasureError.exit_code}
    states = reads.states(Footprint(Path.cwd()))
    outward = list(reads.outward)
    if not reads.complete and _runs_user_code(request):
        outward.append("files that native libraries open cannot be seen on this system")
    return {"measured": document, "reads": states, "outward": outward}


def _moved(path: str, original: str, revision: str) -> str:
    inside = f"{os.path.realpath(path)}{os.sep}".startswith(f"{original}{os.sep}")
    return revision + path[len(original) :] if inside and path else path


def _runs_user_code(request: Mapping[str, Any]) -> bool:
    """Whether Python was run that neither iftplan nor an installed library brought."""
    from iftplan.models.sources import parse_source

    named = (request["source"], request["builds"])
    return any(parse_source(source).runs_user_code for source in named if source)


if __name__ == "__main__":
    main()
