"""Where counters go wrong: every trap of the tests, counted by iftplan and by public counters as people use them.

python benchmarks/counting/traps.py [--markdown]

fvcore and torch's FlopCounterMode run alone, on real tensors, with nothing of ours; torchinfo, ptflops and thop too
where they are installed. A number is what a counter says where the truth is another; "0!" is a silent zero.
Ends with 1 unless iftplan is exact, or names what it cannot know, on every row.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn

from iftplan.base.errors import IftplanError
from iftplan.nn.counting.measure import measure
from iftplan.nn.meta.inputs import make_inputs
from tests.support.models.traps import TRAPS, Trap

Counter = Callable[[Trap], "int | str"]


def ours(trap: Trap) -> int | str:
    """MACs, or what iftplan names instead; any sentence of its report makes the number no silent one."""
    try:
        table = measure(trap.build(), trap.specs)
    except IftplanError as error:
        return f"refused: {error}"
    if table.unknown:
        return f"{table.macs} + unknown {', '.join(table.unknown)}"
    if table.macs == trap.macs and table.assumptions and trap.assumes:
        return "exact, assumed and said so"
    return table.macs


def _called(trap: Trap) -> tuple[nn.Module, tuple[object, ...], Mapping[str, object]]:
    args, kwargs = make_inputs(trap.specs, "cpu")
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.is_floating_point():
            value.fill_(1)  # the answers that iftplan assumes: true, and once around a loop
    return trap.build().eval(), args, kwargs


def flop_counter(trap: Trap) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    model, args, kwargs = _called(trap)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*args, **kwargs)
    return int(counter.get_total_flops()) // 2


def fvcore(trap: Trap) -> int:
    from fvcore.nn import FlopCountAnalysis

    model, args, kwargs = _called(trap)
    assert not kwargs, "takes no keyword inputs"
    with torch.no_grad():
        return int(FlopCountAnalysis(model, args).total())


def torchinfo(trap: Trap) -> int:
    from torchinfo import summary

    model, args, kwargs = _called(trap)
    return int(summary(model, input_data=list(args), verbose=0, **kwargs).total_mult_adds)


def thop(trap: Trap) -> int:
    from thop import profile

    model, args, kwargs = _called(trap)
    assert not kwargs, "takes no keyword inputs"
    return int(profile(model, inputs=args, verbose=False)[0])


def ptflops(trap: Trap) -> int:
    from ptflops import get_model_complexity_info

    model, args, kwargs = _called(trap)
    given = dict(zip((f"x{i}" for i in range(len(args))), args, strict=True)) | dict(kwargs)

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, **named: Tensor) -> object:
            positional = [named.pop(f"x{i}") for i in range(len(args))]
            return self.model(*positional, **named)

    macs, _ = get_model_complexity_info(
        Named(), (1,), input_constructor=lambda _: given, as_strings=False, print_per_layer_stat=False
    )
    assert macs is not None, "gave up"
    return int(macs)


PUBLIC: Mapping[str, Counter] = {
    "FlopCounterMode": flop_counter,
    "fvcore": fvcore,
    "torchinfo": torchinfo,
    "ptflops": ptflops,
    "thop": thop,
}


def installed() -> dict[str, Counter]:
    """The public counters that are here."""
    from importlib.util import find_spec

    return {n: c for n, c in PUBLIC.items() if n == "FlopCounterMode" or find_spec(n)}


def answer(counter: Counter, trap: Trap) -> int | str:
    """What a counter says, its chatter kept to itself; "raised" where it does not get that far."""
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        try:
            return counter(trap)
        except Exception as error:
            return f"raised {type(error).__name__}"


def shown(found: int | str, trap: Trap) -> str:
    """A cell: exact, a wrong number, a silent zero, or words."""
    if isinstance(found, str):
        return found
    if found == trap.macs and not trap.unknown:
        return "exact"
    return "0!" if found == 0 else f"{found}"


def settled(found: int | str, trap: Trap) -> bool:
    """Whether ours is exact, or says by name what it is not."""
    if trap.unknown:
        return found == f"{trap.macs} + unknown {trap.unknown}"
    return found in (trap.macs, "exact, assumed and said so")


def table() -> tuple[list[tuple[str, ...]], list[str]]:
    """Headings and rows of cells, and the rows where ours is neither exact nor named."""
    others = installed()
    rows = [("trap", "truth", "iftplan", *others)]
    open_rows = []
    for trap in TRAPS:
        found = ours(trap)
        if not settled(found, trap):
            open_rows.append(trap.name)
        truth = f"{trap.macs} + ?" if trap.unknown else str(trap.macs)
        public = (shown(answer(counter, trap), trap) for counter in others.values())
        rows.append((trap.name, truth, shown(found, trap), *public))
    return rows, open_rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="a pipe table")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows, open_rows = table()
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print(f"| {' | '.join(cells)} |" if options.markdown else "  ".join(cells).rstrip())
        if row is rows[0] and options.markdown:
            print(f"|{'|'.join('---' for _ in row)}|")
    for i, name in enumerate(rows[0][2:], 2):
        column = [row[i] for row in rows[1:]]
        exact = sum(cell.startswith("exact") for cell in column)
        print(f"{name}: {exact} of {len(column)} exact, {column.count('0!')} silently zero")
    print("iftplan is exact or explicit on every row" if not open_rows else f"not settled: {open_rows}")
    return 1 if open_rows else 0


if __name__ == "__main__":
    sys.exit(main())
