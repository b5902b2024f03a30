"""Rows of channels into tiles and back, as LLVM IR: squares of lanes × lanes values, transposed in registers.

A tile holds one channel of many columns (pixels, samples) in neighbouring values; activations lie the other way
round, all channels of one column together. Rows that are not there (padding, columns beyond the last) are read as
zeros and never written; ends of rows are masked, so that nothing beyond them is touched.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from iftplan.nn.execution.kernels.panels import Emitter

_I64, _I32 = ir.IntType(64), ir.IntType(32)
_BIT = ir.IntType(1)

Place = tuple[Any, Any]


def _count(emit: Emitter, start: Any, limit: Any, body: Any) -> None:
    """Loop from start to limit in steps of one register; `body(i)` emits one."""
    b = emit.builder
    before, loop, end = b.block, b.append_basic_block("square"), b.append_basic_block("squares")
    b.cbranch(b.icmp_signed("<", start, limit), loop, end)
    b.position_at_end(loop)
    index = b.phi(_I64)
    index.add_incoming(start, before)
    body(index)
    following = emit.plus(index, emit.lanes)
    index.add_incoming(following, b.block)
    b.cbranch(b.icmp_signed("<", following, limit), loop, end)
    b.position_at_end(end)


def _first(emit: Emitter, count: Any) -> Any:
    """A mask of the first `count` lanes."""
    kind = ir.VectorType(_I64, emit.lanes)
    undefined = ir.Constant(kind, ir.Undefined)
    spread = emit.shuffle(
        emit.builder.insert_element(undefined, count, ir.Constant(ir.IntType(32), 0)),
        undefined,
        [0] * emit.lanes,
    )
    return emit.builder.icmp_signed("<", ir.Constant(kind, list(range(emit.lanes))), spread)


def _masked(emit: Emitter, kind: str, pointer: Any, mask: Any, value: Any) -> Any:
    """LLVM's masked load or store of one vector; lanes that are masked out are not touched."""
    name = f"llvm.masked.{kind}.v{emit.lanes}f{8 * emit.bytes}.p0"
    align, bits = ir.Constant(ir.IntType(32), emit.bytes), ir.VectorType(_BIT, emit.lanes)
    if kind == "load":
        signature = ir.FunctionType(emit.vector, [pointer.type, ir.IntType(32), bits, emit.vector])
        args = [pointer, align, mask, value]
    else:
        signature = ir.FunctionType(ir.VoidType(), [emit.vector, pointer.type, ir.IntType(32), bits])
        args = [value, pointer, align, mask]
    return emit.builder.call(cgutils.get_or_insert_function(emit.builder.module, signature, name), args)


def _transposed(emit: Emitter, rows: list[Any]) -> list[Any]:
    """A square of registers, transposed by exchanging ever larger halves."""
    lanes, size = emit.lanes, 1
    while size < lanes:
        low = [j if not j & size else lanes + j - size for j in range(lanes)]
        high = [j + size if not j & size else lanes + j for j in range(lanes)]
        became = list(rows)
        for i in range(lanes):
            if not i & size:
                became[i] = emit.shuffle(rows[i], rows[i + size], low)
                became[i + size] = emit.shuffle(rows[i], rows[i + size], high)
        rows, size = became, 2 * size
    return rows


def _columns(emit: Emitter, base: Any, pixels: Any, width: Any, column: Any, start: Any) -> list[Place]:
    """Where the channels of a square's pixels begin, and whether they are there at all."""
    b, found = emit.builder, []
    for j in range(emit.lanes):
        pixel = b.sext(emit.load(emit.plus(pixels, emit.times(emit.plus(column, j), 4)), _I32), _I64)
        there = b.icmp_signed(">=", pixel, emit.number(0))
        found.append((emit.plus(base, emit.times(emit.plus(b.mul(pixel, width), start), emit.bytes)), there))
    return found


def _squares(emit: Emitter, vectors: Any, channels: Any, whole: Any, rest: Any) -> None:
    """`whole(column)(channel)` for whole squares, and `rest(column)(channel)` for what is left of the channels."""
    full = emit.builder.and_(channels, emit.number(-emit.lanes))

    def columns(column: Any) -> None:
        _count(emit, emit.number(0), full, whole(column))
        _count(emit, full, channels, rest(column))

    _count(emit, emit.number(0), emit.times(vectors, emit.lanes), columns)


