"""What was found, as text: a line a model, a summary a library, the kinds of failures, a page of the documentation."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from zoo_sweep.journal import Record
from zoo_sweep.stages import STAGES

MARKS = {
    "yes": "+",
    "refused": "r",
    "refused in others' words": "R",
    "apart": "≠",
    "crash": "!",
    "out of time": "t",
    "out of memory": "m",
}
LEGEND = "+ yes, r refused, R refused in others' words, ≠ apart, ! crash, t out of time, m out of memory, · not tried"


def mark(record: Record, stage: str) -> str:
    found = record["stages"].get(stage)
    return MARKS[found["verdict"]] if found else "·"


def line(record: Record) -> str:
    """One model: a mark for each stage, its time, and the first thing that went wrong."""
    marks = "".join(mark(record, stage) for stage in STAGES)
    wrong = next(
        (f"{name}: {found['says']}" for name, found in record["stages"].items() if found["verdict"] != "yes"),
        "",
    )
    if not wrong and record.get("dense", "runs") != "runs":
        wrong = f"not computed with: {record['dense']}"
    return f"{record['model']:52s} {marks} {record['seconds']:6.1f} s  {wrong[:170]}"


def _library(record: Record) -> str:
    return str(record["model"]).partition(":")[0]


def _by_library(records: Iterable[Record]) -> Mapping[str, list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[_library(record)].append(record)
    return groups


def _score(records: Sequence[Record], stage: str) -> str:
    tried = [r["stages"][stage] for r in records if stage in r["stages"]]
    return f"{sum(found['verdict'] == 'yes' for found in tried)}/{len(tried)}"


def summary(records: Sequence[Record]) -> str:
    """How many models passed each stage of those that came to it, by library and in all."""
    groups = {**_by_library(records), "in all": list(records)}
    rows = [f"{'stage':46s}" + "".join(f"{name:>21s}" for name in groups)]
    rows.append(f"{'models':46s}" + "".join(f"{len(group):>21d}" for group in groups.values()))
    rows += [
        f"{what:46s}" + "".join(f"{_score(group, stage):>21s}" for group in groups.values())
        for stage, what in STAGES.items()
    ]
    return "\n".join([*rows, f"({LEGEND})"])


def kind_of(says: str) -> str:
    """The first words of a message without the names and numbers in it: failures of one kind have the same."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "'…'", says)
    text = re.sub(r"\b\w+(\.\w+)+\b(:\d+)?", "…", text)
    text = re.sub(r"\b[A-Za-z_]*\d[\w,.×x-]*", "#", text)
    return " ".join(text.split()[:14])


def kinds(records: Iterable[Record]) -> list[tuple[str, str, str, list[str]]]:
    """(stage, verdict, first words, models) of every kind of failure, the most frequent first."""
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for record in records:
        for stage, one in record["stages"].items():
            if one["verdict"] != "yes":
                found[stage, one["verdict"], kind_of(one["says"])].append(record["model"])
    order = list(STAGES)
    return sorted(
        ((*key, models) for key, models in found.items()), key=lambda k: (order.index(k[0]), -len(k[3]))
    )


def failures(records: Iterable[Record]) -> str:
    """The kinds of failures as text."""
    rows = []
    for stage, verdict, words, models in kinds(records):
        rows.append(
            f"{len(models):4d}  {stage}, {verdict}: {words}\n      {', '.join(models[:12])}{' …' if len(models) > 12 else ''}"
        )
    return "\n".join(rows) or "No failures."


def page(records: Sequence[Record], versions: Mapping[str, str]) -> str:
    """The page of the documentation: the summary, the reasons, and every model."""
    computed = sum("as it was" in record["stages"] for record in records)
    told = ", ".join(f"{name} {number}" for name, number in versions.items())
    parts = [
        "# Networks of other libraries",
        f"Made by `python benchmarks/counting/zoos.py --page docs/results/models-read.md` from {len(records)} networks ({told}). Weights are "
        f"random, and nothing is downloaded. Networks were traced by shape; {computed} of up to twelve million weights were run with data too.",
        _summary_table(records),
        "MACs are counted by iftplan and by PyTorch's FlopCounterMode with its own formulas. Where the two differ, the difference is the "
        "cost of operators for which FlopCounterMode has no formula. Parallel plans keep all widths, so widths need not be followed for them.",
        "## What is refused or fails, and why",
        _reasons(records) or "Nothing.",
        "## Every network",
        "*Widened* means that every step succeeded: the network was read, counted, planned wide and parallel at 0.75, applied and measured "
        "as planned. If it was run with data, its outputs had the same shapes, and at sparsity 0 the same values.",
        _models(records),
    ]
    return "\n\n".join(parts) + "\n"


def _summary_table(records: Sequence[Record]) -> str:
    groups = {**_by_library(records), "in all": list(records)}
    rows = [
        f"| networks that reached the step | {' | '.join(groups)} |",
        f"|---|{'--:|' * len(groups)}",
        f"| networks | {' | '.join(str(len(group)) for group in groups.values())} |",
    ]
    rows += [
        f"| {what} | {' | '.join(_score(group, stage) for group in groups.values())} |"
        for stage, what in STAGES.items()
    ]
    return "\n".join(rows)


def _reasons(records: Sequence[Record]) -> str:
    """One line a kind, the first message of it whole."""
    said = {
        (stage, one["verdict"], kind_of(one["says"])): one["says"]
        for record in reversed(records)
        for stage, one in record["stages"].items()
    }
    return "\n".join(
        f"- *{STAGES[stage]}*, {verdict}, {len(models)}: {', '.join(map(_short, models))}. {_escaped(said[stage, verdict, words])}"
        for stage, verdict, words, models in kinds(records)
    )


def _models(records: Sequence[Record]) -> str:
    parts = []
    for library, group in _by_library(records).items():
        good = [r for r in group if not _failed(r)]
        names = ", ".join(sorted(_short(record["model"]) for record in good))
        parts.append(f"### {library}\n\nWidened, {len(good)} of {len(group)}: {names or 'none'}.")
        others = [
            f"- `{_short(record['model'])}`: {'; '.join(f'{STAGES[stage]}: {verdict}' for stage, verdict in _failed(record))}"
            for record in group
            if _failed(record)
        ]
        if others:
            parts.append("\n".join(others))
    return "\n\n".join(parts)


def _failed(record: Record) -> list[tuple[str, str]]:
    return [(stage, one["verdict"]) for stage, one in record["stages"].items() if one["verdict"] != "yes"]


def _short(model: str) -> str:
    return model.partition(":")[2]


def _escaped(text: str) -> str:
    """A message as code: nothing in it is markup, and no place of the machine that ran it."""
    text = re.sub(r"/\S*site-packages/", "", " ".join(text.split()))[:240]
    return "`" + text.replace("`", "'") + "`"
