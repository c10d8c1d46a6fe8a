"""Run: what a training run has done so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nbflow._legible import legible
from nbflow.records import Floats


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
        not; each met the clip's policy, "keep" where there is no clip). With a clip also "threshold" (the last one),
        "clipped_norm" and "cosine" (the finite gradients' norm after the clip, and the cosine between before and
        after). "clipped" is the part of updates in which the clip changed the gradient or met one that was not finite.
        Plain numbers, or lists of R.
    evaluations : dict of lists
        "update" and "error", the part of sequences that are wrong; of a task of a user's data, what is held out in
        its `unit`: bits per character, nats per frame.
    first_passage : int or None, or a list of R
        The first evaluated update with an error below `solved_below`.
    stays_below : bool, or a list of R
        Whether all evaluations since then were below it.
    interrupted : bool
        Whether Ctrl-C ended it.
    recipe : dict
        The recipe as plain data, with which `nbflow.train` was called.
    """

    theta: Floats
    updates: int = 0
    seconds: float = 0.0
    history: dict[str, list[Any]] = field(default_factory=dict)
    evaluations: dict[str, list[Any]] = field(default_factory=lambda: {"update": [], "error": []})
    first_passage: Any = None
    stays_below: Any = False
    interrupted: bool = False
    recipe: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but theta, as `json.dumps` takes it."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "theta"}


Callback = Callable[[Run], Any]
