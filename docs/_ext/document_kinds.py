"""The kinds of documents that the reference lists, in the order in which people meet them."""

from __future__ import annotations

from dataclasses import dataclass

import written_kinds as written

from iftplan.checks import baseline, configuration_file
from iftplan.models import cost_document, spec
from iftplan.plans.audit import document as reportfile
from iftplan.plans.document import plan
from iftplan.plans.speed import document as profilefile
from iftplan.runs import settings


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of document.

    Attributes:
        schema: what its `schema` key says; for TOML, what people call the file.
        kind: the type that it is read with, or that tests hold it against where nothing reads it.
        about: who writes it, who reads it.
        sealed: whether `schema`, `convention` and `digest` stand beside the keys of the type.
    """

    schema: str
    kind: type
    about: str
    sealed: bool = False


FORMATS: tuple[Format, ...] = (
    Format(
        "iftplan.plan/1",
        plan._PlanObject,
        "A plan. `iftplan plan` writes it; `audit`, `diff`, `train`, `check` and `iftplan.load` read it, and add every total up again.",
    ),
    Format(
        "iftplan.spec/1",
        spec.ModelSpec,
        "A model as far as planning is concerned. `iftplan spec` writes it; `plan` and `diff` read it, without PyTorch.",
        sealed=True,
    ),
    Format("iftplan.solve/1", written.SolveObject, "What `iftplan solve --format json` prints."),
    Format(
        "iftplan.audit/1",
        reportfile._ReportObject,
        "What `iftplan audit` found; `diff` reads it.",
    ),
    Format("iftplan.diff/1", written.DiffObject, "What `iftplan diff --format json` prints."),
    Format(
        "iftplan.updates/1",
        written.UpdatesObject,
        "What `iftplan diff --format json` prints of two runs or checkpoints.",
    ),
    Format("iftplan.models/1", written.ModelsObject, "What `iftplan models --format json` prints."),
    Format(
        "iftplan.toml",
        configuration_file._ConfigTable,
        "The configuration of `iftplan check`: TOML in `iftplan.toml`, or under `tool.iftplan` in `pyproject.toml`.",
    ),
    Format("iftplan.check/1", written.CheckObject, "What `iftplan check` found."),
    Format(
        "iftplan.baseline/1",
        baseline._BaselineObject,
        "What models cost when somebody said that this is what they should cost. `iftplan check --save-baseline` writes it, `check` reads it.",
    ),
    Format(
        "run settings",
        settings.RunConfig,
        "The settings of `iftplan train`: TOML given with `--config`, the bundled recipes, and `--set section.key=value`.",
    ),
    Format("iftplan.run/1", written.RunObject, "`run.json` in a run directory."),
    Format("iftplan.result/1", written.ResultObject, "`result.json` in a run directory; `pareto` reads it."),
    Format("iftplan.timing/1", written.TimingObject, "`timing.json` in a run directory."),
    Format(
        "iftplan.pruning/1",
        written.PruningObject,
        "What `iftplan prune` found: `--format json`, and `pruning.json` beside the pruned network.",
    ),
    Format(
        "iftplan.sweep/1",
        written.SweepObject,
        "What `iftplan sweep --format json` prints; the columns of its CSV and Parquet files are the keys of a row.",
    ),
    Format("iftplan.paper/1", written.PaperObject, "What `iftplan paper --format json` prints."),
    Format("iftplan.pareto/1", written.ParetoObject, "What `iftplan pareto --format json` prints."),
    Format("iftplan.bench/1", written.BenchObject, "What `iftplan bench --format json` prints."),
    Format(
        "iftplan.profile/1",
        profilefile._ProfileObject,
        "What layers take on a machine. `iftplan bench --profile` writes it, `plan --objective wallclock` reads it.",
    ),
    Format("iftplan.advise/1", written.AdviseObject, "What `iftplan advise --format json` prints."),
    Format("iftplan.law/1", written.LawObject, "What `iftplan advise --law NAME --format json` prints."),
    Format(
        "iftplan.cached/2",
        written.CachedObject,
        "A file in `.iftplan_cache`, for the commands alone.",
    ),
    Format("iftplan.measured/1", cost_document._MeasuredObject, "The measurement inside of it."),
)
