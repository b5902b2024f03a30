"""What `import iftplan as ift` offers: the arrows between the boxes, each one function."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, cast, overload

from iftplan.base.arguments import check_arguments, names_in, one_of
from iftplan.base.errors import InputError
from iftplan.base.units import parse_sparsity
from iftplan.families import solver
from iftplan.families.builtin import family_named
from iftplan.families.family import Family
from iftplan.families.solution import Solution
from iftplan.masks import parse_mask
from iftplan.masks.distributions import Distribution
from iftplan.models.allowances import parse_vouched
from iftplan.models.counting import CountTable
from iftplan.models.notation import parse_layer
from iftplan.models.spec import Heads, LayerSpec, ModelSpec
from iftplan.plans.audit.audit import AuditReport, audit_plan
from iftplan.plans.plan import (
    Asked,
    CloseBy,
    MaskUpdates,
    Objective,
    Optimizer,
    Pass,
    Plan,
    Pointwise,
    Rounding,
    parse_scope,
)
from iftplan.plans.request import PlanRequest, Pricing, make_plan

if TYPE_CHECKING:
    from torch import nn

Costs = Sequence[str] | Mapping[str, int | str]
Sparsity = str | float | Fraction


@check_arguments
def solve(
    layer: str | LayerSpec,
    family: str | Family,
    sparsity: Sparsity,
    *,
    mask: str | None = None,
    round_to: int = 1,
) -> Solution:
    """One layer in one family at equal MACs, solved in whole numbers.

    Args:
        layer: a spec, or a notation such as "conv3x3:64-128@16x16"; with symbolic channels ("conv3x3") only
            the closed form comes back.
        family: "wide", "parallel", "factorized", "doped", "lowrank", "nm", "monarch", "btt", "kronecker", "butterfly", or one of your own.
        sparsity: the fraction of zeros, in [0, 1): 0.75, "3/4" or "75%".
        mask: structure of the masks, such as "2:8" or "block4x4"; None for any mask, or N:8 with "nm".
        round_to: widths become multiples of this.

    Raises:
        InputError: a layer, family, sparsity or mask that cannot be read.
        InfeasibleError: no structure satisfies the equation.

    Example:
        >>> solve("conv3x3:64-128@16x16", "factorized", "3/4").structure
        {'rank': 419}
    """
    return solver.solve(
        parse_layer(layer) if isinstance(layer, str) else layer,
        family_named(family) if isinstance(family, str) else family,
        parse_sparsity(sparsity),
        mask=parse_mask(mask) if mask else None,
        round_to=round_to,
    )


@check_arguments
def read_model(
    source: str | nn.Module | Callable[..., object],
    *given: object,
    inputs: object = None,
    widths: bool = True,
    heads: Heads = "number",
    allow: Costs = (),
) -> ModelSpec:
    """Spec of a model: its layers, their MACs, and which channels widen together, from one forward pass without data.

    Bundled models with their own inputs are read from a file; all others need torch, or JAX if they are written in it.

    Args:
        source: `zoo:resnet18`, `hf:config.json`, `package.module:factory`, `path/file.py:factory`, a spec document, a
            network, or a function or module of JAX, whose widths are not traced.
        *given: the inputs, such as "1x3x32x32" or "input_ids=1x128:int64", or example inputs: a tensor, or one batch as the model
            takes it (a dictionary of keyword inputs, a list or tuple of positional ones, which may be nested). Only
            shapes, dtypes and plain values are read. Zoo models and configurations know their inputs.
        inputs: the same by name, as one value: `read_model(network, inputs=batch)`.
        widths: whether to find which channels widen together, which families that widen need.
        heads: what attention keeps when it widens: the "number" or the "size" of its heads.
        allow: costs that you vouch for, of operators without a formula: ["mylib::scan=0"], or {"mylib::scan": "64*out"}.

    Raises:
        InputError: an input or a cost cannot be read, the source cannot be built, or needs inputs that nobody gave.
        MeasureError: the model does not run, or has an operator of unknown cost.
    """
    if given and inputs is not None:
        raise InputError("read_model: the inputs are given twice, by position and as inputs; give them once.")
    given = given if inputs is None else (inputs,)
    if isinstance(source, str) and source.endswith(".json") and not source.startswith("hf:"):
        if allow:
            raise InputError(
                f"read_model: allow is used while a model is read, and {source} was read already. Give it where the spec is made."
            )
        return _spec_in(source, given)
    costs = _costs(allow)
    if _is_jax(source):
        from iftplan.jaxnn.reading import read as jax_reading
        from iftplan.jaxnn.sources.call_arguments import call_arguments

        arguments = call_arguments(*given) if inputs is None else call_arguments(inputs=inputs)
        return jax_reading.read_model(source, *arguments, allow=costs, widths=widths, heads=heads)
    if isinstance(source, str) and source.startswith("zoo:") and not given and not allow:
        from iftplan.models.zoo.specs import zoo_spec

        if (kept := zoo_spec(source, widths=widths, heads=heads)) is not None:
            return kept
    from iftplan.nn.counting.operators.allowed import vouched_operators
    from iftplan.nn.meta.inputs import given_inputs
    from iftplan.nn.meta.wrappers import unwrapped
    from iftplan.nn.reading import read

    source = source if isinstance(source, str) else unwrapped(cast("nn.Module", source))
    return read.read_model(
        source,
        given_inputs(given[0] if len(given) == 1 else given, source) or None,
        widths=widths,
        heads=heads,
        operators=vouched_operators(parse_vouched(costs)),
    )


def _costs(allow: Costs) -> Sequence[str]:
    return [f"{name}={cost}" for name, cost in allow.items()] if isinstance(allow, Mapping) else allow


def _is_jax(source: object) -> bool:
    """Whether this is a model for JAX: a source of one, or what can be called and is no network of torch, where JAX is in use."""
    if isinstance(source, str):
        from iftplan.models.frameworks import framework_of

        return framework_of(source) == "jax"
    if "jax" not in sys.modules:
        return False
    network = getattr(sys.modules.get("torch.nn"), "Module", None)
    return callable(source) and not (isinstance(network, type) and isinstance(source, network))


def _spec_in(path: str, inputs: Sequence[object]) -> ModelSpec:
    """The spec in a document, for the input that it was read with."""
    found = load(path)
    if not isinstance(found, ModelSpec):
        raise InputError(
            f"{path} is a plan, not a model. Read the model that it was made for: {found.model or 'a network'}."
        )
    if inputs:
        raise InputError(
            f"{path} is a spec for input {', '.join(map(str, found.inputs))}, and a spec holds only one input. Read the model itself to give another."
        )
    return found


@check_arguments
def plan(
    model: str | ModelSpec | nn.Module,
    family: str | Family | Mapping[str, str | Family | None] | None,
    sparsity: Sparsity | None = None,
    *,
    inputs: object = None,
    allow: Costs = (),
    scope: str = "layers",
    within: str = "",
    budget: str | int | None = None,
    attention: str | None = None,
    attention_before: str | None = None,
    distribution: str = "uniform",
    keep_dense: str | Iterable[str] | None = ("first", "last"),
    close: CloseBy = "density",
    round_to: int = 1,
    rounding: Rounding = "cover",
    pointwise: Pointwise = "transformed",
    mask: str | None = None,
    heads: Heads = "number",
    parametrization: Asked = "standard",
    optimizer: Optimizer = "adam",
    mask_updates: MaskUpdates = "static",
    objective: Objective = "flops",
    profile: str | None = None,
    passes: Pass | None = None,
    batch: int | None = None,
) -> Plan:
    """Plan of a whole sparse model whose MACs equal the dense model's, or another budget, in one scope.

    Args:
        model: a spec from `read_model`, a network, or a source such as "zoo:resnet18".
        family: "wide", "parallel", "factorized", "doped", "lowrank", "monarch", "btt", "kronecker", "butterfly", one of your own, or "none" (or None) for plain sparsity.
            Several as {"encoder.*": "parallel", "*": "wide"}, paths of layers or modules with `*` and `?`: the first that
            a layer matches decides, and a layer that none matches stays dense, as under "dense". "wide|parallel" leaves
            the choice to the objective.
        sparsity: fraction of zeros, in [0, 1): 0.75, "3/4" or "75%"; None for that of an N:M mask, or else 3/4. Plain
            sparsity takes a sparsity or a budget.
        inputs: for a network or a source: a tensor, a batch, or a shape such as "1x3x32x32", as `read_model` takes them.
        allow: for a network or a source: costs that you vouch for, as `read_model` takes them.
        scope: the part of the model whose MACs stay equal: "matrices", "layers", "model" or "module:NAME".
        within: path of the modules that are transformed and widened, with `*` and `?`; empty for the whole model, or for
            the module of the scope.
        budget: MACs of the scope: "0.5x" for half of the dense model's, "400M" or 400_000_000; None for the dense model's.
        attention: pairs of a query and a key that attention keeps, by which it is counted before and after: "causal",
            "window:256", "top-k:64+causal"; None counts every query with every key.
        attention_before: the same for the model's own attention, where it is called with a mask tensor; None where it is not.
        distribution: how density is spread over layers: "uniform", "er" or "erk".
        keep_dense: "first", "last" or names of layers, one or several; "none" or None keeps no layer dense.
        close: what is adjusted to meet the budget: "density", "width", or "pattern" (width, with N:M patterns kept whole).
        round_to: number that widths become multiples of.
        rounding: "cover" for the smallest widths that cover the budget, or "floor" for widths rounded down, as the paper's
            code has them.
        pointwise: whether 1×1 convolutions are "transformed", or only "masked", as the paper's code has its shortcuts.
        mask: structure of the masks: "unstructured", or such as "2:8", "2:8T", "block4x4", "fan-in"; "2:8+pad" for
            sizes that do not divide.
        heads: what attention keeps when it widens: the "number" or the "size" of its heads; a spec was read for one of them.
        parametrization: scales of initial weights and learning rates: "standard" as in the dense model, "mup", "supar",
            or "auto" for SμPar where there is evidence for it.
        optimizer: optimizer that the scales of learning rates are for: "adam" or "sgd".
        mask_updates: how masks change in training: "static", "dynamic" or "gradual".
        objective: "flops", or "wallclock" to keep layers dense where sparse kernels cannot pay on a profiled machine. It also
            chooses between families: "wallclock" by estimated time, "search-space" by the number of masks,
            "parameters" by the fewest weights, masked ones among them.
        profile: file that `iftplan bench --profile` wrote on that machine; None for the place where it writes by default.
        passes: passes whose time is estimated: "forward" (None too), or "step" for forward and backward.
        batch: number of samples computed together, for those times; None for one.

    Raises:
        InfeasibleError: says which layer is in the way and the nearest feasible sparsity, or budget.
        InputError: an argument or a profile that cannot be read, or a model that cannot be built.
        MeasureError: the model does not run, or has an operator of unknown cost.

    Example:
        >>> plan("zoo:digits-cnn", "wide", "3/4").residual_macs
        0
        >>> plan("zoo:digits-cnn", "none", budget="0.5x").ratio("layers")
        Fraction(1, 2)
    """
    pricing = None
    if objective == "wallclock":
        from iftplan.plans.speed.document import read_profile

        pricing = Pricing(read_profile(profile), passes or "forward", 1 if batch is None else batch)
    elif given := [
        name
        for name, value in (("profile", profile), ("passes", passes), ("batch", batch))
        if value is not None
    ]:
        raise InputError(
            f"plan: {' and '.join(given)} belong to times, which `objective='wallclock'` alone looks at. Leave them out, or ask for it."
        )
    closed, modules = parse_scope(scope, within)
    request = PlanRequest(
        family=tuple(family.items()) if isinstance(family, Mapping) else family,
        sparsity=sparsity,
        scope=closed,
        within=modules,
        budget=budget,
        attention=attention or "",
        attention_before=attention_before or "",
        distribution=Distribution(one_of("distribution", distribution, [d.value for d in Distribution])),
        keep_dense=names_in("keep_dense", () if keep_dense is None else keep_dense),
        close_by=close,
        round_to=round_to,
        rounding=rounding,
        pointwise=pointwise,
        mask=mask or "",
        heads=heads,
        parametrization=parametrization,
        optimizer=optimizer,
        mask_updates=mask_updates,
        pricing=pricing,
        aim=objective if objective in ("search-space", "parameters") else None,
    )
    widens = request.reads_widths  # which refuses what cannot be read before a model is
    return make_plan(_spec_of(model, inputs, widths=widens, heads=heads, allow=allow), request)


def _spec_of(
    model: str | ModelSpec | nn.Module, inputs: object, *, widths: bool, heads: Heads, allow: Costs
) -> ModelSpec:
    """The spec that a model is, or that it is read into."""
    if not isinstance(model, ModelSpec):
        return read_model(model, inputs=inputs, widths=widths, heads=heads, allow=allow)
    if inputs is not None or allow:
        raise InputError(
            "plan: inputs and allow are used while a model is read, and this model is read already. Give them to read_model."
        )
    return model


@overload
def audit(
    subject: Plan,
    against: CountTable | Sequence[CountTable] | None = None,
    *,
    model: str | nn.Module | None = None,
    trust: bool = False,
    allow: Costs = (),
    may_stay_uncalled: Sequence[str] = (),
) -> AuditReport: ...


@overload
def audit(
    subject: nn.Module,
    against: Plan,
    *,
    inputs: object = None,
    allow: Costs = (),
    may_stay_uncalled: Sequence[str] = (),
    redistributed: bool = False,
) -> AuditReport: ...


@check_arguments
def audit(
    subject: Plan | nn.Module,
    against: Plan | CountTable | Sequence[CountTable] | None = None,
    *,
    inputs: object = None,
    model: str | nn.Module | None = None,
    trust: bool = False,
    allow: Costs = (),
    may_stay_uncalled: Sequence[str] = (),
    redistributed: bool = False,
) -> AuditReport:
    """Report that compares measured MACs with a plan, layer by layer; needs torch.

    `audit(plan)` builds the planned structure without data and measures it. `audit(network, plan)` measures your own
    network: layer by layer with its masks if the plan was applied to it, else as a whole without weights that are zero.
    The plan's own dense network fails, although it costs the same: the plan was not applied to it.

    Args:
        subject: a plan; or a network, together with the plan to compare it with.
        against: for a network, the plan. For a plan, counts of its structure (`iftplan.nn.measure_plan` makes them), or
            None to build the structure and count it here, with iftplan's own engine and, where possible, with fvcore.
        inputs: for a network: a tensor, a batch or shapes, as `read_model` takes them; by default those of the plan.
        model: for a plan, the dense network or its source; needed where the plan names no model or Python of your own.
        trust: for a plan, whether to run the Python that it names.
        allow: costs that you vouch for, of operators without a formula, as `read_model` takes them.
        may_stay_uncalled: modules with weights that the forward pass may leave unused.
        redistributed: for a network, whether training moved weights between layers, as SNFS does; then only its total is
            compared.

    Raises:
        InputError: a network without a plan, counts that are no count tables, or a plan whose model is missing or is
            Python that neither `model` nor `trust` allows.
        StaleError: the model is not the one that the plan was made for.
        MeasureError: the model does not run.

    Example:
        >>> wide = plan("zoo:digits-cnn", "wide", "3/4")
        >>> audit(wide).passed
        True
    """
    costs = _costs(allow)
    if not isinstance(subject, Plan):
        if model is not None or trust:
            raise InputError(
                "audit: model and trust are for a plan, whose structure is built; a network is measured as it is. Leave them out."
            )
        if isinstance(against, Plan) and _is_jax(subject):
            from iftplan.jaxnn.application.audit import measure_applied
            from iftplan.jaxnn.sources.call_arguments import call_arguments

            return measure_applied(
                against,
                subject,
                *call_arguments(inputs=inputs),
                allow=costs,
                may_stay_uncalled=may_stay_uncalled,
                redistributed=redistributed,
                unapplied=True,
            )
        if not hasattr(subject, "named_parameters"):
            raise InputError(
                f"audit: subject is a {type(subject).__name__}, but it must be a Plan (iftplan.plan makes one, iftplan.load reads one) or a network (torch.nn.Module)."
            )
        if not isinstance(against, Plan):
            raise InputError(
                "audit: a network is compared with a plan. Give both: audit(network, plan, inputs=batch)."
            )
        from iftplan.nn.application.against_plan import audit_against
        from iftplan.nn.counting.operators.allowed import vouched_operators

        return audit_against(
            subject,
            against,
            inputs,
            operators=vouched_operators(parse_vouched(costs)),
            may_stay_uncalled=may_stay_uncalled,
            redistributed=redistributed,
        )
    if redistributed:
        raise InputError(
            "audit: redistributed belongs to a trained network, and a plan has its own masks. Audit the network: audit(network, plan, redistributed=True)."
        )
    if inputs is not None:
        raise InputError(
            "audit: inputs belong to a network, and a plan has its own. To give some, audit the network: audit(network, plan, inputs=…)."
        )
    if against is None and _is_jax(subject.model if model is None else model):
        from iftplan.jaxnn.application.audit import audit as audit_jax

        return audit_jax(subject, model, trust=trust, allow=costs, may_stay_uncalled=may_stay_uncalled)
    if against is None:
        from iftplan.nn.application.audit import audit as audit_built
        from iftplan.nn.counting.operators.allowed import vouched_operators

        return audit_built(
            subject,
            model,
            trust=trust,
            second="fvcore",
            operators=vouched_operators(parse_vouched(costs)),
            may_stay_uncalled=may_stay_uncalled,
        )
    if model is not None or trust or costs:
        raise InputError(
            "audit: model, trust and allow belong to a structure that is built and counted here, and these counts are made already. Leave them out, or leave out the counts."
        )
    tables = (
        [against]
        if isinstance(against, CountTable)
        else list(against)
        if isinstance(against, Sequence)
        else []
    )
    if not tables or not all(isinstance(table, CountTable) for table in tables):
        raise InputError(
            "audit: a plan is compared with count tables, as iftplan.nn.measure_plan makes them. To measure a network of your own, give it first: audit(network, plan)."
        )
    return audit_plan(subject, tables, may_stay_uncalled=may_stay_uncalled)


@check_arguments
def save(value: Plan | ModelSpec, path: str) -> None:
    """Write a plan or a spec in one step.

    Raises:
        InputError: the place cannot be written; nothing was changed.
    """
    from iftplan.base.documents import dumps, write_text
    from iftplan.models.document import spec_document
    from iftplan.plans.document.plan import plan_document

    document = plan_document(value) if isinstance(value, Plan) else spec_document(value)
    write_text(dumps(document), path)


@check_arguments
def load(path: str) -> Plan | ModelSpec:
    """Read a plan or a spec, its digest checked.

    Raises:
        InputError: neither of them; says where in the document.
    """
    from iftplan.base.documents import loads, read_text, schema_of
    from iftplan.models.document import parse_spec
    from iftplan.plans.document.plan import parse_plan

    document = loads(read_text(path), path)
    return parse_spec(document, path) if schema_of(document, path) == "spec" else parse_plan(document, path)
