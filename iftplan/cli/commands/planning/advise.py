"""`iftplan advise`: what scaling laws recommend for a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.errors import InputError
from iftplan.base.units import parse_size
from iftplan.cli import completion
from iftplan.cli.figures import FIGURE_PANEL, ThemeName, ThemeOption, TitleOption, figure_form, write_picture
from iftplan.cli.options import FormatOption, OutputOption
from iftplan.cli.output import emit, say

if TYPE_CHECKING:
    from iftplan.runs.laws.fitting.fit import LawFit
    from iftplan.runs.laws.law import Law

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
  note: the law was fitted on N from 1.327 M to 84.93 M, so 100 M non-zero parameters is extrapolated
  note: the law was fitted on D from 16.38 G to 65.54 G, so 79.25 G tokens is extrapolated
"""


LAW_PANEL, FIT_PANEL = "Budget", "Fit to your own runs"


_RESAMPLES, _DELTA = 100, 1e-3
"""How a law is fitted, unless asked otherwise."""


def command(
    params: Annotated[
        str | None,
        typer.Option(
            "--params",
            metavar="COUNT",
            help="Model size: 1e8, 100M or 1.3B. The law `sparse` counts non-zero parameters without embeddings (default 100M); laws of budgets choose the best size by default.",
        ),
    ] = None,
    compute: Annotated[
        str | None,
        typer.Option(
            "--compute", metavar="FLOPS", help="Training budget in FLOPs, two for each MAC (default: 1e20)."
        ),
    ] = None,
    law: Annotated[
        str,
        typer.Option(
            "--law",
            metavar="NAME",
            autocompletion=completion.laws,
            help="Scaling law: sparse, dense, average (pruning during training), joint-moe, moe-sparsity, fine-grained-moe, routed or activation.",
        ),
    ] = "sparse",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="FIT",
            autocompletion=completion.law_fits,
            help="Experiments that the law was fitted to; for the law `sparse`, t5-c4 (T5 on C4, default) or vit-jft (ViT on JFT).",
        ),
    ] = None,
    kappa: Annotated[
        str | None,
        typer.Option(
            "--kappa",
            metavar="NUMBER",
            help="Cost of a dense training step over that of a sparse one with the same weights (default: 1, sparsity saves nothing).",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="COUNT",
            help="Numbers that the memory holds for weights, keys and values: bytes over bytes per number.",
            rich_help_panel=LAW_PANEL,
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            "--context",
            metavar="TOKENS",
            help="Tokens whose keys and values are in that memory (default: 0).",
            rich_help_panel=LAW_PANEL,
        ),
    ] = None,
    served: Annotated[
        str | None,
        typer.Option(
            "--served",
            metavar="TOKENS",
            help="Tokens of inference that the compute pays for too (default: 0).",
            rich_help_panel=LAW_PANEL,
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens",
            metavar="TOKENS",
            help="Training tokens, for the law `activation`.",
            rich_help_panel=LAW_PANEL,
        ),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(
            "--fit",
            metavar="RUNS",
            help="Fit the law to runs: a CSV table with a column for each variable of the law (sparsity, params, data, experts, granularity) and `loss`, or a folder of run directories.",
            rich_help_panel=FIT_PANEL,
        ),
    ] = None,
    resamples: Annotated[
        int,
        typer.Option(
            "--resamples",
            metavar="COUNT",
            min=0,
            max=10_000,
            help="Fits to resampled runs, of which the 95 % intervals are made; 0 for none.",
            rich_help_panel=FIT_PANEL,
        ),
    ] = _RESAMPLES,
    delta: Annotated[
        float,
        typer.Option(
            "--delta",
            metavar="NUMBER",
            help="Residual from which on a run counts as an outlier (Huber).",
            rich_help_panel=FIT_PANEL,
        ),
    ] = _DELTA,
    linear: Annotated[
        bool,
        typer.Option(
            "--linear",
            help="Fit differences of losses instead of differences of their logarithms.",
            rich_help_panel=FIT_PANEL,
        ),
    ] = False,
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Also draw (.png, .svg or .pdf): for the law `sparse` the optimal sparsity against compute, for `joint-moe` the loss of dense, sparse and expert models against compute.",
            rich_help_panel=FIGURE_PANEL,
        ),
    ] = None,
    title: TitleOption = "",
    theme: ThemeOption = ThemeName.LIGHT,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Ask scaling laws for the best sparsity or number of experts.

    The laws are published ones, by default that of arXiv 2309.08520 for sparse networks, or fitted to your own runs.
    """
    from iftplan.runs.laws.named import published

    chosen = published(law, data)
    if plot is not None:
        figure_form(plot)
        if law not in ("sparse", "joint-moe"):
            raise InputError(f"--plot draws the laws sparse and joint-moe; there is no figure of {law}.")
    if fit is None and (linear or delta != _DELTA or resamples != _RESAMPLES):
        raise InputError(
            "--linear, --delta and --resamples say how a law is fitted. Add --fit RUNS, or leave them out."
        )
    sizes = {
        name: parse_size(text, f"--{name}", zero=name in ("context", "served"))
        for name, text in (
            ("params", params), ("compute", compute), ("kappa", kappa), ("memory", memory), ("context", context),
            ("served", served), ("tokens", tokens),
        )
        if text is not None
    }  # fmt: skip
    fitted = None if fit is None else _fitted(chosen, fit, delta, resamples, linear)
    source = fit or data or _first(law)
    if law == "sparse":
        _sparse(source, fitted, sizes, plot, title, theme, form, output)
        return
    if "kappa" in sizes:
        raise InputError(f"--kappa belongs to the law sparse; {law} has no such constant.")
    from iftplan.runs.laws.advice.answer import answer_document
    from iftplan.runs.laws.advice.question import LawQuestion, ask

    answer = ask(fitted.law if fitted else chosen, LawQuestion(**sizes), fitted)
    emit(
        answer.tables(), lambda: answer_document(source, answer), form, output, summary=answer.tables(),
        records=answer.records,
    )  # fmt: skip
    if plot is not None:
        from iftplan.plots.scaling import SIZE, families_picture

        write_picture(
            lambda: families_picture(sizes.get("params", SIZE), answer.law, title=title, theme=theme.value),
            plot,
        )
        say(f"written: {plot}")


def _first(law: str) -> str:
    from iftplan.runs.laws.named import FITS

    return next(iter(FITS[law]))


def _fitted(law: Law, runs: str, delta: float, resamples: int, linear: bool) -> LawFit:
    from iftplan.runs.laws.fitting.fit import FitSettings, fit_law
    from iftplan.runs.laws.fitting.runs import read_runs

    return fit_law(law, read_runs(runs, law), FitSettings(delta, not linear, resamples=resamples))


def _sparse(
    source: str,
    fitted: LawFit | None,
    sizes: dict[str, float],
    plot: str | None,
    title: str,
    theme: ThemeName,
    form: FormatOption,
    output: OutputOption,
) -> None:
    from iftplan.runs.laws.advice.sparse import Advice, advice_document, advice_records
    from iftplan.runs.laws.sparse import LAWS, from_law

    if unheard := [name for name in sizes if name not in ("params", "compute", "kappa")]:
        raise InputError(
            f"--{unheard[0]} is not for the law sparse; it takes --params, --compute and --kappa."
        )
    asked = Advice(
        from_law(fitted.law) if fitted else LAWS[source],
        sizes.get("params", 1e8),
        sizes.get("compute", 1e20),
        sizes.get("kappa", 1.0),
        fitted,
    )
    emit(
        asked.tables(),
        lambda: advice_document(source, asked),
        form,
        output,
        summary=asked.tables(),
        records=lambda: advice_records(asked, advice_document(source, asked)),
    )
    if plot is not None:
        from iftplan.plots.scaling import advice_picture

        write_picture(lambda: advice_picture(asked, title=title, theme=theme.value), plot)
        say(f"written: {plot}")
