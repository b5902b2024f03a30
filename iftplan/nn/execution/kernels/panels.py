"""The two inner loops as LLVM IR: four rows of a sparse weight against one tile of activations.

A panel is a run of quads: four output rows with equally many steps. A step holds four values, one for each row,
and where to find the four input rows in the tile (16-bit offsets in units of eight bytes), or one offset where
the four rows share their columns, as in blocks. All addresses are integers; whoever calls has checked the sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from iftplan.nn.execution.kernels.registers import ROWS

_I64 = ir.IntType(64)
_I16 = ir.IntType(16)

_LINE: Final = 64
_AHEAD: Final = 1024
"""Bytes between a step's values and those that it asks for: a matrix is streamed through once for each tile, and what
the processor fetches ahead by itself stops at the end of a page."""


class Emitter:
    """IR instructions for values of one width, at integer addresses.

    Args:
        builder: of a function, llvmlite's.
        lanes: values of a register.
        count: registers of one row of a tile.
        bits: of a value, 32 or 64.
    """

    def __init__(self, builder: Any, lanes: int, count: int, bits: int) -> None:
        self.builder, self.lanes, self.count = builder, lanes, count
        self.scalar = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.bytes = bits // 8
        self.vector = ir.VectorType(self.scalar, lanes)
        self.zero = ir.Constant(self.vector, [0.0] * lanes)

    def number(self, value: int) -> Any:
        """A 64-bit constant."""
        return ir.Constant(_I64, value)

    def plus(self, address: Any, distance: Any) -> Any:
        """An address further on; `distance` is a value or a number."""
        return self.builder.add(address, self.number(distance) if isinstance(distance, int) else distance)

    def times(self, value: Any, factor: int) -> Any:
        """A product with a constant."""
        return self.builder.mul(value, self.number(factor))

    def load(self, address: Any, kind: Any) -> Any:
        """One value of a type, read from an address that is aligned to its elements alone."""
        align = self.bytes if kind in (self.vector, self.scalar) else kind.width // 8
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=min(align, 8))

    def store(self, value: Any, address: Any) -> None:
        """Write one vector to an address."""
        pointer = self.builder.inttoptr(address, value.type.as_pointer())
        self.builder.store(value, pointer, align=self.bytes)

    def row(self, address: Any) -> list[Any]:
        """Addresses of the vectors of one row of a tile."""
        return [self.plus(address, self.bytes * self.lanes * z) for z in range(self.count)]

    def vectors(self, address: Any) -> list[Any]:
        """Vectors of one row of a tile, read from its address."""
        return [self.load(place, self.vector) for place in self.row(address)]

    def spread(self, value: Any) -> Any:
        """A scalar in every lane."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        return self.shuffle(first, undefined, [0] * self.lanes)

    def spread_four(self, address: Any, shuffled: bool) -> list[Any]:
        """Four neighbouring scalars, each in every lane; with one load and four shuffles, or with four loads."""
        if not shuffled:
            places = [self.plus(address, self.bytes * r) for r in range(ROWS)]
            return [self.spread(self.load(place, self.scalar)) for place in places]
        # LLVM would load each by itself; it does not look through this empty piece of assembly.
        four = ir.VectorType(self.scalar, ROWS)
        held = self.builder.load(self.builder.inttoptr(address, four.as_pointer()), align=self.bytes)
        wide = self.shuffle(held, ir.Constant(four, ir.Undefined), list(range(ROWS)) * (self.lanes // ROWS))
        kind = ir.FunctionType(self.vector, [self.vector])
        wide = self.builder.asm(kind, "", "=v,0" if self.lanes == 16 else "=x,0", [wide], False)
        parts = range(0, self.lanes, ROWS)
        return [self.shuffle(wide, wide, [p + r for p in parts for _ in range(ROWS)]) for r in range(ROWS)]

    def prefetch(self, address: Any) -> None:
        """A cache line that is wanted soon."""
        i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        self.builder.call(function, [self.builder.inttoptr(address, byte), i32(0), i32(3), i32(1)])

    def shuffle(self, a: Any, b: Any, order: Sequence[int]) -> Any:
        """Lanes of two vectors in a given order.

        Args:
            a, b: vectors.
            order: lanes of the result, numbered through both.
        """
        return self.builder.shuffle_vector(
            a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
        )

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """a·b + c, in one instruction where there is one.

        Args:
            a, b, c: vectors.
        """
        name = f"llvm.fmuladd.v{self.lanes}f{8 * self.bytes}"
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c])


