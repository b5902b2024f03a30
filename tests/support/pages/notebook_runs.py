"""The notebooks: running one as a reader would, and keeping of its outputs what does not vary."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from tests.support.places import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
VARIES = "varies"  # the tag of a cell whose outputs differ from machine to machine
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def executed(path: Path, directory: Path) -> nbformat.NotebookNode:
    """The notebook, run from its first cell in an empty folder with one thread, and tidied.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised what its tags do not announce.
    """
    from nbclient import NotebookClient

    own = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{own}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUTF8": "1",
        "PYTHONWARNINGS": "ignore",  # they name paths of this machine
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(directory / ".ipython"),
        "JUPYTER_RUNTIME_DIR": str(directory / ".jupyter"),
    }
    client = NotebookClient(
        read(path), timeout=600, kernel_name="python3", resources={"metadata": {"path": str(directory)}}
    )
    return tidied(client.execute(env=environment))


def tidied(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without what differs from run to run: counts, times, versions, the kernel's own words."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [nbformat.from_dict(_tidied(output)) for output in _joined(cell.outputs)]
    return notebook


def told(cell: Mapping[str, Any]) -> list[Any]:
    """What a cell says in words; pictures are looked at by people."""
    if VARIES in cell["metadata"].get("tags", []):
        return [output["output_type"] for output in cell["outputs"]]
    return [_words(output) for output in cell["outputs"]]


def text_of(notebook: nbformat.NotebookNode) -> str:
    """The file's contents."""
    return nbformat.writes(notebook) + "\n"


def _joined(outputs: list[Any]) -> list[Any]:
    """A stream in one piece, however the kernel cut it."""
    found: list[Any] = []
    for output in outputs:
        if (
            found
            and output.output_type == found[-1].output_type == "stream"
            and output.name == found[-1].name
        ):
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def _tidied(output: Any) -> dict[str, Any]:
    match output.output_type:
        case "error":
            return {**output, "traceback": [f"{output.ename}: {output.evalue}"]}
        case "execute_result":
            return {**output, "execution_count": None}
        case "stream":
            return {**output, "text": _ESCAPES.sub("", output.text)}
    return dict(output)


def _words(output: Mapping[str, Any]) -> Any:
    match output["output_type"]:
        case "stream":
            return output["name"], output["text"]
        case "error":
            return output["ename"], output["evalue"]
    pictures = {"image/png", "image/svg+xml"}
    return {kind: text for kind, text in output["data"].items() if kind not in pictures}
