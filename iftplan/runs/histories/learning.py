"""Loss over a run against what it cost, and the mean of runs that are seeds of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path

from iftplan.base.documents import loads, read_text
from iftplan.base.errors import InputError
from iftplan.runs.histories.reading import Rows, evaluations, number
from iftplan.runs.records import parse_record
from iftplan.runs.results.pareto import Estimate, estimate
from iftplan.runs.results.shaping import shaping_settings, without_seed

_COLUMNS = ("step", "test_loss", "train_macs")


@dataclass(frozen=True, slots=True)
class LearningHistory:
    """A run's loss, evaluation by evaluation.

    Attributes:
        name: of the run.
        steps: of the optimizer.
        train_macs: of training so far.
        losses: "test", and "validation" in a run that keeps such data aside; NaN where a loss was not finite.
        settings: what it agrees in with its other seeds; empty where the run does not say.
        seed: of the run; None where it does not say.
    """

    name: str
    steps: tuple[int, ...]
    train_macs: tuple[int, ...]
    losses: Mapping[str, tuple[float, ...]]
    settings: tuple[object, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Mean loss of runs that are seeds of each other, or of one run.

    Attributes:
        name: of the run; of several, that of the first without the seed.
        runs: how many.
        train_macs: mean MACs of training so far.
        loss: mean loss at each evaluation; None where one of the runs had none that is finite.
    """

    name: str
    runs: int
    train_macs: tuple[float, ...]
    loss: tuple[Estimate | None, ...]


def read_learning(directory: str) -> LearningHistory:
    """The loss of the run in a directory.

    Raises:
        InputError: there is none, or it cannot be read; says where.
    """
    file, rows, steps = evaluations(directory, _COLUMNS)
    losses = {"test": _losses(rows, "test_loss", str(file))}
    if "validation_loss" in rows[0]:
        losses["validation"] = _losses(rows, "validation_loss", str(file))
    path = Path(directory)
    settings, seed = _settings(file.parent)
    return LearningHistory(path.name or str(path), steps, _macs(rows, str(file)), losses, settings, seed)


def learning_curves(histories: Sequence[LearningHistory]) -> tuple[str, tuple[LearningCurve, ...]]:
    """The loss that all runs have, and a curve for each configuration among them, in the order in which they are given.

    Runs that agree in all but the seed and were evaluated at the same steps are one configuration; two runs of one seed
    are not.

    Example:
        >>> one = LearningHistory("wide-0", (10,), (300,), {"test": (2.0,)}, ("rigl",))
        >>> other = LearningHistory("wide-1", (10,), (500,), {"test": (1.0,)}, ("rigl",))
        >>> learning_curves([one, other])[1]
        (LearningCurve(name='wide', runs=2, train_macs=(400.0,), loss=(Estimate(mean=1.5, error=0.5, count=2),)),)
    """
    which = "validation" if all("validation" in history.losses for history in histories) else "test"
    alike: dict[tuple[object, ...], list[list[LearningHistory]]] = {}
    for i, history in enumerate(histories):
        groups = alike.setdefault((history.settings or i, history.steps), [])
        free = (g for g in groups if history.seed is None or history.seed not in {h.seed for h in g})
        if (group := next(free, None)) is None:
            groups.append(group := [])
        group.append(history)
    return which, tuple(_curve(group, which) for groups in alike.values() for group in groups)


def _curve(group: Sequence[LearningHistory], which: str) -> LearningCurve:
    return LearningCurve(
        _name([history.name for history in group]),
        len(group),
        tuple(sum(macs) / len(group) for macs in zip(*(h.train_macs for h in group), strict=True)),
        tuple(map(_estimate, zip(*(h.losses[which] for h in group), strict=True))),
    )


def _estimate(losses: tuple[float, ...]) -> Estimate | None:
    return None if any(map(isnan, losses)) else estimate(losses)


def _name(names: Sequence[str]) -> str:
    """The name of a run, of several without the seed at its end."""
    return names[0] if len(names) == 1 else without_seed(names[0])


def _losses(rows: Rows, name: str, file: str) -> tuple[float, ...]:
    """A column of losses, NaN where one is not finite: the run came apart there."""
    return tuple(
        nan if row[name] in ("nan", "inf", "-inf") else number(row, name, f"{file}, row {i}")
        for i, row in enumerate(rows, start=1)
    )


def _macs(rows: Rows, file: str) -> tuple[int, ...]:
    found = list[int]()
    for i, row in enumerate(rows, start=1):
        text = row["train_macs"]
        if not (text.isascii() and text.isdigit() and len(text) < 100) or int(text) < (
            found[-1] if found else 0
        ):
            raise InputError(
                f"{file}, row {i}: train_macs is {text!r:.60}; the MACs of training so far are a whole number that never falls."
            )
        found.append(int(text))
    return tuple(found)


def _settings(directory: Path) -> tuple[tuple[object, ...], int | None]:
    """What a run agrees in with its other seeds, and its seed."""
    file = directory / "run.json"
    if not file.exists():
        return (), None
    run = parse_record(loads(read_text(str(file)), str(file)), str(file))
    config = run.get("config", {})
    method, planned = (_section(config, name) for name in ("method", "plan"))
    seed = config.get("seed") if isinstance(config, Mapping) else None
    name = str(method.get("name", ""))
    made = (str(run.get("plan_digest", "")), planned.get("nonlinear", True))
    settings = (name, *made, *shaping_settings(run, name))
    return settings, seed if isinstance(seed, int) else None


def _section(config: object, name: str) -> Mapping[str, object]:
    found = config.get(name, {}) if isinstance(config, Mapping) else {}
    return found if isinstance(found, Mapping) else {}
