"""JaxPruner's own test cases of distributions, schedules, masks and updates (arXiv 2304.14082), and its updaters on plans.

Its inputs and expected numbers are facts; where a case comes out differently here, the case says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import product
from math import prod
from typing import Any

import pytest

pytest.importorskip("jax", reason="JAX, of the extra jax, is not installed")

import jax
import jax.numpy as jnp
import numpy as np
import optax

import iftplan as ift
from iftplan.base.errors import IftplanError, InputError
from iftplan.jaxnn import SET, RigL, Static, apply_masks, read_model, sparsity_distribution, with_masks
from iftplan.jaxnn.masking.drawing import draw_mask
from iftplan.jaxnn.masking.exchange import drop_grow
from iftplan.jaxnn.masking.jaxpruner import exact_sparsity, kept_at
from iftplan.jaxnn.masking.rows import UnitRows
from iftplan.jaxnn.masking.top_k import first
from iftplan.jaxnn.masking.views import flat_view
from iftplan.jaxnn.sources.models import leaf_names
from iftplan.masks import Block, Unstructured, parse_mask
from iftplan.masks.distributions import DensityLayer, Distribution, densities, parameter_budget
from iftplan.plans.plan import Plan
from iftplan.runs.schedules import Constant, Cubic, Updates
from tests.support.places import page_named

ERK, ER, UNIFORM = Distribution.ERK, Distribution.ER, Distribution.UNIFORM


@dataclass(frozen=True)
class Case:
    """What JaxPruner's test expects, and what comes out here.

    Attributes:
        name: of the case.
        found: what is computed here; None where nothing corresponds.
        expected: what JaxPruner's test holds; numbers of sparsity to two places, as there.
        differs: why another result is right here; empty where both are equal.
    """

    name: str
    found: Callable[[], Any] | None
    expected: Any
    differs: str = ""


def sparsities(
    shapes: Sequence[tuple[int, ...]], sparsity: str, distribution: Distribution = ERK, power: int = 1
) -> list[float]:
    layers = [DensityLayer(str(shape), shape, prod(shape)) for shape in shapes]
    budget = parameter_budget(layers, Fraction(sparsity), floor_zeros=True)
    return [round(float(1 - density), 2) for density in densities(layers, budget, distribution, power)]


def refused(call: Callable[[], Any]) -> bool:
    try:
        call()
    except (IftplanError, ValueError):
        return True
    return False


def chosen(structure: str, scores: Any, kept: float) -> list[list[int]]:
    """The mask of largest scores of a matrix, of which a part is kept."""
    matrix = jnp.asarray(scores, jnp.float32)
    rows = UnitRows(parse_mask(structure), *matrix.shape)
    units = rows.rows(matrix)
    count = rows.kept(round(matrix.size * kept))[0]
    found: list[list[int]] = rows.matrix(first(units, count)).astype(int).tolist()
    return found


def of_vector(structure: str, scores: list[float], kept: float) -> list[int]:
    return chosen(structure, [scores], kept)[0]


OLD, SCORES = [0, 1, 0, 1, 0, 1, 1, 0], [-9, 1, 4, -1, 5, 8, -2, 3]


def updated(fraction: float) -> list[int]:
    """The update of their vector, which drops by signed values: moved up, so that none is negative."""
    values = jnp.asarray([SCORES], jnp.float32)
    mask = jnp.asarray([OLD]) > 0
    found, _ = drop_grow(values + 10, mask, jnp.abs(values), int(4 * fraction))
    kept: list[int] = found[0].astype(int).tolist()
    return kept


def constant(kind: Any, sparsity: float, shape: tuple[int, ...]) -> bool:
    """Whether a mask keeps as many weights after an update as before."""
    size = prod(shape)
    kept = max(1, round(size * (1 - sparsity)))
    mask = (jnp.arange(size) % size < kept).reshape(shape)
    params = {"w": jax.random.normal(jax.random.key(0), shape)}
    gradient = {"w": jax.random.normal(jax.random.key(8), shape)}
    algorithm = kind(Updates(end=9, interval=1, at_begin=True), Constant(0.3))
    optimizer = with_masks(optax.sgd(0.1), {"w": mask}, algorithm)
    state = optimizer.update(gradient, optimizer.init(params), apply_masks(params, {"w": mask}))[1]
    assert int(state.changes) == 1
    return kept == int(state.masks["w"].sum())


def restarted(shape: tuple[int, ...], adam: bool) -> tuple[float, bool]:
    """Sum of a slot's values where weights grew, and whether others have any."""
    size = prod(shape)
    mask = (jnp.arange(size) < (size + 1) // 2).reshape(shape)
    params = {"w": jax.random.normal(jax.random.key(0), shape)}
    inner = optax.adam(0.001) if adam else optax.sgd(0.001, momentum=0.9)
    algorithm = RigL(Updates(end=9, interval=1, at_begin=True), Constant(0.5))
    optimizer = with_masks(inner, {"w": mask}, algorithm)
    state = optimizer.init(params)
    ones = jax.tree_util.tree_map(lambda x: jnp.ones_like(x) if x.shape == shape else x, state.inner)
    gradient = {"w": jax.random.normal(jax.random.key(8), shape)}
    _, after = optimizer.update(gradient, state._replace(inner=ones), apply_masks(params, {"w": mask}))
    grown = after.masks["w"] & ~mask
    slots = [x for x in jax.tree_util.tree_leaves(after.inner) if x.shape == shape]
    assert len(slots) == (2 if adam else 1)
    return float(sum(jnp.abs(slot[grown]).sum() for slot in slots)), all(bool(slot.any()) for slot in slots)


def magnitudes(values: list[float]) -> list[float]:
    return [round(float(x), 6) for x in jnp.abs(jnp.asarray(values))]


SCORE_1 = [
    [0.69, 0.37, 0.96, 0.81], [0.79, 0.55, 0.88, 0.53], [0.66, 0.88, 0.4, 0.83], [0.13, 0.8, 0.91, 0.96],
    [0.34, 0.17, 0.07, 0.74], [0.13, 0.13, 0.83, 0.76], [0.13, 0.92, 0.25, 0.75], [0.37, 0.42, 0.65, 0.46],
]  # fmt: skip
BEST_FIFTH = [
    [0, 0, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0],
]  # fmt: skip
TWO_OF_FOUR = [
    [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1], [1, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1],
]  # fmt: skip
TURNED = [
    [1, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0],
]  # fmt: skip
TEN, TEN_KEPT = [1, 0.5, 0.3, 0.2, 1, 1.5, 1.8, 2.0, 1, 1], [1, 0, 0, 0, 1, 1, 1, 1, 0, 0]


def turned() -> list[list[int]]:
    """N:M along the other axis: of both matrices, columns are rows."""
    scores = np.array(SCORE_1).reshape(2, 4, 4).swapaxes(1, 2).reshape(8, 4)
    found = np.array(chosen("2:4", scores, 0.5)).reshape(2, 4, 4).swapaxes(1, 2).reshape(8, 4)
    kept: list[list[int]] = found.tolist()
    return kept


def whole_blocks() -> list[list[int]]:
    """Blocks of 2×2 in the sums of their third case's matrices, .2 of which are dropped: three of four stay."""
    scores = [
        [[0.69, 0.37], [0.96, 0.81], [0.79, 0.55], [0.88, 0.53]],
        [[0.66, 0.88], [0.4, 0.83], [0.13, 0.8], [0.91, 0.96]],
        [[0.34, 0.17], [0.07, 0.74], [0.13, 0.13], [0.83, 0.76]],
        [[0.13, 0.92], [0.25, 0.75], [0.37, 0.42], [0.65, 0.46]],
    ]
    rows = UnitRows(Block(2, 2), 4, 4)
    kept = first(rows.rows(jnp.asarray(scores, jnp.float32).sum(2)), 3).reshape(2, 2)
    found: list[list[int]] = kept.astype(int).tolist()
    return found


def drawn_of(size: int, kept: int) -> Any:
    return draw_mask(flat_view("w", (size,), kept), 0)


def masked_gradient() -> float:
    mask = {"w": jnp.array([True, False])}
    params = {"w": jnp.array([1.0, 0.0])}
    optimizer = with_masks(optax.sgd(1.0, momentum=0.9), mask)
    _, state = optimizer.update({"w": jnp.ones(2)}, optimizer.init(params), params)
    return float(state.inner[0].trace["w"][1])


Shapes = list[tuple[int, ...]]
ONE: Shapes = [(2, 4)]
TWO: Shapes = [(2, 4), (3, 6, 7)]
THREE, VECTOR = [(2, 4), (3, 6), (2, 4, 6)], [(2, 4), (3, 6), (4, 6, 2)]
SHAPES = [(1,), (5,), (4, 5), (2, 9, 1), (2, 2, 4, 4)]
EDGES = "blocks at an edge are always kept here, and are chosen as smaller ones there"
CUSTOM = "a sparsity of one's own for one weight is a plan with other layers kept dense, or another sparsity"

CASES = [
    # distributions
    Case("uniform, one matrix", lambda: sparsities(ONE, "1/2", UNIFORM), [0.5]),
    Case("uniform, vectors stay dense", lambda: sparsities(ONE, "1/2", UNIFORM), [0.5]),
    Case("uniform, three weights", lambda: sparsities([*TWO, (7, 4)], "1/2", UNIFORM), [0.5] * 3),
    Case("uniform, a nested vector stays dense", lambda: sparsities(TWO, "1/2", UNIFORM), [0.5] * 2),
    Case("uniform with one sparsity given", None, [0.5, 0.5, 0.1], CUSTOM),
    Case("ERK, one matrix", lambda: sparsities(ONE, "1/2"), [0.5]),
    Case("ERK, two are dense", lambda: sparsities([*TWO, (7, 4)], "1/2"), [0, 0.64, 0]),
    Case("ERK, one is dense", lambda: sparsities(TWO, "1/2"), [0, 0.53]),
    Case("ERK with one sparsity given", None, [0.53, 0.1], CUSTOM),
    Case("ERK, another with one given", None, [0.7], CUSTOM),
    Case("ERK of shapes, one", lambda: sparsities(ONE, "1/2"), [0.5]),
    Case("ERK of shapes", lambda: sparsities(THREE, "1/2"), [0, 0.31, 0.655]),
    Case("ER of shapes, the last two dimensions", lambda: sparsities(VECTOR, "1/2", ER), [0.21, 0.47, 0.56]),
    Case("ERK at .8, zeros rounded down", lambda: sparsities(THREE, "4/5"), [0.56, 0.7, 0.85]),
    Case("ERK squared", lambda: sparsities(THREE, "1/2", ERK, 2), [0, 0.03, 0.76]),
    Case("a negative sparsity", lambda: refused(lambda: sparsities([(1, 1)], "-1")), True),
    Case("no weights", lambda: densities((), Fraction(1), ERK), "ValueError", "none have no densities"),
    # schedules
    Case("no schedule", lambda: list(Static().due()), []),
    Case("one shot", lambda: [t for t in (19, 20) if Updates(20, 1, 20, at_begin=True, at_end=True).due(t)], [20]),
    Case("periodic", lambda: [t for t in (9, 10) if Updates(20, 5).due(t)], [10]),
    Case("periodic, a constant sparsity", lambda: Constant(0.5).at(0.45), 0.5),
    Case("polynomial, half way", lambda: Cubic(0, 0.5).at(10 / 20), 0.4375),
    Case("an end before the start", lambda: refused(lambda: Updates(0, 1, 1)), True),
    # masks
    Case("largest fifth", lambda: chosen("unstructured", SCORE_1, 6 / 32), BEST_FIFTH),
    Case("equal scores: the first", lambda: of_vector("unstructured", [1] * 8, 0.5), [1] * 4 + [0] * 4),
    Case("some equal", lambda: of_vector("unstructured", TEN, 0.5), TEN_KEPT),
    Case("some equal in two rows", lambda: chosen("unstructured", [TEN, TEN], 0.5), [[1, 0, 0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1, 0, 0]]),
    Case("2:4", lambda: chosen("2:4", SCORE_1, 0.5), TWO_OF_FOUR),
    Case("2:4 of equal scores", lambda: of_vector("2:4", [1] * 8, 0.5), [0, 0, 1, 1] * 2, "the first of equals stay here, as in unstructured masks; there, the last"),
    Case("2:4 along the other axis", turned, TURNED),
    *(Case(f"4:2{axis}", lambda: refused(lambda: parse_mask("4:2")), True) for axis in ("", " along an axis")),
    *(Case(f"blocks of {size}, {pool}", None, ..., EDGES) for size in ("2x3", "1x3") for pool in ("mean", "largest")),
    *(Case(f"blocks of 2x2, {pool}", whole_blocks if pool == "mean" else None, [[1, 1], [0, 1]], "" if pool == "mean" else "a block is worth the sum of its weights here") for pool in ("mean", "largest")),
    Case("magnitude", lambda: magnitudes([0.1, 0.9, -0.2, 0.5]), [0.1, 0.9, 0.2, 0.5]),
    # updates
    Case("RigL drops nothing", lambda: updated(0.0), OLD),
    Case("RigL drops a quarter", lambda: updated(0.25), [1, 1, 0, 1, 0, 1, 0, 0]),
    Case("RigL drops a half", lambda: updated(0.5), [1, 1, 0, 0, 1, 1, 0, 0]),
    Case("RigL drops three quarters", lambda: updated(0.75), [1, 0, 1, 0, 1, 1, 0, 0]),
    Case("RigL drops all", lambda: updated(1.0), [1, 0, 1, 0, 1, 1, 0, 0]),
    *(
        Case(f"{kind.name} at {sparsity} of {shape} keeps its count", partial(constant, kind, sparsity, shape), True)
        for kind, sparsity, shape in product((RigL, SET), (0.0, 0.5, 0.95), SHAPES)
    ),
    *(
        Case(f"slots of {shape} restart, {'Adam' if adam else 'momentum'}", partial(restarted, shape, adam), (0.0, True))
        for shape, adam in product(SHAPES[1:], (False, True))
    ),
    Case("a random mask keeps its count", lambda: int(drawn_of(4, 1).sum()), 1),
    Case("gradients are masked", masked_gradient, 0.0),
    Case("an update skips the optimizer's step", lambda: RigL().order, "replace", "an update follows the step, as in Sparse-IFT's code; order='replace' is RigL's paper"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_jaxpruner_s_own_cases(case: Case) -> None:
    if case.found is None:
        assert case.differs
        return
    found = case.found()
    if case.differs:
        assert found != case.expected
    else:
        assert found == pytest.approx(case.expected, abs=0.011) if _numbers(found) else found == case.expected


def _numbers(found: Any) -> bool:
    return isinstance(found, list) and bool(found) and all(isinstance(x, float | int) for x in found)


def test_the_page_says_how_many_are_equal() -> None:
    equal = sum(not case.differs for case in CASES)
    assert f"{equal} of {len(CASES)}" in page_named("jax-training.md").read_text(encoding="utf-8")


# --- a plan's counts for its updaters ---------------------------------------------------------------------


def model(params: Any, x: Any) -> Any:
    hidden = jax.nn.relu(x @ params["a"]["kernel"] + params["a"]["bias"])
    return jax.nn.relu(hidden @ params["b"]["kernel"]) @ params["c"]["kernel"]


def parameters() -> Any:
    numbers = np.random.default_rng(0)
    shapes = {"a": (12, 30), "b": (30, 20), "c": (20, 4)}
    tree = {
        name: {"kernel": jnp.asarray(numbers.normal(size=shape) * 0.3, jnp.float32)}
        for name, shape in shapes.items()
    }
    tree["a"]["bias"] = jnp.zeros(30)
    return tree


def planned(mask: str = "unstructured") -> Plan:
    spec = read_model(model, parameters(), jax.ShapeDtypeStruct((1, 12), jnp.float32))
    return ift.plan(spec, None, "2/3" if mask == "unstructured" else "1/2", keep_dense=("c",), mask=mask)


def test_a_plan_s_counts_are_what_jaxpruner_s_rounding_keeps() -> None:
    plan, params = planned(), parameters()
    found = sparsity_distribution(plan)(params)
    assert found["a"]["bias"] is None
    assert found["c"]["kernel"] is None
    counts = {layer.weight: layer.nnz for layer in plan.layers if layer.maskable}
    kept = {name: kept_at(leaf_names(params)[name].size, s) for name, s in leaf_names(found).items()}
    assert kept == counts


def test_every_count_of_small_weights_and_samples_of_large_ones_come_out() -> None:
    assert all(
        kept_at(size, exact_sparsity(size, n)) == n for size in range(1, 65) for n in range(1, size + 1)
    )
    numbers = np.random.default_rng(0)
    for size in (4096, 589_824, 2_359_296):
        for n in numbers.integers(1, size + 1, 200).tolist():
            assert kept_at(size, exact_sparsity(size, n)) == n


@pytest.mark.parametrize(("size", "nnz"), [(8, 0), (50_000_001, 12_345_679)])
def test_what_its_rounding_cannot_keep_is_refused(size: int, nnz: int) -> None:
    with pytest.raises(InputError, match=f"cannot keep exactly {nnz} of {size}"):
        exact_sparsity(size, nnz)


def test_structured_plans_are_refused_by_name() -> None:
    assert Unstructured() == parse_mask(planned().mask)
    with pytest.raises(InputError, match=r"fan-in masks.*iftplan\.jaxnn\.with_masks"):
        sparsity_distribution(planned("fan-in"))


def tree_map(function: Any, tree: Any, *rest: Any) -> Any:
    """What `jax.tree_map` was: nothing is done where the first tree has None, whatever the others have there."""

    def applied(leaf: Any, *others: Any) -> Any:
        return None if leaf is None else function(leaf, *others)

    return jax.tree_util.tree_map(applied, tree, *rest, is_leaf=lambda leaf: leaf is None)


@pytest.mark.parametrize("inner", ["momentum", "Adam"])
def test_its_rigl_and_ours_train_the_same_masks_and_weights(
    inner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With JaxPruner itself, where somebody has it: its repository is no package on PyPI."""
    monkeypatch.setattr(jax, "tree_map", tree_map, raising=False)
    # a quarter of 120 and of 200 weights is whole: it rounds what stays, and iftplan what goes
    jaxpruner = pytest.importorskip("jaxpruner", reason="JaxPruner is not on PyPI")
    plan, params = planned(), parameters()
    base = optax.sgd(0.05, momentum=0.9) if inner == "momentum" else optax.adam(0.01)
    theirs = jaxpruner.RigL(
        sparsity_distribution_fn=sparsity_distribution(plan),
        scheduler=jaxpruner.sparsity_schedules.PeriodicSchedule(4, 4, 16),
        drop_fraction_fn=lambda step: 0.25,
    )
    wrapped = theirs.wrap_optax(base)
    their_state = wrapped.init(params)
    their_params = theirs.post_gradient_update(params, their_state)
    masks = jax.tree_util.tree_map(lambda mask: mask > 0, their_state.masks)
    counts = {name: int(mask.sum()) for name, mask in leaf_names(masks).items()}
    assert counts == {layer.weight: layer.nnz for layer in plan.layers if layer.maskable}
    updates = Updates(end=16, interval=4, begin=4, at_begin=True, at_end=True)
    optimizer = with_masks(base, masks, RigL(updates, Constant(0.25), order="replace"), plan=plan)
    state, ours = optimizer.init(params), apply_masks(params, masks)
    numbers = np.random.default_rng(1)
    x = jnp.asarray(numbers.normal(size=(32, 12)), jnp.float32)
    y = jnp.asarray(numbers.normal(size=(32, 4)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda p: ((model(p, x) - y) ** 2).mean()))
    update, their_update = jax.jit(optimizer.update), jax.jit(wrapped.update)
    for step in range(20):
        changes, state = update(gradient(ours), state, ours)
        ours = optax.apply_updates(ours, changes)
        changes, their_state = their_update(gradient(their_params), their_state, their_params)
        their_params = theirs.post_gradient_update(optax.apply_updates(their_params, changes), their_state)
        for name, mask in leaf_names(state.masks).items():
            assert np.array_equal(mask, leaf_names(their_state.masks)[name] > 0), (step, name)
    for name, weight in leaf_names(ours).items():
        np.testing.assert_allclose(weight, leaf_names(their_params)[name], rtol=1e-5, atol=1e-6)
