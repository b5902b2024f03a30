"""What is asked of every model, one stage after the other, and what came of each."""

from __future__ import annotations

import copy
import dataclasses
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor, nn

import iftplan as ift
import iftplan.api  # what is imported here, no process needs to import again
import iftplan.nn.application.apply
import iftplan.nn.application.audit
import iftplan.nn.counting.engines.meta
import iftplan.nn.reading.read
import iftplan.nn.reading.widths.trace
from iftplan import nn as ift_nn
from iftplan.base.errors import IftplanError
from iftplan.models.spec import ModelSpec
from iftplan.nn.counting.passes.conditions import counting_conditions
from iftplan.nn.counting.passes.data import FOR_THIS_INPUT
from iftplan.nn.meta.inputs import make_inputs
from iftplan.nn.reading.widths import trace
from iftplan.plans.audit.audit import AuditReport
from iftplan.plans.plan import Plan

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from tests.support.independent import compared
from zoo_sweep.entry import Entry

Say = Callable[[dict[str, Any]], None]
T = TypeVar("T")

FAMILIES = ("wide", "parallel")
STAGES = {
    "read": "read",
    "count": "count against FlopCounterMode",
    "widths": "widths",
    **{f"{family} plan": f"{family} planned at .75" for family in FAMILIES},
    **{f"{family} apply": f"{family} applied" for family in FAMILIES},
    **{f"{family} measure": f"{family} measured as planned" for family in FAMILIES},
    "as it was": "computes what it did before it was read",
    **{f"{family} forward": f"{family}: real forward, same output shapes" for family in FAMILIES},
    **{f"{family} at 0": f"{family} at 0: the dense outputs" for family in FAMILIES},
}
"""Stage → what it is called in the table, in the order in which they are asked."""

FOREIGN = re.compile(r"\b[A-Z]\w*(Error|Exception|Warning)\b|an error of our own|Should not reach")
"""What an error says that quotes another program's."""

INNER = re.compile(
    r"hidden|past_key|attention|encoder|cache|router|intermediate|embeds|states|feature|codes|loss|output$"
)
"""Outputs beside the first that are values inside the network: they may be wider."""

NEAR = 1e-4
"""How far outputs that must be equal may be apart, of their largest value: sums may be taken in another order."""


class WrongError(Exception):
    """A stage whose answer is wrong: its verdict is "apart"."""


@dataclasses.dataclass
class Sweep:
    """One model's way through the stages."""

    entry: Entry
    say: Say
    limit: int
    passed: set[str] = dataclasses.field(default_factory=set)

    def stage(self, name: str, attempt: Callable[[], T]) -> T | None:
        """What the attempt returns, None where it fails; the verdict is reported."""
        self.say({"begins": name})
        began = time.monotonic()
        result, verdict, says = None, "yes", ""
        try:
            result = attempt()
        except WrongError as error:
            verdict, says = "apart", str(error)
        except IftplanError as error:
            says = str(error)
            verdict = "refused in others' words" if FOREIGN.search(says) else "refused"
        except MemoryError:
            raise
        except Exception as error:
            says = f"{type(error).__name__}: {error}{_origin(error)}"
            verdict = "out of memory" if "DefaultCPUAllocator" in says else "crash"
        else:
            self.passed.add(name)
            if name == "count":
                says = str(result)
        says = " ".join(says.split())[:600]
        self.say(
            {"stage": name, "verdict": verdict, "says": says, "seconds": round(time.monotonic() - began, 2)}
        )
        return result


