"""`iftplan advise`: the sparse scaling law's optimal sparsity."""

from __future__ import annotations

from typing import Annotated

import typer

from iftplan.base.units import parse_size
from iftplan.cli import completion
from iftplan.cli.figures import FIGURE_PANEL, ThemeName, ThemeOption, TitleOption, figure_form, write_picture
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
  note: the law was fitted on T5 on C4, with gradual pruning during training; other models and methods have other constants
  note: parameters are non-zero parameters, without embeddings
"""


def command(
    params: Annotated[
        str,
        typer.Option(
            "--params", metavar="COUNT", help="Non-zero parameters without embeddings: 1e8, 100M or 1.3B."
        ),
    ],
    compute: Annotated[
        str,
        typer.Option("--compute", metavar="FLOPS", help="Training budget in FLOPs, two for each MAC: 1e21."),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="FIT",
            autocompletion=completion.laws,
            help="Experiments that the law was fitted to: t5-c4 (T5 on C4) or vit-jft (ViT on JFT).",
        ),
    ] = "t5-c4",
    kappa: Annotated[
        str,
        typer.Option(
            "--kappa",
            metavar="NUMBER",
            help="Cost of a dense training step over that of a sparse one with the same weights; 1 where sparsity saves nothing.",
        ),
    ] = "1",
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Also draw the optimal sparsity against compute (.png, .svg or .pdf).",
            rich_help_panel=FIGURE_PANEL,
        ),
    ] = None,
    title: TitleOption = "",
    theme: ThemeOption = ThemeName.LIGHT,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Find the best sparsity for a model size and a training budget.

    It follows the scaling law of arXiv 2309.08520 for sparse networks.
    """
    from iftplan.runs.scaling_law import law_named
    from iftplan.runs.scaling_tables import Advice, advice_document, advice_records, advice_table

    asked = Advice(
        law_named(data),
        parse_size(params, "--params"),
        parse_size(compute, "--compute"),
        parse_size(kappa, "--kappa"),
    )
    if plot is not None:
        figure_form(plot)
    table = advice_table(asked)
    emit(
        [table],
        lambda: advice_document(data, asked),
        form,
        output,
        summary=[table],
        records=lambda: advice_records(asked, advice_document(data, asked)),
    )
    if plot is not None:
        from iftplan.plots.scaling import advice_picture

        write_picture(lambda: advice_picture(asked, title=title, theme=theme.value), plot)
        say(f"written: {plot}")
