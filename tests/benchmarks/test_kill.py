"""A run killed again and again ends as if it had not been: five kills here, more with `benchmarks/processes/kill.py --kills`."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.support.programs import program


@pytest.fixture(scope="module")
def killing() -> ModuleType:
    return program("kill")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["single", "sharded"])
def test_a_killed_run_ends_as_an_uninterrupted_one_to_the_bit(
    killing: ModuleType, tmp_path: Path, form: str
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    killing.finish(killing.Run(whole, 120, resume=False, fresh=True))
    found = killing.killed_run(killed, 120, kills=5, seed=0, fresh=True, form=form)
    assert any(one.half_written for one in found)
    assert killing.differences(whole, killed) == []


def test_differences_are_found(killing: ModuleType) -> None:
    state = {"a": {"w": torch.tensor([0.0, 1.0])}, "b": [1, 2.0]}
    assert killing.unequal(state, state, "state") == []
    assert killing.unequal(state, state | {"b": [1, 2]}, "state") == ["state.b"]
    negative = {"a": {"w": torch.tensor([-0.0, 1.0])}, "b": [1, 2.0]}
    assert killing.unequal(state, negative, "state") == ["state.a.w"]
    assert killing.unequal(state, {"a": {}, "b": [1, 2.0]}, "state") == ["state.a"]
