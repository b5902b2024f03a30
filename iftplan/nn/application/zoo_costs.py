"""Costs of the bundled zoo, measured on its networks: `python -m iftplan.nn.application.zoo_costs` writes what `iftplan.models` keeps."""

from __future__ import annotations

import gzip
from importlib.resources import files
from pathlib import Path

from iftplan.base.documents import dumps
from iftplan.models.cost_document import measured_document
from iftplan.models.zoo.entries import ZOO
from iftplan.models.zoo.specs import cost_file_name
from iftplan.nn.application.model_cost import measure_model


def zoo_cost_document(name: str) -> str:
    """The cost document of one bundled model with its own inputs, counted by two engines, as text."""
    request = {"source": f"zoo:{name}", "builds": "", "inputs": [], "allow": [], "nonzeros": False}
    return dumps(measured_document(measure_model({**request, "cross_check": True})))


def main() -> None:
    """Write the costs of all bundled models into the package."""
    folder = Path(str(files("iftplan.models.zoo") / "documents"))
    for name in ZOO:
        text = zoo_cost_document(name)
        (folder / cost_file_name(name)).write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
