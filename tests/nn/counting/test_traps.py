"""Our engines against the traps of `traps.py`: exact to the MAC, or named."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from iftplan.base.errors import MeasureError
from iftplan.models.spec import InputSpec
from iftplan.nn.counting.measure import measure
from tests.support.models.traps import ENGINES, TRAPS, Sparse, Trap
from tests.support.programs import path_of

CASES = [
    pytest.param(trap, engine, device, id=f"{trap.name}-{device}-{engine}")
    for trap in TRAPS
    for engine in trap.engines
    for device in trap.devices
]


@pytest.mark.parametrize(("trap", "engine", "device"), CASES)
def test_trap(trap: Trap, engine: str, device: str) -> None:
    table = measure(trap.build().to(device), trap.specs, engine=engine)
    assert table.macs == trap.macs, table.contractions
    assert list(table.unknown) == ([trap.unknown] if trap.unknown else [])
    assert trap.assumes in " ".join(table.assumptions)
    if not trap.assumes:
        assert table.uncalled == ()


def test_every_engine_meets_every_trap_that_it_can() -> None:
    """The tracer behind fvcore follows no autograd function, no vmap, no sparse tensor; the others follow all."""
    assert len(TRAPS) > 80
    assert all({"meta", "flop_counter"} <= set(trap.engines) <= set(ENGINES) for trap in TRAPS)
    assert len({trap.name for trap in TRAPS}) == len(TRAPS)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: (m * 2) @ x,
        lambda m, x: torch.relu(m) @ x,
        lambda m, x: m.coalesce() @ x,
        lambda m, x: torch.sparse.mm(m, m.t()),
        lambda m, x: torch.eye(4).to_sparse() @ x,
        lambda m, x: m.to_dense() @ x,
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_sparse_tensor_hides_is_refused_not_zero(forward: object, engine: str) -> None:
    with pytest.raises(MeasureError, match=r"aten::|is sparse"):
        measure(Sparse(torch.sparse_coo, forward), [InputSpec((4, 5))], engine=engine)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["meta", "flop_counter"])
def test_a_sparse_tensor_that_forgot_its_values_is_refused(engine: str) -> None:
    model = Sparse(torch.sparse_coo, lambda m, x: m @ x).to("meta")
    with pytest.raises(MeasureError, match="no values"):
        measure(model, [InputSpec((4, 5))], engine=engine)


def test_a_sparse_parameter_is_used() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(4).to_sparse())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sparse.mm(self.weight, x)

    table = measure(Weighted(), [InputSpec((4, 5))])
    assert (table.macs, table.uncalled, table.by_weight()) == (20, (), {"weight": 20})


@pytest.mark.slow
def test_the_table_of_counters_is_settled_on_every_row() -> None:
    """Public counters are shown as they are; ours has to be exact, or to say by name what it is not."""
    script = path_of("traps")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line.split("  ")[0]: line.split() for line in done.stdout.splitlines()}
    assert done.stdout.splitlines()[-1] == "iftplan is exact or explicit on every row"
    assert lines["grouped queries"][2:5] == ["4480", "exact", "0!"], (
        "FlopCounterMode sees no fused attention on a CPU"
    )
    assert len(done.stdout.splitlines()) >= len(TRAPS) + 4
