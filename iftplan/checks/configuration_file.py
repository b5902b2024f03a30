"""The configuration on disk: `iftplan.toml`, or `[tool.iftplan]` in `pyproject.toml`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NotRequired, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from iftplan.base.documents import parse_toml, read_text
from iftplan.base.errors import InputError
from iftplan.base.suggestions import did_you_mean
from iftplan.base.units import parse_count, parse_fraction, parse_tolerance
from iftplan.checks.configuration import (
    BASELINE,
    BASELINE_FILE,
    Allowance,
    Bound,
    Configuration,
    ConfiguredModel,
    DriftPolicy,
)
from iftplan.checks.findings import Quantity
from iftplan.models.allowances import parse_vouched
from iftplan.models.notation import parse_input
from iftplan.models.sources import SourceKind, parse_source
from iftplan.models.spec import InputSpec

V = TypeVar("V")
R = TypeVar("R")

OWN = "iftplan.toml"
SHARED = "pyproject.toml"
_EXAMPLE = '[{prefix}models.net] with source = "net.py:build" and budget.macs = "560M"'
_INSTEAD = {
    "budget": 'write budget.macs = "560M", or budget.parameters, budget.flops or budget.ratio',
    "inputs": 'write inputs = ["1x3x224x224"], or for keywords inputs.input_ids = "1x128:int64"',
    "drift": 'write "any", "increase" or "report"; how much may pass is tolerance = "5%"',
}
"""What a key takes, where something of another kind is found there."""


def find_config(start: Path) -> Path:
    """The configuration that holds for a folder: its own or the nearest above it; `iftplan.toml` comes first.

    Raises:
        InputError: there is none.
    """
    for folder in (start, *start.parents):
        if (folder / OWN).is_file():
            return folder / OWN
        shared = folder / SHARED
        if shared.is_file() and _shared_table(_toml(shared)) is not None:
            return shared
    raise InputError(
        f"there is no {OWN} and no [tool.iftplan] in a {SHARED} here or above; begin {OWN} with {_EXAMPLE.format(prefix='')}, or name another file with --config FILE."
    )


def read_config(path: Path) -> Configuration:
    """Configuration in a file, read and checked.

    Raises:
        InputError: names the path inside the file, what is wrong there, and the nearest key.
    """
    document, prefix = _toml(path), ""
    if path.name == SHARED:
        table, prefix = _shared_table(document), "tool.iftplan."
        if not isinstance(table, dict):
            raise InputError(f"{path} has no [tool.iftplan]; begin it with {_EXAMPLE.format(prefix=prefix)}.")
        document = table
    where = _Place(path.name, prefix)
    table = _validated(document, where)
    if not table["models"]:
        raise where.wrong(
            "models", "it is empty, and a check needs a model", f"begin with {_EXAMPLE.format(prefix=prefix)}"
        )
    names = tuple(table["models"])
    tolerance = _tolerance(table.get("tolerance", 0), where, "tolerance")
    shared = _Shared(tolerance, _drift(table.get("drift")), table.get("cross_check", False))
    models = tuple(_model(name, model, names, shared, where) for name, model in table["models"].items())
    return Configuration(path, models, table.get("baseline", BASELINE_FILE))


def _toml(path: Path) -> dict[str, Any]:
    return parse_toml(read_text(str(path)), str(path), parse_float=str)  # 0.1 means a tenth


def _shared_table(document: Mapping[str, Any]) -> Any:
    """What a project's file says under [tool.iftplan]; None where it says nothing."""
    tool = document.get("tool")
    return tool.get("iftplan") if isinstance(tool, Mapping) else None


class _Place:
    """A file, to say where in it something is wrong."""

    def __init__(self, file: str, prefix: str) -> None:
        self.file, self.prefix = file, prefix

    def wrong(self, path: str, why: str, instead: str) -> InputError:
        stop = "" if instead.endswith(("?", ".")) else "."
        return InputError(
            f"{self.file}: {self.prefix}{path}: {why}. {instead[:1].upper()}{instead[1:]}{stop}"
        )

    def blaming(self, path: str, error: InputError) -> InputError:
        return InputError(f"{self.file}: {self.prefix}{path}: {error}")


