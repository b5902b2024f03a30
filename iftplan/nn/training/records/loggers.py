"""Log rows of metrics to TensorBoard or MLflow too, through the engine's loggers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iftplan.base.errors import InputError
from iftplan.nn.training.parallel.fabric import no_metrics_loaded

LOGGERS = ("tensorboard", "mlflow")


def logger_named(name: str, directory: Path) -> Any:
    """Logger of Lightning Fabric for a name of `iftplan train`.

    Raises:
        InputError: there is none of that name, or its library is missing.
    """
    if name == "tensorboard":
        return _tensorboard(directory)
    if name == "mlflow":
        return _mlflow(directory)
    raise InputError(f"there is no logger {name!r}; there are {', '.join(LOGGERS)}.")


def _tensorboard(directory: Path) -> Any:
    with no_metrics_loaded():
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    try:
        return TensorBoardLogger(directory, name="tensorboard", version="")
    except ImportError as error:
        raise InputError(
            "--logger tensorboard needs tensorboard, which is not installed; install it with: pip install tensorboard."
        ) from error


def _mlflow(directory: Path) -> Any:
    try:
        import mlflow
    except ImportError as error:
        raise InputError(
            "--logger mlflow needs MLflow, which is not installed; install it with: pip install mlflow-skinny."
        ) from error
    with no_metrics_loaded():
        from lightning_fabric.loggers.logger import Logger

    class MlflowLogger(Logger):
        """Logger to one MLflow run, at the place that MLflow's MLFLOW_TRACKING_URI names."""

        def __init__(self) -> None:
            self._run: Any = None

        @property
        def name(self) -> str:
            """As in files."""
            return "mlflow"

        @property
        def version(self) -> str:
            """The run directory."""
            return str(directory)

        def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
            """One row."""
            if self._run is None:
                self._run = mlflow.start_run(run_name=directory.name)
            mlflow.log_metrics({k: float(v) for k, v in metrics.items()}, step=step)

        def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
            """They are in run.json."""

        def finalize(self, status: str) -> None:
            """Close the run."""
            if self._run is not None:
                mlflow.end_run()

    return MlflowLogger()
