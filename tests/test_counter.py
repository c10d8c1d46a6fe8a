"""Philox4x32-10 against its published vectors, its draws against the laws they should follow."""

import os
import pathlib
import subprocess
import sys

import numba
import numpy as np
import pytest
from scipy import stats

from nbflow import counter
from nbflow._compile import JIT

pytestmark = pytest.mark.sim

ROOT = pathlib.Path(__file__).parents[1]
ONES = 0xFFFFFFFF
# Random123 (Salmon et al. 2011), kat_vectors: counter, key, block.
KNOWN = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
# Each statistical test is of fixed numbers; on fresh ones it would fail once in a thousand.
FALSE_ALARM = 1e-3
BLOCKS = 20_000
DRAWS = [
    (0, counter.TRAIN, 0, 0, 0, 0),
    (np.uint64(2**64 - 1), counter.DETACH, 2**24 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1),
    (np.uint64(2**63), counter.EVALUATION, 3, 5, 7, 11),
    (123456789012345, counter.DIRECTION, 1, 2, 3, 4),
]


def plain(function):
    """Return the Python function behind a unit."""
    return getattr(function, "py_func", function)


@numba.njit
def fill(words, seed):
    for i in range(words.shape[0]):
        w0, w1, w2, w3 = counter.draw(seed, counter.TRAIN, 0, 0, i, 0)
        words[i, 0], words[i, 1], words[i, 2], words[i, 3] = w0, w1, w2, w3


@pytest.fixture(scope="module")
def words():
    words = np.empty((BLOCKS if JIT else 2000, 4), np.uint32)
    fill(words, 7)
    return words


def test_purposes_are_told_apart():
    assert [counter.TRAIN, counter.EVALUATION, counter.DIRECTION, counter.DETACH] == [0, 1, 2, 4]
    assert [counter.NOISE, counter.EVALUATION_NOISE] == [5, 6]


@pytest.mark.parametrize("block, key, expected", KNOWN)
@pytest.mark.parametrize("kind", [int, np.uint32, np.int64, np.uint64])
def test_philox_gives_the_published_blocks(block, key, expected, kind):
    block, key = tuple(map(kind, block)), tuple(map(kind, key))
    assert tuple(map(int, counter.philox(block, key))) == expected
    assert tuple(map(int, plain(counter.philox)(block, key))) == expected


@pytest.mark.parametrize("names", DRAWS)
def test_a_draw_is_philox_of_its_names(names):
    seed, purpose, replica, index, sequence, n = names
    key = int(seed) & 0xFFFFFFFF, int(seed) >> 32
    expected = tuple(map(int, counter.philox((n, sequence, index, (purpose << 24) | replica), key)))
    assert tuple(map(int, counter.draw(*names))) == expected
    assert tuple(map(int, plain(counter.draw)(*names))) == expected


def test_a_draw_changes_with_each_of_its_names():
    names = (5, 1, 2, 3, 4, 6)
    blocks = {tuple(map(int, counter.draw(*names[:i], names[i] + 1, *names[i + 1 :]))) for i in range(6)}
    assert len(blocks | {tuple(map(int, counter.draw(*names)))}) == 7


def test_python_without_the_jit_gives_the_same_bits():
    # One line of integers and exact floats: blocks, uniforms and choices.
    script = (
        "from nbflow import counter as c; from tests.test_counter import DRAWS; import numpy as np\n"
        "for d in DRAWS:\n"
        "    w = [int(x) for x in c.draw(*d)]\n"
        "    print(w, [float(c.uniform(np.uint32(x))) for x in w], [int(c.below(np.uint32(x), 1000)) for x in w])"
    )
    outputs = []
    for off in ("0", "1"):
        environment = {**os.environ, "NUMBA_DISABLE_JIT": off}
        command = [sys.executable, "-W", "error", "-c", script]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
        assert not done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] != ""


@pytest.mark.parametrize("word", [0, 1, 255, 256, 2**31, ONES])
def test_uniform_is_exact_in_float32(word):
    for function in (counter.uniform, plain(counter.uniform)):
        assert float(function(np.uint32(word))) == (word >> 8) * 2.0**-24 < 1
    assert type(plain(counter.uniform)(np.uint32(word))) is np.float32
    assert float(plain(counter.uniform)(word)) == (word >> 8) * 2.0**-24


