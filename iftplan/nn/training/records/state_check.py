"""What a run's checkpoint holds: its parts and their types, checked before anything of it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from iftplan.base.errors import InputError, error_text
from iftplan.masks.spectra import MEASURES
from iftplan.nn.training.records.best import COLUMNS as VALIDATION
from iftplan.nn.training.records.best import GROWN
from iftplan.nn.training.records.metrics import COLUMNS, DORMANT

_PARTS: Mapping[str, type | tuple[type, ...]] = {
    "identity": dict,
    "processes": int,
    "model": dict,
    "optimizer": dict,
    "scaler": dict,
    "masks": (dict, type(None)),
    "spending": dict,
    "metrics": list,
    "step": int,
    "average": (dict, type(None)),
    "loss_sums": list,
    "loss_count": int,
}

_ROWS = [
    {*COLUMNS, *grown, *best, *measures, *neurons}
    for grown in ((), (GROWN,))
    for best in ((), VALIDATION)
    for measures in ((), MEASURES)
    for neurons in ((), DORMANT)
]


def check_state(state: Mapping[str, Any], step: int, where: str) -> None:
    """Refuse a state that no run wrote, whatever its checksum says.

    Args:
        state: of a checkpoint.
        step: that its name says.
        where: the checkpoint, for people.

    Raises:
        InputError: names the part that is missing or of another form.
    """
    for problem in _problems(state, step):
        raise InputError(f"{where} is refused: {problem}. {_WAY_OUT}")


@contextmanager
def loading(where: str) -> Iterator[None]:
    """Turn errors inside a part of the state into a refusal of the checkpoint.

    Raises:
        InputError: a part does not fit the run.
    """
    try:
        yield
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        RuntimeError,
        OverflowError,
    ) as error:
        raise InputError(
            f"{where} is refused: its state does not fit the run ({error_text(error, 200)}). {_WAY_OUT}"
        ) from error


_WAY_OUT = (
    "It was changed after it was written, or another version wrote it. Remove it to continue from the "
    "previous checkpoint, or start again in another directory."
)


def _problems(state: Mapping[str, Any], step: int) -> Iterator[str]:
    for key, kinds in _PARTS.items():
        if key not in state:
            yield f"its state has no {key}"
        elif not isinstance(state[key], kinds) or isinstance(state[key], bool):
            yield f"{key} in its state is a {type(state[key]).__name__}"
    forms: tuple[tuple[str, Callable[[Any], bool]], ...] = (
        ("identity", lambda parts: all(isinstance(x, str) for pair in parts.items() for x in pair)),
        ("identity", lambda parts: {"plan", "run"} <= set(parts)),
        ("model", lambda parts: all(isinstance(k, str) and isinstance(v, Tensor) for k, v in parts.items())),
        ("metrics", lambda rows: all(isinstance(row, dict) and set(row) in _ROWS for row in rows)),
        ("metrics", lambda rows: all(isinstance(v, str) for row in rows for v in row.values())),
        ("processes", lambda count: count >= 1),
        ("loss_count", lambda count: count >= 0),
        ("loss_sums", lambda sums: all(x is None or isinstance(x, float) for x in sums)),
    )
    for key, holds in forms:
        if not holds(state[key]):
            yield f"{key} in its state is a value that iftplan train never writes"
    if state["step"] != step:
        yield f"its state is of step {state['step']}, but its name says {step}"
