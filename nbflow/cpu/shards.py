"""Shards: how many sequences of a batch one core takes through all steps."""

from __future__ import annotations

import numpy as np

from nbflow.model.network import Network

# A shard is one core's, so that few shards of many rows leave the cores of a larger machine without work, and many of
# few rows cost each of them more: rows of a register tile share what is read of the weights. (A whole update, tanh,
# float32, on one and on two cores of an EPYC, Zen 3, times that of 10 to 11 rows: 5 rows at (200, 20, 6, 50) 1.02 and
# 1.02, 3 rows 1.31 and 1.37; 8 at (200, 64, 50, 200) 1.02 and 1.03, 5 to 6 1.01 and 1.04; 8 at (100, 128, 100, 512)
# 1.02 and 1.03, 5 to 6 1.06 and 1.08. `scripts/bench/bench_parts.py --sections cores` says what 2 to 64 cores may
# expect: at (200, 20, 6, 50) 2.8 instead of 1.8 times one core from four cores on.)
MOST_ROWS = 8
# Weights of more bytes than these are read anew from the third-level cache by every shard at every step: shards of more
# rows do it less often. (A whole update at (100, 128, 100, 1024), two cores of an EPYC, Zen 5: 0.97 of the time with 8
# shards of 16 rows instead of 12 of 11, 0.96 with 4 of 32. At H = 512, 1 MiB, 16 rows take 0.98 of 11: left as it is.)
WIDE = 2**21
WIDE_ROWS = 16


def shard_rows(net: Network, batch: int, group_rows: int = 0) -> list[int]:
    """Return how many sequences each shard takes: no function of threads or R, so that bits do not depend on them.

    At most `MOST_ROWS`, or `WIDE_ROWS`; and an even number of shards, which two cores share evenly. No shard cuts
    through a group of `group_rows`.
    """
    unit = max(group_rows, 1)
    groups = batch // unit
    recurrent = len(net.cell_object.gates) * net.n_hidden**2 * np.dtype(net.scalar).itemsize
    most = WIDE_ROWS if recurrent > WIDE else MOST_ROWS
    count = min(1 if batch < 8 else 2 * -(-batch // (2 * most)), groups)
    return [unit * (groups // count + (k < groups % count)) for k in range(count)]
