"""Lines of memory that share no number: a loop over them vectorises without asking whether they overlap.

A pointwise pass reads and writes a line of memory for each gate, state and saved number, 14 of them for the LSTM. Left
alone, LLVM compares the range of each store with that of each other line, once for all sequences: there the lines of
one sequence lie between those of another, the comparison says that they may overlap, and the loop runs number by number
(LSTM, 10 sequences, H = 50, float32, Zen 5: 14.7 ns an element forward and 2.0 back, instead of 1.1 and 0.4). So every
load and store says in which line it lies, and in which not (LLVM's metadata "alias.scope" and "noalias"). That is true
of a job: arrays of different names lie apart, and the lines of an array one behind the other.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nbflow._compile import JIT, unit


def build_lines(counts):
    """Build for every name in `counts` (lines by name) its `load(rows, b, j)` and `store(rows, b, j, numbers)`.

    `load` returns the tuple `rows[b, 0, j], ..., rows[b, count-1, j]`, `store` writes one. The arrays that they are
    given must not overlap.
    """
    everything = [(name, line) for name, count in counts.items() for line in range(count)]
    return {name: (_loads(name, count, everything), _stores(name, count, everything)) for name, count in counts.items()}


def _loads(name, count, everything):
    if count == 0:
        return unit(lambda rows, b, j: ())
    before, last = _loads(name, count - 1, everything), count - 1
    read = _reader(name, last, everything)

    @unit
    def load(rows, b, j):
        return (*before(rows, b, j), read(rows, b, j))

    return load


def _stores(name, count, everything):
    if count == 0:

        @unit
        def nothing(rows, b, j, numbers):
            return

        return nothing
    before, last = _stores(name, count - 1, everything), count - 1
    write = _writer(name, last, everything)

    @unit
    def store(rows, b, j, numbers):
        before(rows, b, j, numbers)
        write(rows, b, j, numbers[last])

    return store


def _mark(builder, access, own, everything):
    """Say of a load or a store in which line it lies, and in which not.

    Of loads too: where a line is read and written, LLVM believes what is said of both.
    """
    module = builder.module
    domain = module.add_metadata(["nbflow"])
    scopes = {line: module.add_metadata([f"nbflow {line[0]} {line[1]}", domain]) for line in everything}
    access.set_metadata("alias.scope", module.add_metadata([scopes.pop(own)]))
    if scopes:
        access.set_metadata("noalias", module.add_metadata(list(scopes.values())))


def _place(context, builder, kind, rows, b, line, j):
    """Return a pointer to rows[b, line, j]: no index is negative."""
    array = context.make_array(kind)(context, builder, rows)
    _, lines, width = cgutils.unpack_tuple(builder, array.shape)
    word = lines.type
    at = builder.mul(builder.add(builder.mul(b, lines), ir.Constant(word, line)), width)
    return builder.gep(array.data, [builder.add(at, j)])


def _reader(name, line, everything):
    """Build `read(rows, b, j)`: rows[b, line, j]."""

    def read(rows, b, j):
        return rows[b, line, j]

    if not JIT:
        return read

    @intrinsic
    def load(typing_context, rows, b, j):
        def generate(context, builder, signature, arguments):
            place = _place(context, builder, signature.args[0], *arguments[:2], line, arguments[2])
            loaded = builder.load(place)
            _mark(builder, loaded, (name, line), everything)
            return loaded

        return rows.dtype(rows, types.intp, types.intp), generate

    return load


def _writer(name, line, everything):
    """Build `write(rows, b, j, number)`: rows[b, line, j] = number."""

    def write(rows, b, j, number):
        rows[b, line, j] = number

    if not JIT:
        return write

    @intrinsic
    def store(typing_context, rows, b, j, number):
        def generate(context, builder, signature, arguments):
            rows, b, j, number = arguments
            stored = builder.store(number, _place(context, builder, signature.args[0], rows, b, line, j))
            _mark(builder, stored, (name, line), everything)
            return context.get_dummy_value()

        return types.void(rows, types.intp, types.intp, rows.dtype), generate

    return store
