"""Counter-based random numbers: Philox4x32-10, a pure function of a key and a counter.

Nothing has a state. A draw is named by (seed, purpose, replica, index, sequence, n) and gives the same four words on
CPU and GPU, in any order and with any number of threads. Words are uint32; the arithmetic runs in uint64, where neither
numba nor NumPy widens further, and where the products of two words are exact.

References
----------
.. [1] J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math

import numpy as np

from nbflow._compile import exact_unit

# What a draw is for: the high 8 bits of the counter's last word.
TRAIN = 0
EVALUATION = 1
DIRECTION = 2
DETACH = 4
NOISE = 5
EVALUATION_NOISE = 6

_ROUNDS = 10
_WORD = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)
_REPLICA_BITS = np.uint64(24)
# The multipliers, and the Weyl increments of the key (golden ratio and sqrt(3) - 1), of [1].
_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)

_SPARE_BITS = np.uint32(8)
_UNIT_24 = np.float32(2.0**-24)

# 1 / (2k + 1): artanh(s) = s + s^3 / 3 + s^5 / 5 + ..., whose next term is below 2^-55 of it for |s| <= 3 - sqrt(8).
_ARTANH = tuple(1.0 / (2 * k + 1) for k in range(11))
# Of cos and of sin(x) / x in powers of x^2; the next terms are below 2^-58 for |x| <= pi / 4.
_COSINE = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(9))
_SINE = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(8))
_LN2 = math.log(2.0)
_TURN = 2.0 * math.pi * 2.0**-32
_EIGHTH, _QUARTER, _QUARTER_BITS = np.uint64(1 << 29), np.uint64((1 << 30) - 1), np.uint64(30)


@exact_unit
def philox(counter, key):
    """Return the Philox4x32-10 block of a counter under a key.

    Parameters
    ----------
    counter : tuple of 4 int
        Words, 0 to 2**32 - 1, the least significant first.
    key : tuple of 2 int
        Words.

    Returns
    -------
    tuple of 4 uint32
        As in Random123's ``philox4x32``.

    Examples
    --------
    >>> [f"{int(word):08x}" for word in philox((0, 0, 0, 0), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = np.uint64(counter[0]), np.uint64(counter[1]), np.uint64(counter[2]), np.uint64(counter[3])
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    for _ in range(_ROUNDS):
        product_0, product_1 = _MULTIPLIER_0 * c0, _MULTIPLIER_1 * c2
        c0, c2 = (product_1 >> _WORD_BITS) ^ c1 ^ k0, (product_0 >> _WORD_BITS) ^ c3 ^ k1
        c1, c3 = product_1 & _WORD, product_0 & _WORD
        k0, k1 = (k0 + _WEYL_0) & _WORD, (k1 + _WEYL_1) & _WORD
    return np.uint32(c0), np.uint32(c1), np.uint32(c2), np.uint32(c3)


@exact_unit
def draw(seed, purpose, replica, index, sequence, n):
    """Return block `n` of four words of one sequence.

    The key is the seed, low word first; the counter is (n, sequence, index, purpose << 24 | replica).

    Parameters
    ----------
    seed : int
        0 to 2**64 - 1; above 2**63 - 1 as `numpy.uint64`, since numba takes a Python int for an int64.
    purpose : int
        `TRAIN`, `EVALUATION`, `DIRECTION`, `DETACH`, `NOISE` or `EVALUATION_NOISE`; below 2**8.
    replica : int
        Below 2**24.
    index, sequence, n : int
        The batch, the sequence in it and the block in that; below 2**32 each.

    Returns
    -------
    tuple of 4 uint32
    """
    key = np.uint64(seed) & _WORD, np.uint64(seed) >> _WORD_BITS
    last = (np.uint64(purpose) << _REPLICA_BITS) | np.uint64(replica)
    return philox((np.uint64(n), np.uint64(sequence), np.uint64(index), last), key)


@exact_unit
def uniform(word):
    """Return the high 24 bits of a word as a float32 in [0, 1), exact there and in float64.

    Examples
    --------
    >>> float(uniform(np.uint32(1 << 31)))
    0.5
    """
    # By way of int32, which every machine converts in vectors.
    return np.float32(np.int32(np.uint32(word) >> _SPARE_BITS)) * _UNIT_24


@exact_unit
def below(word, m):
    """Return an int64 from 0 to m - 1, floor(word * m / 2**32); m / 2**32 bounds its bias.

    Examples
    --------
    >>> int(below(np.uint32(1 << 31), 10))
    5
    """
    return np.int64((np.uint64(word) * np.uint64(m)) >> _WORD_BITS)


@exact_unit
def normal_pair(w0, w1):
    r"""Return two independent standard normals in float64 from two words (Box and Muller 1958).

    :math:`\sqrt{-2 \ln u}\,(\cos 2\pi v, \sin 2\pi v)` with :math:`u = (w_0 + 1) 2^{-32}` in (0, 1] and
    :math:`v = w_1 2^{-32}`. The largest possible is 6.66. Machines whose libraries round log, cos and sin differently
    differ in the last bits; everything else here is exact.
    """
    radius = math.sqrt(-2.0 * math.log((np.float64(w0) + 1.0) * 2.0**-32))
    angle = 2.0 * math.pi * (np.float64(w1) * 2.0**-32)
    return radius * math.cos(angle), radius * math.sin(angle)


@exact_unit
def exact_normal_pair(w0, w1):
    r"""Return two independent standard normals in float64 from two words, to the same bits on every machine.

    The formula of `normal_pair` in sums, products, quotients and a square root, which every machine rounds alike; what
    they are made of are series, right to about 1e-16. Without a branch or a library's function, so loops over it
    vectorise.

    Examples
    --------
    >>> import numpy as np
    >>> [float(x) for x in exact_normal_pair(np.uint32(0), np.uint32(0))]  # the largest
    [6.6604368892615815, 0.0]
    """
    radius = math.sqrt(-2.0 * _log_of_part(w0))
    turned = (np.uint64(w1) + _EIGHTH) & _WORD
    quarter = turned >> _QUARTER_BITS  # around 0, pi / 2, pi and 3 pi / 2
    x = (np.float64(np.int32(turned & _QUARTER)) - 2.0**29) * _TURN
    cosine, sine = _series(_COSINE, x * x), x * _series(_SINE, x * x)
    odd = (quarter & np.uint64(1)) != np.uint64(0)
    first, second = (sine, cosine) if odd else (cosine, sine)
    first = -first if ((quarter + np.uint64(1)) & np.uint64(2)) != np.uint64(0) else first
    second = -second if (quarter & np.uint64(2)) != np.uint64(0) else second
    return radius * first, radius * second


@exact_unit
def _log_of_part(word):
    """Return ln((word + 1) / 2**32)."""
    m, exponent = np.float64(word) + 1.0, -32.0
    m, exponent = _scaled(m, exponent, 2.0**16, 2.0**-16, 16.0)
    m, exponent = _scaled(m, exponent, 2.0**8, 2.0**-8, 8.0)
    m, exponent = _scaled(m, exponent, 2.0**4, 2.0**-4, 4.0)
    m, exponent = _scaled(m, exponent, 2.0**2, 2.0**-2, 2.0)
    m, exponent = _scaled(m, exponent, 2.0, 0.5, 1.0)
    m, exponent = _scaled(m, exponent, math.sqrt(2.0), 0.5, 1.0)
    s = (m - 1.0) / (m + 1.0)
    return exponent * _LN2 + 2.0 * s * _series(_ARTANH, s * s)


@exact_unit
def _scaled(m, exponent, reached, factor, added):
    """Return m times a power of 2 where it has reached a bound, and its exponent; else both as they are."""
    far = m >= reached
    return m * (factor if far else 1.0), exponent + (added if far else 0.0)


@exact_unit
def _series(coefficients, x):
    """Return coefficients[0] + coefficients[1] x + coefficients[2] x^2 + ..."""
    value = coefficients[-1]
    for k in range(len(coefficients) - 2, -1, -1):
        value = value * x + coefficients[k]
    return value
