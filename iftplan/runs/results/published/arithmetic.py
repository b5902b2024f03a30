"""Published rows beside what iftplan computes for the same networks: sizes, MACs, search spaces, training costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from iftplan.models.spec import ModelSpec
from iftplan.plans.plan import Plan, Rounding, Scope
from iftplan.runs.results.published.costs import SETTINGS, Setting, planned_result, training_macs
from iftplan.runs.results.published.entries import PaperEntry
from iftplan.runs.results.published.results import PublishedResult


@dataclass(frozen=True, slots=True)
class Counted:
    """Plan of the network of a published row, and MACs of its training.

    Attributes:
        setting: model and recipe of ours that it corresponds to.
        plan: of the network; that of the dense row closes the same scope at sparsity 0.
        train_macs: MACs of the whole training; None where the paper's length or the method's rule is not known.
        dense_train_macs: of the dense model on the same samples.
    """

    setting: Setting
    plan: Plan
    train_macs: int | None
    dense_train_macs: int | None

    @property
    def ratio(self) -> Fraction:
        """Forward MACs of the whole model over the dense model's."""
        return self.plan.ratio(Scope.MODEL)

    @property
    def residual(self) -> int:
        """MACs of the scope that the paper closes which the plan leaves unspent."""
        scope = self.setting.scope
        return self.plan.dense_macs(scope) - self.plan.macs(scope)

    @property
    def size(self) -> str:
        """Width multiplier, branches or ranks, in words; empty for the dense model."""
        return _size(self.plan)


@dataclass(frozen=True, slots=True)
class PaperRow:
    """Row of a paper's table with our arithmetic.

    Attributes:
        published: the row.
        against_dense: its value minus that of the dense row of the same model and metric; None for the dense row, or
            where there is none.
        counted: what iftplan counts; None where its network is not bundled.
    """

    published: PublishedResult
    against_dense: float | None
    counted: Counted | None


def paper_rows(
    entry: PaperEntry, read: Callable[[str], ModelSpec], rounding: Rounding = "cover"
) -> tuple[PaperRow, ...]:
    """Rows of a table of results, each with our arithmetic.

    Args:
        entry: a table or figure.
        read: a source to its spec, with widths; called once for each model.
        rounding: of widths.
    """
    results = entry.results()
    named = dict.fromkeys(s.model for r in results if (s := SETTINGS.get((r.task, r.model))))
    specs = {model: read(model) for model in named}
    return tuple(
        PaperRow(
            result,
            _against_dense(result, results),
            _counted(result, specs, rounding) if (result.task, result.model) in SETTINGS else None,
        )
        for result in results
    )


def _against_dense(result: PublishedResult, results: Sequence[PublishedResult]) -> float | None:
    if result.transform == "dense":
        return None
    alike = (r for r in results if (r.task, r.model, r.metric) == (result.task, result.model, result.metric))
    dense = next((r for r in alike if r.transform == "dense"), None)
    return None if dense is None else round(result.value - dense.value, 6)


def _counted(result: PublishedResult, specs: dict[str, ModelSpec], rounding: Rounding) -> Counted:
    setting = SETTINGS[result.task, result.model]
    plan = planned_result(result, specs[setting.model], setting, rounding)
    control = planned_result(_as_dense(result), specs[setting.model], setting)
    return Counted(
        setting,
        plan,
        training_macs(plan, result.method, setting),
        training_macs(control, "dense", setting),
    )


def _as_dense(result: PublishedResult) -> PublishedResult:
    from dataclasses import replace

    return replace(result, transform="dense", method="dense", sparsity=Fraction(0), mask="", nonlinear=None)


def _size(plan: Plan) -> str:
    changed = [layer for layer in plan.layers if layer.structure]
    for key in ("branches", "rank"):
        found = (layer.structure.get(key) for layer in changed)
        values = sorted({int(value) for value in found if value is not None})
        if values:
            span = str(values[0]) if len(values) == 1 else f"{values[0]}–{values[-1]}"
            wider = f"{plan.multiplier:.4g}× wide, " if plan.multiplier != 1 else ""
            return f"{wider}{key} {span}" if key == "rank" else f"{span} branches"
    return f"{plan.multiplier:.4g}× wide" if plan.multiplier != 1 else ""
