"""Machine profiles: what is read back from them, between their points and outside; their documents."""

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iftplan.base.documents import digest, loads
from iftplan.base.errors import InputError
from iftplan.models.notation import parse_layer
from iftplan.plans.speed.document import default_place, parse_profile, profile_document, read_profile
from iftplan.plans.speed.pricing import NotMeasuredError, Prices
from iftplan.plans.speed.profiles import PASSES, Profile, ProfiledLayer
from tests.support.hand_profiles import profile


def rough(seed: int) -> Profile:
    """Times without any order; those of a dense layer are the same at every sparsity."""
    random = Random(seed)
    dense: dict[str, float] = {}
    return profile(
        lambda pair: random.uniform(1e-6, 1e-2),
        lambda pair: dense.setdefault(pair.name, random.uniform(1e-6, 1e-2)),
        lambda pair: random.uniform(1e-6, 1e-2),
        structures=("unstructured", "fan-in"),
    )


def test_points_of_the_grid_come_back_as_they_were_measured() -> None:
    made = rough(1)
    for passes in PASSES:
        prices = Prices.of(made, passes)
        for entry in (entry for entry in made.entries if entry.passes == passes):
            pair = entry.pair
            found = prices.of_dense(pair.dense)
            assert found.seconds == pytest.approx(entry.dense, rel=1e-9) and not found.extrapolated
            if pair.structure == "unstructured":  # fan-in keeps a little less than the dense layer has
                found = prices.of_sparse(pair.wide, pair.nnz, pair.structure)
                assert found.seconds == pytest.approx(entry.sparse, rel=1e-9) and not found.extrapolated


def test_wide_layers_in_dense_operators_come_back() -> None:
    made = profile(operators=lambda pair: 1e-9 * pair.wide.dense_macs**1.1)
    prices = Prices.of(made, "forward")
    for entry in made.entries[::2]:
        found = prices.of_operators(entry.pair.wide)
        assert found.seconds == pytest.approx(entry.operators, rel=1e-9) and not found.extrapolated


@settings(deadline=None, max_examples=40)
@given(
    width=st.integers(8, 128),
    columns=st.integers(1, 256),
    density=st.floats(0.06, 0.5),
    seed=st.integers(0, 9),
)
def test_between_points_seconds_per_mac_stay_between_them(
    width: int, columns: int, density: float, seed: int
) -> None:
    random = Random(seed)
    rates = {n: random.uniform(1e-10, 1e-8) for n in (1, 16, 256)}
    made = profile(
        lambda pair: rates[pair.dense.positions] * pair.dense.positions * pair.nnz,
        widths=(8, 128),
        sparsities=("1/2", "19/20"),
    )
    wide = int(width / density**0.5)
    nnz = density * wide * wide
    layer = parse_layer(f"linear:{wide}-{wide}@{columns}")
    found = Prices.of(made, "forward").of_sparse(layer, nnz, "unstructured")
    beside = [rates[n] for n in ((1, 16) if columns < 16 else (16, 256))]
    assert min(beside) * (1 - 1e-9) <= found.seconds / (columns * nnz) <= max(beside) * (1 + 1e-9)
    if columns in rates:
        assert found.seconds == pytest.approx(rates[columns] * columns * nnz, rel=1e-9)


def test_halfway_in_logarithms_is_the_geometric_mean() -> None:
    made = profile(
        dense=lambda pair: {8: 1e-9, 32: 4e-9}.get(pair.dense.in_channels, 1e-9) * pair.dense.dense_macs
    )
    found = Prices.of(made, "forward").of_dense(parse_layer("linear:16-16@16"))
    assert found.seconds == pytest.approx(2e-9 * 16 * 16 * 16, rel=1e-9)


@pytest.mark.parametrize("inside, outside", [("linear:128-128@256", "linear:128-128@4096"), ("linear:128-128@256", "linear:512-512@256"), ("conv3x3:8-8@1", "conv3x3:2-2")])  # fmt: skip
def test_outside_of_the_grid_time_goes_with_macs_and_that_is_said(inside: str, outside: str) -> None:
    prices = Prices.of(rough(2), "step")
    near, far = (parse_layer(text) for text in (inside, outside))
    expected = prices.of_dense(near).seconds * far.dense_macs / near.dense_macs
    found = prices.of_dense(far)
    assert found.seconds == pytest.approx(expected, rel=1e-9) and found.extrapolated


