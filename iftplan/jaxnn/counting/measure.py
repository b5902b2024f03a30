"""Counts of a JAX function or module, from its jaxpr."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax

from iftplan.base.arguments import check_arguments
from iftplan.jaxnn.counting.formulas import FORMULAS
from iftplan.jaxnn.counting.known import INPUT, Known
from iftplan.jaxnn.counting.tally import Tally, Use
from iftplan.jaxnn.counting.walk import Walk
from iftplan.jaxnn.sources.models import Traceable, trace, traceable
from iftplan.models.allowances import VouchedCost, parse_vouched
from iftplan.models.counting import Contraction, CountTable

Vouched = Mapping[str, VouchedCost]


@dataclass(frozen=True, slots=True)
class JaxprCounts:
    """MACs of a model that was counted, and what else is known of it.

    Attributes:
        table: its counts.
        tally: the same by site.
        last: weights whose products are its results.
        outputs: shapes of its results.
    """

    table: CountTable
    tally: Tally
    last: frozenset[str]
    outputs: tuple[tuple[int, ...], ...]


@check_arguments
def measure(model: object, *arguments: object, allow: Sequence[str] = ()) -> CountTable:
    """Table of the multiply-accumulates (MACs) of one call of a JAX function or module, primitive by primitive.

    Nothing is computed and no memory is used: arguments may be `jax.ShapeDtypeStruct`s, and only shapes of arrays are read.

    Args:
        model: a function, a gradient of one, a module of `flax.linen` or `flax.nnx`, or an Equinox module.
        *arguments: what it is called with. If the first argument of a function is a container of arrays, these are its weights.
        allow: costs that you vouch for, of primitives without a formula: ["lu=0", "my_primitive=64*out"].

    Raises:
        InputError: the model cannot be called, or a cost cannot be read.
        MeasureError: the model does not run on these shapes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from iftplan.jaxnn import measure
        >>> x, w = jax.ShapeDtypeStruct((4, 8), jnp.float32), jax.ShapeDtypeStruct((8, 16), jnp.float32)
        >>> measure(jnp.matmul, x, w).macs
        512
    """
    whole = traceable(model, arguments)
    return counted(whole, parse_vouched(allow)).table


@check_arguments
def count_jaxpr(jaxpr: object, *, allow: Sequence[str] = ()) -> CountTable:
    """Table of the multiply-accumulates (MACs) of one run of a jaxpr, as `jax.make_jaxpr` gives it.

    Raises:
        InputError: a cost cannot be read.
    """
    _, tally = Walk(parse_vouched(allow)).jaxpr(jaxpr, ())
    return _table(tally, "", ())


def counted(
    model: Traceable,
    vouched: Vouched = MappingProxyType({}),
    *,
    formulas: Mapping[str, Callable[[Any], int]] = FORMULAS,
    loops_once: bool = False,
) -> JaxprCounts:
    """Counts of a model.

    Args:
        model: what is counted.
        vouched: primitive → cost that the user gives.
        formulas: primitive → MACs of a call.
        loops_once: whether each loop counts as if it ran once.

    Raises:
        MeasureError: it does not run on its shapes.
    """
    closed = trace(model)
    weights = model.weights()
    values = [Known(weight=name) for name in weights]
    values += [Known(origins=frozenset({INPUT}))] * (len(closed.jaxpr.invars) - len(values))
    results, tally = Walk(vouched, formulas=formulas, loops_once=loops_once).jaxpr(closed, values)
    used = {id(atom) for eqn in closed.jaxpr.eqns for atom in eqn.invars}
    used |= {id(atom) for atom in closed.jaxpr.outvars}
    unused = [name for name, var in zip(weights, closed.jaxpr.invars, strict=False) if id(var) not in used]
    table = _table(tally, model.root, _uncalled(weights, unused))
    last = frozenset().union(*(value.origins for value in results)) - {INPUT}
    return JaxprCounts(table, tally, last, tuple(tuple(aval.shape) for aval in closed.out_avals))


def used_weights(tally: Tally) -> dict[str, Use]:
    """Weight → all its products together, in the order of their first use."""
    uses: dict[str, Use] = {}
    for site, use in tally.uses.items():
        if site.weight:
            uses[site.weight] = uses[site.weight] + use if site.weight in uses else use
    return uses


def summed_products(table: CountTable) -> dict[str, int]:
    """MACs of the products of activations, added up for each `module:primitive`, in the order of their first use."""
    macs: dict[str, int] = {}
    for found in table.contractions:
        if found.weight is None:
            name = f"{found.module}:{found.operator}"
            macs[name] = macs.get(name, 0) + found.macs
    return macs


def _table(tally: Tally, root: str, uncalled: tuple[str, ...]) -> CountTable:
    contractions = tuple(
        Contraction(_below(site.module, root), site.operator, use.macs, site.weight or None, use.calls)
        for site, use in tally.uses.items()
        if use.macs
    )
    return CountTable(
        "jaxpr",
        contractions,
        tally.elementwise,
        tally.unknown,
        uncalled,
        tally.assumptions,
    )


def _below(module: str, root: str) -> str:
    return module.removeprefix(root).removeprefix(".") if f"{module}.".startswith(f"{root}.") else module


def _uncalled(weights: Mapping[str, Any], unused: Sequence[str]) -> tuple[str, ...]:
    """Modules with weights of which the function used none."""
    modules: dict[str, list[str]] = {}
    for name, leaf in weights.items():
        if jax.dtypes.issubdtype(leaf.dtype, jax.numpy.floating):
            modules.setdefault(name.rpartition(".")[0], []).append(name)
    return tuple(module for module, names in modules.items() if set(names) <= set(unused))