def _rows(emit: Emitter, tile: Any, pitch: Any, column: Any, channel: Any) -> list[Any]:
    """Addresses of one register of a tile's rows, from a channel on."""
    first = emit.plus(tile, emit.plus(emit.builder.mul(channel, pitch), emit.times(column, emit.bytes)))
    return [emit.plus(first, emit.times(pitch, i)) for i in range(emit.lanes)]


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def gather(
    context: Any, lanes: Any, bits: Any,
    base: Any, width: Any, pixels: Any, vectors: Any, start: Any, channels: Any, tile: Any, pitch: Any, absent: Any,
) -> Any:  # fmt: skip
    """Copy channels start..start+channels of some vectors of pixels into a tile, zeros for absent pixels.

    `pixels` holds their numbers, in 32 bits, negative where there is none, and each has `width` channels. Rows of the
    tile, one for each channel, begin `pitch` bytes apart, and it has room for channels rounded up to whole registers;
    at `absent` there is a register of zeros.

    Args:
        context: numba's.
        lanes, bits: values of a register and bits of a value, constants.
        base: address of the pixels' values.
        width: channels of a pixel.
        pixels: address of their numbers.
        vectors: how many registers of pixels are read.
        start: the first channel.
        channels: how many.
        tile: address of its first row.
        pitch: bytes from row to row.
        absent: address of a register of zeros.
    """
    shape = lanes.literal_value, 1, bits.literal_value
    signature = types.void(lanes, bits, *[types.int64] * 9)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        *_, base, width, pixels, vectors, start, channels, tile, pitch, absent = args
        emit = Emitter(builder, *shape)

        def keep(column: Any, c: Any, rows: list[Any]) -> None:
            for row, place in zip(_transposed(emit, rows), _rows(emit, tile, pitch, column, c), strict=True):
                emit.store(row, place)

        def whole(column: Any) -> Any:
            columns = _columns(emit, base, pixels, width, column, start)

            def square(c: Any) -> None:
                ahead = emit.times(c, emit.bytes)
                found = [builder.select(there, emit.plus(at, ahead), absent) for at, there in columns]
                keep(column, c, [emit.load(at, emit.vector) for at in found])

            return square

        def rest(column: Any) -> Any:
            columns = _columns(emit, base, pixels, width, column, start)

            def square(c: Any) -> None:
                left, ahead, rows = builder.sub(channels, c), emit.times(c, emit.bytes), []
                for at, there in columns:
                    mask = _first(emit, builder.select(there, left, emit.number(0)))
                    pointer = builder.inttoptr(emit.plus(at, ahead), emit.vector.as_pointer())
                    rows.append(_masked(emit, "load", pointer, mask, emit.zero))
                keep(column, c, rows)

            return square

        _squares(emit, vectors, channels, whole, rest)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def scatter(
    context: Any, lanes: Any, bits: Any,
    base: Any, width: Any, pixels: Any, vectors: Any, start: Any, channels: Any, tile: Any, pitch: Any, absent: Any,
) -> Any:  # fmt: skip
    """Copy a tile's rows back to channels start..start+channels of every pixel that is there.

    What belongs to absent pixels is written to the register at `absent`.

    The inverse of `gather`.

    Args:
        context: numba's.
        lanes, bits: values of a register and bits of a value, constants.
        base: address of the pixels' values.
        width: channels of a pixel.
        pixels: address of their numbers.
        vectors: how many registers of pixels are written.
        start: the first channel.
        channels: how many.
        tile: address of its first row.
        pitch: bytes from row to row.
        absent: address of a register for what belongs nowhere.
    """
    shape = lanes.literal_value, 1, bits.literal_value
    signature = types.void(lanes, bits, *[types.int64] * 9)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        *_, base, width, pixels, vectors, start, channels, tile, pitch, absent = args
        emit = Emitter(builder, *shape)

        def held(column: Any, c: Any) -> list[Any]:
            rows = [emit.load(place, emit.vector) for place in _rows(emit, tile, pitch, column, c)]
            return _transposed(emit, rows)

        def whole(column: Any) -> Any:
            columns = _columns(emit, base, pixels, width, column, start)

            def square(c: Any) -> None:
                ahead = emit.times(c, emit.bytes)
                for (at, there), row in zip(columns, held(column, c), strict=True):
                    emit.store(row, builder.select(there, emit.plus(at, ahead), absent))

            return square

        def rest(column: Any) -> Any:
            columns = _columns(emit, base, pixels, width, column, start)

            def square(c: Any) -> None:
                left, ahead = builder.sub(channels, c), emit.times(c, emit.bytes)
                for (at, there), row in zip(columns, held(column, c), strict=True):
                    mask = _first(emit, builder.select(there, left, emit.number(0)))
                    pointer = builder.inttoptr(emit.plus(at, ahead), emit.vector.as_pointer())
                    _masked(emit, "store", pointer, mask, row)

            return square

        _squares(emit, vectors, channels, whole, rest)
        return context.get_dummy_value()

    return signature, generate
