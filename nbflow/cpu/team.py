"""Which threads run the parallel loop: numba's team, or the calling thread alone.

A fork copies one thread. What is left of a team of GNU OpenMP in the child aborts the process when it is asked to work,
with one thread too. So a child that was forked beside a team computes in its own thread, which gives the same bits.
(A child of a process that never had a team has one of its own.)

numba's own layer, "workqueue", aborts the process when two threads of Python use it at once, so there they take turns.
It is all that pip gives on macOS.
"""

from __future__ import annotations

import functools
import os
import threading

import numba
from numba.core import config

from nbflow.cpu.run import build_run


class _Here:
    """What is so in this process."""

    left_behind = False  # a team is the parent's, and did not come along
    turns = threading.Lock()


def runner():
    """Return what runs the loop in this process: the one way to do so."""
    if _Here.left_behind or config.NUMBA_NUM_THREADS == 1:
        return build_run(False)
    return _team()


@functools.cache
def _team():
    run = build_run(True)
    numba.get_num_threads()  # starts the team, and so settles its kind
    return run if numba.threading_layer() != "workqueue" else functools.partial(_in_turn, run)


def _in_turn(run, *entry):
    with _Here.turns:
        run(*entry)


def _has_team():
    """Tell whether this process has a team, nbflow's or that of somebody else's parallel loop: there is one for all."""
    try:
        return bool(numba.threading_layer())
    except ValueError:
        return False


def _after_fork():
    _Here.left_behind = _Here.left_behind or _has_team()
    _Here.turns = threading.Lock()  # a thread that was not copied may hold it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
