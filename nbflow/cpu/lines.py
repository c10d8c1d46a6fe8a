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


def build_constants(count, load):
    """Build `constants(rows, j)`: what a call is given more by a cell with `count` settings, `*constants(...)`.

    One argument, the tuple of the settings of unit j, or no argument for a cell without any.
    """
    if count == 0:
        return _no_constants

    @unit
    def constants(rows, j):
        return (load(rows, 0, j),)

    return constants


@unit
def _no_constants(rows, j):
    return ()


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


def _loads(name, count, everything):
    """Build `load(rows, b, j)`."""
    if not JIT:
        return lambda rows, b, j: tuple(rows[b, line, j] for line in range(count))

    @intrinsic
    def load(typing_context, rows, b, j):
        def generate(context, builder, signature, arguments):
            numbers = []
            for line in range(count):
                place = _place(context, builder, signature.args[0], *arguments[:2], line, arguments[2])
                numbers.append(builder.load(place))
                _mark(builder, numbers[-1], (name, line), everything)
            return context.make_tuple(builder, signature.return_type, numbers)

        return types.Tuple((rows.dtype,) * count)(rows, types.intp, types.intp), generate

    return load


def _stores(name, count, everything):
    """Build `store(rows, b, j, numbers)`."""

    def interpreted(rows, b, j, numbers):
        for line in range(count):
            rows[b, line, j] = numbers[line]

    if not JIT:
        return interpreted

    @intrinsic
    def store(typing_context, rows, b, j, numbers):
        def generate(context, builder, signature, arguments):
            rows, b, j, numbers = arguments
            array, given = signature.args[0], signature.args[3]
            for line in range(count):
                number = builder.extract_value(numbers, line)
                number = context.cast(builder, number, given[line], array.dtype)
                stored = builder.store(number, _place(context, builder, array, rows, b, line, j))
                _mark(builder, stored, (name, line), everything)
            return context.get_dummy_value()

        return types.void(rows, types.intp, types.intp, numbers), generate

    return store
