"""Batches of the tasks, each a pure function of where it stands."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from naive.arrays import Batch
from naive.counter import below, draw, uniform


def _check_length(L: int) -> None:
    """Refuse a length at which a tenth is no step at all."""
    if L < 10:
        raise ValueError(f"length is {L}; expected at least 10")


def temporal_order(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of the temporal order task (Hochreiter & Schmidhuber 1997; Pascanu 2013 section 4.1.1)."""
    L, B = length, batch_size
    _check_length(L)
    tokens, targets, weights = np.zeros((L, B), np.int64), np.zeros((L, B), np.int64), np.zeros((L, B))
    for b in range(B):
        for t in range(L):
            tokens[t, b] = 2 + below(draw(seed, purpose, replica, index, b, 1 + t // 4)[t % 4], 4)
        w0, w1, w2, w3 = draw(seed, purpose, replica, index, b, 0)
        v0, v1 = w2 >> 31, w3 >> 31
        tokens[L // 10 + below(w0, 2 * L // 10 - L // 10), b] = v0
        tokens[5 * L // 10 + below(w1, 6 * L // 10 - 5 * L // 10), b] = v1
        targets[L - 1, b] = v0 + 2 * v1
        weights[L - 1, b] = 1 / B
    return tokens, targets, weights


def temporal_order_anywhere(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of temporal order whose symbols stand at two of all steps."""
    L, B = length, batch_size
    _check_length(L)
    tokens, targets, weights = np.zeros((L, B), np.int64), np.zeros((L, B), np.int64), np.zeros((L, B))
    for b in range(B):
        for t in range(L):
            tokens[t, b] = 2 + below(draw(seed, purpose, replica, index, b, 1 + t // 4)[t % 4], 4)
        w0, w1, w2, w3 = draw(seed, purpose, replica, index, b, 0)
        steps = list(range(L))
        places = sorted([steps.pop(below(w0, L)), steps[below(w1, L - 1)]])
        tokens[places, b] = w2 >> 31, w3 >> 31
        targets[L - 1, b] = (w2 >> 31) + 2 * (w3 >> 31)
        weights[L - 1, b] = 1 / B
    return tokens, targets, weights


def addition(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of the addition task (Hochreiter & Schmidhuber 1997, in the form of Pascanu's code)."""
    L, B = length, batch_size
    _check_length(L)
    T = L + L // 10 - 1
    inputs, targets, weights = np.zeros((T, B, 2)), np.zeros((T, B, 1)), np.zeros((T, B))
    for b in range(B):
        w0, w1, w2, _ = draw(seed, purpose, replica, index, b, 0)
        end = L + below(w0, L // 10)
        marks = below(w1, end // 10), end // 10 + below(w2, end // 2 - end // 10)
        for t in range(end):
            inputs[t, b, 0] = uniform(draw(seed, purpose, replica, index, b, 1 + t // 4)[t % 4])
        for mark in marks:
            inputs[mark, b, 1] = 1
        targets[end - 1, b, 0] = (inputs[marks[0], b, 0] + inputs[marks[1], b, 0]) / 2
        weights[end - 1, b] = 1 / B
    return inputs, targets, weights


def temporal_order_3bit(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of temporal order with three symbols (Hochreiter & Schmidhuber 1997, task 6b)."""
    L, B = length, batch_size
    _check_length(L)
    tokens, targets, weights = np.zeros((L, B), np.int64), np.zeros((L, B), np.int64), np.zeros((L, B))
    for b in range(B):
        for t in range(L):
            tokens[t, b] = 2 + below(draw(seed, purpose, replica, index, b, 1 + t // 4)[t % 4], 4)
        *words, w3 = draw(seed, purpose, replica, index, b, 0)
        bits = f"{w3 >> 29:03b}"[::-1]  # the lowest bit is the first symbol
        for k, (word, tenth) in enumerate(zip(words, (1, 3, 6), strict=True)):
            window = range(tenth * L // 10, (tenth + 1) * L // 10)
            tokens[window[below(word, len(window))], b] = int(bits[k])
        targets[L - 1, b] = int(bits[0]) + 2 * int(bits[1]) + 4 * int(bits[2])
        weights[L - 1, b] = 1 / B
    return tokens, targets, weights


def multiplication(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of the multiplication task: that of addition, with the product of both numbers."""
    inputs, targets, weights = addition(seed, purpose, replica, index, batch_size, length)
    for b in range(batch_size):
        x0, x1 = inputs[inputs[:, b, 1] == 1, b, 0]
        targets[weights[:, b] > 0, b, 0] = x0 * x1
    return inputs, targets, weights


def permutation(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of the permutation task: the symbol after the last is the first, 0 or 1; between are 2 .. 99."""
    L, B = length, batch_size
    _check_length(L)
    tokens, targets, weights = np.zeros((L, B), np.int64), np.zeros((L, B), np.int64), np.zeros((L, B))
    for b in range(B):
        row = [2 + below(draw(seed, purpose, replica, index, b, 1 + t // 4)[t % 4], 98) for t in range(L)]
        row[0] = draw(seed, purpose, replica, index, b, 0)[0] >> 31
        row.append(row[0])
        tokens[:, b] = row[:-1]
        targets[L - 1, b] = row[-1]
        weights[L - 1, b] = 1 / B
    return tokens, targets, weights


def _recall(symbols: list[list[int]], blanks: list[int], values: int, pause: int, T: int) -> Batch:
    """Return a batch of T steps: symbols, blanks, the cue, and after a pause of 0 or 1 steps the symbols again."""
    B = len(symbols)
    tokens, targets = np.full((T, B), values), np.full((T, B), values)
    for b in range(B):
        n = len(symbols[b])
        tokens[:n, b] = symbols[b]
        cue = n + blanks[b]
        tokens[cue, b] = values + 1
        targets[cue + pause : cue + pause + n, b] = symbols[b]
    return tokens, targets, np.full((T, B), 1 / (B * T))


def _symbols(where: tuple[int, int, int, int], B: int, count: int, values: int) -> list[list[int]]:
    """Draw the symbols of each of B sequences, as steps of it."""
    return [[below(draw(*where, b, 1 + k // 4)[k % 4], values) for k in range(count)] for b in range(B)]


def memorization(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of memorization, 5^10: the answer begins with the cue, L blanks after the symbols."""
    _check_length(length)
    where = seed, purpose, replica, index
    symbols = _symbols(where, batch_size, 10, 5)
    return _recall(symbols, [length] * batch_size, 5, 0, length + 20)


def memorization_5bit(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of memorization, 2^5."""
    _check_length(length)
    where = seed, purpose, replica, index
    symbols = _symbols(where, batch_size, 5, 2)
    return _recall(symbols, [length] * batch_size, 2, 0, length + 10)


def copy(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of the copying task (Arjovsky et al. 2016): T - 1 blanks, and the answer follows the cue."""
    _check_length(length)
    where = seed, purpose, replica, index
    symbols = _symbols(where, batch_size, 10, 8)
    return _recall(symbols, [length - 1] * batch_size, 8, 1, length + 20)


def delayed_recall(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of copying with 0 .. L - 1 blanks before the cue, and the others after the answer."""
    _check_length(length)
    where = seed, purpose, replica, index
    blanks = [below(draw(*where, b, 0)[0], length) for b in range(batch_size)]
    return _recall(_symbols(where, batch_size, 10, 8), blanks, 8, 1, length + 20)


TASKS: dict[str, Callable[[int, int, int, int, int, int], Batch]] = {
    "temporal_order": temporal_order,
    "temporal_order_3bit": temporal_order_3bit,
    "temporal_order_anywhere": temporal_order_anywhere,
    "addition": addition,
    "multiplication": multiplication,
    "permutation": permutation,
    "memorization": memorization,
    "memorization_5bit": memorization_5bit,
    "copy": copy,
    "delayed_recall": delayed_recall,
}