def _origin(error: BaseException) -> str:
    """The innermost line of ours on the way to the error."""
    lines, trace = [], error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if "iftplan" in file.parts:
            lines.append(f"{file.name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f" [{lines[-1]}]" if lines else ""


def sweep(entry: Entry, say: Say, limit: int) -> None:
    """Take one model through all stages, and report each.

    Args:
        entry: the model.
        say: takes the reports.
        limit: models of more weights than this are not computed with, only their shapes.
    """
    warnings.filterwarnings("ignore")
    run = Sweep(entry, say, limit)
    model, real = _built(entry, limit)
    say({"weights": sum(p.numel() for p in model.parameters()), "class": type(model).__name__, "real": real})
    dense, why = None, f"more than {limit // 10**6} million weights"
    if real:
        try:
            dense, why = _outputs(model, entry), ""
        except Exception as error:
            why = f"the model itself: {type(error).__name__}: {error}"
        say({"dense": why or "runs"})
    spec = run.stage("read", lambda: ift.read_model(model, *entry.inputs, widths=False))
    run.stage("count", lambda: _counted(model, entry))
    if spec is None:
        return
    say({"macs": spec.macs})
    from_data = FOR_THIS_INPUT in spec.assumptions
    wider = run.stage("widths", lambda: _widths(model, entry))
    plans = {}
    for family in FAMILIES:
        source = wider if family == "wide" else spec
        if source is not None:
            plans[family] = run.stage(f"{family} plan", lambda s=source, f=family: ift.plan(s, f, "0.75"))
    applied = {}
    for family, plan in plans.items():
        if plan is not None:
            apply = (
                ift_nn.apply if real else partial(_applied, spec=wider or spec)
            )  # the large ones take long enough
            applied[family] = run.stage(f"{family} apply", lambda p=plan, a=apply: a(p, model))
            if applied[family] is not None:
                run.stage(
                    f"{family} measure",
                    lambda p=plan, a=applied[family]: _measured(ift_nn.measure_applied(p, a), p, a),
                )
    if dense is None:
        return
    run.stage("as it was", lambda: _as_it_was(model, entry, dense))
    for family, changed in applied.items():
        if changed is not None:
            run.stage(
                f"{family} forward", lambda c=changed, f=family: _same_shapes(c, entry, dense, f, from_data)
            )
    applied.clear()
    for family in FAMILIES:
        source = wider if family == "wide" else spec
        if source is not None:
            run.stage(f"{family} at 0", lambda s=source, f=family: _at_zero(s, f, model, entry, dense))


def _built(entry: Entry, limit: int) -> tuple[nn.Module, bool]:
    """The model, and whether it has values; those that cannot be made on the meta device do."""
    try:
        shapes = entry.on_meta()
    except Exception:
        return entry.on_cpu(), True
    real = sum(p.numel() for p in shapes.parameters()) <= limit
    return (entry.on_cpu(), True) if real else (shapes, False)


def _counted(model: nn.Module, entry: Entry) -> str:
    found = compared(model, entry.specs)
    if found.unknown:
        raise WrongError(f"unknown operators: {', '.join(found.unknown)}")
    if not found.explained:
        raise WrongError(
            f"{found.ours:,} MACs, FlopCounterMode {found.independent:,}, without {dict(found.without_formula)}"
        )
    return "equal" if found.ours == found.independent else f"without {', '.join(found.without_formula)}"


def _widths(model: nn.Module, entry: Entry) -> ModelSpec:
    spec = ift.read_model(model, *entry.inputs, widths=True)
    if spec.couplings is None:
        raise IftplanError(spec.refusal)
    return spec


def _measured(report: AuditReport, plan: Plan, model: nn.Module) -> None:
    if report.passed:
        return
    said = " ".join(report.problems)
    silent = [name for name in report.uncalled_modules if name not in said]
    if silent:
        raise WrongError(f"did not pass, and problems do not name {silent[0]}, which is not called. {said}")
    again = ift_nn.measure_applied(plan, model, may_stay_uncalled=report.uncalled_modules)
    if not (report.uncalled_modules and again.passed):
        raise WrongError(said or f"did not pass without a word: {report.verdict}")


def _inputs(model: nn.Module, entry: Entry) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Random values where iftplan's own inputs are zero."""
    generator = torch.Generator().manual_seed(1)
    args, kwargs = make_inputs(entry.specs, "cpu")

    def random(name: str | int, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and "mask" not in str(name):
            return torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        if tensor.dtype is torch.int64 and "mask" not in str(name):
            below = entry.below.get(name, _tokens(model))
            return torch.randint(min(3, below - 1), below, tensor.shape, generator=generator)
        return tensor

    return tuple(random(i, t) for i, t in enumerate(args)), {n: random(n, t) for n, t in kwargs.items()}


def _tokens(model: nn.Module) -> int:
    rows = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    return min(90, *rows, 90) if rows else 2


def _outputs(model: nn.Module, entry: Entry) -> dict[str, Tensor]:
    """Every tensor that the model answers with, by its name."""
    args, kwargs = _inputs(model, entry)
    torch.manual_seed(2)
    with counting_conditions(model):
        return dict(_named(model(*args, **kwargs), ""))


def _named(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value.clone()
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _named(part, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for key, part in enumerate(value):
            yield from _named(part, f"{name}.{key}".lstrip("."))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _named(getattr(value, field.name), f"{name}.{field.name}".lstrip("."))


def _same_shapes(
    model: nn.Module, entry: Entry, dense: Mapping[str, Tensor], family: str, from_data: bool
) -> None:
    """Every output in the shape it had; how many objects are found, data decide, and so other weights."""
    found = _outputs(model, entry)
    first = "logits" if "logits" in dense else next(iter(dense), "")
    for name, tensor in dense.items():
        if name not in found:
            raise WrongError(f"output {name or 'of the model'} is missing")
        same = found[name].shape == tensor.shape or (from_data and found[name].dim() == tensor.dim())
        if not same and (family != "wide" or name == first or not INNER.search(name)):
            raise WrongError(f"output {name or 'of the model'} is {_size(found[name])}, was {_size(tensor)}")


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _equal(found: Mapping[str, Tensor], dense: Mapping[str, Tensor]) -> None:
    for name, tensor in dense.items():
        other = found.get(name)
        if other is None or other.shape != tensor.shape:
            raise WrongError(
                f"output {name or 'of the model'} is {'missing' if other is None else _size(other)}, was {_size(tensor)}"
            )
        if not tensor.is_floating_point():
            if not torch.equal(other, tensor):
                raise WrongError(f"output {name or 'of the model'} differs")
            continue
        one, two = other.double().nan_to_num(), tensor.double().nan_to_num()
        apart, scale = (
            (one - two).abs().max().item() if one.numel() else 0,
            two.abs().max().item() if two.numel() else 0,
        )
        if not apart <= NEAR * max(scale, 1e-6):
            raise WrongError(f"output {name or 'of the model'} is {apart:.1e} apart, of at most {scale:.1e}")


def _applied(plan: Plan, model: nn.Module, spec: ModelSpec) -> nn.Module:
    """The plan applied with the widths that are known: to look for them again takes longer than all the rest."""
    with patch.object(trace, "trace_widths", lambda *_, **__: spec.couplings):
        return ift_nn.apply(plan, model)


def _as_it_was(model: nn.Module, entry: Entry, dense: Mapping[str, Tensor]) -> None:
    _equal(_outputs(model, entry), dense)
    copy.deepcopy(model)


def _at_zero(
    spec: ModelSpec, family: str, model: nn.Module, entry: Entry, dense: Mapping[str, Tensor]
) -> None:
    plan = ift.plan(spec, family, "0")
    _equal(_outputs(_applied(plan, model, spec), entry), dense)
