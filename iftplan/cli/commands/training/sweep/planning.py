"""The plans of `iftplan sweep`: all of a grid, or those that a search chose, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from iftplan.base.errors import InputError
from iftplan.cli.output import Interrupted, working

if TYPE_CHECKING:
    from iftplan.families.family import Family
    from iftplan.models.spec import Heads, ModelSpec
    from iftplan.report.table import Table
    from iftplan.runs.sweeps.grid import Grid, GridPoint
    from iftplan.runs.sweeps.search import SamplerName


def plan_points(
    grid: Grid, specs: Mapping[str, ModelSpec], families: Mapping[str, Family], heads: Heads
) -> list[GridPoint]:
    """A row for each point of a grid.

    Args:
        grid: of plans.
        specs: model → its spec.
        families: by name, your own among them.
        heads: "number" or "size", whichever attention keeps when it widens.

    Raises:
        Interrupted: Ctrl-C; nothing is written.
    """
    from iftplan.runs.sweeps.grid import planned_rows

    rows: list[GridPoint] = []
    try:
        with working(f"planning {len(grid)} points"):
            rows.extend(planned_rows(specs, grid.plans(), families, heads=heads))
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"stopped with {len(rows)} of {len(grid)} points planned; nothing was written"
        ) from error
    return rows


def search_plans(
    grid: Grid,
    specs: Mapping[str, ModelSpec],
    families: Mapping[str, Family],
    sampler: SamplerName,
    trials: int,
) -> tuple[list[GridPoint], Sequence[Table]]:
    """Rows that a search over plans found, beside as many random trials, and a table of both hypervolumes.

    Args:
        grid: whose choices the search lies in.
        specs: model → its spec.
        families: by name, your own among them.
        sampler: "tpe", "nsga2" or "random".
        trials: of the search, and again of random ones.
    """
    require_optuna()
    from iftplan.runs.sweeps.search import planned_objectives, planned_search, shares, space_of
    from iftplan.runs.sweeps.tables import search_table

    space = space_of(grid)
    found: dict[str, list[GridPoint]] = {}
    with working(f"searching with {trials} trials"):
        for name in dict.fromkeys((sampler, "random")):
            found[name] = planned_search(space, name, trials, specs, families)
    points = {name: [p for row in rows if (p := planned_objectives(row))] for name, rows in found.items()}
    axes = "of bits to name a mask against forward MACs; 1 would be the best of both at once"
    both = dict.fromkeys(row for rows in found.values() for row in rows)  # both may choose the same plan
    return list(both), [search_table(shares(points), trials, axes)]


def require_optuna() -> None:
    """Say which extra to install where Optuna is missing.

    Raises:
        InputError: it cannot be imported.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise InputError(
            "--search and --train need Optuna, which is not installed. Install it with: pip install 'iftplan[sweep]'."
        ) from error
