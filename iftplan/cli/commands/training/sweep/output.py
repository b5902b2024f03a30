"""What `iftplan sweep` prints and writes, and its exit status."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iftplan.base.errors import InfeasibleError, MeasureError
from iftplan.cli.output import Format, emit, say, text_lines

if TYPE_CHECKING:
    from iftplan.base.documents import Document
    from iftplan.report.table import Table
    from iftplan.runs.sweeps.grid import GridPoint


def write(rows: Sequence[GridPoint], notes: Sequence[Table], form: Format | None, output: str | None) -> None:
    """Write all rows to a file or as data, or show the first of them; notes are shown in any case.

    Args:
        rows: of plans and runs.
        notes: tables below the rows.
        form: None for what the file's name says.
        output: a file; None or "-" for stdout.
    """
    from iftplan.runs.sweeps.tables import sweep_table, whole_table

    told = text_lines(*notes)
    suffix = Path(output).suffix.lower() if output else ""
    if suffix == ".parquet" and output and form is None:
        from iftplan.runs.sweeps.frame import frame, write_parquet

        write_parquet(frame(rows), output)
        say(*told, f"written: {output}")
        return
    whole = form is Format.CSV or (form is None and suffix == ".csv")
    tables = [whole_table(rows)] if whole else [sweep_table(rows), *notes]
    emit(tables, lambda: _document(rows), form, output, summary=notes)
    if form in (Format.CSV, Format.JSON) and output in (None, "-"):
        say(*told)


def _document(rows: Sequence[GridPoint]) -> Document:
    from dataclasses import asdict

    from iftplan.base.documents import with_digest

    return with_digest(
        {"schema": "iftplan.sweep/1", "convention": "mac", "rows": [asdict(row) for row in rows]}
    )


def require_a_point(rows: Sequence[GridPoint]) -> None:
    """Refuse a sweep none of whose points can be planned, and one with unfinished runs.

    Raises:
        MeasureError: runs are not finished.
        InfeasibleError: not one point could be planned.
    """
    from iftplan.runs.sweeps.grid import PLANNED, TRAINED, UNFINISHED

    outcomes = [row.outcome for row in rows]
    if left := outcomes.count(UNFINISHED):
        raise MeasureError(
            f"{left} of {len(rows)} runs are not finished. Run the same command again to continue."
        )
    if not {PLANNED, TRAINED} & set(outcomes):
        every = (
            "there is no result:" if len(rows) == 1 else f"none of {len(rows)} rows has a result. The first:"
        )
        raise InfeasibleError(f"{every} {outcomes[0]}")
