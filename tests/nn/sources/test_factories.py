"""Names of factories that cannot be as they are, and the ones that can."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iftplan.base.errors import InputError
from iftplan.nn.sources import build

RELATIVE = "from .cfg import W\nfrom torch import nn\n\n\ndef net():\n    return nn.Linear(W, W)\n\n\ndef wide(w, *, bias):\n    return nn.Linear(w, w, bias)\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {
        "plain33/cfg.py": "W = 4\n", "plain33/net.py": RELATIVE, "plain33/deep/cfg.py": "W = 8\n",
        "plain33/deep/net.py": RELATIVE, "loose33.py": RELATIVE,
        "src/shop33/cfg.py": "W = 4\n", "src/shop33/net.py": RELATIVE.replace(".cfg", "shop33.cfg"),
        "needs33.py": "import no_such_package33\n",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "told", "width"),
    [
        ("plain33/net.py:net", "name it as plain33.net:net.", 4),
        ("plain33/deep/net.py:net", "name it as plain33.deep.net:net.", 8),
    ],
)
def test_a_file_with_relative_imports_is_named_by_its_package(
    project: Path, asked: str, told: str, width: int
) -> None:
    with pytest.raises(InputError) as refused:
        build(asked)
    assert str(refused.value).endswith(told)
    name = told.removeprefix("name it as ").removesuffix(".")
    assert build(name).in_features == width, "what is advised works"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("loose33.py:net", "write its imports without the leading dot."),
        ("plain33.net:nett", "Did you mean 'net'?"),
        ("plain33.nett:net", "Did you mean 'plain33.net'?"),
        ("src/shop33/net.py:net", "shop33 lies in src: install your project (pip install -e .), or set PYTHONPATH=src."),
        ("shop33.net:net", "shop33 lies in src: install your project (pip install -e .), or set PYTHONPATH=src."),
        ("needs33.py:net", "install no_such_package33 in the environment that iftplan runs in."),
        ("plain33.net:wide", "cannot be called without w, bias; write a function without arguments"),
    ],
)  # fmt: skip
def test_the_nearest_that_can_is_named(project: Path, asked: str, told: str) -> None:
    with pytest.raises(InputError) as refused:
        build(asked)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "first", "then"),
    [
        ("llama", "LlamaForCausalLM", "LlamaModel"),
        ("bert", "BertForMaskedLM", "BertModel"),
        ("t5", "T5ForConditionalGeneration", "T5Model"),
        ("vit", "ViTForImageClassification", "ViTModel"),
        ("whisper", "WhisperForConditionalGeneration", "WhisperModel"),
    ],
)
def test_the_class_with_its_head_is_advised_first(project: Path, kind: str, first: str, then: str) -> None:
    pytest.importorskip("transformers")
    (project / "c.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(InputError) as refused:
        build("hf:c.json")
    assert f"add the class: hf:c.json#{first}, or without its head: {then}" in str(refused.value)
