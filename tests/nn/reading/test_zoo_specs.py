"""The specs of the bundled zoo that the package keeps are what its networks give."""

import gzip
import json
from dataclasses import replace

import pytest

import iftplan as ift
from iftplan.models.spec import InputSpec
from iftplan.models.zoo.entries import ZOO
from iftplan.models.zoo.specs import cost_file_name, file_name, zoo_spec
from iftplan.nn.reading.read import read_model
from iftplan.nn.reading.zoo_specs import zoo_document
from tests.support.places import ROOT

FOLDER = ROOT / "iftplan" / "models" / "zoo" / "documents"
SMALL = ("resnet8-cifar", "digits-cnn", "bert-small")


def kept(name: str, heads: str) -> str:
    return gzip.decompress((FOLDER / file_name(name, heads)).read_bytes()).decode()


@pytest.mark.parametrize("name", [n if n in SMALL else pytest.param(n, marks=pytest.mark.slow) for n in ZOO])
def test_a_network_gives_the_spec_that_is_kept(name: str) -> None:
    assert zoo_document(name, "number") == kept(name, "number"), (
        "write them again: python -m iftplan.nn.reading.zoo_specs"
    )
    if (FOLDER / file_name(name, "size")).exists():
        assert zoo_document(name, "size") == kept(name, "size")
    else:
        assert json.loads(kept(name, "number"))["couplings"]["heads"] == "", "attention tells heads apart"


def test_nothing_else_is_kept() -> None:
    known = {file_name(name, heads) for name in ZOO for heads in ("number", "size")}
    costs = {cost_file_name(name) for name in ZOO}
    assert {path.name for path in FOLDER.iterdir()} <= known | costs


def test_without_widths_the_spec_is_the_one_that_is_read_without() -> None:
    assert zoo_spec("zoo:digits-cnn", widths=False) == read_model("zoo:digits-cnn", widths=False)


def test_other_inputs_and_other_models_are_read_from_networks() -> None:
    own = ZOO["digits-cnn"].inputs
    assert zoo_spec("zoo:digits-cnn", own) == zoo_spec("zoo:digits-cnn")
    assert zoo_spec("zoo:digits-cnn", [InputSpec((2, 1, 8, 8))]) is None
    assert zoo_spec("net.py:model") is None
    assert zoo_spec("zoo:nothing") is None


def test_python_answers_from_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iftplan.nn.reading.read.read_model", None)
    spec = ift.read_model("zoo:digits-cnn")
    assert spec == zoo_spec("zoo:digits-cnn")
    assert ift.read_model("zoo:digits-cnn", widths=False) == replace(spec, couplings=None)
    with pytest.raises(TypeError):
        ift.read_model("zoo:digits-cnn", "2x1x8x8")
