"""Notes of a plan about widths: what attention keeps, and which layers do not widen."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal

import sympy

from iftplan.models.spec import Couplings, Heads
from iftplan.nn.reading.symbolic.counting import SymbolicContraction, SymbolicCounter
from iftplan.nn.reading.widths.equations import WidthEquations

KeptHeads = Heads | Literal[""]


def kept_heads(system: WidthEquations, counter: SymbolicCounter) -> KeptHeads:
    """ "number" or "size", whichever of its heads attention keeps in all of its products; else empty."""
    found = {what for call in counter.calls if (what := _kept(system, call))}
    return found.pop() if len(found) == 1 else ""


def _kept(system: WidthEquations, call: SymbolicContraction) -> KeptHeads:
    if call.weight is not None or call.heads is None:
        return ""
    number = bool(system.simplify(call.heads).free_symbols)
    size = any(system.simplify(s).free_symbols for s in call.head_sizes)
    return "" if number is size else "size" if number else "number"


def head_notes(system: WidthEquations, counter: SymbolicCounter, asked: Heads) -> Iterator[str]:
    """Notes on attention that keeps the number or the size of heads although the other was asked for.

    Args:
        system: the solved equations between widths.
        counter: the products of the pass.
        asked: "number" or "size", whichever was to be kept.
    """
    found: dict[str, dict[str, None]] = {}
    for call in counter.calls:
        if (what := _kept(system, call)) and what != asked:
            stays = call.head_sizes if what == "size" else (call.heads,)
            found.setdefault(_reason(system, stays), {})[call.module] = None
    grows, fixed = ("number of heads", "size of a head")
    if asked == "size":
        grows, fixed = fixed, grows
    for line, modules in found.items():
        where = first_and_count(list(modules))
        why = f" ({line})" if line else ""
        yield f"the {grows} grows in {where}, because the {fixed} is fixed{why}"


def first_and_count(modules: Sequence[str]) -> str:
    """Names for a sentence: the first of them, and how many there are besides."""
    others = f" and {len(modules) - 1} more" if len(modules) > 1 else ""
    return f"{modules[0] or 'the model'}{others}"


def _reason(system: WidthEquations, sizes: tuple[sympy.Expr | None, ...]) -> str:
    symbols = (s for size in sizes if size is not None for s in sorted(size.free_symbols, key=str))
    reasons = (system.reason(s) for s in symbols if system.is_fixed(s))
    return next((reason.rpartition(" at ")[2] for reason in reasons if reason), "")


def layer_notes(found: Couplings, held: Mapping[str, str], ends: Collection[str]) -> Iterator[str]:
    """Sentences about layers whose weights keep all of their sizes although neither end of the model asks for that.

    Args:
        found: the model's couplings.
        held: module path → why it keeps its widths, for which there is a sentence already.
        ends: names of widths that an input or an output of the model fixes.
    """
    stuck: dict[str, list[str]] = {}
    for name in found.weight_macs:  # blocks that are built alike say it once
        fixed = {
            s: found.widths[s].fixed for dimension in found.shapes[name] for s in sorted(dimension.symbols)
        }
        inner = [reason for s, reason in fixed.items() if s not in ends]
        if inner and all(fixed.values()) and not any(name.startswith(f"{h}.") for h in held):
            stuck.setdefault(inner[0], []).append(name.rpartition(".")[0] or name)
    for reason, layers in stuck.items():
        keep = "keep their widths" if len(layers) > 1 else "keeps its widths"
        yield f"{first_and_count(layers)} {keep}: {reason}"
