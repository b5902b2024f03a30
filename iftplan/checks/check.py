"""Check what a configuration names: measure what has changed, hold all of it against budgets and baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iftplan.base.documents import dumps, loads, read_text, write_text
from iftplan.base.errors import IftplanError, InputError
from iftplan.cache.dependencies import Footprint, environment
from iftplan.cache.store import Store
from iftplan.checks.baseline import Baseline, baseline_document, parse_baseline
from iftplan.checks.configuration import BASELINE, BASELINE_FILE, Configuration, ConfiguredModel
from iftplan.checks.findings import CheckReport, ModelCheck, Status
from iftplan.checks.messages import in_configuration
from iftplan.checks.processes.pool import Answer, measure_all
from iftplan.checks.verdicts import check_model
from iftplan.models.cost import ModelCost
from iftplan.models.cost_document import parse_measured
from iftplan.models.zoo.specs import zoo_cost
from iftplan.plans.document.plan import parse_plan
from iftplan.plans.plan import Plan, PlannedLayer, Scope

Around = Callable[[int], AbstractContextManager[Callable[[], object]]]


@dataclass(frozen=True, slots=True)
class Failure:
    """Reason why there is no measurement.

    Attributes:
        message: for people.
        status: what the check of the model ends with.
    """

    message: str
    status: Status


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of a configuration's models.

    Attributes:
        found: model → its cost, or why there is none.
        cached: models that nothing had to be measured for.
        read: files and folders that were read, as footprint keys.
    """

    found: Mapping[str, ModelCost | Failure]
    cached: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()


def measure_models(
    models: Sequence[ConfiguredModel],
    folder: Path,
    *,
    cache: Path | None = None,
    jobs: int | None = None,
    variant: str = "",
    paths: tuple[Path, Path] | None = None,
    around: Around = lambda count: nullcontext(lambda: None),
) -> Costs:
    """Costs of models: measured, or kept: for a bundled model with iftplan, for others in the cache while nothing changes.

    Args:
        models: what to measure.
        folder: what their paths are relative to.
        cache: where measurements are kept; None keeps nothing.
        jobs: processes; None for as many as help.
        variant: keeps the measurements of another checkout apart.
        paths: a checkout that is imported from, and the one to import from instead.
        around: given how many models are to be measured, opens while they are, with a function for each that is done.
    """
    store = Store(cache, environment())
    footprint = Footprint(folder)
    requests = {model.name: _request(model) for model in models}
    bundled = {model.name: _bundled(model) for model in models}
    known = {
        name: hit
        for name, request in requests.items()
        if (hit := bundled[name] or _kept(store, f"{variant}:{name}", request, footprint)) is not None
    }
    missing = [name for name in requests if name not in known]
    answers: dict[str, Answer] = {}

    def keep(name: str, answer: Answer) -> None:
        if "measured" in answer and not requests[name]["nonzeros"]:
            slot, reads = f"{variant}:{name}", answer["reads"]
            store.keep(slot, requests[name], answer["measured"], reads=reads, outward=answer["outward"])

    if missing:
        with around(len(missing)) as done:

            def measured(number: int, answer: Answer) -> None:  # kept at once, for whoever is interrupted
                keep(missing[number], answer)
                done()

            found = measure_all([requests[n] for n in missing], folder, jobs, paths, measured)
        answers = dict(zip(missing, found, strict=True))
    fresh = {name: _found(answer) for name, answer in answers.items()}
    read = frozenset(key for answer in answers.values() for key in answer.get("reads", ()))
    return Costs(known | fresh, frozenset(known), read)


def check_models(
    config: Configuration,
    models: Sequence[ConfiguredModel],
    costs: Costs,
    baseline: Baseline | None,
    notes: tuple[str, ...] = (),
) -> CheckReport:
    """Report on models, judged by their measured costs.

    Args:
        config: the configuration.
        models: those of its models that are judged.
        costs: of these models and of those that their ratios name.
        baseline: earlier costs; None for none.
        notes: sentences on the whole report.
    """
    if baseline is None and config.baseline != BASELINE_FILE:
        lost = f"there is no {config.baseline}, which {config.path.name} names as its baseline; nothing was compared with it"
        notes = (*notes, lost)
    return CheckReport(
        config=config.path.name,
        baseline=baseline.name if baseline else "",
        models=tuple(_checked(model, config, costs, baseline) for model in models),
        notes=notes,
    )


def with_references(config: Configuration, models: Sequence[ConfiguredModel]) -> tuple[ConfiguredModel, ...]:
    """The models, followed by those that their ratios name."""
    chosen = {model.name for model in models}
    named = {bound.reference for model in models for bound in model.bounds} - chosen
    return (*models, *(model for model in config.models if model.name in named))


def _request(model: ConfiguredModel) -> dict[str, Any]:
    return {
        "source": model.source,
        "builds": model.builds,
        "inputs": [str(i) for i in model.inputs],
        "allow": [f"{a.name}={a.macs}" for a in model.allowed if a.macs],
        "nonzeros": model.nonzeros,
        "cross_check": model.cross_check,
    }


def _bundled(model: ConfiguredModel) -> ModelCost | None:
    """The cost of a model that comes with iftplan, if it is asked for as it is."""
    changed = model.nonzeros or model.cross_check or any(allowance.macs for allowance in model.allowed)
    return None if changed else zoo_cost(model.source, model.inputs)


