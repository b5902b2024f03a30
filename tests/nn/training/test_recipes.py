"""Every recipe runs for ten steps on data of its format, and resumes in the middle to the bit.

Recipes are what they are, but for what `SMALLER` and `SHORT` say: batches, lengths, and networks that are too large for a
test on a processor.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iftplan.base.documents import Document
from iftplan.runs.document import merge, parse_run, read_recipe
from iftplan.runs.recipes.files import recipe_files
from iftplan.runs.settings import DataConfig
from tests.support.runs.executed import StoppedRunError, executed, plan_of

pytestmark = pytest.mark.slow

SHORT: Document = {
    "method": {"interval": 3, "refresh": 3},
    "training": {
        "steps": 10,
        "batch_size": 2,
        "accumulate": 1,
        "eval_interval": 5,
        "checkpoint_interval": 5,
        "precision": "32-true",
        "threads": 1,
    },
}
"""Of all recipes: ten steps of two samples, masks that change before and after the checkpoint, and float32."""

_NARROW: Document = {"plan": {"sparsity": "1/4"}}
_SMALL_IMAGES: Document = {
    "plan": {"input": "1x3x64x64", "sparsity": "1/4"},
    "data": {"size": 64, "shorter_side": [72, 96], "eval_shorter_side": 72, "workers": 1},
}
_RESNET8: Document = {"plan": {"model": "zoo:resnet8-cifar"}}
_GPT: Document = {
    "plan": {"model": "zoo:gpt-char"},
    "data": {"context": 128, "vocabulary": 256, "test_fraction": 0.1},
    "training": {"batch_size": 4, "accumulate": 2},
}
_VALIDATED = merge(_GPT, {"data": {"validation_fraction": 0.1}})
SMALLER: dict[str, Document] = {
    "cifar100-resnet18": _NARROW,
    "cifar100-resnet18-linear": _RESNET8,
    "cifar100-resnet18-lowrank": _RESNET8,
    "cifar100-resnet18-transposable": _RESNET8,
    "cifar100-resnet34": _RESNET8,
    "cifar100-mobilenetv2": _NARROW,
    "cifar100-mobilevit-s": _NARROW,
    "cifar100-botnet50": _NARROW,
    "imagenet-resnet18": _SMALL_IMAGES,
    "imagenet-resnet34": _SMALL_IMAGES,
    "imagenet-resnet50": _SMALL_IMAGES,
    "imagenet-mobilenetv2": _SMALL_IMAGES,
    "imagenet-botnet50": merge(_NARROW, {"data": {"workers": 1}}),  # its attention knows its size
    "gpt3-small-wikitext103": _VALIDATED,
    "gpt3-small-tokens": _GPT,
    "gpt3-small-finetune": _VALIDATED,
    "bert-small": merge(_GPT, {"plan": {"input": "1x64:int64"}, "data": {"context": 64}}),
    "bert-small-512": merge(_GPT, {"plan": {"input": "1x128:int64"}}),
    "shakespeare-gpt": {"training": {"batch_size": 4}},
    "digits": {"training": {"batch_size": 32}},
}
"""Recipes whose network, images or text are smaller than the recipe's."""

FIRST = {"bert-small-512": "bert-small", "gpt3-small-finetune": "gpt3-small-tokens"}
"""Recipes that begin with the weights of another's run."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random data in every format that a recipe asks for."""
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 4)):
        labels = [int(label) for label in random.integers(0, 100, count)]
        batch = {b"data": random.integers(0, 256, (count, 3072), dtype=np.uint8), b"fine_labels": labels}
        (root / "cifar100").mkdir(exist_ok=True)
        (root / "cifar100" / part).write_bytes(pickle.dumps(batch, protocol=4))
        for label in range(2):
            folder = root / "images" / part / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count // 2):
                height, width = (int(size) for size in random.integers(80, 300, 2))
                pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        batch = {
            b"data": random.integers(0, 256, (6, 3072), dtype=np.uint8),
            b"labels": [int(label) for label in random.integers(0, 10, 6)],
        }
        (root / "cifar10").mkdir(exist_ok=True)
        (root / "cifar10" / name).write_bytes(pickle.dumps(batch, protocol=4))
    tokens = random.integers(0, 256, 12_000, dtype=np.uint16)
    tokens[tokens == DataConfig().mask_token] = 0  # stands for hidden ones, so no text has it
    tokens.tofile(root / "bytes.bin")
    (root / "text.txt").write_bytes(bytes(random.integers(32, 127, 20_000, dtype=np.uint8)))
    return root


def data_of(recipe: str, root: Path) -> Document:
    kinds = {"imagenet": "images", "gpt3": "bytes.bin", "bert": "bytes.bin", "shakespeare": "text.txt"}
    kinds |= {"cifar10-": "cifar10", "cifar100-": "cifar100"}
    found = next((place for start, place in kinds.items() if recipe.startswith(start)), "")
    if SMALLER.get(recipe) is _RESNET8:  # whose classes are those of CIFAR-10
        found = "cifar10"
    return {"data": {"path": str(root / found), "kind": "auto"}} if found else {}


def small(recipe: str, data: Path, **more: Any) -> Any:
    settings = read_recipe(recipe)
    for over in (SHORT, SMALLER.get(recipe, {}), data_of(recipe, data), more):
        settings = merge(settings, over)
    return parse_run(settings, recipe)


@pytest.mark.parametrize("recipe", recipe_files())
def test_a_recipe_runs_and_resumes_to_the_bit(recipe: str, data: Path, tmp_path: Path) -> None:
    more: Document = {}
    if recipe in FIRST:
        first = small(FIRST[recipe], data)
        executed(first, tmp_path / "first")
        more = {"start": {"checkpoint": str(tmp_path / "first")}}
    run = small(recipe, data, **more)
    plan = plan_of(run)
    result = executed(run, tmp_path / "whole", plan=plan)
    assert result["steps"] == 10 or run.training.patience
    with pytest.raises(StoppedRunError):
        executed(run, tmp_path / "half", plan=plan, stop=6)
    assert executed(run, tmp_path / "half", plan=plan, resume=True) == result
    for name in ("metrics.csv", "plan.json"):
        assert (tmp_path / "half" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_every_recipe_that_is_made_smaller_exists() -> None:
    assert set(SMALLER) | set(FIRST) | set(FIRST.values()) <= set(recipe_files())


def test_the_phases_of_bert_keep_as_many_weights() -> None:
    """So the second, counted with 512 tokens, begins with the weights and masks of the first."""
    first, second = (plan_of(parse_run(read_recipe(name), name)) for name in ("bert-small", "bert-small-512"))
    assert [plan.inputs[0].shape for plan in (first, second)] == [(1, 128), (1, 512)]
    for one, other in zip(first.layers, second.layers, strict=True):
        assert (one.name, one.structure, one.capacity, one.nnz) == (
            other.name,
            other.structure,
            other.capacity,
            other.nnz,
        )
