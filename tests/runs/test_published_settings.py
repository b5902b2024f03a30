"""Recipes against what the paper publishes: every value has its place in the paper, or says that it is ours.

`published_settings.csv` is that table: arXiv 2303.11525, by sections, appendices and tables.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from iftplan.base.documents import Document
from iftplan.runs.document import merge, parse_run, read_recipe, run_object
from iftplan.runs.recipes.files import recipe_files

OWN = ("cifar10-resnet8", "digits", "shakespeare-gpt")
"""Recipes that are ours as a whole, as the first line of each says."""
TAKEN = tuple(name for name in recipe_files() if name not in OWN)


class Published(NamedTuple):
    """A value that the paper gives, and where."""

    recipes: str
    setting: str
    value: Any
    source: str


def published() -> list[Published]:
    with (Path(__file__).parent / "published_settings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [Published(**{**row, "value": tomllib.loads(f"x = {row['value']}")["x"]}) for row in rows]


def of(recipe: str) -> dict[str, Published]:
    """What the paper says of a recipe, by setting."""
    found: dict[str, Published] = {}
    for row in published():
        if fnmatch(recipe, row.recipes):
            assert row.setting not in found, f"{recipe}: {row.setting} stands twice in the table"
            found[row.setting] = row
    return found


def lines(recipe: str) -> Iterator[tuple[str, str]]:
    """Every setting that a recipe's file writes, with the comment behind it."""
    section = ""
    for line in recipe_files()[recipe].read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
        elif setting := re.match(r"(\w+) = [^#]+(?:# (.*))?$", line):
            yield f"{section}.{setting[1]}", setting[2] or ""


def setting(settings: Document, name: str) -> Any:
    section, _, key = name.partition(".")
    return run_object(parse_run(settings, "a recipe"))[section][key]


def differences(settings: Document, told: dict[str, Published]) -> dict[str, str]:
    """What a recipe has in the place of each published value that it does not have."""
    return {
        name: f"{setting(settings, name)!r}, not {row.value!r} ({row.source})"
        for name, row in told.items()
        if setting(settings, name) != row.value
    }


@pytest.mark.parametrize("recipe", TAKEN)
def test_a_recipe_has_the_published_values(recipe: str) -> None:
    told = of(recipe)
    assert len(told) >= 10
    assert differences(read_recipe(recipe), told) == {}


@pytest.mark.parametrize("recipe", TAKEN)
def test_what_the_paper_does_not_say_is_called_ours(recipe: str) -> None:
    told = of(recipe)
    unsaid = {name for name, comment in lines(recipe) if name not in told and not comment.startswith("ours")}
    assert unsaid == set()
    claimed = {name for name, comment in lines(recipe) if name in told and comment.startswith("ours")}
    assert claimed == set()


@pytest.mark.parametrize("recipe", OWN)
def test_a_recipe_of_ours_says_so_first(recipe: str) -> None:
    assert recipe_files()[recipe].read_text(encoding="utf-8").startswith("# Ours: ")
    assert of(recipe) == {}


def test_every_row_of_the_table_is_about_a_recipe_and_has_a_source() -> None:
    for row in published():
        assert any(fnmatch(name, row.recipes) for name in TAKEN), row
        assert re.match(r"(appendix [BC]\.|tables? \d|section \d|the paper's code: )", row.source), row


def test_bert_trains_its_phases_in_the_published_shares() -> None:
    """Appendix C.2.1: 82 % of all iterations at 128 tokens, 18 % at 512."""
    first, second = (
        setting(read_recipe(name), "training.steps") for name in ("bert-small", "bert-small-512")
    )
    assert first / (first + second) == 0.82


def test_the_pile_run_has_the_published_length() -> None:
    """Table 18: 2.5 B tokens; appendix C.2.2: the first 375 M of them warm up."""
    recipe = read_recipe("gpt3-small-tokens")
    of_a_step = setting(recipe, "training.batch_size") * setting(recipe, "data.context")
    steps = setting(recipe, "training.steps")
    assert steps == 2_500_000_000 // of_a_step
    assert setting(recipe, "schedule.warmup") * steps * of_a_step == pytest.approx(375e6, rel=1e-3)


@pytest.mark.parametrize(
    ("recipe", "changed"),
    [
        ("imagenet-resnet18", {"optimizer": {"nesterov": True}}),
        ("imagenet-botnet50", {"data": {"shorter_side": None}}),
        ("gpt3-small-tokens", {"schedule": {"warmup": 0.01}}),
        ("bert-small", {"optimizer": {"name": "adamw"}}),
    ],
)
def test_a_recipe_that_differs_is_noticed(recipe: str, changed: Document) -> None:
    """What four recipes had before there was this table."""
    (section, values), *_ = changed.items()
    (key,) = values
    found = differences(merge(read_recipe(recipe), changed), of(recipe))
    assert set(found) == {f"{section}.{key}"}