@dataclass(frozen=True, slots=True)
class _Shared:
    """What holds for every model that does not say otherwise."""

    tolerance: Fraction
    drift: Mapping[str, DriftPolicy]
    cross_check: bool


def _model(
    name: str,
    table: _ModelTable,
    names: Sequence[str],
    shared: _Shared,
    where: _Place,
) -> ConfiguredModel:
    at = f"models.{name}"
    if not name.strip() or name == BASELINE or name.endswith(".json"):
        raise where.wrong(
            at,
            f"{name!r} cannot be a model's name, for ratios name other things so",
            "call it something else",
        )
    source, builds = table["source"], table.get("model", "")
    for key, text in (("source", source), ("model", builds)):
        if text:
            _blaming(where, f"{at}.{key}", parse_source, text)
    if builds and not source.endswith(".json"):
        raise where.wrong(
            f"{at}.model", "it says what a plan is built on, and source is no plan's file", "leave it out"
        )
    own = table.get("tolerance")
    drift = {**shared.drift, **_drift(table.get("drift"))}
    return ConfiguredModel(
        name=name,
        source=source,
        builds=builds,
        inputs=_inputs(table.get("inputs", []), where, f"{at}.inputs"),
        bounds=(
            *_own_ledger(source),
            *_bounds(name, table.get("budget", {}), names, where, f"{at}.budget"),
        ),
        tolerance=shared.tolerance if own is None else _tolerance(own, where, f"{at}.tolerance"),
        allowed=tuple(_allowance(a, where, f"{at}.allow.{i}") for i, a in enumerate(table.get("allow", []))),
        nonzeros=table.get("nonzeros", False),
        cross_check=table.get("cross_check", shared.cross_check),
        drift=drift.get("macs"),
        parameter_drift=drift.get("parameters"),
    )


def _drift(given: str | _DriftTable | None) -> Mapping[str, DriftPolicy]:
    """What a change of each quantity does: one word is for both, and what a table leaves out is only reported."""
    if not given:
        return {}
    named = {"macs": given, "parameters": given} if isinstance(given, str) else dict(given)
    return {key: DriftPolicy(str(named.get(key, DriftPolicy.REPORT))) for key in ("macs", "parameters")}


def _own_ledger(source: str) -> tuple[Bound, ...]:
    """A plan costs what it says, whatever else is asked of it."""
    is_plan = parse_source(source).kind is SourceKind.SPEC
    return (Bound(Quantity.RATIO, Fraction(1), source, equal=True),) if is_plan else ()


def _inputs(given: list[str] | dict[str, str], where: _Place, at: str) -> tuple[InputSpec, ...]:
    texts = given if isinstance(given, list) else [f"{name}={shape}" for name, shape in given.items()]
    return tuple(_blaming(where, f"{at}.{i}", parse_input, text) for i, text in enumerate(texts))


def _bounds(name: str, budget: _BudgetTable, names: Sequence[str], where: _Place, at: str) -> Iterator[Bound]:
    if "macs" in budget:
        macs = _blaming(where, f"{at}.macs", parse_count, str(budget["macs"]))
        yield Bound(Quantity.MACS, Fraction(macs))
    if "flops" in budget:
        text = str(budget["flops"])
        macs = _blaming(
            where, f"{at}.flops", parse_count, text if text.lower().endswith("flops") else f"{text} FLOPs"
        )
        yield Bound(Quantity.FLOPS, Fraction(2 * macs))
    if "parameters" in budget:
        text = str(budget["parameters"])
        if "mac" in text.lower() or "flop" in text.lower():
            raise where.wrong(
                f"{at}.parameters", f"{text!r} is a count of something else", "write a plain number or 12M"
            )
        yield Bound(Quantity.PARAMETERS, Fraction(_blaming(where, f"{at}.parameters", parse_count, text)))
    for reference, ratio in budget.get("ratio", {}).items():
        place = f"{at}.ratio.{reference}"
        _check_reference(reference, name, names, where, place)
        yield Bound(Quantity.RATIO, _ratio(ratio, where, place), reference)
    for reference in budget.get("equal", []):
        _check_reference(reference, name, names, where, f"{at}.equal")
        yield Bound(Quantity.RATIO, Fraction(1), reference, equal=True)


