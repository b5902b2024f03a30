"""Every value that shows itself, as the tables it is shown by, and those as text or as HTML."""

from __future__ import annotations

from iftplan.checks.findings import CheckReport
from iftplan.checks.tables import check_table
from iftplan.families.family import Family
from iftplan.families.solution import Solution
from iftplan.families.tables import family_table, solution_tables
from iftplan.models.count_table import count_table
from iftplan.models.counting import CountTable
from iftplan.models.spec import ModelSpec
from iftplan.models.tables import spec_table
from iftplan.plans.audit.audit import AuditReport
from iftplan.plans.audit.diff import Diff
from iftplan.plans.audit.diff_tables import diff_table
from iftplan.plans.audit.tables import audit_table, summary_table
from iftplan.plans.plan import Plan
from iftplan.plans.tables import plan_table, scale_tables, scope_table, time_tables
from iftplan.report.html_table import table_fragment
from iftplan.report.shown import Shown
from iftplan.report.table import Table
from iftplan.report.terminal import to_text
from iftplan.runs.results.tables import tradeoff_table
from iftplan.runs.results.tradeoff import TradeOff
from iftplan.runs.scaling_tables import Advice, advice_table
from iftplan.runs.tables import cost_table
from iftplan.runs.training_cost import TrainingCost


def tables(value: Shown) -> tuple[Table, ...]:
    """What a value is shown by, the details first.

    Raises:
        TypeError: a kind of value that nobody gave tables.
    """
    match value:
        case Plan():
            return (plan_table(value), *scale_tables(value), *time_tables(value), scope_table(value))
        case ModelSpec():
            return (spec_table(value),)
        case Solution():
            return solution_tables(value)
        case Family():
            return (family_table(value),)
        case AuditReport():
            return (audit_table(value), summary_table(value))
        case CountTable():
            return (count_table(value),)
        case Diff():
            return (diff_table(value),)
        case TradeOff():
            return (tradeoff_table(value),)
        case Advice():
            return (advice_table(value),)
        case CheckReport():
            return (check_table(value),)
        case TrainingCost():
            return (cost_table(value),)
    raise TypeError(f"{type(value).__name__} shows itself, and no tables are known for it")


def text(value: Shown) -> str:
    """A value as plain text, as the command line prints it into a pipe."""
    return "".join(map(to_text, tables(value))).rstrip("\n")


def html(value: Shown) -> str:
    """A value as a fragment of HTML: no colours, no scripts, long tables folded."""
    return f"<div>{''.join(map(table_fragment, tables(value)))}</div>"
