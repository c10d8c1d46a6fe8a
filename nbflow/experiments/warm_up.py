"""Compiling ahead: what a network or experiments will need, once, so that nothing waits for it later."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from concurrent.futures import Executor, wait
from typing import Any

import numpy as np

from nbflow import _check
from nbflow.experiments._pool import local_pool
from nbflow.experiments.experiment import Experiment, check_experiments, joined, structure
from nbflow.experiments.machine import cores
from nbflow.gradients.clipping import clip
from nbflow.gradients.gradient import gradient, predict
from nbflow.model.network import Network
from nbflow.model.parameters import init
from nbflow.records import Batch, Clip
from nbflow.training.train import train


def warm_up(what: Network | Experiment | Sequence[Experiment], *, workers: int | None = None) -> None:
    """Compile what a network or experiments will need, once, and keep it on disk for every process.

    Kernels are compiled for a cell, a loss and a dtype, and for what a recipe asks; not for sizes, lengths or numbers.
    `nbflow.sweep` does this itself for its own processes; do it before many processes of another kind start, as the
    jobs of a cluster, that would each compile the same, or before something is timed.

    Parameters
    ----------
    what : Network, Experiment or sequence of them
        For a network its gradient, its outputs and a clip by norm, in this process. For experiments all that a training
        and its evaluation need.
    workers : int, optional
        How many processes compile, where experiments are of more than one kind: by default one for each core. A script
        then needs `if __name__ == "__main__":`. 1 compiles all of them in this process.

    Returns
    -------
    None

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense. An experiment that fails will tell when it is run.

    Examples
    --------
    >>> import nbflow as nf
    >>> nf.warm_up(nf.Network(cell="tanh", n_in=6, n_hidden=50, n_out=4))
    >>> nf.warm_up(nf.Experiment("temporal_order", nf.Recipe(lengths=50, clip=nf.Clip("norm", 1.0))))
    """
    workers = cores() if workers is None else _check.count("workers", workers)
    if isinstance(what, Network):
        return _compute_once(what)
    first, *others = kinds_of(check_experiments(what))
    compile_for(first)
    if min(workers, len(others)) < 2:
        for one in others:
            compile_for(one)
        return None
    with local_pool(min(workers, len(others))) as executor:
        compile_all(executor, others)
    return None


def kinds_of(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Return one experiment of each kind: those of a kind differ in numbers only, and need the same kernels."""
    return list({structure(one): one for one in reversed(experiments)}.values())[::-1]


def compile_all(executor: Executor, kinds: Sequence[Experiment]) -> None:
    """Compile in the processes of an executor: what all kinds share first, by one of them, then the others at once."""
    for some in (kinds[:1], kinds[1:]):
        for future in wait([executor.submit(compile_for, one) for one in some]).done:
            future.result()


def compile_for(experiment: Experiment) -> None:
    """Train for one update, and measure one sequence."""
    with contextlib.suppress(Exception):  # it will fail again where it is recorded
        short = dataclasses.replace(joined([experiment]), max_updates=1, evaluate_size=1)
        train(experiment.net, experiment.theta(0)[None], experiment.task, short)


def _compute_once(net: Network) -> None:
    """Compute a gradient of one step, clip it, and ask for outputs."""
    inputs = np.zeros((1, 1, net.n_in), net.dtype)
    targets: Any = np.zeros((1, 1), np.int32) if net.loss_object.classes else np.zeros((1, 1, net.n_out), net.dtype)
    theta = init(net, "glorot", rng=0)
    clip(net, gradient(net, theta, Batch(inputs, targets, np.ones((1, 1), net.dtype))).d_theta, Clip("norm", 1.0))
    predict(net, theta, inputs)
