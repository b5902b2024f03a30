"""Random layers of every kind and grouping, for hypothesis."""

from fractions import Fraction
from math import lcm

from hypothesis import strategies as st

from iftplan.models.spec import Kind, LayerSpec

CONVOLUTIONS = tuple(kind for kind in Kind if kind.spatial_dims)

positions = st.integers(1, 40)
sparsities = st.one_of(
    st.just(Fraction(0)),
    st.integers(1, 99).map(lambda percent: Fraction(percent, 100)),
    st.fractions(0, Fraction(39, 40), max_denominator=40),
)


@st.composite
def convolutions(draw: st.DrawFn) -> LayerSpec:
    kind = draw(st.sampled_from(CONVOLUTIONS))
    dims = kind.spatial_dims
    kernel = tuple(draw(st.lists(st.integers(1, 4), min_size=dims, max_size=dims)))
    groups = draw(st.sampled_from((1, 1, 2, 3, 4)))
    c_in, c_out = (groups * draw(st.integers(1, 8)) for _ in range(2))
    return LayerSpec("conv", kind, c_in, c_out, kernel, groups, draw(positions))


@st.composite
def depthwise(draw: st.DrawFn) -> LayerSpec:
    kind = draw(st.sampled_from(CONVOLUTIONS))
    dims = kind.spatial_dims
    kernel = tuple(draw(st.lists(st.integers(1, 5), min_size=dims, max_size=dims)))
    channels = draw(st.integers(2, 40))
    return LayerSpec("dw", kind, channels, channels, kernel, channels, draw(positions), depthwise=True)


@st.composite
def linears(draw: st.DrawFn) -> LayerSpec:
    groups = draw(st.sampled_from((1, 1, 1, 2, 5)))
    d_in, d_out = (groups * draw(st.integers(1, 40)) for _ in range(2))
    return LayerSpec("linear", Kind.LINEAR, d_in, d_out, groups=groups, positions=draw(positions))


@st.composite
def attentions(draw: st.DrawFn) -> LayerSpec:
    heads = draw(st.sampled_from((1, 2, 4)))
    width = lcm(heads, 4) * draw(st.integers(1, 8))
    return LayerSpec("attention", Kind.ATTENTION, width, width, positions=draw(positions), heads=heads)


@st.composite
def weightless(draw: st.DrawFn) -> LayerSpec:
    kind = draw(st.sampled_from((Kind.EMBEDDING, Kind.NORM, Kind.ACTIVATION)))
    channels = draw(st.integers(1, 40))
    c_in = draw(st.integers(1, 90)) if kind is Kind.EMBEDDING else channels
    return LayerSpec("free", kind, c_in, channels, positions=0)


layers = st.one_of(convolutions(), convolutions(), depthwise(), linears(), attentions(), weightless())
