"""The inner loop over one slice as LLVM IR: values times what is gathered of few columns.

Two columns in float32 lie side by side, so that one gather of 64 bits brings both: it takes as long as one of 32.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))

_AHEAD: Final = 2048
"""Values between a step and what it asks for: at most as far as memory answers while they are computed."""


def columns_together(bits: int, columns: int) -> int:
    """Columns that lie side by side in what is read.

    Args:
        bits: of a number, 32 or 64.
        columns: how many there are.
    """
    return 2 if bits == 32 and columns > 1 else 1


class _Emitter:
    """IR instructions for slices of one shape, at integer addresses.

    Args:
        builder: of a function, llvmlite's.
        lanes: rows of a slice.
        bits: of a sum, 32 or 64.
        together: columns that are read at once.
        kept: bytes of a value.
    """

    def __init__(self, builder: Any, lanes: int, bits: int, together: int, kept: int) -> None:
        self.builder, self.lanes, self.bits, self.together, self.kept = builder, lanes, bits, together, kept
        register = lanes * bits
        # two gathers of eight take no longer than one of sixteen here, and less where memory is waited for
        self.pieces = 2 if together == 2 or (bits == 32 and register == 512) else 1
        self.rows = lanes // self.pieces
        self.scalar = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.sums = ir.VectorType(self.scalar, self.rows * together)
        self.numbers = ir.VectorType(_I32, self.rows)
        self.wide = register > 128

    def plus(self, address: Any, distance: int) -> Any:
        """An address further on."""
        return self.builder.add(address, _I64(distance))

    def load(self, address: Any, kind: Any, align: int) -> Any:
        """What lies at an address."""
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=align)

    def prefetch(self, address: Any, level: int) -> None:
        """A cache line that is wanted soon: in the first-level cache at level 3, in the second at 2."""
        byte = _I8.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        self.builder.call(function, [self.builder.inttoptr(address, byte), _I32(0), _I32(level), _I32(1)])

    def value(self, address: Any) -> Any:
        """Values of one piece as floating-point numbers, each as often as columns are read together."""
        b, count = self.builder, self.rows
        if self.kept == 1:
            numbers = b.sext(self.load(address, ir.VectorType(_I8, count), 1), ir.VectorType(_I32, count))
            found = b.sitofp(numbers, ir.VectorType(self.scalar, count))
        elif self.kept == 2:
            words = ir.VectorType(_I32, count)
            numbers = b.zext(self.load(address, ir.VectorType(_I16, count), 2), words)
            found = b.bitcast(
                b.shl(numbers, ir.Constant(words, [16] * count)), ir.VectorType(self.scalar, count)
            )
        else:
            found = self.load(address, ir.VectorType(self.scalar, count), self.kept)
        if self.together == 1:
            return found
        order = [lane for lane in range(count) for _ in range(self.together)]
        return b.shuffle_vector(found, found, ir.Constant(ir.VectorType(_I32, len(order)), order))

    def gathered(self, base: Any, numbers: Any) -> Any:
        """Entries of a column, or of two side by side, at given numbers."""
        b, count, size = self.builder, self.rows, self.bits * self.together // 8
        element = self.scalar if self.together == 1 else ir.DoubleType()
        kind, pointer = ir.VectorType(element, count), _I8.as_pointer()
        if not self.wide:
            found: Any = ir.Constant(kind, ir.Undefined)
            for lane in range(count):
                number = b.zext(b.extract_element(numbers, _I32(lane)), _I64)
                entry = self.load(b.add(base, b.mul(number, _I64(size))), element, self.bits // 8)
                found = b.insert_element(found, entry, _I32(lane))
            return b.bitcast(found, self.sums)
        empty = ir.Constant(kind, [0.0] * count)
        if size * count == 64:
            every = ir.VectorType(ir.IntType(1), count)
            name, mask, scale = (
                "llvm.x86.avx512.mask.gather.dpd.512",
                ir.Constant(every, [1] * count),
                _I32(size),
            )
        else:
            name = f"llvm.x86.avx2.gather.d.p{'s' if size == 4 else 'd'}.256"
            whole = ir.VectorType(ir.IntType(8 * size), count)
            mask, scale = b.bitcast(ir.Constant(whole, [-1] * count), kind), _I8(size)
        signature = ir.FunctionType(kind, [kind, pointer, numbers.type, mask.type, scale.type])
        function = cgutils.get_or_insert_function(b.module, signature, name)
        found = b.call(function, [empty, b.inttoptr(base, pointer), numbers, mask, scale])
        return b.bitcast(found, self.sums)

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """a·b + c, in one instruction where there is one."""
        name = f"llvm.fmuladd.v{self.sums.count}f{self.bits}"
        kind = ir.FunctionType(self.sums, [self.sums] * 3)
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c])

    def step(
        self, values: Any, gaps: Any, sources: list[Any], places: list[Any], sums: list[Any]
    ) -> tuple[list[Any], list[Any]]:
        """Numbers of the inputs of one value of each row, piece by piece; and sums with it, piece by piece of each source."""
        # whole values in the second-level cache alone: the first has columns to hold
        self.prefetch(self.plus(values, _AHEAD * self.kept), 2 if self.kept >= 4 else 3)
        self.prefetch(self.plus(gaps, _AHEAD), 3)
        reached, found = [], list(sums)
        for piece, before in enumerate(places):
            first = piece * self.rows
            gap = self.load(self.plus(gaps, first), ir.VectorType(_I8, self.rows), 1)
            numbers = self.builder.add(before, self.builder.zext(gap, self.numbers))
            weights = self.value(self.plus(values, self.kept * first))
            for n, source in enumerate(sources):
                at = n * self.pieces + piece
                found[at] = self.fused(weights, self.gathered(source, numbers), found[at])
            reached.append(numbers)
        return reached, found

    def slice(self, values: Any, gaps: Any, steps: Any, sources: list[Any], out: Any) -> None:
        """Sums over all steps, written one after the other."""
        b = self.builder
        zero = ir.Constant(self.sums, [0.0] * self.sums.count)
        start = ir.Constant(self.numbers, [0] * self.rows)
        before, loop, end = b.block, b.append_basic_block("step"), b.append_basic_block("slice_end")
        b.cbranch(b.icmp_signed(">", steps, _I64(0)), loop, end)
        b.position_at_end(loop)
        number = b.phi(_I64)
        number.add_incoming(_I64(0), before)
        places = [b.phi(self.numbers) for _ in range(self.pieces)]
        sums = [b.phi(self.sums) for _ in range(len(sources) * self.pieces)]
        at = b.add(values, b.mul(number, _I64(self.kept * self.lanes)))
        reached, became = self.step(at, b.add(gaps, b.mul(number, _I64(self.lanes))), sources, places, sums)
        following = b.add(number, _I64(1))
        number.add_incoming(following, b.block)
        for carried, first, now in ((places, start, reached), (sums, zero, became)):
            for phi, value in zip(carried, now, strict=True):
                phi.add_incoming(first, before)
                phi.add_incoming(value, b.block)
        after = b.block
        b.cbranch(b.icmp_signed("<", following, steps), loop, end)
        b.position_at_end(end)
        results = [b.phi(self.sums) for _ in became]
        for n, (result, value) in enumerate(zip(results, became, strict=True)):
            result.add_incoming(zero, before)
            result.add_incoming(value, after)
            place = self.plus(out, n * self.sums.count * self.bits // 8)
            b.store(result, b.inttoptr(place, self.sums.as_pointer()), align=self.bits // 8)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def slice_sums(
    context: Any, lanes: Any, bits: Any, groups: Any, together: Any, kept: Any,
    values: Any, gaps: Any, steps: Any, source: Any, apart: Any, out: Any,
) -> Any:  # fmt: skip
    """Write the products of one slice's rows with every column.

    They come group after group, lane after lane, and of columns that are read together one after the other.

    Args:
        context: numba's.
        lanes: rows of the slice, a constant.
        bits: of a sum, a constant.
        groups: of columns, a constant.
        together: columns of a group, a constant.
        kept: bytes of a value, a constant: 8 or 4 for numbers like the sums, 2 for bfloat16, 1 for whole numbers.
        values: address of the slice's values.
        gaps: address of the distances between their inputs.
        steps: of the slice.
        source: address of the columns.
        apart: bytes from one group to the next.
        out: address of what is written.
    """
    shape = tuple(constant.literal_value for constant in (lanes, bits, groups, together, kept))
    signature = types.void(lanes, bits, groups, together, kept, *[types.int64] * 6)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        *_, values, gaps, steps, source, apart, out = args
        lanes, bits, groups, together, kept = shape
        emit = _Emitter(builder, lanes, bits, together, kept)
        sources = [builder.add(source, builder.mul(apart, _I64(n))) for n in range(groups)]
        emit.slice(values, gaps, steps, sources, out)
        return context.get_dummy_value()

    return signature, generate
