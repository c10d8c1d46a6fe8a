"""Shards: how many sequences of a batch one core takes through all steps."""

from __future__ import annotations

import numpy as np

from nbflow.model.network import Network

# Weights of more bytes than these are read anew from the third-level cache by every shard at every step: shards of more
# rows do it less often, and there are fewer of them for many cores to share. (A whole update at (100, 128, 100, 1024),
# tanh, float32, two cores of an EPYC, Zen 5: 0.97 of the time with 8 shards of 16 rows instead of 12 of 11, 0.96 with
# 4 of 32. From 12 cores on 8 shards will take longer than 12 did. At H = 512, 1 MiB, 16 rows take 0.98: left as it is.)
WIDE = 2**21
WIDE_ROWS = 16


def shard_rows(net: Network, batch: int, group_rows: int = 0) -> list[int]:
    """Return how many sequences each shard takes: no function of threads or R, so that bits do not depend on them.

    About twelve, two tiles of the matrix product, or `WIDE_ROWS`; and an even number of shards, which two cores share
    evenly. No shard cuts through a group of `group_rows`.
    """
    unit = max(group_rows, 1)
    groups = batch // unit
    recurrent = len(net.cell_object.gates) * net.n_hidden**2 * np.dtype(net.scalar).itemsize
    most = WIDE_ROWS if recurrent > WIDE else 12
    count = min(1 if batch < 8 else 2 * -(-batch // (2 * most)), groups)
    return [unit * (groups // count + (k < groups % count)) for k in range(count)]
