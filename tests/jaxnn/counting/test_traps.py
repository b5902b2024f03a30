"""Small JAX functions that counters get wrong, held against what they really perform."""

from __future__ import annotations

import pytest

pytest.importorskip("jax", reason="JAX, of the extra jax, is not installed")
pytest.importorskip("flax", reason="Flax, of the extra jax, is not installed")

from iftplan.jaxnn import measure
from tests.support.models.jax_traps import TRAPS, JaxTrap


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_a_trap_is_counted_exactly_or_named(trap: JaxTrap) -> None:
    table = measure(trap.build(), *trap.arguments)
    assert table.macs == trap.macs
    assert set(table.unknown) == set(trap.unknown)
    assert bool(trap.assumes) == bool(table.assumptions)
    assert all(trap.assumes in sentence for sentence in table.assumptions)