def _check_reference(reference: str, name: str, names: Sequence[str], where: _Place, at: str) -> None:
    if reference == BASELINE or reference.endswith(".json"):
        return
    others = [n for n in names if n != name]
    if reference not in others:
        meant = did_you_mean(reference, (*others, BASELINE), cutoff=0.6)
        forms = f"Write baseline, a plan's .json file or one of: {', '.join(others) or '(no other model)'}."
        raise where.wrong(
            at, f"{reference!r} is nothing that MACs can be held against", meant.strip() or forms
        )


def _allowance(table: _AllowTable, where: _Place, at: str) -> Allowance:
    operator, module = table.get("operator", ""), table.get("module", "")
    if bool(operator) == bool(module) or bool(operator) != ("macs" in table):
        raise where.wrong(
            at,
            "it vouches for one thing",
            'write operator = "my::scan", macs = "64*out", or module = "spare"',
        )
    if not table["reason"].strip():
        raise where.wrong(f"{at}.reason", "it is empty", "say why, for whoever reads this next")
    macs = str(table.get("macs", ""))
    if operator:
        _blaming(where, f"{at}.macs", parse_vouched, [f"{operator}={macs}"])
    return Allowance(operator or module, macs, table["reason"].strip())


def _ratio(value: str | int, where: _Place, at: str) -> Fraction:
    found = _blaming(where, at, lambda text: parse_fraction(text, at.rpartition(".")[2]), str(value))
    if found <= 0:
        raise where.wrong(at, f"{value} is too small", "a ratio is above 0")
    return found


def _tolerance(value: str | int, where: _Place, at: str) -> Fraction:
    found = _blaming(where, at, parse_tolerance, str(value))
    if found > 1:  # whoever writes 20 means 20 %, and a budget that passes anything is none
        raise where.wrong(
            at,
            f"{value} would pass {float(found + 1):g} times the budget",
            f"write {value}% for per cent, and 1 at most",
        )
    return found


def _blaming(where: _Place, at: str, read: Callable[[V], R], value: V) -> R:
    try:
        return read(value)
    except InputError as error:
        raise where.blaming(at, error) from error


# --- what the tables may hold ----------------------------------------------------------------------------

_Number = str | int
_Policy = Literal["any", "increase", "report"]
_STRICT = ConfigDict(extra="forbid")


@with_config(_STRICT)
class _BudgetTable(TypedDict):
    """What a model may cost; each line is optional, and all of them hold.

    Attributes:
        macs: at most so many multiply-accumulates: `560_000_000`, `"560M"`, `"1.8G"`.
        flops: at most so many FLOPs, two for each MAC.
        parameters: at most so many parameters; masked ones do not count.
        ratio: reference → at most so many times its MACs; a reference is `baseline`, a plan's file or another model.
        equal: references that the MACs have to be equal to, within the tolerance.
    """

    macs: NotRequired[_Number]
    flops: NotRequired[_Number]
    parameters: NotRequired[_Number]
    ratio: NotRequired[dict[str, _Number]]
    equal: NotRequired[list[str]]


@with_config(_STRICT)
class _AllowTable(TypedDict):
    """One thing that somebody vouches for: an operator with its cost, or a module that need not be used.

    Attributes:
        operator: an operator without a formula, `my::scan`.
        module: a module with weights that the pass need not use.
        macs: with an operator: MACs for each call, or `"64*out"` for each output element.
        reason: why, for whoever reads this next.
    """

    operator: NotRequired[str]
    module: NotRequired[str]
    macs: NotRequired[_Number]
    reason: str


@with_config(_STRICT)
class _DriftTable(TypedDict):
    """Which changes since the baseline fail, of each quantity; what is left out is only reported.

    Attributes:
        macs: changes of MACs.
        parameters: changes of parameters.
    """

    macs: NotRequired[_Policy]
    parameters: NotRequired[_Policy]


