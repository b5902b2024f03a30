"""What `import iftplan as ift` offers: the arrows between the boxes, each one function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, overload

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
from iftplan.plans.plan import Asked, CloseBy, MaskUpdates, Objective, Optimizer, Pass, Plan, parse_scope
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
        family: "wide", "parallel", "factorized", "doped", "lowrank", "nm", or one of your own.
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
    source: str | nn.Module,
    *given: object,
    inputs: object = None,
    widths: bool = True,
    heads: Heads = "number",
    allow: Costs = (),
) -> ModelSpec:
    """Read a model's layers, MACs and couplings from one forward pass without data.

    That needs torch, but for the bundled zoo with its own inputs, whose specs are kept.

    Args:
        source: `zoo:resnet18`, `hf:config.json`, `package.module:factory`, `path/file.py:factory`, a spec document, or a network.
        *given: the inputs, such as "1x3x32x32" or "input_ids=1x128:int64", or example inputs: a tensor, or one batch as the model
            takes it (a dictionary of keyword inputs, a list or tuple of positional ones, which may be nested). Only
            shapes, dtypes and plain values are read. Zoo models and configurations know their inputs.
        inputs: the same by name, as one value: `read_model(network, inputs=batch)`.
        widths: also find which channels move together, for families that widen.
        heads: what attention keeps when it widens.
        allow: costs that you vouch for, of operators that would be unknown: ["mylib::scan=0"], or {"mylib::scan": "64*out"}.

    Raises:
        InputError: an input or a cost cannot be read, the source cannot be built, or needs inputs that nobody gave.
        MeasureError: the model does not run, or has an operator of unknown cost.
    """
    if given and inputs is not None:
        raise InputError("read_model: the inputs are given twice, by position and as inputs; give them once.")
    given = given if inputs is None else (inputs,)
    if isinstance(source, str) and source.endswith(".json") and not source.startswith("hf:"):
        return _spec_in(source, given)
    if isinstance(source, str) and source.startswith("zoo:") and not given and not allow:
        from iftplan.models.zoo_specs import zoo_spec

        if (kept := zoo_spec(source, widths=widths, heads=heads)) is not None:
            return kept
    from iftplan.nn.counting.operators.allowed import vouched_operators
    from iftplan.nn.meta.inputs import given_inputs
    from iftplan.nn.meta.wrappers import bare
    from iftplan.nn.reading import read

    source = source if isinstance(source, str) else bare(source)
    costs = [f"{name}={cost}" for name, cost in allow.items()] if isinstance(allow, Mapping) else allow
    return read.read_model(
        source,
        given_inputs(given[0] if len(given) == 1 else given, source) or None,
        widths=widths,
        heads=heads,
        operators=vouched_operators(parse_vouched(costs)),
    )


def _spec_in(path: str, inputs: Sequence[object]) -> ModelSpec:
    """The spec in a document, which holds one input and takes no other."""
    found = load(path)
    if not isinstance(found, ModelSpec):
        raise InputError(f"{path} is a plan, and a model is wanted: its own is {found.model or 'a network'}.")
    if inputs:
        raise InputError(
            f"{path} was read with input {', '.join(map(str, found.inputs))}, and a spec holds one input; read the model again to give another."
        )
    return found


@check_arguments
def plan(
    model: str | ModelSpec | nn.Module,
    family: str | Family | None,
    sparsity: Sparsity | None = None,
    *,
    inputs: object = None,
    allow: Costs = (),
    scope: str = "layers",
    within: str = "",
    distribution: str = "uniform",
    keep_dense: str | Iterable[str] | None = ("first", "last"),
    close: CloseBy = "density",
    round_to: int = 1,
    mask: str | None = None,
    heads: Heads = "number",
    parametrization: Asked = "standard",
    optimizer: Optimizer = "adam",
    mask_updates: MaskUpdates = "static",
    objective: Objective = "flops",
    profile: str | None = None,
    passes: Pass = "forward",
    batch: int = 1,
) -> Plan:
    """Plan a whole model so that its MACs equal the dense model's in one scope.

    Args:
        model: from `read_model`; or a network or a source, which is then read, with its couplings if the family widens.
        family: "wide", "parallel", "factorized", "doped", "lowrank", one of your own, or "none" (or None) for plain sparsity.
        sparsity: the fraction of zeros, in [0, 1): 0.75, "3/4" or "75%"; None for the one that an N:M mask has, or 3/4.
        inputs: of a network or a source: a tensor, a batch, or a shape such as "1x3x32x32", as `read_model` takes them.
        allow: of a network or a source: costs that you vouch for, as `read_model` takes them.
        scope: "matrices", "layers", "model" or "module:NAME": whose MACs are held equal.
        within: modules that alone are transformed and widened, a path with `*` and `?`; empty for the whole model, or
            the module of the scope.
        distribution: "uniform", "er" or "erk".
        keep_dense: "first", "last" or names of layers, one or several; "none" or None keeps no layer dense.
        close: what closes the budget: "density", "width", or "pattern": width, with every N:M pattern whole.
        round_to: widths become multiples of this.
        mask: what masks may look like: "unstructured", or such as "2:8", "2:8T", "block4x4", "fan-in"; "2:8+pad" for
            sizes that do not divide.
        heads: what attention keeps when it widens; of a spec, what it was asked to keep when the model was read.
        parametrization: what weights start and train at: "standard" as in the dense model, "mup", "supar", or
            "auto" for SμPar where there is evidence for it.
        optimizer: whose learning rates a parametrization holds: "adam" or "sgd".
        mask_updates: what becomes of masks in training: "static", "dynamic" or "gradual".
        objective: "flops", or "wallclock" to keep layers dense where sparse kernels cannot pay on a profiled machine.
        profile: of that machine, the file that `iftplan bench --profile` wrote; None for the place where it writes.
        passes: what is priced: "forward", or "step" for forward and backward.
        batch: how many of the model's input are computed together, for those prices.

    Raises:
        InfeasibleError: says which layer is in the way and the nearest feasible sparsity.
        InputError: an argument or a profile that cannot be read, or a model that cannot be built.
        MeasureError: the model does not run, or has an operator of unknown cost.

    Example:
        >>> plan("zoo:digits-cnn", "wide", "3/4").residual_macs
        0
    """
    pricing = None
    if objective == "wallclock":
        from iftplan.plans.speed.document import read_profile

        pricing = Pricing(read_profile(profile), passes, batch)
    closed, modules = parse_scope(scope, within)
    request = PlanRequest(
        family=family,
        sparsity=sparsity,
        scope=closed,
        within=modules,
        distribution=Distribution(one_of("distribution", distribution, [d.value for d in Distribution])),
        keep_dense=names_in("keep_dense", () if keep_dense is None else keep_dense),
        close_by=close,
        round_to=round_to,
        mask=mask or "",
        heads=heads,
        parametrization=parametrization,
        optimizer=optimizer,
        mask_updates=mask_updates,
        pricing=pricing,
    )
    widens = request.policy().widens  # which refuses what cannot be read before a model is
    return make_plan(_spec_of(model, inputs, widths=widens, heads=heads, allow=allow), request)


def _spec_of(
    model: str | ModelSpec | nn.Module, inputs: object, *, widths: bool, heads: Heads, allow: Costs
) -> ModelSpec:
    """The spec that a model is, or that it is read into."""
    if not isinstance(model, ModelSpec):
        return read_model(model, inputs=inputs, widths=widths, heads=heads, allow=allow)
    if inputs is not None or allow:
        raise InputError(
            "plan: inputs and allow are for reading a model, and this one is read already; give them to read_model."
        )
    return model


@overload
def audit(
    subject: Plan,
    against: CountTable | Sequence[CountTable] | None = None,
    *,
    model: str | nn.Module | None = None,
    trust: bool = False,
) -> AuditReport: ...


@overload
def audit(subject: nn.Module, against: Plan, *, inputs: object = None) -> AuditReport: ...


@check_arguments
def audit(
    subject: Plan | nn.Module,
    against: Plan | CountTable | Sequence[CountTable] | None = None,
    *,
    inputs: object = None,
    model: str | nn.Module | None = None,
    trust: bool = False,
) -> AuditReport:
    """Report of a plan's structure, or of a network, measured and held against the plan's ledger; needs torch.

    `audit(plan)` builds the structure without data and measures it layer by layer. `audit(network, plan)` measures the
    network that you have: by its masks and layer by layer if the plan was applied to it, else by its total, weights that
    are zero not counted.

    Args:
        subject: the plan; or a network, with the plan that it is held against.
        against: of a network, the plan; of a plan, counts of its structure (`iftplan.nn.measure_plan` makes them), or
            None to build and measure it here, by our own engine and by fvcore where that can.
        inputs: of a network: a tensor, a batch or shapes, as `read_model` takes them; by default the plan's own.
        model: of a plan, the dense network or its source, where the plan does not name it, or names Python of its own.
        trust: of a plan, run the Python that it names.

    Raises:
        InputError: a network without a plan, or something else than count tables; or the plan names Python that you did
            not, or no model.
        StaleError: the model is not the one that the plan was made for.
        MeasureError: the model does not run.

    Example:
        >>> wide = plan("zoo:digits-cnn", "wide", "3/4")
        >>> audit(wide).passed
        True
    """
    if not isinstance(subject, Plan):
        if not hasattr(subject, "named_parameters"):
            raise InputError(
                f"audit: subject is a {type(subject).__name__}, and it takes a Plan (iftplan.plan makes one, iftplan.load reads one) or a network (torch.nn.Module)."
            )
        if not isinstance(against, Plan):
            raise InputError(
                "audit: a network is held against a plan; give both, as in audit(network, plan, inputs=batch)."
            )
        from iftplan.nn.application.audit import audit_against

        return audit_against(subject, against, inputs)
    if inputs is not None:
        raise InputError(
            "audit: inputs are a network's, and a plan has its own; audit the network: audit(network, plan, inputs=…)."
        )
    if against is None:
        from iftplan.nn.application.audit import audit as audit_built

        return audit_built(subject, model, trust=trust, second="fvcore")
    tables = (
        [against]
        if isinstance(against, CountTable)
        else list(against)
        if isinstance(against, Sequence)
        else []
    )
    if not tables or not all(isinstance(table, CountTable) for table in tables):
        raise InputError(
            "audit: a plan is held against count tables, as iftplan.nn.measure_plan makes them; to measure a network of yours, give it first: audit(network, plan)."
        )
    return audit_plan(subject, tables)


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
