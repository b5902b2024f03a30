"""Documents of every kind that pages explain, each with the page."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import iftplan as ift
from iftplan.base.documents import Document
from iftplan.checks.findings import CheckReport, Drift, Limit, ModelCheck, Quantity, Status, check_document
from iftplan.families.builtin import family_named
from iftplan.families.document import solve_document
from iftplan.models.cost import ModelCost
from iftplan.models.counting import Contraction, CountTable
from iftplan.models.document import spec_document
from iftplan.models.spec import Kind, LayerSpec, ModelSpec, WeightLayer
from iftplan.plans.audit.audit import audit_model
from iftplan.plans.audit.diff import LayerCosts, diff
from iftplan.plans.audit.document import audit_document
from iftplan.plans.document.plan import plan_document
from iftplan.plans.policy import Policy
from iftplan.plans.scaling import parametrize
from iftplan.plans.speed.document import profile_document
from iftplan.plans.speed.planner import plan_for_time
from tests.support.hand_profiles import profile


def documents() -> Iterator[tuple[str, Document]]:
    layer = WeightLayer(LayerSpec("l", Kind.LINEAR, 8, 8), "l.weight", "Linear")
    spec = ModelSpec("net.py:own", (), (layer,))
    halves = Policy(family_named("parallel"), Fraction(1, 2), keep_dense=frozenset())
    plan = parametrize(plan_for_time(spec, halves, profile()), "auto")
    table = CountTable("meta", (Contraction("l", "linear", 64, "l.weight"),))
    yield "plan-file.md", plan_document(plan)
    yield "output.md", audit_document(audit_model("net.py:own", [table]))
    ledger = LayerCosts("before.json", {"l": 32})
    drift = Drift(diff(ledger, LayerCosts("net", {"l": 64})), diff(ledger, LayerCosts("net", {"l": 64})))
    limit = Limit(Quantity.RATIO, Fraction(1), Fraction(2), reference="baseline")
    measured = ModelCost({"l": 64}, {"l": 64})
    model = ModelCheck("net", "net.py:own", (), Status.FAILED, measured, (limit,), drift, ("why",))
    yield "output.md", check_document(CheckReport("iftplan.toml", "before.json", (model,)))
    yield "output.md", spec_document(spec)
    yield "output.md", solve_document({"linear:8-8": [ift.solve("linear:8-8", "parallel", "1/2")]})
    yield "wallclock-plans.md", profile_document(profile(widths=(8,), columns=(1,)))
