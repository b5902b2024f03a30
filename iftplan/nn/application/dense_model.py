"""The dense model that a plan was made for."""

from __future__ import annotations

from torch import nn

from iftplan.base.errors import InputError, StaleError
from iftplan.models.sources import parse_source
from iftplan.nn.counting.passes.lazy_modules import materialise
from iftplan.nn.meta.copies import without_data
from iftplan.nn.meta.fingerprint import fingerprint
from iftplan.nn.meta.wrappers import unwrapped
from iftplan.nn.sources import build
from iftplan.plans.plan import Plan


def dense_model(
    plan: Plan, model: nn.Module | str | None = None, *, trust: bool = False, called: str = "the plan"
) -> nn.Module:
    """The dense model that a plan was made for, on the meta device.

    A plan file is data: Python that it names is run only if the caller names it too, or trusts the plan.

    Args:
        plan: the plan.
        model: the network or its source; None for the source that the plan names.
        trust: whether Python that the plan names may run.
        called: how messages name the plan.

    Raises:
        InputError: the plan names Python that the caller did not, or no source at all.
        StaleError: the model is not the one that the plan was made for.
    """
    source = model or plan.model
    if not source:
        raise InputError(
            f"{called} does not name the model that it was made for; name it with `model='path/file.py:factory'`."
        )
    if model is None and parse_source(plan.model).runs_user_code and not trust:
        raise InputError(
            f"{called} would run Python code, {source}. A plan file is only data, so iftplan runs this code only "
            f"if you name it, `model={source!r}`, or pass `trust=True`."
        )
    network = without_data(unwrapped(source)) if isinstance(source, nn.Module) else build(source)
    dense = materialise(network, plan.inputs)
    check_same(plan, dense, source if isinstance(source, str) else "", called)
    return dense


def check_same(plan: Plan, model: nn.Module, source: str = "", called: str = "the plan") -> None:
    """Refuse a network that a plan was not made for.

    Args:
        plan: the plan.
        model: what stands for its dense model.
        source: what it was built from, where that is known.
        called: how messages name the plan.

    Raises:
        StaleError: its modules or shapes differ.
    """
    if (found := fingerprint(model)) != plan.fingerprint:
        raise StaleError(
            f"{source or 'the ' + type(model).__name__} is not the model that {called} was made for (fingerprint {found[:12]}…, planned {plan.fingerprint[:12]}…): its modules or shapes differ. Make the plan again{source and f' with iftplan plan {source}'}."
        )
