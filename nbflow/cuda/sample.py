"""Sampling a batch of a task on the card: the same counters as on the CPU, so the same bits."""

from __future__ import annotations

import functools

from nbflow import counter
from nbflow.cuda.device import cuda, grid
from nbflow.cuda.job import BATCH, CLASSES, IDS, INPUTS, N_IN, N_OUT, REPLICAS, TARGETS, TOKENS, WEIGHTS, at
from nbflow.cuda.memory import build_store


@functools.cache
def build_sample(task, dtype):
    """Build the grid `sample(job, numbers, integers, seed, purpose, index, length, steps)`.

    A thread draws four steps of a sequence, which share a block of random words.
    """
    plan_of, inputs_of, target_of, counts = task.plan, task.inputs, task.target, task.counts
    counted, tokens, classes = task.counted, task.tokens, task.classes
    store_inputs, store_target = build_store(task.n_in), build_store(task.n_out)
    zero, one = dtype(0), dtype(1)

    @grid
    def sample(job, numbers, integers, seed, purpose, index, length, steps):
        batch, fours = job[BATCH], (steps + 3) // 4
        i = cuda.grid(1)
        if i < job[REPLICAS] * batch * fours:
            r, block, b = i // (batch * fours), i // batch % fours, i % batch
            stream = (seed, purpose, integers[at(job, IDS, r)], index, b)
            plan = plan_of(stream, length)
            words = counter.draw(*stream, 1 + block)
            share = one / dtype(batch * counted(length))
            for t in range(4 * block, min(4 * block + 4, steps)):
                word, place = words[t - 4 * block], t * batch + b
                if tokens:
                    integers[at(job, TOKENS, r) + place] = inputs_of(word, plan, t)
                else:
                    store_inputs(numbers, at(job, INPUTS, r) + place * job[N_IN], 1, inputs_of(word, plan, t))
                if classes:
                    integers[at(job, CLASSES, r) + place] = target_of(plan, t)
                else:
                    store_target(numbers, at(job, TARGETS, r) + place * job[N_OUT], 1, target_of(plan, t))
                numbers[at(job, WEIGHTS, r) + place] = share if counts(plan, t) else zero

    return sample
