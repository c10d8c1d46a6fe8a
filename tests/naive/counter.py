"""Random words by counter: a pure function of where they stand."""

from __future__ import annotations

Words = tuple[int, int, int, int]


def philox4x32(counter: Words, key: tuple[int, int]) -> Words:
    """Return Philox4x32-10 of four counter words and two key words (Salmon, Moraes, Dror & Shaw 2011)."""
    if not all(0 <= word < 2**32 for word in (*counter, *key)):
        raise ValueError(f"counter {counter} and key {key} must be words of 32 bits")
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (second >> 32) ^ b ^ k, second & 0xFFFFFFFF, (first >> 32) ^ d ^ m, first & 0xFFFFFFFF
        k, m = (k + 0x9E3779B9) & 0xFFFFFFFF, (m + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


def draw(seed: int, purpose: int, replica: int, index: int, sequence: int, n: int) -> Words:
    """Return the n-th four words of one sequence of one batch of one replica: a pure function of where it stands."""
    if not (0 <= replica < 2**24 and 0 <= purpose < 2**8):
        raise ValueError(f"replica {replica} must be of 24 bits and purpose {purpose} of 8")
    return philox4x32((n, sequence, index, (purpose << 24) | replica), (seed & 0xFFFFFFFF, seed >> 32))


def uniform(word: int) -> float:
    """Return a number in [0, 1), a multiple of 2^-24 and so exact in float32."""
    return (word >> 8) * 2.0**-24


def below(word: int, m: int) -> int:
    """Return an integer in [0, m) by multiplication (Lemire 2019, without the rejection)."""
    return (word * m) >> 32
