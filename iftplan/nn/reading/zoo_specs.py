"""Specs of the bundled zoo, read from its networks: `python -m iftplan.nn.reading.zoo_specs` writes what `iftplan.models` keeps."""

from __future__ import annotations

import gzip
from importlib.resources import files
from pathlib import Path
from typing import Literal

from iftplan.base.documents import dumps
from iftplan.models.document import spec_document
from iftplan.models.zoo.entries import ZOO
from iftplan.models.zoo.specs import file_name
from iftplan.nn.reading.read import read_model


def zoo_document(name: str, heads: Literal["number", "size"]) -> str:
    """The spec document of one bundled model with its own inputs, as text."""
    return dumps(spec_document(read_model(f"zoo:{name}", widths=True, heads=heads)))


def main() -> None:
    """Write the specs of all bundled models into the package."""
    folder = Path(str(files("iftplan.models.zoo") / "documents"))
    folder.mkdir(exist_ok=True)
    for name in ZOO:
        number, size = zoo_document(name, "number"), zoo_document(name, "size")
        for heads, text in (("number", number), ("size", size)):
            if heads == "number" or text != number:
                kept = folder / file_name(name, heads)
                kept.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
