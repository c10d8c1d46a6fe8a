"""exp, tanh and log1p as formulas of one floating-point format, written once for both sizes of float."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nbflow._compile import ONE, TWO
from nbflow.scalars._operations import bits_of, choose, fma, from_bits, polynomial
from nbflow.scalars._types import formula


class Format(NamedTuple):
    """What the formulas need to know of a floating-point format."""

    real: Any
    word: Any  # the unsigned integer of its size
    digits: int  # stored bits of the significand
    bias: int  # of the exponent
    ln2: tuple[str, str]  # ln 2 in two parts, the first so short that its product with any n is exact
    exp_range: tuple[float, float]  # beyond it exp rounds to 0 or inf
    tanh_range: float  # beyond it tanh rounds to 1
    exp: tuple[float, ...]
    log1p: tuple[float, ...]


# `exp`: p in exp(r) = 1 + r + r^2 p(r), |r| <= ln(2)/2; `log1p`: p in 2 artanh(s) = 2 s + s^3 p(s^2), 0 <= s <= 1/3.
# Both minimax (Remez), for the relative error of the whole:
# 2^-28.2 and 2^-27.7 in float32, 2^-57.9 and 2^-59.2 in float64.
FLOAT32 = Format(
    real=np.float32,
    word=np.uint32,
    digits=23,
    bias=127,
    ln2=("0x1.62e4p-1", "0x1.7f7d1cf79abcap-20"),
    exp_range=(-105.0, 89.0),
    tanh_range=10.0,
    exp=(0.4999999344856407, 0.1666652063011753, 0.04166838787998279, 0.008368717031295200, 0.001381460727433814),
    log1p=(0.6666641617383546, 0.4002153449954816, 0.2800167483423023, 0.2801268130431795),
)
FLOAT64 = Format(
    real=np.float64,
    word=np.uint64,
    digits=52,
    bias=1023,
    ln2=("0x1.62e42feep-1", "0x1.a39ef35793c76p-33"),
    exp_range=(-747.0, 710.0),
    tanh_range=20.0,
    exp=(
        0.5000000000000010627145,
        0.166666666666664125185,
        0.04166666666653015838254,
        0.008333333333494464708197,
        0.001388888894363018717285,
        0.0001984126950657162801949,
        0.00002480149309881643531771,
        0.00000275575863805104248624,
        2.763024841405356026429e-7,
        2.500005939079102249507e-8,
    ),
    log1p=(
        0.66666666666666519219,
        0.40000000000097349691,
        0.2857142855409330684,
        0.2222222363560750497,
        0.18181754352055877518,
        0.15386359406593558899,
        0.1330338317976835343,
        0.12088454368531871067,
        0.084119664478106387622,
        0.16893475444267914674,
    ),
)


def _formulas_for(kind: Format) -> tuple[Callable[[Any], Any], ...]:
    """Return exp, tanh and log1p for one floating-point format."""
    real, word = kind.real, kind.word
    log2e = real(1.4426950408889634)
    ln2_high, ln2_low = (real(float.fromhex(part)) for part in kind.ln2)
    lowest, highest = map(real, kind.exp_range)
    saturated = real(kind.tanh_range)
    exp_p, log1p_p = tuple(map(real, kind.exp)), tuple(map(real, kind.log1p))
    # A sum with 1.5 * 2^digits is an integer, and has that integer in its low bits.
    magic = real(1.5 * 2.0**kind.digits)
    bias, one, digits = word(kind.bias), word(1), word(kind.digits)
    sign = word(1 << (8 * word().itemsize - 1))
    size_bits = ~sign
    origin = word(int(bits_of(magic)) - 2 * kind.bias)

    @formula
    def split(x):
        """Return n + 2 bias as a word, and r, with x = n ln 2 + r and |r| <= ln(2)/2."""
        shifted = fma(x, log2e, magic)
        n = shifted - magic
        return word(bits_of(shifted) - origin), fma(-n, ln2_low, fma(-n, ln2_high, x))

    @formula
    def expm1_of_rest(r):
        return fma(r * r, polynomial(r, exp_p), r)

    @formula
    def power(k):
        """Return 2^(k - bias)."""
        return from_bits(word(k << digits))

    @formula
    def exp(x):
        x = choose(x < lowest, lowest, x)
        x = choose(x > highest, highest, x)
        k, r = split(x)
        # 2^n in two halves: neither overflows, and a subnormal result is rounded once.
        half = word(k >> one)
        return (ONE + expm1_of_rest(r)) * power(half) * power(word(k - half))

    @formula
    def tanh(x):
        # tanh |x| = -m / (2 + m) with m = exp(-2|x|) - 1, which keeps its relative accuracy down to 0.
        size = abs(x)
        size = choose(size > saturated, saturated, size)
        k, r = split(-(size + size))
        scale = power(word(k - bias))
        m = fma(scale, expm1_of_rest(r), scale - ONE)
        return from_bits(word((bits_of(m / (TWO + m)) & size_bits) | (bits_of(x) & sign)))

    @formula
    def log1p(x):
        # log(1 + x) = 2 artanh(s) with s = x / (2 + x); and 2 s = x - s x, where s has less weight than in 2 s.
        s = x / (TWO + x)
        square = s * s
        return fma(-s, fma(-square, polynomial(square, log1p_p), x), x)

    return exp, tanh, log1p


exp32, tanh32, log1p32 = _formulas_for(FLOAT32)
exp64, tanh64, log1p64 = _formulas_for(FLOAT64)
