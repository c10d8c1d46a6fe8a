"""Sampling a batch of a task: every sequence from its own counter, so order and number of replicas do not matter."""

from __future__ import annotations

import functools

from nbflow import counter
from nbflow._compile import bounded, loop
from nbflow.cpu.rows import build_store


@functools.cache
def build_sample(task):
    """Build `sample(inputs, targets, weights, seed, purpose, replica_ids, index, length)` for arrays that lead with R.

    `replica_ids` (R,) are the numbers under which each draws.
    """
    plan_of, inputs_of, target_of, counts = map(bounded, (task.plan, task.inputs, task.target, task.counts))
    counted, tokens, classes = bounded(task.counted), task.tokens, task.classes
    store_inputs, store_target = build_store(task.n_in), build_store(task.n_out)

    @loop(plan_of, inputs_of, target_of, counts, counted, tokens, classes, task.n_in, task.n_out)
    def sample(inputs, targets, weights, seed, purpose, replica_ids, index, length):
        _, steps, batch = weights.shape
        share = weights.dtype.type(1) / weights.dtype.type(batch * counted(length))
        for r in range(replica_ids.size):
            for b in range(batch):
                stream = (seed, purpose, replica_ids[r], index, b)
                plan = plan_of(stream, length)
                for block in range((steps + 3) // 4):
                    words = counter.draw(*stream, 1 + block)
                    for t in range(4 * block, min(4 * block + 4, steps)):
                        word = words[t - 4 * block]
                        if tokens:
                            inputs[r, t, b] = inputs_of(word, plan, t)
                        else:
                            store_inputs(inputs[r, t, b : b + 1].reshape(1, -1, 1), 0, 0, inputs_of(word, plan, t))
                        if classes:
                            targets[r, t, b] = target_of(plan, t)
                        else:
                            store_target(targets[r, t, b : b + 1].reshape(1, -1, 1), 0, 0, target_of(plan, t))
                        weights[r, t, b] = share if counts(plan, t) else 0

    return sample


@functools.cache
def build_draw_below():
    """Build `draw_below(m, seed, purpose, replica, index, sequence)`: one number in 0 .. m - 1."""

    @loop("draw below")
    def draw_below(m, seed, purpose, replica, index, sequence):
        return counter.below(counter.draw(seed, purpose, replica, index, sequence, 0)[0], m)

    return draw_below


@functools.cache
def build_draws_below():
    """Build `draws_below(found, m, seed, purpose, replica_ids, index)`: a number below m for each sequence."""

    @loop("draws below")
    def draws_below(found, m, seed, purpose, replica_ids, index):
        for r in range(replica_ids.size):
            for b in range(found.shape[1]):
                found[r, b] = counter.below(counter.draw(seed, purpose, replica_ids[r], index, b, 0)[0], m)

    return draws_below