def test_shapes_that_are_not_square_are_read_at_the_root_of_their_sizes() -> None:
    prices = Prices.of(rough(3), "forward")
    wide, square = parse_layer("conv3x3:16-64@16"), parse_layer("conv3x3:32-32@16")
    assert prices.of_dense(wide).seconds == pytest.approx(prices.of_dense(square).seconds, rel=1e-9)


@pytest.mark.parametrize(
    "text, why",
    [
        ("conv5x5:8-8@4", "conv5x5 was not measured"),
        ("conv1d3:8-8@4", "conv1d3 was not measured"),
        ("conv3x3:8-8@4,groups=2", "grouped"),
        ("dwconv3x3:8@4", "grouped"),
        ("linear:1-1@4096", "stacked"),
        ("embedding:100-8", "looked up"),
    ],
)
def test_what_was_not_measured_has_no_price(text: str, why: str) -> None:
    prices, layer = Prices.of(profile(), "forward"), parse_layer(text)
    for read in (prices.of_dense, prices.of_operators, lambda x: prices.of_sparse(x, 8, "unstructured")):
        with pytest.raises(NotMeasuredError, match=why):
            read(layer)


def test_masks_and_passes_that_were_not_measured_have_no_price() -> None:
    made = profile()
    with pytest.raises(NotMeasuredError, match="block4x4 masks"):
        Prices.of(made, "forward").of_sparse(parse_layer("linear:8-8"), 16, "block4x4")
    forward = Profile("m", "avx2", 1, 3, tuple(e for e in made.entries if e.passes == "forward"))
    with pytest.raises(NotMeasuredError, match="'step'"):
        Prices.of(forward, "step")


# --- documents -------------------------------------------------------------------------------------------


def small() -> Profile:
    made = profile(widths=(8,), columns=(1,), structures=("unstructured", "block4x4"))
    first, *rest = made.entries
    entries = (
        ProfiledLayer(first.pair, first.passes, first.dense, first.sparse),
        *rest,
    )  # too large for dense operators
    sealed = Profile(made.machine, made.instructions, 1, 3, entries)
    return Profile(made.machine, made.instructions, 1, 3, entries, profile_document(sealed)["digest"])


def test_documents_go_round() -> None:
    made = small()
    document = profile_document(made)
    assert document["entries"][0]["masked_dense_seconds"] is None
    read = parse_profile(loads(json.dumps(document), "p"), "p")
    assert [e.pair.name for e in read.entries] == [e.pair.name for e in made.entries]
    assert profile_document(read) == document and read.digest == made.digest


@pytest.mark.parametrize(
    "key, value, says",
    [
        ("dense_seconds", 0.0, r"entries\.0\.dense_seconds: .*greater than 0"),
        ("sparse_seconds", "fast", r"entries\.0\.sparse_seconds"),
        ("pass", "backward", r"entries\.0\.pass"),
        ("surprise", 1, r"entries\.0\.surprise"),
        ("layer", "attention:8", r"entries\.0: .*linear layers and convolutions"),
        ("layer", "linear", r"entries\.0: .*linear layers and convolutions"),
        ("layer", "line:8-8", r"entries\.0: .*unknown kind"),
        ("wide", "conv1x1:12-12", r"entries\.0: .*not linear:8-8 made wider"),
        ("nnz", 10**6, r"entries\.0\.nnz is 1000000, more than the 144 weights"),
        ("sparsity_exact", "3/2", r"entries\.0: sparsity 3/2"),
        ("structure", "woven", r"entries\.0: .*woven"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said(key: str, value: float | str, says: str) -> None:
    document = profile_document(small())
    document["entries"][0][key] = value
    with pytest.raises(InputError, match=says):
        parse_profile({**document, "digest": digest(document)}, "p")
    with pytest.raises(InputError, match="digest"):
        parse_profile(document, "p")


def test_where_profiles_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_place() == tmp_path / "iftplan" / "profile.json"
    with pytest.raises(InputError, match="`iftplan bench --profile` measures this machine"):
        read_profile()
    with pytest.raises(InputError, match=r"`iftplan bench --profile -o gone\.json` measures this machine"):
        read_profile("gone.json")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_place() == tmp_path / ".cache" / "iftplan" / "profile.json"
