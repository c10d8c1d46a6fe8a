"""The training loop: sample, gradient, clip, update; its schedules, evaluations, stopping rules and callbacks."""

from __future__ import annotations

from collections.abc import Sequence

from nbflow import _check
from nbflow.batches import Source
from nbflow.gradient import backend_there
from nbflow.loop import Loop
from nbflow.network import Network
from nbflow.recipe import Recipe
from nbflow.records import Floats
from nbflow.run import Callback, Run
from nbflow.task import Task


def train(
    net: Network,
    theta: Floats,
    task: str | Task | Source,
    recipe: Recipe,
    *,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    backend: str = "cpu",
) -> Run:
    """Train a network, or R of them side by side.

    Parameters
    ----------
    net : Network
    theta : array of shape (P,) or (R, P)
        Where to begin; it is not changed.
    task : str, Task or function of the update that returns a Batch
        A task's sequences come from the counter stream of `seed`; replica r's are the same for every R. A function's
        batches must have R in front if theta has it; such a run is not evaluated.
    recipe : Recipe
    seed : int
        0 to 2**63 - 1.
    callbacks : sequence of functions
        Each is called with the `Run` after every row of the history; one that returns True ends the training.
    backend : str
        "cpu".

    Returns
    -------
    Run
        Ctrl-C ends the training and returns what was done.

    Raises
    ------
    FloatingPointError
        If a gradient is not finite and the clip's policy is "raise".
    TypeError, ValueError
        If an argument makes no sense; before the first update.

    Examples
    --------
    >>> import nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=20, n_out=4)
    >>> theta = nf.init(net, "smart_tanh", rng=0, replicas=2)
    >>> recipe = nf.Recipe(lengths=10, max_updates=50, evaluate_every=50, evaluate_size=100, clip=nf.Clip("norm", 1.0))
    >>> run = nf.train(net, theta, "temporal_order", recipe)
    >>> run.updates, len(run.evaluations["error"][0])
    (50, 2)
    """
    backend_there(backend)
    callbacks = _check.functions("callbacks", callbacks)
    loop = Loop(net, theta, task, recipe, seed)
    try:
        loop.go(callbacks)
    except KeyboardInterrupt:
        loop.run.interrupted = True
    loop.finish()
    return loop.run
