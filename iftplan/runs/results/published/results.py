"""Published results as the papers print them, one row for each number, with its paper and table.

`results.csv` has one metric for each task, which trade-offs are drawn with; `details.csv` has the others.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files

from iftplan.base.errors import InputError


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """Number of a paper's table, with the model and the settings that it belongs to.

    Attributes:
        source: the paper on arXiv.
        table: its table there.
        task: the data.
        model: the dense model, as the paper calls it.
        transform: the family; "dense" for the model itself.
        method: how masks changed in training.
        nonlinear: whether a non-linearity stands inside; None where there is no inside.
        sparsity: fraction of zeros.
        mask: masks that are not unstructured, in the notation of `iftplan.masks.parse_mask`.
        metric: what was measured.
        value: the number.
        std: its ±, where given.
    """

    source: str
    table: str
    task: str
    model: str
    transform: str
    method: str
    nonlinear: bool | None
    sparsity: Fraction
    mask: str
    metric: str
    value: float
    std: float | None

    @property
    def cited(self) -> str:
        """Paper and table that the number stands in."""
        return f"arXiv {self.source}, table {self.table}"


def published_results(task: str | None = None) -> tuple[PublishedResult, ...]:
    """Published results, all or those of one task.

    Raises:
        InputError: there is no such task; says which there are.

    Example:
        >>> published_results("ImageNet")[0].value
        70.9
    """
    found = _read("results.csv")
    tasks = tuple(dict.fromkeys(result.task for result in found))
    if task is not None and task not in tasks:
        raise InputError(
            f"`task`: iftplan has no published results for {task!r}; it has those for {', '.join(tasks)}."
        )
    return tuple(result for result in found if task in (None, result.task))


def all_published() -> tuple[PublishedResult, ...]:
    """Published results of every task, with the metrics beside each task's first one."""
    return *_read("results.csv"), *_read("details.csv")


def _read(name: str) -> tuple[PublishedResult, ...]:
    text = files("iftplan.runs.results.published").joinpath(name).read_text(encoding="utf-8")
    return tuple(map(_result, csv.DictReader(io.StringIO(text))))


def _result(row: dict[str, str]) -> PublishedResult:
    transform, mask = _family(row["transformation"])
    return PublishedResult(
        row["source"],
        row["table"],
        row["task"],
        row["model"],
        transform,
        row["method"],
        {"yes": True, "no": False, "": None}[row["nonlinear"]],
        _sparsity(row["sparsity"]),
        mask,
        row["metric"],
        float(row["value"]),
        float(row["std"]) if row["std"] else None,
    )


def _family(name: str) -> tuple[str, str]:
    """Family and mask: `wide-2:8-T` is wide under transposable 2:8 masks."""
    family, _, rest = name.partition("-")
    return family, rest.replace("-", "") if ":" in rest else ""


def _sparsity(text: str) -> Fraction:
    """As printed; where a width stands, the sparsity at which Sparse Wide has that width."""
    name, is_width, width = text.partition("=")
    return (
        1 - Fraction(round(1000 / Fraction(width) ** 2), 1000).limit_denominator(10)
        if is_width
        else Fraction(name)
    )
