"""A method of training is a line in `iftplan.runs.methods` and a file of `iftplan.nn.masking.algorithms`."""

from __future__ import annotations

import pytest

from iftplan.nn.masking.algorithms import run_methods
from iftplan.nn.masking.algorithms.base import LatentAlgorithm, Scores
from iftplan.nn.masking.algorithms.sara import SaRA
from iftplan.nn.training.methods import algorithm_of
from iftplan.runs.methods import METHODS
from iftplan.runs.settings import MethodConfig

MASKED = [name for name, method in METHODS.items() if method.masked]


def test_every_line_with_masks_has_its_algorithm_and_no_algorithm_is_without_a_line() -> None:
    assert set(run_methods()) == set(MASKED)


@pytest.mark.parametrize("name", MASKED)
def test_what_is_known_without_torch_is_what_the_algorithm_does(name: str) -> None:
    algorithm = algorithm_of(MethodConfig(name, begin=0.1), steps=100)
    assert algorithm is not None
    method = METHODS[name]
    assert algorithm.starts_dense == method.starts_dense
    assert isinstance(algorithm, LatentAlgorithm) == method.straight
    assert (algorithm.scores is Scores.GRADIENT) == method.looks
    assert (getattr(algorithm, "margin", None) is not None) == method.partly
    assert (algorithm.scores is Scores.AVERAGE) == method.averages
    assert (algorithm.scores is Scores.CURVATURE) == method.curvature
    assert isinstance(algorithm, SaRA) == method.selective
    computes_with_all = isinstance(algorithm, LatentAlgorithm) and algorithm.leak(0) > 0
    removes = algorithm.starts_dense and not (method.straight or method.selective)
    assert method.gradual == (computes_with_all or removes)


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(MASKED)))
def test_without_masks_there_is_no_algorithm(name: str) -> None:
    assert algorithm_of(MethodConfig(name), steps=100) is None
