"""Audits of plans on JAX models: of their structure, and of an applied model with its masks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import jax
import numpy as np

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.base.units import count
from iftplan.jaxnn.application.structure import dense_model, structured
from iftplan.jaxnn.counting.measure import counted
from iftplan.jaxnn.sources.models import Traceable, fingerprint, leaf_names, traceable
from iftplan.models.allowances import parse_vouched
from iftplan.models.sources import parse_source
from iftplan.plans.audit.audit import PLAN_TOLERANCE, AuditReport, audit_plan
from iftplan.plans.plan import Plan

Tree = Any


def audit(
    plan: Plan,
    model: object = None,
    *arguments: object,
    trust: bool = False,
    tolerance: Fraction = PLAN_TOLERANCE,
    allow: Sequence[str] = (),
    may_stay_uncalled: Collection[str] = (),
) -> AuditReport:
    """Report that compares a plan's MACs with those of its structure, which is built from shapes and counted.

    Args:
        plan: the plan.
        model: the dense model, the function that builds it, or its source; None for the source that the plan names.
        *arguments: what it is called with; by default those that its factory returns, or else the plan's inputs.
        trust: whether Python that the plan names may run.
        tolerance: the largest relative difference that passes.
        allow: costs that the user vouches for.
        may_stay_uncalled: modules whose weights may stay unused.

    Raises:
        InputError: the plan names Python that nobody else named, or no source at all.
        StaleError: the model is not the one that the plan was made for.
        InfeasibleError: the model cannot be built at other widths.
        MeasureError: the structure does not run.
    """
    source = plan.model if model is None else model if isinstance(model, str) else ""
    if model is None and not source:
        raise InputError("the plan does not name the model that it was made for; give it as `model`.")
    if model is None and parse_source(source).runs_user_code and not trust:
        raise InputError(
            f"the plan would run Python code, {source}. A plan file is only data, so iftplan runs this code only if you name it, `model={source!r}`, or pass `trust=True`."
        )
    dense = dense_model(plan, source or model, arguments)
    whole = traceable(*structured(plan, dense, source=source))
    table = counted(whole, parse_vouched(allow)).table
    return audit_plan(plan, [table], tolerance=tolerance, may_stay_uncalled=may_stay_uncalled)


@check_arguments
def measure_applied(
    plan: Plan,
    model: object,
    *arguments: object,
    masks: object = None,
    weights: object = None,
    allow: Sequence[str] = (),
    may_stay_uncalled: Collection[str] = (),
    redistributed: bool = False,
    unapplied: bool = False,
) -> AuditReport:
    """Report that compares the MACs of an applied model with its plan, layer by layer.

    Args:
        plan: the plan that was applied.
        model: what `iftplan.jaxnn.apply` returned.
        *arguments: what it is called with; by default the plan's inputs.
        masks: pytree of the masks, of the form of the weights, or by their names; True where a weight is kept. None
            takes the plan's own counts.
        weights: pytree of the weights, to check that they are zero off their masks; None leaves that out.
        allow: costs that you vouch for, of primitives without a formula.
        may_stay_uncalled: modules whose weights may stay unused.
        redistributed: whether training moved weights between layers, so that only the model's total is compared.
        unapplied: whether a network without masks fails where nothing tells it from the dense one.

    Raises:
        InputError: a mask has another shape than its weight, or belongs to none.
        MeasureError: the model does not run.
    """
    whole = traceable(model, arguments or plan.inputs)
    table = counted(whole, parse_vouched(allow)).table
    kept = None if masks is None else _shares(whole, masks)
    report = audit_plan(
        plan, [table], active=kept, redistributed=redistributed, may_stay_uncalled=may_stay_uncalled
    )
    found = [*report.problems]
    changes = any(layer.changes for layer in plan.layers)
    if unapplied and changes and masks is None and fingerprint(whole) == plan.fingerprint:
        found.append(
            f"{report.subject} has the weights of the dense network that the plan was made for, and masks lie beside the weights in JAX, so nothing says that the plan was applied. Give them to iftplan.jaxnn.measure_applied(plan, network, masks=…)."
        )
    if masks is not None:
        found += _search_space(plan, masks)
        found += [] if weights is None else _leaks(masks, weights)
    return replace(report, problems=tuple(found))


def _shares(model: Traceable, masks: Tree) -> Mapping[str, Fraction]:
    """Weight → share of it that its mask keeps."""
    shapes = model.weights()
    shares = {}
    for name, mask in leaf_names(masks).items():
        if name not in shapes:
            raise InputError(f"there is a mask of {name}, and the model has no such weight.")
        if tuple(mask.shape) != tuple(shapes[name].shape):
            raise InputError(
                f"the mask of {name} has shape {tuple(mask.shape)}, and the weight {tuple(shapes[name].shape)}."
            )
        shares[name] = Fraction(int(np.count_nonzero(mask)), mask.size)
    return shares


def _search_space(plan: Plan, masks: Tree) -> Iterator[str]:
    """The masks cover what the plan says can be explored."""
    planned = plan.cardinality.maskable_weights
    found = sum(mask.size for mask in jax.tree_util.tree_leaves(masks))
    if planned is not None and found != planned:
        yield f"masks cover {count(found)} weights where the plan masks {count(planned)}."


def _leaks(masks: Tree, weights: Tree) -> Iterator[str]:
    """Weights that are not zero off their masks work without being counted."""
    values = leaf_names(weights)
    for name, mask in leaf_names(masks).items():
        if name in values and np.any(np.where(np.asarray(mask), 0, np.asarray(values[name])) != 0):
            yield f"{name} is not zero off its mask; multiply the weights with their masks after every change."