@pytest.mark.skipif(not JIT, reason="needs the JIT")
def test_compiled_types_never_widen():
    for function, kinds, expected in [
        (counter.uniform, (numba.uint32,), numba.float32),
        (counter.below, (numba.uint32, numba.int64), numba.int64),
        (counter.draw, (numba.int64,) * 6, numba.types.UniTuple(numba.uint32, 4)),
    ]:
        compiled = numba.njit(plain(function))
        compiled.compile(kinds)
        assert compiled.nopython_signatures[0].return_type == expected


@pytest.mark.parametrize("word, m, expected", [(0, 7, 0), (ONES, 7, 6), (ONES, 2**31, 2**31 - 1), (2**31, 2, 1)])
def test_below_stays_below(word, m, expected):
    assert int(counter.below(np.uint32(word), m)) == expected
    assert int(plain(counter.below)(np.uint32(word), m)) == expected


@pytest.mark.parametrize("position", range(4))
def test_words_are_uniform(words, position):
    counts = np.bincount(words[:, position] >> 24, minlength=256)
    assert stats.chisquare(counts).pvalue > FALSE_ALARM


def test_choices_below_m_are_uniform(words):
    counts = np.bincount([int(plain(counter.below)(word, 10)) for word in words[:2000].ravel()], minlength=10)
    assert stats.chisquare(counts).pvalue > FALSE_ALARM


def test_each_bit_is_fair_and_neighbours_are_independent(words):
    bits = np.unpackbits(words.view(np.uint8), axis=1).astype(float)
    z = (bits.mean(0) - 0.5) * 2 * np.sqrt(len(bits))
    assert stats.chi2.sf((z**2).sum(), z.size) > FALSE_ALARM
    signs = 2 * bits - 1
    correlation = (signs[:-1] * signs[1:]).mean(0) * np.sqrt(len(bits) - 1)
    assert stats.chi2.sf((correlation**2).sum(), correlation.size) > FALSE_ALARM


@pytest.mark.parametrize("pair", [counter.normal_pair, counter.exact_normal_pair])
def test_normals_follow_the_normal_law(words, pair):
    pairs = np.array([plain(pair)(w0, w1) for w0, w1 in words[:5000, :2]])
    assert stats.kstest(pairs.ravel(), "norm").pvalue > FALSE_ALARM
    assert stats.pearsonr(*pairs.T).pvalue > FALSE_ALARM
    assert stats.pearsonr(*(pairs**2).T).pvalue > FALSE_ALARM


@pytest.mark.parametrize("w0, w1", [(0, 0), (ONES, 0), (0, ONES), (ONES, ONES), (123, 456)])
def test_normals_are_finite_and_alike_compiled_and_interpreted(w0, w1):
    compiled = counter.normal_pair(np.uint32(w0), np.uint32(w1))
    interpreted = plain(counter.normal_pair)(np.uint32(w0), np.uint32(w1))
    assert np.isfinite(compiled).all()
    np.testing.assert_allclose(compiled, interpreted, rtol=8 * np.finfo(float).eps, atol=8 * np.finfo(float).eps)


def quarters():
    """Return words at, before and behind every eighth of a turn, and every power of 2."""
    places = {int(k * 2**29) + d for k in range(9) for d in (-1, 0, 1)} | {2**k + d for k in range(32) for d in (-1, 0)}
    return sorted(place for place in places if 0 <= place <= ONES)


@pytest.mark.parametrize("kind", ["compiled", "interpreted"])
def test_exact_normals_are_box_and_mullers_to_a_few_roundings(words, kind):
    pair = counter.exact_normal_pair if kind == "compiled" else plain(counter.exact_normal_pair)
    given = [(w, 12345) for w in quarters()] + [(12345, w) for w in quarters()]
    given += [tuple(map(int, row)) for row in words[:500, :2]]
    for w0, w1 in given:
        radius, angle = np.sqrt(-2 * np.log((w0 + 1) / 2**32)), 2 * np.pi * (w1 / 2**32)
        found = pair(np.uint32(w0), np.uint32(w1))
        tolerance = 16 * np.finfo(float).eps * (radius + 1e-300)
        assert abs(found[0] - radius * np.cos(angle)) <= tolerance, (w0, w1)
        assert abs(found[1] - radius * np.sin(angle)) <= tolerance, (w0, w1)


@pytest.mark.skipif(not JIT, reason="needs the JIT")
def test_exact_normals_have_the_same_bits_compiled_and_interpreted(words):
    given = [(w, v) for w in quarters() for v in (0, 2**29, 2**31 + 5)] + [tuple(row) for row in words[:500, :2]]
    for w0, w1 in given:
        w0, w1 = np.uint32(w0), np.uint32(w1)
        assert counter.exact_normal_pair(w0, w1) == plain(counter.exact_normal_pair)(w0, w1)
