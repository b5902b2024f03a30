"""The sparse scaling law against its vectors, its own minimum, and measured losses of its authors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iftplan.base.errors import InputError
from iftplan.base.units import parse_size
from iftplan.runs.laws.named import published
from iftplan.runs.laws.sparse import LAWS, ScalingLaw
from tests.support.cli_runs import iftplan

laws = st.sampled_from(sorted(LAWS)).map(lambda name: LAWS[name])
sizes = st.floats(6, 11).map(lambda e: 10**e)
computes = st.floats(17, 25).map(lambda e: 10**e)


@pytest.mark.parametrize("params, compute, sparsity", [(1e8, 1e20, 0.5245), (1e9, 1e23, 0.6810)])
def test_the_optimum_of_arxiv_2309_08520(params: float, compute: float, sparsity: float) -> None:
    assert LAWS["t5-c4"].optimal_sparsity(params, compute) == pytest.approx(sparsity, abs=5e-5)


@given(laws, sizes, computes, st.floats(0.5, 4))
def test_the_closed_form_is_the_minimum_of_the_loss(
    law: ScalingLaw, params: float, compute: float, kappa: float
) -> None:
    best = law.optimal_sparsity(params, compute, kappa)
    least = law.loss_at(best, params, compute, kappa)
    for i in range(60):
        assert least <= law.loss_at(i / 60, params, compute, kappa) * (1 + 1e-12)


@given(laws, sizes, st.floats(0.01, 0.95), st.floats(0.5, 4))
def test_a_contour_leads_back_to_its_sparsity(
    law: ScalingLaw, params: float, sparsity: float, kappa: float
) -> None:
    compute = law.compute_for(sparsity, params, kappa)
    assert law.optimal_sparsity(params, compute, kappa) == pytest.approx(sparsity, abs=1e-9)


def test_dense_is_best_where_compute_is_scarce() -> None:
    assert LAWS["t5-c4"].optimal_sparsity(1e10, 1e18) == 0


def test_loss_falls_with_parameters_and_data() -> None:
    law = LAWS["vit-jft"]
    assert law.loss(0.5, 1e8, 1e9) < law.loss(0.5, 1e7, 1e9)
    assert law.loss(0.5, 1e7, 1e10) < law.loss(0.5, 1e7, 1e9)
    assert law.loss(0.75, 1e7, 1e9) < law.loss(0.5, 1e7, 1e9), (
        "of equally many non-zero weights, the sparser learn more"
    )


@pytest.mark.parametrize(
    "sparsity, params, data", [(1.0, 1e8, 1e9), (-0.1, 1e8, 1e9), (0.5, 0, 1e9), (0.5, 1e8, float("nan"))]
)
def test_nonsense_is_refused(sparsity: float, params: float, data: float) -> None:
    with pytest.raises(InputError):
        LAWS["t5-c4"].loss(sparsity, params, data)


def test_extrapolation_is_said() -> None:
    assert any("extrapolated" in note for note in LAWS["t5-c4"].notes(0.9))
    assert not any("extrapolated" in note for note in LAWS["t5-c4"].notes(0.5))


def test_unknown_fits_are_named() -> None:
    with pytest.raises(InputError, match="t5-c4, vit-jft"):
        published("sparse", "gpt-pile")


@pytest.mark.parametrize(
    "text, value", [("1e8", 1e8), ("100M", 1e8), ("1.3B", 1.3e9), (".5k", 500), ("2_000", 2000)]
)
def test_sizes_as_people_write_them(text: str, value: float) -> None:
    assert parse_size(text, "--params") == value


@pytest.mark.parametrize(
    "text", ["", "nan", "inf", "-1e8", "0", "1e999", "1x", "ten", "1e8e8", "9" * 400, "١"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--params"):
        parse_size(text, "--params")


def test_the_command_end_to_end(tmp_path: Path) -> None:
    run = iftplan("advise", "--params", "1e8", "--compute", "1e20", "--format", "json", cwd=tmp_path)
    found = json.loads(run.out)
    assert found["schema"] == "iftplan.advise/1"
    assert found["optimal_sparsity"] == pytest.approx(0.5245, abs=5e-5)
    losses = {row["sparsity"]: row["loss"] for row in found["sparsities"]}
    assert min(losses, key=losses.__getitem__) == found["optimal_sparsity"]
    refused = iftplan("advise", "--params", "1e8", "--compute", "1e20", "--plot", "x.gif", cwd=tmp_path)
    assert refused.code == 2
    assert ".png" in refused.err
    assert not list(tmp_path.iterdir())
