"""What was found, as text: a line a model, a summary a library, the kinds of failures, a page of the documentation."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
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
    """The page of the documentation."""
    return f"{Counter(map(_library, records))}{versions}"
