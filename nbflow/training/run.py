"""Run: what a training run has done so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nbflow import _frame
from nbflow._check import said
from nbflow._legible import legible
from nbflow.records import Floats
from nbflow.training.best import Best


class Evaluations(dict[str, list[Any]]):
    """What evaluations found, by name: "update" and "score"."""

    def __missing__(self, name: str) -> list[Any]:
        """Say what there is; older code asks for an error."""
        raise KeyError(
            f"evaluations have no {said(name)}; expected one of {', '.join(self)}. What was once 'error' is 'score', "
            f"in run.unit."
        )


@legible
@dataclass
class Run:
    """What a training run has done so far; callbacks see it, and `nbflow.train` returns it.

    Attributes
    ----------
    theta : net.dtype array of shape (P,), or of shape (R, P)
        The parameters now, shaped as those that training began with.
    updates : int
        How many were done.
    seconds : float
        Wall time, evaluations included.
    history : dict of lists
        A row every `record_every` updates, means since the row before: "update", "seconds", "length", "lr", and, per
        network, "loss", "omega" (with a flow), "norm" of the finite gradients, and "nonfinite" (how many gradients were
        not; each met the clip's policy, "keep" where there is no clip). With a clip also "threshold" (the last one; by
        block "threshold.w_rec" and so on), "clipped_norm" and "cosine" (the finite gradients' norm after the clip, and
        the cosine between before and after). A mean over no gradient at all is NaN. "clipped" is the part of updates in
        which the clip changed the gradient or met one that was not finite. With a clip by examples or groups that skips
        those that are not finite, "left_out" counts them. "clipped_examples", "clipped_groups" and "clipped_hidden" are
        the parts of the examples, of the groups, and of the entries or vectors inside BPTT that `clip_example`,
        `clip_microbatch` and `clip_hidden` clipped, "example_threshold", "group_threshold" and "hidden_threshold" what
        they were clipped at in the last update; "noise" is the deviation of the units' noise there. Plain numbers, or
        lists of R.
    evaluations : dict of lists
        "update" and "score": the lower, the better. Of a synthetic task the part of sequences that are wrong, of a
        user's data the mean loss of all that is held out, both in `unit`. A score is a number, or a list of R.
    best : Best or None
        The evaluation of the lowest score so far: its parameters, update and score, a best of its own for each
        replica. `theta` above is the last. None before an evaluation whose score is a number.
    unit : str or None
        What a score is in, the task's `unit`: "part wrong", "bits per character", "nats per frame". None for batches
        of a function, which are not evaluated, and for a `score` of one's own.
    first_passage : int or None, or a list of R
        The first evaluated update with a score below `solved_below` of the recipe. None if there was none, or the
        recipe and the task say of no score that it is solved.
    stays_below : bool, or a list of R
        Whether all evaluations since then were below it.
    interrupted : bool
        Whether Ctrl-C ended it.
    shown : int
        Up to which update an earlier process has called callbacks already, where this one goes on from its checkpoint:
        rows up to it are computed and shown once more, to the same bits. 0 otherwise, and when training has ended.
    before : int
        The updates of the stages before this one, in a training in stages; 0 otherwise.
    recipe : dict
        The recipe as plain data, with which `nbflow.train` was called.
    """

    theta: Floats
    updates: int = 0
    seconds: float = 0.0
    history: dict[str, list[Any]] = field(default_factory=dict)
    evaluations: dict[str, list[Any]] = field(default_factory=lambda: Evaluations(update=[], score=[]))
    best: Best | None = None
    unit: str | None = None
    first_passage: Any = None
    stays_below: Any = False
    interrupted: bool = False
    shown: int = 0
    before: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but parameters, as `json.dumps` takes it."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "theta"}
        best = self.best and {"update": self.best.update, "score": self.best.score}
        return {**found, "best": best}

    def frame(self, table: str = "history") -> Any:
        """Return a table of the run for pandas, tidy: a row for each update, and for each replica, a column a quantity.

        Parameters
        ----------
        table : str
            "history" or "evaluations".

        Returns
        -------
        pandas.DataFrame
            With the columns of the table, "update" and "loss" and so on, and "replica" in front, 0 to R - 1, if there
            are replicas.

        Raises
        ------
        ImportError
            If pandas is not installed.
        ValueError
            If there is no such table, or a column that a callback has made has not as many rows as the others.

        Examples
        --------
        >>> import nbflow as nf
        >>> net = nf.Network(cell="tanh", n_in=6, n_hidden=8, n_out=4)
        >>> theta = nf.init(net, "smart_tanh", rng=0, replicas=3)
        >>> recipe = nf.Recipe(lengths=10, max_updates=40, record_every=10, evaluate_every=20, evaluate_size=50)
        >>> run = nf.train(net, theta, "temporal_order", recipe)
        >>> run.frame().shape  # doctest: +SKIP
        (12, 9)
        >>> run.frame("evaluations").groupby("replica")["score"].min()  # doctest: +SKIP
        """
        table = _frame.table_of(table)
        return _frame.frame(_frame.tidy(getattr(self, table), None if self.theta.ndim == 1 else len(self.theta)))


Callback = Callable[[Run], Any]
