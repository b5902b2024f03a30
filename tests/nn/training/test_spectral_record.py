"""Spectra of a run's masks: when they are measured, what the tables hold, and that a resumed run has the same."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import pytest
import torch

from iftplan import nn
from iftplan.base.errors import InputError
from iftplan.masks.spectra import MEASURES
from iftplan.nn.training.records.spectra import SpectralRecord
from iftplan.runs.histories.spectra import read_spectra


def network(sparsity: str = "3/4", width: int = 64) -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, width)
    )
    return nn.sparsify(layers, sparsity, keep_dense="none", criterion="random")


def record(folder: Path, *steps: int) -> SpectralRecord:
    found = SpectralRecord(folder / "spectra.csv", "update")
    for step in steps:
        found.measure(network(), step)
    return found


def test_rows_are_the_spectra_of_every_layer(tmp_path: Path) -> None:
    found = record(tmp_path, 0, 10)
    found.write()
    history, spectra = read_spectra(str(tmp_path)), nn.spectra(network())
    assert history.steps == (0, 10)
    assert list(history.layers) == list(spectra)
    for layer, (spectrum,) in spectra.items():
        assert spectrum is not None
        for name, value in spectrum.measures().items():
            assert history.layers[layer][name] == (pytest.approx(value, abs=1e-6),) * 2
    for name in MEASURES:
        by_hand = sum(s.measures()[name] or 0 for (s,) in spectra.values() if s is not None) / 2
        assert found.means()[name] == pytest.approx(by_hand, abs=1e-6)
        assert history.means(name)[-1] == found.means()[name]


def test_resuming_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    whole = record(tmp_path, 0, 10, 20)
    whole.write()
    resumed = SpectralRecord(whole.path, "update")
    resumed.resume(10)
    assert resumed.rows == whole.rows[:4]
    assert resumed.means() == whole.means(), "the same masks at every step"
    empty = SpectralRecord(tmp_path / "none.csv", "update")
    empty.resume(10)
    assert empty.rows == []


def test_masks_without_a_spectrum_have_no_row_and_unknown_means(tmp_path: Path) -> None:
    found = SpectralRecord(tmp_path / "spectra.csv", "evaluation")
    found.measure(network("31/32", 32), 0)  # one weight an input
    assert found.rows == []
    assert all(isnan(value) for value in found.means().values())
    found.write()
    with pytest.raises(InputError, match="has no rows"):
        read_spectra(str(tmp_path))


@pytest.mark.parametrize(
    ("when", "updated", "evaluated", "due"),
    [
        ("update", True, False, True),
        ("update", False, True, False),
        ("evaluation", False, True, True),
        ("evaluation", True, False, False),
    ],
)
def test_the_setting_says_when(tmp_path: Path, when: str, updated: bool, evaluated: bool, due: bool) -> None:
    found = SpectralRecord(tmp_path / "spectra.csv", when)  # type: ignore[arg-type]
    assert found.is_due(updated=updated, evaluated=evaluated, at_end=False) is due
    assert found.is_due(updated=False, evaluated=True, at_end=True)


TABLE = "step,layer,sigma1,sigma2,delta_r,delta_s,imdb,weighted_gap\n"
WRONG = {
    "0,a,2,1,x,0,0,0\n": "delta_r is 'x'",
    "0,a,2,1,inf,0,0,0\n": "cannot be drawn",
    "0.5,a,2,1,0,0,0,0\n": "whole number",
    "0,a,2,1,0,0,0,0\n0,a,2,1,0,0,0,0\n": "one row at a step",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_table_that_no_run_writes_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "spectra.csv").write_text(TABLE + text)
    with pytest.raises(InputError, match=WRONG[text]):
        read_spectra(str(tmp_path))


def test_a_run_without_the_table_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training\.spectra"):
        read_spectra(str(tmp_path))


def test_a_layer_is_unknown_at_steps_where_it_had_no_row(tmp_path: Path) -> None:
    (tmp_path / "spectra.csv").write_text(f"{TABLE}0,a,4,3,1,1,,1\n5,a,4,3,2,1,1,1\n5,b,4,3,4,1,1,1\n")
    found = read_spectra(str(tmp_path))
    assert found.means("delta_r") == (1, 3)
    assert isnan(found.means("imdb")[0])
