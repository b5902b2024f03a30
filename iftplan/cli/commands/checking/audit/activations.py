"""Effective MACs on data, beside the static ones of an audit: what `iftplan audit --data` asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from iftplan.base.errors import InputError
from iftplan.base.units import parse_count
from iftplan.cli.arguments import operators_of
from iftplan.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.nn import Module

    from iftplan.models.dynamic.selection import InputSelection
    from iftplan.models.spec import InputSpec
    from iftplan.plans.audit.audit import AuditReport


@dataclass(frozen=True, slots=True)
class OnData:
    """Data that effective MACs are measured on, and how.

    Attributes:
        path: of the data.
        samples: the most of them.
        selection: rule by which inputs are set to zero.
        budget: the most effective MACs; None for no limit.
    """

    path: str
    samples: int
    selection: InputSelection
    budget: int | None


def on_data(data: str | None, samples: int, selection: str, budget: str | None) -> OnData | None:
    """The request that the options make to measure on data; None where they make none.

    Args:
        data: path of the data; None without it.
        samples: the most of them.
        selection: rule by which inputs are set to zero, as text.
        budget: the most effective MACs, as text; None for no limit.

    Raises:
        InputError: an option is about data and there are none, or it cannot be read.
    """
    from iftplan.models.dynamic.selection import parse_selection

    if data is None:
        if selection != "zeros" or budget is not None:
            option = "--selection" if budget is None else "--effective-budget"
            raise InputError(f"{option} is about activations, which need data. Name them: --data PATH.")
        return None
    return OnData(data, samples, parse_selection(selection), None if budget is None else parse_count(budget))


def with_activity(
    report: AuditReport,
    network: Module,
    inputs: tuple[InputSpec, ...],
    asked: OnData,
    nonzeros: bool,
    allow: Sequence[str],
) -> AuditReport:
    """The report with effective MACs beside the static ones.

    Args:
        report: static.
        network: with values.
        inputs: that it is counted with.
        asked: what to measure.
        nonzeros: whether the static counts leave out weights that are zero.
        allow: costs of operators, as `--allow` has them.
    """
    from iftplan.nn.training.measures.activity import activation_sparsity, data_batches
    from iftplan.plans.audit.effective import with_effective

    batches, name = data_batches(asked.path, inputs, asked.samples, say)
    operators = operators_of(allow)
    found = activation_sparsity(
        network, batches, selection=asked.selection, nonzeros=nonzeros, operators=operators
    )
    return with_effective(report, found, name, asked.budget)
