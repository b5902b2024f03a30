"""Run directories, tables of a sweep, data frames and plans, read as observations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Protocol, get_type_hints, runtime_checkable

from iftplan.base.documents import Document, csv_rows, loads, read_text, schema_of
from iftplan.base.errors import InputError
from iftplan.plans.document.plan import parse_plan
from iftplan.plans.plan import Plan, Scope
from iftplan.runs.records import check_together, parse_record, parse_result
from iftplan.runs.results.observations import Observation
from iftplan.runs.results.shaping import shaping_settings

_KINDS = get_type_hints(Observation)
_COLUMNS = frozenset(f.name for f in fields(Observation)) - {"source", "published", "settings"}
_ASKED = ("budget", "varied")
"""Columns of a sweep's table that say what else was asked of a row."""

_TABLES = (".csv", ".parquet")
_HOLLOW = frozenset({"parallel", "factorized", "lowrank", "doped"})
"""Families whose members have an inside, where a norm and an activation may stand."""


def read_observations(subject: Subject | Iterable[Subject]) -> tuple[Observation, ...]:
    """Observations of whatever was planned or trained.

    Args:
        subject: path of a run directory, of a directory of them, of a table (.csv, .parquet), a plan or a `result.json`;
            a `Plan`; a data frame with the columns of a sweep's table; an `Observation`; or several of these.

    Raises:
        InputError: it is none of these, or something in it cannot be read; says where.
    """
    if isinstance(subject, str | Path):
        return _at(str(subject))
    if isinstance(subject, Observation):
        return (subject,)
    if isinstance(subject, Plan):
        return (of_plan(subject, subject.model or "a plan"),)
    if isinstance(subject, _Frame):
        return _frame(subject)
    if isinstance(subject, Iterable):
        return tuple(o for one in subject for o in read_observations(one))
    raise InputError(
        f"a {type(subject).__name__} is nothing that can be compared; give plans, run directories, tables of a sweep or data frames."
    )


@runtime_checkable
class _Frame(Protocol):
    """A pandas data frame, as far as it is asked."""

    @property
    def columns(self) -> Any: ...

    def to_dict(self, orient: Literal["records"]) -> list[dict[Any, Any]]: ...


Subject = str | Path | Plan | Observation | _Frame


def _frame(frame: _Frame) -> tuple[Observation, ...]:
    rows = frame.to_dict("records")
    return tuple(
        _row(row, f"row {i} of the data frame", "the data frame") for i, row in enumerate(rows, start=1)
    )


def _at(subject: str) -> tuple[Observation, ...]:
    path = Path(subject)
    if path.is_dir():
        return tuple(_run(directory) for directory in run_directories(path))
    if path.suffix in _TABLES:
        return tuple(_row(row, f"{subject}, row {i}", subject) for i, row in enumerate(_rows(path), start=1))
    document = loads(read_text(subject), subject)
    match schema_of(document, subject):
        case "plan":
            return (of_plan(parse_plan(document, subject), subject),)
        case "result":
            return (_with_settings(_result(document, subject), path.parent, document),)
        case kind:
            raise InputError(
                f"{subject} is a {kind} document; pareto takes run directories, tables of a sweep (.csv, .parquet) and plans."
            )


def of_plan(plan: Plan, source: str) -> Observation:
    """Observation of a plan: its cost and its search space; nothing was measured."""
    masked = [layer for layer in plan.layers if layer.maskable]
    return Observation(
        source=source,
        model=plan.model,
        transform=plan.family_name,
        sparsity=float(plan.sparsity),
        distribution=plan.distribution,
        structure=plan.mask,
        scope=plan.scope_name(plan.scope) if plan.scope else "",
        macs=plan.full_macs(Scope.MODEL),  # as runs and other plans are counted
        dense_macs=plan.dense_full_macs(Scope.MODEL),
        nnz=sum(layer.nnz for layer in masked),
        maskable_weights=plan.cardinality.maskable_weights,
        log2_masks=plan.cardinality.log2_masks,
    )


def run_directories(path: Path) -> list[Path]:
    """Directories of runs: this one, or those in it that hold a result.

    Raises:
        InputError: there is none.
    """
    if (path / "run.json").exists() or (path / "result.json").exists():
        return [path]
    found = sorted(file.parent for file in path.glob("*/result.json"))
    if not found:
        raise InputError(
            f"{path} holds no run: there is neither {path}/result.json nor one in a folder below; give a directory that iftplan train wrote, or one that holds such directories."
        )
    return found


def _run(directory: Path) -> Observation:
    file = directory / "result.json"
    if not file.exists():
        raise InputError(
            f"{directory} is a run that has not ended, for it has no result.json; finish it with `iftplan train --resume --out {directory}`, or leave it out."
        )
    document = loads(read_text(str(file)), str(file))
    found = _with_settings(_result(document, str(directory)), directory, document)
    plan_file = directory / "plan.json"
    if found.method == "dense" or not plan_file.exists():
        return found
    planned = loads(read_text(str(plan_file)), str(plan_file))
    plan = of_plan(parse_plan(planned, str(plan_file)), "")
    if document.get("plan_digest", planned["digest"]) != planned["digest"]:
        raise InputError(f"{directory}: result.json is of another plan than plan.json (plan_digest, digest).")
    return replace(found, structure=plan.structure, scope=plan.scope, log2_masks=plan.log2_masks)


