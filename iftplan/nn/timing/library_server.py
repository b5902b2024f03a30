"""One layer in a library that somebody installed, run in a process of its own and perhaps in an older Python.

    python library_server.py sparselab|deepsparse FOLDER

Imports nothing of this project. FOLDER holds layer.json, input.npy and weight.npy, or a whole network in place of the weight
(network.onnx, deepsparse alone); its output is written there as output.npy. A JSON object a line on both pipes: it says {"ready": seconds of preparation}, is told {"run": times}, answers
{"seconds": of one run}, and ends with its input. What went wrong is {"error": reason}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

if sys.path and Path(sys.path[0] or ".").resolve() == Path(__file__).resolve().parent:
    del sys.path[0]  # this folder's modules have names that libraries may look for

import numpy as np

Run = Callable[[], Any]


def sparselab_layer(folder: Path, layer: dict[str, Any], x: Any) -> Run:
    """Run of a linear layer in sparselab, whose input lies in columns, as the library wants it.

    Args:
        folder: with the masked weight, `weight.npy`.
        layer: `threads`, and under `step` whether gradients are computed too.
        x: (samples, inputs).
    """
    sparselab = import_module("sparselab")
    import torch

    weight = np.load(str(folder / "weight.npy"))
    torch.set_num_threads(layer["threads"])
    held = sparselab.PaddedCSR.from_dense(torch.from_numpy(weight))
    columns = torch.from_numpy(np.ascontiguousarray(x.T))
    if not layer["step"]:
        return lambda: sparselab.spmm(held, columns).numpy().T
    columns.requires_grad_()
    gradient = torch.ones(len(weight), len(x))

    def step() -> Any:
        columns.grad = None
        y = sparselab.spmm(held, columns)
        y.backward(gradient)  # it computes the weight's gradient whether somebody takes it or not
        return y.detach().numpy().T

    return step


def deepsparse_layer(folder: Path, layer: dict[str, Any], x: Any) -> Run:
    """Run of a linear layer, a convolution or a network, forward, compiled from ONNX by deepsparse.

    Args:
        folder: with `network.onnx`, or the masked weight `weight.npy`.
        layer: `threads`, and the `padding` of a convolution.
        x: (samples, inputs), or images.
    """
    path = folder / "network.onnx"
    if not path.exists():
        write_onnx(path, np.load(str(folder / "weight.npy")), layer["padding"], x.shape)
    engine = import_module("deepsparse").compile_model(
        str(path), batch_size=len(x), num_cores=layer["threads"]
    )
    return lambda: engine.run([x], val_inp=False)[0]


def write_onnx(path: Path, weight: Any, padding: list[int] | None, shape: tuple[int, ...]) -> None:
    """Write one layer as ONNX, with the package that deepsparse brings.

    What PyTorch exports is too new for it to read.

    Args:
        path: of the file.
        weight: (outputs, inputs), or (outputs, inputs, height, width).
        padding: of a convolution, height and width; None for a linear layer.
        shape: of the input.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    if padding is None:
        node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
        size = [shape[0], len(weight)]
    else:
        high, wide = padding
        node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[high, wide, high, wide])
        size = [shape[0], len(weight), *shape[2:]]
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, size)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7  # of that opset's time; newer ones are not read
    onnx.save(model, str(path))


LAYERS = {"sparselab": sparselab_layer, "deepsparse": deepsparse_layer}


def main(library: str, where: str) -> None:
    """Prepare the layer, then run it as often as is asked."""
    folder = Path(where)
    # what a library prints must not be taken for an answer
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**told: object) -> None:
        answers.write(json.dumps(told) + "\n")
        answers.flush()

    try:
        layer = json.loads((folder / "layer.json").read_text(encoding="utf-8"))
        x = np.load(str(folder / "input.npy"))
        begin = time.perf_counter()
        run = LAYERS[library](folder, layer, x)
        once = time.perf_counter() - begin
        np.save(str(folder / "output.npy"), np.ascontiguousarray(run()))
        answer(ready=once)
        # all threads of this process, since a library may compute in one of its own
        clock = time.process_time if layer["threads"] == 1 else time.perf_counter
        for line in sys.stdin:
            times = json.loads(line)["run"]
            begin = clock()
            for _ in range(times):
                run()
            answer(seconds=(clock() - begin) / times)
    except Exception as error:  # whatever it is, the other side says it
        answer(error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
