"""Every value that shows itself, as the tables it is shown by, and those as text or as HTML."""

from __future__ import annotations

from iftplan.audits import AuditReport
from iftplan.checks import CheckReport
from iftplan.counting import CountTable
from iftplan.diffs import Diff
from iftplan.form import Family
from iftplan.plans import Plan
from iftplan.report.audits import audit_table, summary_table
from iftplan.report.check_table import check_table
from iftplan.report.counts import count_table
from iftplan.report.diffs import diff_table
from iftplan.report.fragment import table_fragment
from iftplan.report.plans import plan_table, scale_tables, scope_table, time_tables
from iftplan.report.scaling import Advice, advice_table
from iftplan.report.solutions import family_table, solution_tables
from iftplan.report.specs import spec_table
from iftplan.report.table import Table, to_text
from iftplan.report.tradeoffs import tradeoff_table
from iftplan.report.training import cost_table
from iftplan.shown import Shown
from iftplan.solution import Solution
from iftplan.spec import ModelSpec
from iftplan.tradeoffs import TradeOff
from iftplan.training_cost import TrainingCost


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
