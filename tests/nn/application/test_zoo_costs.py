"""The costs of the bundled zoo that the package keeps are what its networks measure."""

import gzip

import pytest

from iftplan.models.spec import InputSpec
from iftplan.models.zoo.entries import ZOO
from iftplan.models.zoo.specs import cost_file_name, zoo_cost, zoo_spec
from iftplan.nn.application.zoo_costs import zoo_cost_document
from iftplan.nn.sources import build
from tests.support.places import ROOT

FOLDER = ROOT / "iftplan" / "models" / "zoo" / "documents"


@pytest.mark.parametrize("name", ZOO)
def test_a_network_measures_the_cost_that_is_kept(name: str) -> None:
    kept = gzip.decompress((FOLDER / cost_file_name(name)).read_bytes()).decode()
    assert zoo_cost_document(name) == kept, "write them again: python -m iftplan.nn.application.zoo_costs"


@pytest.mark.parametrize("name", ("digits-cnn", "bert-small"))
def test_the_cost_is_that_of_the_spec_and_of_all_parameters(name: str) -> None:
    cost, spec = zoo_cost(f"zoo:{name}"), zoo_spec(f"zoo:{name}")
    assert cost.total_macs == spec.macs
    assert cost.total_parameters == sum(p.numel() for p in build(f"zoo:{name}").parameters())
    assert cost.elementwise


def test_other_inputs_and_other_models_are_measured() -> None:
    assert zoo_cost("zoo:digits-cnn", ZOO["digits-cnn"].inputs) == zoo_cost("zoo:digits-cnn")
    assert zoo_cost("zoo:digits-cnn", [InputSpec((2, 1, 8, 8))]) is None
    assert zoo_cost("net.py:model") is None
    assert zoo_cost("zoo:nothing") is None
