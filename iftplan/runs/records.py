"""The records of a run read back: `run.json`, and `result.json` as it agrees with itself and with what lies beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from typing import Any

from iftplan.base.documents import Document, check
from iftplan.base.errors import InputError
from iftplan.base.units import fraction
from iftplan.runs.document import parse_run, run_digest

_TEXTS = ("model", "transform", "distribution", "method", "data", "metric_name", "convention")
_COUNTS = ("seed", "train_macs", "forward_macs", "dense_forward_macs", "nnz", "maskable_weights")
_MORE_COUNTS = (
    "steps", "samples", "dense_train_macs", "mask_updates", "parameter_bytes", "gradient_bytes", "optimizer_bytes",
    "mask_bytes", "activation_bytes", "index_bits",
)  # fmt: skip
_NUMBERS = ("sparsity", "metric")
_OTHERS = (
    "schema", "digest", "scope", "plan_digest", "run_digest", "loss", "test_loss", "train_ratio", "train_ratio_exact",
    "weights_digest", "best_step", "validation_loss", "validation_metric", "soup",
    "growth",
)  # fmt: skip
_RECORD = (
    "schema", "digest", "config", "seed", "plan_digest", "steps", "precision", "device", "processes", "versions",
    "soup",
)  # fmt: skip
_PARTS = ("density", "itop", "degree_of_constraint")


def parse_record(document: Document, where: str) -> Document:
    """A `run.json` without contradictions; settings that this version does not know stay as they are.

    Raises:
        InputError: says where it holds what no run writes.
    """
    check(document, "iftplan.run/1", where)
    _refuse_unknown(document, _RECORD, where)
    config = document.get("config", {})
    if not isinstance(config, Mapping):
        raise InputError(
            f"{where}: config is a {type(config).__name__}; the settings of a run must be a table."
        )
    for key, kind in (("plan_digest", str), ("steps", int), ("seed", int), ("precision", str)):
        if key in document and type(document[key]) is not kind:
            raise InputError(f"{where}: {key} is {document[key]!r:.60}, which iftplan train never writes.")
    seeds = [part["seed"] for part in (document, config) if "seed" in part]
    if len(set(map(repr, seeds))) > 1:
        raise InputError(f"{where}: seed is {seeds[0]}, but config.seed is {seeds[1]!r:.60}.")
    return document


def parse_result(document: Document, where: str) -> Document:
    """A `result.json` whose numbers are possible and consistent.

    Raises:
        InputError: names the key, and what it contradicts.
    """
    check(document, "iftplan.result/1", where)
    _refuse_unknown(document, (*_TEXTS, *_COUNTS, *_MORE_COUNTS, *_NUMBERS, *_PARTS, *_OTHERS), where)
    for key in (*_TEXTS, *_COUNTS, *_NUMBERS):
        if key not in document:
            raise InputError(f"{where} has no key {key!r}, so it is not a result of iftplan train.")
    for problem in _problems(document):
        raise InputError(f"{where}: {problem}; train again rather than editing it.")
    return document


def _refuse_unknown(document: Document, known: Collection[str], where: str) -> None:
    for key in document:
        if key not in known:
            raise InputError(f"{where}: there is no key {key!r:.60}; train again rather than editing it.")


def check_together(result: Document, record: Document, where: str) -> None:
    """Refuse a result that belongs to another run than the record beside it.

    Args:
        result: from `result.json`.
        record: from `run.json`.
        where: the run directory, for messages.

    Raises:
        InputError: names what they differ in.
    """
    for key in ("seed", "plan_digest"):
        if key in result and key in record and result[key] != record[key]:
            raise InputError(
                f"{where}: {key} is {result[key]!r:.60} in result.json and {record[key]!r:.60} in run.json; the files "
                "belong to different runs."
            )
    if "run_digest" in result and "config" in record:
        try:
            found = run_digest(parse_run(record["config"], where))
        except (
            InputError
        ):  # a setting that this version does not know is read over, and its digest cannot be made
            return
        if result["run_digest"] != found:
            raise InputError(
                f"{where}: result.json belongs to a run with other settings than run.json (run_digest "
                f"{result['run_digest']!s:.12}…, settings {found[:12]}…)."
            )


def _problems(result: Mapping[str, Any]) -> Iterator[str]:
    for key in _TEXTS:
        if not isinstance(result[key], str):
            yield f"{key} is {result[key]!r:.60}; it must be text"
    for key in (*_COUNTS, *(key for key in _MORE_COUNTS if key in result)):
        value = result[key]
        if type(value) is not int:
            yield f"{key} is {value!r:.60}; it must be a whole number"
        elif value < 0:
            yield f"{key} is {value}; a count cannot be negative"
    for key in (*_NUMBERS, *(key for key in _PARTS if key in result)):
        value = result[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{key} is {value!r:.60}; it must be a finite number"
    for key in _PARTS:
        if not 0 <= result.get(key, 0) <= 1:
            yield f"{key} is {result[key]}; it is a fraction of the weights, so it must be from 0 to 1"
    if not 0 <= result["sparsity"] < 1:
        yield f"sparsity is {result['sparsity']}; it must be at least 0 and below 1"
    if result["nnz"] > result["maskable_weights"]:
        yield f"nnz is {result['nnz']}, more than the {result['maskable_weights']} maskable_weights"
    if result["metric_name"] == "accuracy" and not 0 <= result["metric"] <= 1:
        yield f"metric is {result['metric']}; an accuracy must be from 0 to 1"
    yield from _ratios(result)


def _ratios(result: Mapping[str, Any]) -> Iterator[str]:
    spent, dense = result["train_macs"], result.get("dense_train_macs")
    if not dense:
        return
    ratio = Fraction(spent, dense)
    for key, right in (("train_ratio", spent / dense), ("train_ratio_exact", fraction(ratio))):
        if key in result and result[key] != right:
            yield f"{key} is {result[key]!r:.60}, but train_macs and dense_train_macs make it {right}"
