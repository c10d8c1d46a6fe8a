"""The matrix product of the time loop: register tiles over a packed factor.

    c[i, :] (+)= sum_k a[i, k] * b[k, :]          i < rows, k < depth

`a` is read one number at a time with any two strides, so a product with a transposed left factor (a weight gradient)
is the same call. `b` and `c` are read and written in whole vectors: their rows are padded with zeros to `columns`, a
multiple of the vector length W. A row of `b` is cut into panels of PANEL vectors:

                       panel 0            panel 1
                 +-----------------+-----------------+
      b + k*b_k  | v0  v1  v2  v3  | v4  v5  (v6 v7) |     k = 0 .. depth-1
                 +-----------------+-----------------+
                                   ^ b + b_panel

A packed weight matrix has b_k = PANEL*W and b_panel = depth*PANEL*W: a panel is one contiguous stream. A tape is
read where it lies, with b_k its row length and b_panel = PANEL*W. One tile keeps ROWS x PANEL vectors of c in
registers; for AVX-512 6 x 4 accumulators, 4 vectors of b and the broadcasts fill the 32 registers. It asks for its
part of c before it begins, so that c is in the first-level cache when the sums are done. (A weight gradient of
1024 x 1024 over 704 rows, float32, on both cores of an EPYC, Zen 5: 465 GFLOP/s with it, 437 without; what fits into
a second-level cache is as fast either way. With the code for AVX it gains nothing there, and short sums lose.)
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from nbflow._compile import JIT, exact_part, kernel, part
from nbflow.cpu.memory import address_of, call_product, view

# A chunk of k for which a panel of b (CHUNK * 256 bytes) stays in the first-level cache.
CHUNK = 128


@functools.cache
def vector_bytes() -> int:
    """Return the bytes of the widest vector register of the target that numba compiles for.

    LLVM itself is asked which registers it takes to add 64 bytes of numbers. What the processor has, or what
    NUMBA_CPU_FEATURES lists, is not the target: numba adds both to what NUMBA_CPU_NAME stands for.
    """
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    machine = binding.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    module, vector = ir.Module(), ir.VectorType(ir.FloatType(), 16)
    add = ir.Function(module, ir.FunctionType(ir.VoidType(), [vector.as_pointer()]), "add")
    builder = ir.IRBuilder(add.append_basic_block())
    value = builder.load(add.args[0], align=4)
    builder.store(builder.fadd(value, value), add.args[0], align=4)
    builder.ret_void()
    code = machine.emit_assembly(binding.parse_assembly(str(module)))
    return 64 if "%zmm" in code else 32 if "%ymm" in code else 16


def lanes(dtype) -> int:
    """Return how many numbers of `dtype` one vector holds; rows of every buffer are padded to a multiple of it."""
    return vector_bytes() // np.dtype(dtype).itemsize


def panel_vectors() -> int:
    """Return the vectors in a panel: 4 where 32 registers hold 6 x 4 accumulators, 2 on AVX with its 16."""
    return 2 if vector_bytes() == 32 else 4


TILE_ROWS = 6


def _build_tile(rows, vectors, dtype):
    """Build the intrinsic of one tile: `rows` rows of c by `vectors` vectors, for the whole depth."""
    bits = np.dtype(dtype).itemsize * 8
    number = ir.FloatType() if bits == 32 else ir.DoubleType()
    width = lanes(dtype)
    vector = ir.VectorType(number, width)
    word = ir.IntType(64)
    align = bits // 8

    def pointer(builder, base, offset, kind):
        address = builder.add(base, builder.mul(offset, word(bits // 8)))
        return builder.inttoptr(address, kind.as_pointer())

    def splat(builder, value):
        single = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
        return builder.shuffle_vector(
            single, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), width), None)
        )

    def fetch(builder, place):
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(prefetch, [builder.bitcast(place, byte), flag(0), flag(3), flag(1)])  # read, keep near, data

    def generate(context, builder, signature, arguments):
        c, c_row, a, a_row, a_k, b, b_k, depth, add = arguments
        starts = [builder.mul(c_row, word(i)) for i in range(rows)]
        places = [
            [pointer(builder, c, builder.add(s, word(v * width)), vector) for v in range(vectors)] for s in starts
        ]
        sums = [[cgutils.alloca_once(builder, vector) for _ in range(vectors)] for _ in range(rows)]
        zero = ir.Constant(vector, None)
        for i in range(rows):
            for v in range(vectors):
                if vector_bytes() == 64:
                    fetch(builder, places[i][v])
                builder.store(zero, sums[i][v])
        with cgutils.for_range(builder, depth, intp=word) as k_loop:
            k = k_loop.index
            b_row = builder.mul(k, b_k)
            b_values = [
                builder.load(pointer(builder, b, builder.add(b_row, word(v * width)), vector), align=align)
                for v in range(vectors)
            ]
            a_column = builder.mul(k, a_k)
            for i in range(rows):
                offset = builder.add(a_column, builder.mul(a_row, word(i)))
                a_value = splat(builder, builder.load(pointer(builder, a, offset, number), align=align))
                for v in range(vectors):
                    product = builder.fmul(a_value, b_values[v], flags=("contract",))
                    builder.store(builder.fadd(builder.load(sums[i][v]), product, flags=("contract",)), sums[i][v])
        adding = builder.icmp_signed("!=", add, word(0))
        for i in range(rows):
            for v in range(vectors):
                place = places[i][v]
                with builder.if_else(adding) as (then, otherwise):
                    with then:
                        old = builder.load(place, align=align)
                        builder.store(builder.fadd(old, builder.load(sums[i][v])), place, align=align)
                    with otherwise:
                        builder.store(builder.load(sums[i][v]), place, align=align)
        return context.get_dummy_value()

    @intrinsic
    def tile(typing_context, c, c_row, a, a_row, a_k, b, b_k, depth, add):
        return types.void(*[types.intp] * 9), generate

    return tile


def _build_tiles(vectors, dtype):
    """Build `tiles(i_rows, ...)`: the tile of 1 to TILE_ROWS rows by `vectors` vectors."""
    tile_1, tile_2, tile_3, tile_4, tile_5, tile_6 = (_build_tile(r, vectors, dtype) for r in range(1, TILE_ROWS + 1))

    @exact_part
    def tiles(count, c, c_row, a, a_row, a_k, b, b_k, depth, add):
        if count == 6:
            tile_6(c, c_row, a, a_row, a_k, b, b_k, depth, add)
        elif count == 5:
            tile_5(c, c_row, a, a_row, a_k, b, b_k, depth, add)
        elif count == 4:
            tile_4(c, c_row, a, a_row, a_k, b, b_k, depth, add)
        elif count == 3:
            tile_3(c, c_row, a, a_row, a_k, b, b_k, depth, add)
        elif count == 2:
            tile_2(c, c_row, a, a_row, a_k, b, b_k, depth, add)
        elif count == 1:
            tile_1(c, c_row, a, a_row, a_k, b, b_k, depth, add)

    return tiles


@functools.cache
def build_product(dtype):
    """Build the product kernel of a dtype; the order of its sums depends on the depth alone."""
    if not JIT:
        return _interpreted_product(dtype)
    width = lanes(dtype)
    size = np.dtype(dtype).itemsize
    full = panel_vectors()
    tiles_1, tiles_2, tiles_3, tiles_4 = (_build_tiles(v, dtype) for v in range(1, 5))

    @kernel(dtype)
    def product(c, c_row, a, a_row, a_k, b, b_panel, b_k, rows, depth, columns, add):
        vectors = columns // width
        panels = (vectors + full - 1) // full
        for start in range(0, max(depth, 1), CHUNK):
            count = min(CHUNK, depth - start)
            adding = 1 if start > 0 else add
            for panel in range(panels):
                b_at = b + (panel * b_panel + start * b_k) * size
                wide = min(full, vectors - panel * full)
                i = 0
                while i < rows:
                    # 7 rows are 4 + 3, not 6 + 1: tiles of one or two rows leave the multipliers waiting for loads.
                    left = rows - i
                    high = left if left <= 6 else (left + 1) // 2 if left < 12 else 6
                    c_at = c + (i * c_row + panel * full * width) * size
                    a_at = a + (i * a_row + start * a_k) * size
                    if wide == 4:
                        tiles_4(high, c_at, c_row, a_at, a_row, a_k, b_at, b_k, count, adding)
                    elif wide == 3:
                        tiles_3(high, c_at, c_row, a_at, a_row, a_k, b_at, b_k, count, adding)
                    elif wide == 2:
                        tiles_2(high, c_at, c_row, a_at, a_row, a_k, b_at, b_k, count, adding)
                    else:
                        tiles_1(high, c_at, c_row, a_at, a_row, a_k, b_at, b_k, count, adding)
                    i += high

    return product


def _interpreted_product(dtype):
    """Build the same product on np.einsum, for a process without the JIT."""
    full = panel_vectors() * lanes(dtype)

    @kernel(dtype)
    def product(c, c_row, a, a_row, a_k, b, b_panel, b_k, rows, depth, columns, add):
        def strided(address, shape, strides):
            if 0 in shape:
                return np.empty(shape, dtype)
            extent = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
            flat = view(address, (extent,), dtype)
            return np.lib.stride_tricks.as_strided(flat, shape, [s * flat.itemsize for s in strides])

        left = strided(a, (rows, depth), (a_row, a_k))
        size = np.dtype(dtype).itemsize
        for panel, first in enumerate(range(0, columns, full)):
            wide = min(full, columns - first)
            right = strided(b + panel * b_panel * size, (depth, wide), (b_k, 1))
            result = strided(c + first * size, (rows, wide), (c_row, 1))
            result[...] = (result if add else 0) + left @ right

    return product


# ------------------------------------------------------------------------- the two ways in which kernels call it


@part
def times(shard, c, a, a_row, packed, depth, columns, add):
    """c (+)= a @ packed, row by row.

    Of the rows of the array c the first `columns` numbers are written; rows of `depth` numbers begin at the address `a`
    and lie `a_row` numbers apart; `packed` is the address of panels of `depth` rows.
    """
    panel = shard.panel_width
    call_product(
        shard.product, address_of(c), c.shape[1], a, a_row, 1,
        packed, depth * panel, panel, c.shape[0], depth, columns, add,
    )  # fmt: skip


@part
def outer(shard, c, a, a_k, b, b_k, rows, depth, columns, add):
    """c (+)= sum_k outer(a[k], b[k]), k < depth.

    All are addresses: of `rows` rows of `columns` numbers, and of rows that lie `a_k` and `b_k` numbers apart.
    """
    call_product(shard.product, c, columns, a, 1, a_k, b, shard.panel_width, b_k, rows, depth, columns, add)
