"""Export to ONNX with masks baked in, for inference engines."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError, MeasureError
from iftplan.nn.export.finalize import finalize
from iftplan.nn.meta.inputs import given_inputs, make_inputs
from iftplan.nn.sources import without_cache_


@check_arguments
def to_onnx(model: nn.Module, inputs: object, path: str | Path) -> None:
    """Write a model as ONNX, in evaluation mode and with its masks baked into its weights; `model` is not changed.

    The file stores zeros like other numbers; whether they make inference faster depends on the engine. Weights beyond
    2 GB go into a second file beside it.

    Args:
        model: masked, finalized or dense, with values.
        inputs: a tensor, a batch as the model takes it, or shapes such as "1x3x224x224"; the file is for inputs of this shape.
        path: path of the file, which is overwritten.

    Raises:
        InputError: the extra `onnx` is not installed, the place cannot be written, or the model cannot be exported.
        MeasureError: the model does not run on the inputs.
    """
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise InputError(
                f"ONNX is written with {package}, which is not installed; install it with: pip install 'iftplan[onnx]'."
            )
    place = Path(path)
    if not place.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {place.parent}.")
    meta = next((name for name, parameter in model.named_parameters() if parameter.is_meta), None)
    if meta is not None:
        raise InputError(f"{meta} is on the meta device and has no values; export a model with weights.")
    ready = finalize(model).eval()
    without_cache_(ready)
    device = next((parameter.device for parameter in ready.parameters()), torch.device("cpu"))
    args, kwargs = make_inputs(given_inputs(inputs, ready), str(device))
    _try(ready, args, kwargs)
    with _silence():
        try:
            torch.onnx.export(
                ready,
                args,
                str(place),
                kwargs=kwargs or None,
                dynamo=True,
                verbose=False,
                external_data=False,
            )
        except OSError as error:
            raise InputError(
                f"{path} cannot be written ({error.strerror or error}); name another place."
            ) from error
        except Exception as error:
            raise InputError(
                f"{type(model).__name__} cannot be exported to ONNX by PyTorch {torch.__version__}: {_told(error)}"
            ) from error


def _try(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """One forward pass, which says more plainly than the exporter what is wrong with the inputs."""
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    except Exception as error:
        raise MeasureError(
            f"the {type(model).__name__} cannot be run on these inputs: {_told(error)}"
        ) from error


def _told(error: BaseException) -> str:
    """The first line of what was wrong at first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing of what the exporter says of itself, on stdout, in warnings or in logs."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