def _kept(store: Store, slot: str, request: Mapping[str, Any], footprint: Footprint) -> ModelCost | None:
    found = store.find(slot, request, footprint)
    try:
        return None if found is None else parse_measured(found)
    except InputError:
        return None


def _found(answer: Mapping[str, Any]) -> ModelCost | Failure:
    if "error" in answer:
        return Failure(in_configuration(answer["error"]), list(Status)[answer["exit_code"]])
    return parse_measured(answer["measured"])


def _checked(
    model: ConfiguredModel, config: Configuration, costs: Costs, baseline: Baseline | None
) -> ModelCheck:
    found = costs.found[model.name]
    shown = (model.name, model.source, tuple(map(str, model.inputs)))
    if isinstance(found, Failure):
        return ModelCheck(*shown, found.status, problems=(found.message,))
    try:
        plans = _plans(model, config)
        references = _references(model, plans, costs, {m.name: m for m in config.models})
    except IftplanError as error:
        return ModelCheck(*shown, Status.INVALID, found, problems=(str(error),))
    checked = check_model(
        model, found, baseline=baseline, references=references, cached=model.name in costs.cached
    )
    equal = {bound.reference for bound in model.bounds if bound.equal}
    compared = {} if model.source in plans else {name: plan for name, plan in plans.items() if name in equal}
    unapplied = tuple(_unapplied(found, compared))
    return replace(checked, notes=(*map(_says_nothing, unapplied), *checked.notes), unapplied=unapplied)


def _plans(model: ConfiguredModel, config: Configuration) -> dict[str, Plan]:
    """Plans that a model is compared with, by the names of their files."""
    names = sorted({bound.reference for bound in model.bounds if bound.reference.endswith(".json")})
    return {name: parse_plan(loads(read_text(str(config.folder / name)), name), name) for name in names}


def _unapplied(found: ModelCost, plans: Mapping[str, Plan]) -> Iterator[str]:
    """Plans that a model costs as much as, layer by layer, without their changes."""
    for name, plan in plans.items():
        dense: Counter[str] = Counter()
        for layer in plan.layers:
            dense[_place(layer, found)] += layer.dense_macs
        changed = {_place(layer, found) for layer in plan.layers if layer.changes}
        if changed and all(found.macs.get(place, 0) == dense[place] for place in changed):
            yield name


def _place(layer: PlannedLayer, found: ModelCost) -> str:
    """Where a layer is measured: under its name, its weight's, or that of the module which computes with its weight itself."""
    name = layer.weight if layer.weight in found.macs else layer.name
    while name and name not in found.macs:
        name = name.rpartition(".")[0]
    return name


def _says_nothing(name: str) -> str:
    return f"every layer costs what it does in the dense network that {name} was made for: the plan was not applied to it. Equal totals say nothing here, because the planned network costs the same by design"


def _references(
    model: ConfiguredModel, plans: Mapping[str, Plan], costs: Costs, known: Mapping[str, ConfiguredModel]
) -> dict[str, int]:
    """Plan's file or other model → MACs; without those that were not measured whole."""
    macs = {}
    for name in {b.reference for b in model.bounds} - {"", BASELINE}:
        if name in plans:
            macs[name] = plans[name].full_macs(Scope.MODEL)
        elif (found := _measured_whole(known[name], costs)) is not None:
            macs[name] = found.total_macs
    return macs


def _measured_whole(model: ConfiguredModel, costs: Costs) -> ModelCost | None:
    """The cost of a model, if every operator has a formula and every module was called that its configuration does not allow to stay."""
    found = costs.found[model.name]
    if not isinstance(found, ModelCost) or found.unknown_ops:
        return None
    may_stay = {allowance.name for allowance in model.allowed if not allowance.macs}
    return found if may_stay.issuperset(found.uncalled_modules) else None


# --- baselines -------------------------------------------------------------------------------------------


def saved_baseline(config: Configuration) -> Baseline | None:
    """The baseline beside the configuration, if there is one.

    Raises:
        InputError: it is no baseline; says where.
    """
    path = config.folder / config.baseline
    if not path.exists():
        return None
    try:
        return parse_baseline(loads(read_text(str(path)), config.baseline), config.baseline)
    except InputError as error:
        raise InputError(
            f"{error} A baseline is written whole, never merged: iftplan check --save-baseline."
        ) from error


def renewed_baseline(
    config: Configuration, models: Sequence[ConfiguredModel], costs: Costs, old: Baseline | None
) -> Baseline:
    """Baseline with the current costs of these models, without models that the configuration no longer has.

    Args:
        config: the configuration.
        models: those that were measured.
        costs: of these models.
        old: the baseline before; None for none.
    """
    before = {} if old is None else dict(old.models)
    inputs = {} if old is None else dict(old.inputs)
    for model in models:
        if (found := _measured_whole(model, costs)) is not None:
            before[model.name] = found
            inputs[model.name] = tuple(map(str, model.inputs))
    kept = [model.name for model in config.models if model.name in before]
    return Baseline(config.baseline, {n: before[n] for n in kept}, {n: inputs[n] for n in kept})


def save_baseline(config: Configuration, baseline: Baseline) -> Path:
    """Write a baseline beside the configuration, in one step.

    Raises:
        InputError: it cannot be written.
    """
    path = config.folder / config.baseline
    write_text(dumps(baseline_document(baseline)), str(path))
    return path
