"""XLA's cost analysis beside our count, and the reasons for the difference, operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import jax

from iftplan.base.units import count
from iftplan.jaxnn.counting.formulas import FORMULAS, convolution, ragged_dot
from iftplan.jaxnn.counting.measure import Vouched, counted
from iftplan.jaxnn.counting.tally import Tally
from iftplan.jaxnn.sources.models import Traceable


@dataclass(frozen=True, slots=True)
class XlaCount:
    """FLOPs of a compiled model by XLA's `cost_analysis`.

    Attributes:
        macs: half of its FLOPs, rounded down, all elementwise work among them.
        sentences: why that is not iftplan's count, an operator each.
    """

    macs: int
    sentences: tuple[str, ...]


def xla_count(model: Traceable, vouched: Vouched) -> XlaCount | None:
    """XLA's count of a model and where it differs from ours; None where XLA cannot compile it, or says nothing.

    The model is compiled for this machine, from shapes alone.

    Args:
        model: what is counted.
        vouched: primitive → cost that the user gives.
    """
    try:
        analysis: Any = jax.jit(model.function).lower(*model.arguments).compile().cost_analysis()
    except Exception:  # kernels for other devices, effects that no analysis knows
        return None
    flops = (analysis[0] if isinstance(analysis, list) else analysis or {}).get("flops")
    if flops is None or flops < 0:
        return None
    whole, once, ruled = (
        _by_operator(counted(model, vouched, formulas=formulas, loops_once=loops_once).tally)
        for formulas, loops_once in ((FORMULAS, False), (FORMULAS, True), (_RULES, True))
    )
    said = tuple(_differences(whole, once, ruled, int(flops) / 2))
    return XlaCount(int(flops) // 2, said)


def _by_operator(tally: Tally) -> dict[str, int]:
    macs: dict[str, int] = {}
    for site, use in tally.uses.items():
        if use.macs:
            macs[site.operator] = macs.get(site.operator, 0) + use.macs
    return macs


def _differences(
    whole: Mapping[str, int], once: Mapping[str, int], ruled: Mapping[str, int], xla: float
) -> Iterator[str]:
    """Sentences on the operators that XLA counts by other rules, and on what these rules leave over.

    Args:
        whole: operator → MACs as iftplan counts them.
        once: the same with the body of each loop once.
        ruled: that with the products that XLA counts.
        xla: half of XLA's FLOPs.
    """
    for name, macs in whole.items():
        by_loops, by_rule = once.get(name, 0), ruled.get(name, 0)
        if by_rule == macs:
            continue
        reasons = [_LOOPS] if by_loops != macs else []
        reasons += [_REASONS[name]] if by_rule != by_loops else []
        yield f"XLA counts {count(by_rule)} of {name}'s {count(macs)} MACs: {' and '.join(reasons)}."
    if rest := xla - sum(ruled.values()):
        yield f"XLA counts {rest:+,.1f} MACs".replace(",", " ").replace(".0 ", " ") + (
            " of elementwise work, which iftplan lists apart, and of what it rewrites."
        )


_LOOPS: Final = "the body of a loop is counted once"

_REASONS: Final = {
    "conv_general_dilated": "taps on padding are left out",
    "ragged_dot": "every row meets every group",
    "ragged_dot_general": "every row meets every group",
}


def _without_padding(eqn: Any) -> int:
    """MACs of a convolution whose taps on padding are left out, as those on inserted zeros are."""
    full = convolution(eqn)
    numbers, params = eqn.params["dimension_numbers"], eqn.params
    left, right, out = (v.aval.shape for v in (eqn.invars[0], eqn.invars[1], eqn.outvars[0]))
    axes = zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
    valid, counted_here = 1, 1
    for place, (i, k, o) in enumerate(axes):
        stride, (low, _) = params["window_strides"][place], params["padding"][place]
        spread, apart = params["lhs_dilation"][place], params["rhs_dilation"][place]
        first = [at * stride - low for at in range(out[o])]
        taps = [start + tap * apart for start in first for tap in range(right[k])]
        valid *= sum(at % spread == 0 and 0 <= at // spread < left[i] for at in taps)
        counted_here *= left[i] * min(right[k], out[o]) if spread > 1 else out[o] * right[k]
    return int(full // counted_here * valid) if counted_here else full


def _every_group(eqn: Any) -> int:
    numbers, right = eqn.params["ragged_dot_dimension_numbers"], eqn.invars[1].aval.shape
    groups = prod(right[axis] for axis in numbers.rhs_group_dimensions)
    return int(ragged_dot(eqn) * groups)


_RULES: Final[Mapping[str, Callable[[Any], int]]] = {
    **FORMULAS,
    "conv_general_dilated": _without_padding,
    "ragged_dot": _every_group,
    "ragged_dot_general": _every_group,
}
"""Primitive → MACs that XLA counts of one call on a CPU."""