def _quads(emit: Emitter, counts: Any, first: Any, last: Any, body: Any) -> None:
    """Loop over quads; `body(quad, position, steps)` emits one."""
    b = emit.builder
    before, loop, end = b.block, b.append_basic_block("quad"), b.append_basic_block("end")
    b.cbranch(b.icmp_signed("<", first, last), loop, end)
    b.position_at_end(loop)
    quad, position = b.phi(_I64), b.phi(_I64)
    quad.add_incoming(first, before)
    position.add_incoming(emit.number(0), before)
    steps = emit.load(emit.plus(counts, emit.times(quad, 8)), _I64)
    body(quad, position, steps)
    following = emit.plus(quad, 1)
    quad.add_incoming(following, b.block)
    position.add_incoming(emit.plus(position, steps), b.block)
    b.cbranch(b.icmp_signed("<", following, last), loop, end)
    b.position_at_end(end)


def _steps(emit: Emitter, steps: Any, carried: list[Any], body: Any) -> list[Any]:
    """Loop over the steps of a quad, carrying vectors: `body(step, carried)` returns what they become."""
    b = emit.builder
    before, loop, end = b.block, b.append_basic_block("step"), b.append_basic_block("quad_end")
    b.cbranch(b.icmp_signed(">", steps, emit.number(0)), loop, end)
    b.position_at_end(loop)
    step = b.phi(_I64)
    step.add_incoming(emit.number(0), before)
    within = [b.phi(emit.vector) for _ in carried]
    for phi, start in zip(within, carried, strict=True):
        phi.add_incoming(start, before)
    became = body(step, within)
    following = emit.plus(step, 1)
    step.add_incoming(following, b.block)
    for phi, value in zip(within, became, strict=True):
        phi.add_incoming(value, b.block)
    after = b.block
    b.cbranch(b.icmp_signed("<", following, steps), loop, end)
    b.position_at_end(end)
    results = [b.phi(emit.vector) for _ in carried]
    for phi, start, value in zip(results, carried, became, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(value, after)
    return results


def _outputs(emit: Emitter, rows: Any, quad: Any, out: Any) -> list[Any]:
    """Addresses of the four output rows of a quad."""
    ats = [emit.plus(rows, emit.times(emit.plus(emit.times(quad, ROWS), r), 8)) for r in range(ROWS)]
    return [emit.plus(out, emit.load(at, _I64)) for at in ats]


def _inputs(emit: Emitter, offsets: Any, place: Any, tile: Any, shared: bool) -> list[Any]:
    """Addresses of the input rows of one step, one for each output row."""
    b = emit.builder
    if shared:
        offset = b.zext(emit.load(emit.plus(offsets, emit.times(place, 2)), _I16), _I64)
        return [emit.plus(tile, emit.times(offset, 8))] * ROWS
    # all four in one load: scalar loads compete with those of activations
    at = emit.plus(offsets, emit.times(place, 2 * ROWS))
    emit.prefetch(emit.plus(at, _AHEAD // 2))
    four = emit.load(at, _I64)
    parts = [b.and_(b.lshr(four, emit.number(16 * r)), emit.number(0xFFFF)) for r in range(ROWS)]
    return [emit.plus(tile, emit.times(part, 8)) for part in parts]


def _by_depth(builder: Any, shape: tuple[int, int, int], depth: Any, body: Any) -> None:
    """`body(emit)` for as many vectors as a tile holds: what is not there is not computed."""
    lanes, count, bits = shape
    end = builder.append_basic_block("computed")
    choice = builder.switch(depth, end)
    for vectors in range(1, count + 1):
        block = builder.append_basic_block(f"vectors{vectors}")
        choice.add_case(_I64(vectors), block)
        builder.position_at_end(block)
        body(Emitter(builder, lanes, vectors, bits))
        builder.branch(end)
    builder.position_at_end(end)


def _panel(lanes: Any, count: Any, bits: Any, shared: Any, quad_of: Any, *constants: Any) -> Any:
    """Signature and generator of a panel, whose quads `quad_of(emit, shared, values, offsets, rows, tile, out)` makes."""
    shape = lanes.literal_value, count.literal_value, bits.literal_value
    signature = types.void(lanes, count, bits, shared, *constants, *[types.int64] * 9)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        *_, depth, values, offsets, rows, counts, first, last, tile, out = args

        def body(emit: Emitter) -> None:
            quad = quad_of(emit, bool(shared.literal_value), values, offsets, rows, tile, out)
            _quads(emit, counts, first, last, quad)

        _by_depth(builder, shape, depth, body)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def product(
    context: Any, lanes: Any, count: Any, bits: Any, shared: Any, shuffled: Any,
    depth: Any, values: Any, offsets: Any, rows: Any, counts: Any, first: Any, last: Any, tile: Any, out: Any,
) -> Any:  # fmt: skip
    """Add values × tile rows to the output rows of quads first..last.

    Args:
        context: numba's.
        lanes, count, bits: shape of a row of the tile, constants.
        shared: whether the four rows of a quad share their columns, a constant.
        shuffled: whether the four weights of a step are loaded together, a constant.
        depth: registers of a row in use, `count` at most.
        values: address of the kept weights, four a step.
        offsets: address of the inputs' distances in the tile.
        rows: address of the distances of each quad's output rows.
        counts: address of the steps of each quad.
        first, last: quads of the panel; the last is not among them.
        tile: address of the inputs.
        out: address of the outputs.
    """

    def quad_of(
        emit: Emitter, shared: bool, values: Any, offsets: Any, rows: Any, tile: Any, out: Any
    ) -> Any:
        # Sums stay in registers over all steps of a quad: four rows of `count` registers are 16 of AVX-512's
        # 32 and 8 of AVX2's 16, and what is left holds the weights and the inputs. A step then loads inputs
        # and stores nothing, and its products do not wait for one another.
        def quad(number: Any, position: Any, steps: Any) -> None:
            places = [emit.row(place) for place in _outputs(emit, rows, number, out)]
            sums = [emit.load(place, emit.vector) for row in places for place in row]
            for place in _outputs(emit, rows, emit.plus(number, 1), out):
                for at in range(0, emit.count * emit.lanes * emit.bytes, _LINE):
                    emit.prefetch(emit.plus(place, at))

            def step(i: Any, sums: list[Any]) -> list[Any]:
                at = emit.plus(position, i)
                found = _inputs(emit, offsets, at, tile, shared)
                loaded = emit.vectors(found[0]) if shared else []
                place = emit.plus(values, emit.times(at, ROWS * emit.bytes))
                emit.prefetch(emit.plus(place, _AHEAD))
                weights = emit.spread_four(place, bool(shuffled.literal_value))
                became = []
                for r, weight in enumerate(weights):
                    for z, x in enumerate(loaded or emit.vectors(found[r])):
                        became.append(emit.fused(weight, x, sums[r * emit.count + z]))
                return became

            results = _steps(emit, steps, sums, step)
            for place, value in zip([p for row in places for p in row], results, strict=True):
                emit.store(value, place)

        return quad

    return _panel(lanes, count, bits, shared, quad_of, shuffled)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def correlation(
    context: Any, lanes: Any, count: Any, bits: Any, shared: Any,
    depth: Any, sums: Any, offsets: Any, rows: Any, counts: Any, first: Any, last: Any, tile: Any, out: Any,
) -> Any:  # fmt: skip
    """Add ⟨out row, tile row⟩ to the sum of every kept weight, for quads first..last.

    Args:
        context: numba's.
        lanes, count, bits: shape of a row of the tile, constants.
        shared: whether the four rows of a quad share their columns, a constant.
        depth: registers of a row in use, `count` at most.
        sums: address of the weights' gradients, four a step.
        offsets: address of the inputs' distances in the tile.
        rows: address of the distances of each quad's output rows.
        counts: address of the steps of each quad.
        first, last: quads of the panel; the last is not among them.
        tile: address of the inputs.
        out: address of the output's gradients.
    """

    def quad_of(emit: Emitter, shared: bool, sums: Any, offsets: Any, rows: Any, tile: Any, out: Any) -> Any:
        b = emit.builder

        # The mirror image of `product`: here gradients stay in registers, and sums go through memory, since
        # every kept weight has a sum of its own. Four of them are summed over their lanes together, with one
        # store.
        def quad(number: Any, position: Any, steps: Any) -> None:
            gradients = [emit.vectors(place) for place in _outputs(emit, rows, number, out)]

            def step(i: Any, carried: list[Any]) -> list[Any]:
                at = emit.plus(position, i)
                found = _inputs(emit, offsets, at, tile, shared)
                loaded = emit.vectors(found[0]) if shared else []
                partial = []
                for r in range(ROWS):
                    inputs = loaded or emit.vectors(found[r])
                    total = b.fmul(gradients[r][0], inputs[0])
                    for z in range(1, emit.count):
                        total = emit.fused(gradients[r][z], inputs[z], total)
                    partial.append(total)
                four = _four_sums(emit, partial)
                place = emit.plus(sums, emit.times(at, ROWS * emit.bytes))
                emit.prefetch(emit.plus(place, _AHEAD))
                pointer = b.inttoptr(place, four.type.as_pointer())
                b.store(b.fadd(b.load(pointer, align=emit.bytes), four), pointer, align=emit.bytes)
                return []

            _steps(emit, steps, [], step)

        return quad

    return _panel(lanes, count, bits, shared, quad_of)


def _four_sums(emit: Emitter, partial: list[Any]) -> Any:
    """The sums over the lanes of four vectors, as one vector of four."""
    b, lanes = emit.builder, emit.lanes
    if lanes == 2:
        pairs = [_folded(emit, partial[i], partial[i + 1], [0, 2], [1, 3]) for i in (0, 2)]
        return emit.shuffle(pairs[0], pairs[1], [0, 1, 2, 3])
    # interleaved within groups of four, which no instruction set needs a wide permutation for: each addition
    # halves two vectors at once
    groups = range(0, lanes, 4)
    low = [x for g in groups for x in (g, lanes + g, g + 1, lanes + g + 1)]
    pairs = [_folded(emit, partial[i], partial[i + 1], low, [x + 2 for x in low]) for i in (0, 2)]
    low = [x for g in groups for x in (g, g + 1, lanes + g, lanes + g + 1)]
    total = _folded(emit, pairs[0], pairs[1], low, [x + 2 for x in low])
    while lanes > 4:
        lanes //= 2
        halves = [emit.shuffle(total, total, list(range(i, i + lanes))) for i in (0, lanes)]
        total = b.fadd(*halves)
    return total


def _folded(emit: Emitter, a: Any, b: Any, low: list[int], high: list[int]) -> Any:
    """Two arrangements of the lanes of two vectors, added."""
    return emit.builder.fadd(emit.shuffle(a, b, low), emit.shuffle(a, b, high))