@with_config(_STRICT)
class _ModelTable(TypedDict):
    """One model and its budget.

    Attributes:
        source: what is built: any MODEL of the command line, or a plan's file.
        model: with a plan: the MODEL that it was made for, where that is Python.
        inputs: a list of inputs, or a table of keyword inputs; left out for what the source itself says.
        budget: what it may cost.
        tolerance: the largest relative difference that passes, for this model.
        allow: what somebody vouches for.
        nonzeros: whether to build it with data and count each weight by its nonzeros and pruning masks.
        cross_check: whether to count this model with fvcore too, and fail unless both counts are equal.
        drift: which changes since the baseline fail, for this model: one word, or one for `macs` and one for `parameters`.
    """

    source: str
    model: NotRequired[str]
    inputs: NotRequired[list[str] | dict[str, str]]
    budget: NotRequired[_BudgetTable]
    tolerance: NotRequired[_Number]
    allow: NotRequired[list[_AllowTable]]
    nonzeros: NotRequired[bool]
    cross_check: NotRequired[bool]
    drift: NotRequired[_Policy | _DriftTable]


@with_config(_STRICT)
class _ConfigTable(TypedDict):
    """The whole configuration.

    Attributes:
        models: name → model.
        tolerance: the largest relative difference that passes: `"0.1%"`, `0.001` or `"1/1000"`; 0 by default.
        drift: which changes of MACs and of parameters since the baseline fail: `any` by default with a saved baseline, `report` with
            `--base`; a table has one word for `macs` and one for `parameters`.
        baseline: the baseline's file, `iftplan-baseline.json` by default.
        cross_check: whether to count every model with fvcore too, and fail unless both counts are equal.
    """

    models: dict[str, _ModelTable]
    tolerance: NotRequired[_Number]
    drift: NotRequired[_Policy | _DriftTable]
    baseline: NotRequired[str]
    cross_check: NotRequired[bool]


def _validated(document: Mapping[str, Any], where: _Place) -> _ConfigTable:
    try:
        return TypeAdapter(_ConfigTable).validate_python(document, strict=True)
    except ValidationError as error:
        # a misspelt key is also a missing one, and to name the misspelling helps more
        first = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        path = tuple(part for part in first["loc"] if str(part) not in _UNION_ARMS)
        raise _complaint(path, first["type"], first["msg"], first["input"], where) from error


_UNION_ARMS = frozenset(
    {"str", "int", "list[str]", "dict[str,str]", "literal['any','increase','report']", "_DriftTable"}
)
"""What pydantic adds to a path inside a union."""


def _complaint(
    path: tuple[str | int, ...], kind: str, message: str, given: object, where: _Place
) -> InputError:
    at = ".".join(map(str, path))
    keys = _keys_at(path[:-1])
    if at == "tool" and where.file != SHARED:
        return where.wrong(
            at, f"that prefix is for a {SHARED}", "here write [models.NAME] for [tool.iftplan.models.NAME]"
        )
    if kind == "extra_forbidden":
        meant = did_you_mean(str(path[-1]), keys, cutoff=0.6)
        return where.wrong(at, "there is no such key", meant.strip() or f"It may be {', '.join(keys)}.")
    if kind == "missing":
        table = f"{where.prefix}{'.'.join(map(str, path[:-1]))}".rstrip(".")
        begin = f"add it to [{table}]" if path[:-1] else f"begin with {_EXAMPLE.format(prefix=where.prefix)}"
        return where.wrong(at, "it is missing", begin)
    shown = repr(given)[:60]
    if instead := _INSTEAD.get(str(path[-1])):
        return where.wrong(at, f"{shown} is not what it takes", instead)
    return where.wrong(at, f"{message[:1].lower()}{message[1:]}", f"found {shown}")


def _keys_at(path: tuple[str | int, ...]) -> list[str]:
    match path:
        case ():
            return list(_ConfigTable.__annotations__)
        case ("models", _):
            return list(_ModelTable.__annotations__)
        case (*_, "drift"):
            return list(_DriftTable.__annotations__)
        case ("models", _, "budget"):
            return list(_BudgetTable.__annotations__)
        case ("models", _, "allow", _):
            return list(_AllowTable.__annotations__)
        case _:
            return []
