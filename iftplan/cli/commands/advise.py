"""`iftplan advise`: the sparse scaling law's optimal sparsity."""

from __future__ import annotations

from typing import Annotated

import typer

from iftplan.base.units import parse_size
from iftplan.cli.figures import ThemeName, ThemeOption, TitleOption, figure_form, write_picture
from iftplan.cli.options import FormatOption, OutputOption
from iftplan.cli.output import emit, say

EXAMPLE = """
Example:

  $ iftplan advise --params 1e8 --compute 1e20

  T5 on C4: 100 M non-zero parameters, 1e+20 FLOPs of training, κ = 1
       sparsity   all weights   tokens seen     loss   best at FLOPs
  ──────────────────────────────────────────────────────────────────
         0.0000         100 M       166.7 G   1.6556        3.37e+18
         0.5000         200 M       83.33 G   1.6329        7.95e+19
  0.5245 (best)       210.3 M       79.25 G   1.6328           1e+20
         0.7500         400 M       41.67 G   1.6462        1.88e+21
         0.8750         800 M       20.83 G   1.6853        4.42e+22
  note: fitted on T5 on C4 alone, pruned gradually while training; other models and methods have other constants
  note: parameters are non-zero ones, embeddings left out
"""


def command(
    params: Annotated[
        str, typer.Option("--params", help="Non-zero parameters without embeddings: 1e8, 100M, 1.3B.")
    ],
    compute: Annotated[str, typer.Option("--compute", help="FLOPs of training, two for each MAC: 1e21.")],
    data: Annotated[str, typer.Option("--data", help="Which fit: t5-c4 or vit-jft.")] = "t5-c4",
    kappa: Annotated[
        str,
        typer.Option(
            "--kappa",
            help="How often cheaper a sparse step is than a dense one of all weights; 1 for not at all.",
        ),
    ] = "1",
    plot: Annotated[
        str | None, typer.Option("--plot", metavar="FILE", help="Draw the optimum against compute.")
    ] = None,
    title: TitleOption = "",
    theme: ThemeOption = ThemeName.LIGHT,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Say which sparsity the sparse scaling law (arXiv 2309.08520) finds best for a size and a compute."""
    from iftplan.runs.scaling_law import law_named
    from iftplan.runs.scaling_tables import Advice, advice_document, advice_table

    asked = Advice(
        law_named(data),
        parse_size(params, "--params"),
        parse_size(compute, "--compute"),
        parse_size(kappa, "--kappa"),
    )
    if plot is not None:
        figure_form(plot)
    table = advice_table(asked)
    emit([table], lambda: advice_document(data, asked), form, output, summary=[table])
    if plot is not None:
        from iftplan.plots.scaling import advice_picture

        write_picture(lambda: advice_picture(asked, title=title, theme=theme.value), plot)
        say(f"written: {plot}")
