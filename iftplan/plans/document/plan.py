"""Plans as documents: what `plan.json` holds, written and read back with every total added up again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from iftplan.base.documents import Document, check, with_digest
from iftplan.base.errors import InputError
from iftplan.base.units import fraction
from iftplan.base.validation import validate
from iftplan.masks.distributions import Distribution
from iftplan.models.notation import parse_input
from iftplan.models.spec import Heads, InputSpec
from iftplan.plans.budget import Budget
from iftplan.plans.document.attention import (
    AttentionObject,
    PairsObject,
    attention_object,
    pairs_object,
    parse_pairs,
)
from iftplan.plans.document.experts import ExpertsObject, experts_object, parse_experts
from iftplan.plans.document.layers import (
    after_notation,
    before_notation,
    other_notations,
    parse_after,
    parse_before,
)
from iftplan.plans.document.ledger import contradictions, unpriceable
from iftplan.plans.document.sections import (
    ParametrizationObject,
    WallClockObject,
    parametrization_object,
    parse_wallclock,
    wallclock_object,
)
from iftplan.plans.plan import CloseBy, KeptFor, Plan, PlannedLayer, Role, Scope
from iftplan.plans.scaling import parametrize

SCHEMA = "iftplan.plan/1"


def plan_document(plan: Plan) -> Document:
    """The plan as a JSON object, sealed with its digest."""
    closing = {s.value: plan.closing_sparsity.get(s) for s in plan.scopes}
    return with_digest(
        {
            "schema": SCHEMA,
            "convention": "mac",
            "model": plan.model,
            "input": [str(i) for i in plan.inputs],
            "fingerprint": plan.fingerprint,
            "transform": plan.transform,
            "sparsity": float(plan.sparsity),
            "sparsity_exact": fraction(plan.sparsity),
            "scope": plan.scope and plan.scope.value,
            "distribution": plan.distribution,
            "close": plan.close_by,
            "keep_dense": list(plan.keep_dense),
            "round_to": plan.round_to,
            "mask": plan.mask,
            "heads": plan.heads,
            **({"within": plan.within} if plan.within else {}),
            **({"budget": plan.budget.written} if plan.budget else {}),
            **({"attention": attention_object(plan)} if plan.attention else {}),
            "multiplier": plan.multiplier,
            "widths": dict(plan.widths),
            **_totals(plan),
            "closing_sparsity": {s: None if v is None else float(v) for s, v in closing.items()},
            "closing_sparsity_exact": {s: None if v is None else fraction(v) for s, v in closing.items()},
            "layers": [_layer_object(layer, plan.transform) for layer in plan.layers],
            "notes": list(plan.notes),
            **_scales(plan),
            **_times(plan),
            **_experts(plan),
        }
    )


def _scales(plan: Plan) -> dict[str, Any]:
    """The section that only a plan with a parametrization has."""
    scales = plan.parametrization
    return {} if scales is None else {"parametrization": parametrization_object(scales)}


def _times(plan: Plan) -> dict[str, Any]:
    """The section that only a plan for time has."""
    times = plan.wallclock
    return {} if times is None else {"wallclock": wallclock_object(times)}


def _experts(plan: Plan) -> dict[str, Any]:
    """The section that only a plan of experts has."""
    return {} if plan.mixture is None else {"experts": experts_object(plan.layers, plan.mixture)}


def _totals(plan: Plan) -> dict[str, Any]:
    """What follows from the rows: written for readers, never trusted when read."""
    cardinality = plan.cardinality
    return {
        "dense": {s.value: plan.dense_macs(s) for s in plan.scopes},
        "planned": {s.value: plan.macs(s) for s in plan.scopes},
        "ratio": {s.value: float(plan.ratio(s)) for s in plan.scopes},
        "ratio_exact": {s.value: fraction(plan.ratio(s)) for s in plan.scopes},
        "residual_macs": plan.residual_macs,
        "cardinality": {
            "maskable_weights": cardinality.maskable_weights,
            "log2_masks": cardinality.log2_masks,
        },
    }


def _layer_object(layer: PlannedLayer, transform: str) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "role": layer.role.value,
        "reason": layer.reason,
        "before": before_notation(layer),
        "after": after_notation(layer, transform),
        "weight": layer.weight,
        "structure": dict(layer.structure),
        "maskable": layer.maskable,
        "positions": layer.positions,
        "nnz": layer.nnz,
        "capacity": layer.capacity,
        "dense_weights": layer.dense_weights,
        "density": float(layer.density),
        "density_exact": fraction(layer.density),
        "dense_macs": layer.dense_macs,
        "macs": layer.macs,
        "log2_masks": layer.log2_masks,
        **({"experts": layer.experts} if layer.experts > 1 else {}),
        **({"attention": pairs_object(layer.attention)} if layer.attention else {}),
        **({"transform": layer.transform} if layer.transform else {}),
        **({"reuse": float(layer.reuse), "reuse_exact": fraction(layer.reuse)} if layer.reuse != 1 else {}),
        **({"inputs_first": True} if layer.inputs_first else {}),
    }


def parse_plan(document: Document, where: str = "plan", inputs: Sequence[InputSpec] = ()) -> Plan:
    """A plan from its document: types checked, digest checked, totals added up again.

    Args:
        document: as it was read.
        where: the file, for messages.
        inputs: that were asked for; none for the plan's own.

    Raises:
        InputError: names the path inside the document; or the plan was made for other inputs.
    """
    check(document, SCHEMA, where)
    parsed = validate(_PlanObject, document, where)
    closing = parsed["closing_sparsity_exact"]
    plan = Plan(
        model=parsed["model"],
        inputs=tuple(parse_input(text) for text in parsed["input"]),
        fingerprint=parsed["fingerprint"],
        transform=parsed["transform"],
        sparsity=_fraction(parsed["sparsity_exact"], "sparsity_exact", where),
        scope=parsed["scope"],
        distribution=parsed["distribution"],
        close_by=parsed["close"],
        keep_dense=tuple(parsed["keep_dense"]),
        round_to=parsed["round_to"],
        mask=parsed["mask"],
        heads=parsed["heads"],
        layers=tuple(_layer(layer, f"{where}: layers.{i}") for i, layer in enumerate(parsed["layers"])),
        widths=parsed["widths"],
        multiplier=parsed["multiplier"],
        closing_sparsity={
            s: None if v is None else _fraction(v, f"closing_sparsity_exact.{s}", where)
            for s, v in closing.items()
        },
        notes=tuple(parsed["notes"]),
        within=parsed.get("within", ""),
        budget=_budget(parsed["budget"], where) if "budget" in parsed else None,
        mixture=parse_experts(parsed["experts"], where) if "experts" in parsed else None,
        attention=parsed["attention"]["pattern"] if "attention" in parsed else "",
        attention_before=parsed["attention"].get("before", "") if "attention" in parsed else "",
    )
    if inputs and tuple(inputs) != plan.inputs:
        raise InputError(
            f"{where} is a plan for input {', '.join(map(str, plan.inputs))}, and a plan holds for one input. Leave the input out, or make another plan for {', '.join(map(str, inputs))}."
        )
    written = [(layer["before"], layer["after"]) for layer in parsed["layers"]]
    for problem in (*contradictions(plan), *other_notations(plan, written)):
        raise InputError(f"{where}: {problem}; make the plan again rather than editing it.")
    section = parsed.get("parametrization")
    if section is not None:
        plan = parametrize(plan, section["asked"], section["optimizer"], section["mask_updates"])
    if (times := parsed.get("wallclock")) is not None:
        plan = replace(plan, wallclock=parse_wallclock(times))
        for problem in unpriceable(plan):
            raise InputError(f"{where}: {problem}; make the plan again rather than editing it.")
    _check_totals(plan, document, where)
    return plan


def _layer(parsed: _LayerObject, where: str) -> PlannedLayer:
    role, reason = parsed["role"], parsed["reason"]
    before = after = None
    if role is not Role.ACTIVATION:
        try:
            before = None if role is Role.ADDED else parse_before(parsed["before"])
            after = None if role is Role.REMOVED else parse_after(parsed["after"])
        except InputError as error:
            raise InputError(f"{where}: {error}; make the plan again rather than editing it.") from error
    return PlannedLayer(
        name=parsed["name"],
        kind=parsed["kind"],
        role=role,
        reason=reason,
        before=before,
        after=after,
        dense_macs=parsed["dense_macs"],
        macs=parsed["macs"],
        weight=parsed["weight"],
        structure=parsed["structure"],
        maskable=parsed["maskable"],
        positions=parsed["positions"],
        capacity=parsed["capacity"],
        nnz=parsed["nnz"],
        dense_weights=parsed["dense_weights"],
        log2_masks=parsed["log2_masks"],
        experts=parsed.get("experts", 1),
        attention=parse_pairs(parsed["attention"]) if "attention" in parsed else None,
        transform=parsed.get("transform", ""),
        reuse=_fraction(parsed["reuse_exact"], "reuse_exact", where)
        if "reuse_exact" in parsed
        else Fraction(1),
        inputs_first=parsed.get("inputs_first", False),
        kept_for=next((k for k in KeptFor if role is Role.KEPT_DENSE and reason.startswith(k.value)), None),
    )


def _check_totals(plan: Plan, document: Document, where: str) -> None:
    """All that follows from rows and settings is worked out again, whoever sealed it."""
    for key, value in plan_document(plan).items():
        if key != "digest" and document[key] != value:
            raise InputError(f"{where}: {key} does not follow from the layers and the settings of the plan.")


def _budget(written: str | int, where: str) -> Budget:
    budget = Budget(macs=written) if isinstance(written, int) else Budget(_fraction(written, "budget", where))
    if budget.times <= 0 or (budget.macs is not None and budget.macs <= 0):
        raise InputError(f"{where}: budget: {str(written)[:60]!r} is not above 0.")
    return budget


_FRACTION = re.compile(r"-?\d{1,200}/\d{1,200}")
"""Nothing else: `Fraction` also reads 1e9999999, and would not come back."""


def _fraction(text: str, path: str, where: str) -> Fraction:
    top, _, bottom = text.partition("/")
    if not _FRACTION.fullmatch(text) or not int(bottom):
        raise InputError(f"{where}: {path}: {text[:60]!r} is not a fraction p/q.")
    return Fraction(int(top), int(bottom))


@with_config(ConfigDict(extra="forbid"))
class _CardinalityObject(TypedDict):
    """The size of the search space.

    Attributes:
        maskable_weights: weights that a sparse trainer can explore, the paper's measure.
        log2_masks: bits that name one mask.
    """

    maskable_weights: int
    log2_masks: float


@with_config(ConfigDict(extra="forbid"))
class _LayerObject(TypedDict):
    """One weight of the model, or one product of activations.

    Attributes:
        name: the module's path, with the operator where it is a product of activations.
        kind: the layer kind, or the operator.
        role: what the plan does with it.
        reason: why it has that role.
        before: the dense layer in layer notation; empty for a layer that the dense model does not have.
        after: what stands in its place.
        weight: the parameter's name; empty for products.
        structure: `branches`, `rank`, or the widths; empty where nothing changes.
        maskable: whether a mask thins it.
        positions: how often each weight is applied in one forward pass.
        nnz: weights that stay under the mask.
        capacity: weights of the part that is, or could be, masked.
        dense_weights: weights beside it that no mask touches.
        density: `nnz/capacity`.
        dense_macs: MACs of the dense layer.
        macs: MACs after the plan: `positions · (nnz + reuse · dense_weights) / experts`, or those of the product.
        log2_masks: bits that name one mask of this layer.
        experts: matrices in a stack, of which every position meets one; absent where there is one.
        attention: sizes and patterns of attention that is counted by pairs; absent for all else.
        transform: the family that the layer is transformed into; absent where the plan has one for all layers, and where the layer is not transformed.
        reuse: how often each of the dense weights is used at one position, on average; absent where that is once.
        inputs_first: whether a square weight is (inputs, outputs), as in `x @ weight`; absent where it is not.
    """

    name: str
    kind: str
    role: Role
    reason: str
    before: str
    after: str
    weight: str
    structure: dict[str, int | float | None]
    maskable: bool
    positions: int
    nnz: int
    capacity: int
    dense_weights: int
    density: float
    density_exact: str
    dense_macs: int
    macs: int
    log2_masks: float
    experts: NotRequired[int]
    attention: NotRequired[PairsObject]
    transform: NotRequired[str]
    reuse: NotRequired[float]
    reuse_exact: NotRequired[str]
    inputs_first: NotRequired[bool]


@with_config(ConfigDict(extra="forbid"))
class _PlanObject(TypedDict):
    """A plan as it is written; what reads it adds every total up again.

    Attributes:
        schema: kind and version.
        convention: what counts are in: multiply-accumulates.
        model: how to build the dense model again, as MODEL on the command line.
        input: the inputs it was counted with, as `--input` writes them.
        fingerprint: SHA-256 over module names, classes and parameter shapes of the dense model.
        transform: the family, or `none` for plain sparsity; several as `PATH=FAMILY, …, FAMILY`, where the last is of all layers that no path matches, and `dense` leaves them dense.
        sparsity: the sparsity asked for.
        scope: whose MACs are held equal to the budget; null where nothing was closed.
        distribution: how density is spread over layers.
        close: what gave way to close the budget.
        keep_dense: what was to stay dense: `first`, `last`, or names of layers.
        round_to: widths are multiples of this.
        mask: what masks may look like, in the notation of `--structure`.
        heads: which of the two stays as it was where attention grows wider: the number of heads, or their size.
        within: modules that alone are transformed, a path with `*` and `?`; absent where the whole model is.
        budget: what the closed scope may cost: a multiple of the dense model's MACs, as a fraction, or a number of MACs; absent where it is the dense model's.
        attention: the pattern that attention keeps, by whose pairs it is counted; absent where every query counts with every key.
        multiplier: the width multiplier k; 1 where widths stay.
        widths: the new size of every set of channels that moves together.
        dense: MACs of the dense model in each scope.
        planned: MACs after the plan in each scope.
        ratio: planned to dense, in each scope.
        residual_macs: what stays unspent in the closed scope; null where nothing was closed.
        cardinality: the size of the search space.
        closing_sparsity: the sparsity that would close each scope at the budget with the same structure; null where none does.
        layers: a row for each weight and each product of activations.
        notes: sentences that a reader has to know.
        parametrization: what weights start and train at, where that was asked for.
        wallclock: what layers are estimated to take, where the plan was made for time.
        experts: the experts in the place of feed-forward blocks; absent in every other family.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    convention: Literal["mac"]
    model: str
    input: list[str]
    fingerprint: str
    transform: str
    sparsity: float
    sparsity_exact: str
    scope: Scope | None
    distribution: Distribution
    close: CloseBy
    keep_dense: list[str]
    round_to: int
    mask: str
    heads: Heads
    within: NotRequired[str]
    budget: NotRequired[str | int]
    attention: NotRequired[AttentionObject]
    multiplier: float
    widths: dict[str, int]
    dense: dict[Scope, int]
    planned: dict[Scope, int]
    ratio: dict[Scope, float]
    ratio_exact: dict[Scope, str]
    residual_macs: int | None
    cardinality: _CardinalityObject
    closing_sparsity: dict[Scope, float | None]
    closing_sparsity_exact: dict[Scope, str | None]
    layers: list[_LayerObject]
    notes: list[str]
    parametrization: NotRequired[ParametrizationObject]
    wallclock: NotRequired[WallClockObject]
    experts: NotRequired[ExpertsObject]
    digest: str