def _with_settings(found: Observation, directory: Path, beside: Document | None = None) -> Observation:
    """A run with what shaped it, so that only seeds of one configuration are taken together."""
    file = directory / "run.json"
    if not file.exists():
        return found
    run = parse_record(loads(read_text(str(file)), str(file)), str(file))
    if beside is not None:
        check_together(beside, run, str(directory))
    planned = run.get("config", {}).get("plan", {})
    families = {part.rpartition("=")[2].strip() for part in found.transform.split(",")}
    inside = planned.get("nonlinear", True) if families & _HOLLOW else None
    settings = shaping_settings(run, found.method)
    if isinstance(inside, str):  # what stands inside, where it is not what usually does
        settings = tuple(sorted((*settings, ("plan.nonlinear", inside))))
    return replace(found, nonlinear=None if inside is None else bool(inside), settings=settings)


def _result(document: Document, where: str) -> Observation:
    parse_result(document, where)
    given = {
        "transform": document["transform"],
        "macs": document["forward_macs"],
        "dense_macs": document["dense_forward_macs"],
        "metric": document["metric_name"],
        "value": document["metric"],
        "task": document["data"],
        **{
            key: document[key]
            for key in (
                "model", "sparsity", "distribution", "method", "seed", "train_macs", "nnz", "maskable_weights",
            )
        },
    }  # fmt: skip
    convention = document["convention"]
    log2_masks = 0.0 if given["method"] == "dense" else None
    return _checked({**given, "convention": convention, "log2_masks": log2_masks}, where, where)


def _rows(path: Path) -> Iterable[Mapping[str, Any]]:
    if path.suffix == ".csv":
        return csv_rows(read_text(str(path)), str(path))
    try:
        import pandas as pd

        frame = pd.read_parquet(path).astype(object)
        return list(frame.where(frame.notna(), None).to_dict("records"))
    except ImportError as error:
        raise InputError(
            f"{path} is Parquet, and reading that needs pyarrow; install it with: pip install 'iftplan[sweep]', or give a .csv."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as Parquet ({error}).") from error


def _row(row: Mapping[str, Any], where: str, table: str) -> Observation:
    if not {"model", "macs"} <= set(row):
        raise InputError(
            f"{table} has the columns {', '.join(map(str, row)) or 'of nothing'}; a table of a sweep has at least model and macs."
        )
    found = _checked({k: v for k, v in row.items() if k in _COLUMNS}, where, table)
    # a missing value of Parquet is NaN, which is no text
    return replace(
        found, settings=tuple((key, text) for key in _ASKED if isinstance(text := row.get(key), str) and text)
    )


def _checked(given: Mapping[str, Any], where: str, source: str) -> Observation:
    """An observation whose fields have their types; what is empty stays unsaid."""
    found = {key: value for key, text in given.items() if (value := _value(key, text, where)) is not None}
    for problem in _problems(found):
        raise InputError(f"{where}: {problem}.")
    return Observation(source=source, **found)


def _problems(found: Mapping[str, Any]) -> Iterator[str]:
    """Numbers that no plan and no run has."""
    for key in ("macs", "dense_macs", "train_macs", "nnz", "maskable_weights", "log2_masks", "error", "seed"):
        if found.get(key, 0) < 0:
            yield f"{key} is {found[key]}, and it is never negative"
    if not 0 <= found.get("sparsity", 0) < 1:
        yield f"sparsity is {found['sparsity']}, and a sparsity is from 0 up to, not including, 1"
    weights = found.get("maskable_weights")
    for key in ("nnz", "log2_masks"):
        if weights is not None and found.get(key, 0) > weights * (1 + 1e-9):
            yield f"{key} is {found[key]}, more than the {weights} maskable_weights"
    if found.get("convention", "mac") not in ("mac", "flop"):
        yield f"convention is {found['convention']!r}, and counts are in 'mac' or 'flop'"


def _value(key: str, given: Any, where: str) -> Any:
    if given is None or given == "" or given != given:  # NaN is how Parquet says nothing
        return None
    kind = _KINDS[key]
    try:
        if kind is str:
            return str(given)
        if kind == bool | None:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
                str(given).lower()
            ]
        if kind == int | None:
            return _whole(given)
        if not isfinite(number := float(given)):
            raise ValueError
        return number
    except KeyError as error:
        raise InputError(f"{where}: {key} is {str(given)[:60]!r}, and true or false is wanted.") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: {key} is {str(given)[:60]!r}, and a finite number is wanted.") from error


def _whole(given: Any) -> int:
    """A whole number, exact however large, also where a column with gaps made it a float."""
    if isinstance(given, str):
        return int(given.removesuffix(".0"))
    if int(given) != given:
        raise ValueError
    return int(given)
