"""`iftplan soup`: average runs that share their masks, and write the average as a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iftplan.base.errors import InputError
from iftplan.cli.kept_answers import made_here
from iftplan.cli.options import NoCacheOption, PlanModelOption, TrustOption
from iftplan.cli.output import Format, emit, say, say_next
from iftplan.cli.process import lasting_imports, same_command

EXAMPLE = """
Example, of two runs that were started with train --from runs/first and other seeds:

  $ iftplan soup runs/one runs/two --dry-run

  run        steps   weights kept       training MACs
  ───────────────────────────────────────────────────
  runs/one   2       13 528 of 55 296   347 062 272
  runs/two   2       13 528 of 55 296   347 062 272
  all 2      4       the same           694 124 544
  the runs share their masks, so their average is as sparse
"""


def command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Directories of finished runs with one plan and the same masks: started from one checkpoint with train --from.",
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Directory that the average is written to, as a run.")
    ] = "",
    greedy: Annotated[
        bool,
        typer.Option(
            "--greedy",
            help="Begin with the best run, and add another only if the average does not get worse on the validation data.",
        ),
    ] = False,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Where the data are now.",
            show_default="where the first run had them",
        ),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the runs, show what they cost, and stop.")
    ] = False,
    model: PlanModelOption = None,
    trust: TrustOption = False,
    no_cache: NoCacheOption = False,
) -> None:
    """Average the weights of runs that share their masks.

    The average is as sparse as each run, costs as much to run, and is tested on the runs' test data. Its training cost
    is that of all runs together. train --from, audit and pareto take its directory as that of a run.
    """
    from iftplan.cli.arguments import plan_in, require_torch, source_of
    from iftplan.runs.tables import ingredients_table, soup_table

    if not (out or dry_run):
        raise InputError("soup needs a directory for the average: --out DIR.")
    require_torch("averaging runs")
    with lasting_imports():
        from iftplan.nn.training.soups import ingredients_of, make_soup

    found = ingredients_of(runs, say)
    if dry_run:
        emit([ingredients_table({run.name: run.result for run in found})], dict, Format.TABLE, None)
        say_next([*same_command(without="--dry-run"), *([] if out else ["--out", "runs/soup"])])
        return
    document = found[0].plan
    plan = plan_in(document, str(Path(runs[0], "plan.json")))
    source = source_of(plan, model or "", trust=trust or (not model and made_here(document, no_cache)))
    result = make_soup(
        found, Path(out), kind="greedy" if greedy else "uniform", source=source, data=data, say=say
    )
    emit([soup_table(result)], dict, Format.TABLE, None)
    say(f"written: {out}/result.json, run.json, plan.json and a checkpoint")
    say_next(["pareto", *runs, out])
