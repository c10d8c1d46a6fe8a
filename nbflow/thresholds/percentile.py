"""The `percent`-th percentile of the last `window` norms, this update's among them.

AutoClip: Seetharaman, Wichern, Pardo, Le Roux 2020, algorithm 1, with their `percent`; as in their code this update's
norm enters before the percentile is taken, and the percentile is numpy's, between two norms a line. Differs from the
source, whose memory grows for ever, in the window (the same until it is full), and in `first`, the threshold as long as
there is no finite norm, which only a gradient that is not finite can meet.
"""

from nbflow import exact_unit
from nbflow.records import Threshold

# The memory: how many norms there were, the last `window` of them in a ring, and the same in order of size.


def room(window, **_):
    """Return how many numbers are remembered."""
    return 1 + 2 * int(window)


@exact_unit
def place_of(norm, memory, start, count):
    """Return where the first of the ordered norms stands that is not below this one."""
    low, high = start, start + count
    while low < high:
        middle = (low + high) // 2
        if memory[middle] < norm:
            low = middle + 1
        else:
            high = middle
    return low


@exact_unit
def learn(norm, memory, settings):
    window = int(settings[1])
    ordered, seen = 1 + window, int(memory[0])
    place, count = 1 + seen % window, min(seen, window)
    if count == window:
        count -= 1
        for i in range(place_of(memory[place], memory, ordered, window), ordered + count):
            memory[i] = memory[i + 1]
    here = place_of(norm, memory, ordered, count)
    for i in range(ordered + count, here, -1):
        memory[i] = memory[i - 1]
    memory[here] = memory[place] = norm
    memory[0] = seen + 1


@exact_unit
def value(norm, memory, settings, update):
    percent, window, first = settings
    count = min(int(memory[0]), int(window))
    if count == 0:
        return first
    rank = percent / 100.0 * (count - 1)
    below = min(int(rank), count - 1)
    ordered = 1 + int(window)
    low, high = memory[ordered + below], memory[ordered + min(below + 1, count - 1)]
    return low + (rank - below) * (high - low)


THRESHOLD = Threshold(
    value=value,
    learn=learn,
    learns_first=True,
    memory=room,
    settings={"percent": 10.0, "window": 1000.0, "first": 1.0},
    limits={"percent": (0.0, 100.0), "window": (1.0, 1e6)},
)
