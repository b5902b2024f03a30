"""Measures models in a process of its own: requests come in and answers go out, a line of JSON each.

Whoever asks needs no torch, a model that takes its process down takes nobody else with it, and what was read on the
way is recorded from the first import on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iftplan.cache.dependencies import Footprint, Reads


def main() -> None:
    """Answer every request on stdin, in the working directory that its paths are relative to."""
    reads = Reads()
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what a user's module reads must not be our requests,
    os.dup2(2, 1)  # and what it prints must not end up among the answers
    for line in requests:
        answers.write(json.dumps(_answer(json.loads(line), reads)) + "\n")
        answers.flush()


def _answer(request: Mapping[str, Any], reads: Reads) -> dict[str, Any]:
    from iftplan.base.errors import IftplanError, MeasureError

    try:
        from iftplan.models.cost_document import measured_document
        from iftplan.nn.application.model_cost import measure_model

        document = measured_document(measure_model(request))
    except IftplanError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    except ImportError as error:
        return {
            "error": f"PyTorch is needed and cannot be imported ({error}); install it with: pip install 'iftplan[torch]'.",
            "exit_code": 2,
        }
    except Exception as error:
        told = " ".join(str(error).split()) or "no message"
        return {"error": f"{type(error).__name__}: {told}", "exit_code": MeasureError.exit_code}
    states = reads.states(Footprint(Path.cwd()))
    outward = list(reads.outward)
    if not reads.complete and _runs_user_code(request):
        outward.append("files that native libraries open cannot be seen on this system")
    return {"measured": document, "reads": states, "outward": outward}


def _runs_user_code(request: Mapping[str, Any]) -> bool:
    """Whether Python was run that neither iftplan nor an installed library brought."""
    from iftplan.models.sources import parse_source

    named = (request["source"], request["builds"])
    return any(parse_source(source).runs_user_code for source in named if source)


if __name__ == "__main__":
    main()
