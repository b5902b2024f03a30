"""Spectra of masks against graphs whose spectra are known, and against published figures."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iftplan import nn
from iftplan.base.errors import InputError
from iftplan.masks.spectra import Graph, Spectrum, mean_difference
from iftplan.nn.masking.measures.spectra import mask_spectrum


def random_mask(outputs: int, inputs: int, kept: int, seed: int = 0) -> Tensor:
    chosen = torch.randperm(outputs * inputs, generator=torch.Generator().manual_seed(seed))[:kept]
    mask = torch.zeros(outputs * inputs, dtype=torch.bool)
    mask[chosen] = True
    return mask.view(outputs, inputs)


def spectrum(mask: Tensor) -> Spectrum:
    found = mask_spectrum(mask, torch.ones(mask.shape))
    assert found is not None
    return found


def plane(points: int, difference_set: tuple[int, ...]) -> Tensor:
    """Points and lines of a projective plane of order q, by a cyclic difference set of q+1 residues."""
    mask = torch.zeros(points, points, dtype=torch.bool)
    for line in range(points):
        for step in difference_set:
            mask[line, (line + step) % points] = True
    return mask


PLANES = {
    2: (7, (0, 1, 3)),
    3: (13, (0, 1, 3, 9)),
    4: (21, (3, 6, 7, 12, 14)),
    5: (31, (1, 5, 11, 24, 25, 27)),
}


@pytest.mark.parametrize("order", PLANES)
def test_projective_planes_are_ramanujan_graphs_of_known_spectrum(order: int) -> None:
    found = spectrum(plane(*PLANES[order]))
    assert (found.graph.left_degree, found.graph.right_degree) == (order + 1, order + 1)
    assert found.graph.first == pytest.approx(order + 1)
    assert found.graph.second == pytest.approx(sqrt(order))
    assert found.delta_r == pytest.approx(sqrt(order)), "2·√q - √q"
    assert found.imdb == pytest.approx(found.delta_r), "all inputs have one degree"
    assert found.weighted_gap == pytest.approx(order + 1 - sqrt(order))


def test_a_full_mask_has_one_singular_value() -> None:
    found = spectrum(torch.ones(8, 18, dtype=torch.bool))
    assert (found.graph.first, found.graph.second) == (pytest.approx(12), pytest.approx(0, abs=1e-6))


def test_the_second_eigenvalue_in_size_is_the_first_again() -> None:
    """Of a bipartite graph; a gap measured there is 0 whatever the mask is."""
    mask = random_mask(20, 30, 200).double().numpy()
    adjacency = np.block([[np.zeros((20, 20)), mask], [mask.T, np.zeros((30, 30))]])
    values = np.sort(np.abs(np.linalg.eigvalsh(adjacency)))[::-1]
    found = spectrum(torch.tensor(mask, dtype=torch.bool))
    assert values[0] - values[1] == pytest.approx(0, abs=1e-9)
    assert (found.graph.first, found.graph.second) == (pytest.approx(values[1]), pytest.approx(values[2]))


PUBLISHED = [
    # outputs, inputs, density, σ₁, σ₂, the bound, Δr, Δs, IMDB; ERK masks of ResNet-34 at global density .05 (Hoang et al. 2023)
    (64, 147, 0.5642, 55.1989, 9.8319, 14.9772, 5.1453, 4.8920, 3.0416),
    (64, 576, 0.2310, 45.6724, 13.1417, 15.2055, 2.0639, None, 0.8892),
]


@pytest.mark.parametrize("row", PUBLISHED)
def test_random_masks_have_the_published_figures(row: tuple[float, ...]) -> None:
    outputs, inputs, density, first, second, bound, delta_r, delta_s, imdb = row
    kept = round(outputs * inputs * density)
    found = [spectrum(random_mask(int(outputs), int(inputs), kept, seed)) for seed in range(8)]
    assert found[0].graph.ramanujan_bound == pytest.approx(bound, abs=2e-3), "degrees alone decide it"
    assert np.mean([f.graph.first for f in found]) == pytest.approx(first, rel=3e-3)
    assert np.mean([f.graph.second for f in found]) == pytest.approx(second, rel=0.02)
    assert np.mean([f.delta_r for f in found]) == pytest.approx(delta_r, abs=0.3)
    assert np.mean([f.imdb for f in found if f.imdb is not None]) == pytest.approx(imdb, abs=0.15)
    if delta_s is not None:
        assert np.mean([f.delta_s for f in found]) == pytest.approx(delta_s, abs=0.3)


def test_bounds_and_singular_values_give_the_published_differences() -> None:
    graph = Graph((1,), (1,), 55.1989, 9.8319)
    assert graph.delta_s == pytest.approx(4.8920, abs=1e-4)
    assert graph.regular_bound == pytest.approx(14.7240, abs=1e-4)


@pytest.mark.parametrize("size", [1000, 1500])
def test_a_sparse_random_mask_is_almost_a_ramanujan_graph(size: int) -> None:
    found = spectrum(random_mask(size, size, size * size // 50))
    assert abs(found.delta_r) < 0.04 * found.graph.ramanujan_bound


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 24), st.integers(4, 40), st.floats(0.2, 1), st.integers(0, 99))
def test_lanczos_finds_what_a_full_decomposition_finds(
    outputs: int, inputs: int, density: float, seed: int
) -> None:
    mask = random_mask(outputs, inputs, max(1, int(outputs * inputs * density)), seed)
    weights = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)).double()
    found = mask_spectrum(mask, weights)
    if found is None:
        return
    values = np.linalg.svd(mask.double().numpy(), compute_uv=False)
    assert (found.graph.first, found.graph.second) == (
        pytest.approx(values[0]),
        pytest.approx(values[1], abs=1e-6),
    )
    gaps = np.linalg.svd((mask * weights.abs()).numpy(), compute_uv=False)
    assert found.weighted_gap == pytest.approx(gaps[0] - gaps[1], abs=1e-6)


def test_unconnected_nodes_count_for_nothing() -> None:
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[:8, :9] = True
    found = spectrum(mask)
    assert (len(found.graph.left), len(found.graph.right)) == (9, 8)
    assert found.graph.first == pytest.approx(sqrt(72))


def test_thin_masks_and_absent_parts_say_nothing() -> None:
    assert mask_spectrum(torch.eye(12, dtype=torch.bool), torch.ones(12, 12)) is None
    assert mean_difference([]) is None


def test_every_masked_weight_of_a_model_is_measured() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.Flatten(), torch.nn.Linear(64, 40))
    sparse = nn.sparsify(model, "1/2", keep_dense="none")
    found = nn.spectra(sparse)
    assert list(found) == ["0.weight", "2.weight"]
    (conv,) = found["0.weight"]
    assert conv is not None and (len(conv.graph.left), len(conv.graph.right)) == (27, 16), (
        "inputs are left, outputs right"
    )
    kept = int(sparse.get_buffer("0.weight_mask").count_nonzero())
    assert sum(conv.graph.left) == sum(conv.graph.right) == kept


def test_masks_without_values_are_refused() -> None:
    sparse = nn.sparsify(torch.nn.Sequential(torch.nn.Linear(64, 64)), "1/2", keep_dense="none").to("meta")
    with pytest.raises(InputError, match=r"0\.weight is on the meta device"):
        nn.spectra(sparse)
