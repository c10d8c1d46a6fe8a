"""Task: an endless supply of sequences, and what counts as a wrong answer; and a task by its name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nbflow import _check, _fields
from nbflow._legible import legible
from nbflow._load import load
from nbflow._plain import plain_fields
from nbflow.data.sampler import DataTask, Sampler, Trivial, _as_long, _unknown, once
from nbflow.model import _batch
from nbflow.records import Batch, Floats, Unit

if TYPE_CHECKING:
    from nbflow.model.stack import Model


@legible
@dataclass(frozen=True)
class Task(Sampler):
    """A synthetic task: sequences as pure functions of (seed, replica, index), by counter.

    The unit of a score is "part wrong", the part of sequences that are wrong (see `wrong`); a network whose score is
    below `solved_below`, 0.01, counts as having solved it where the recipe does not say otherwise.

    Attributes
    ----------
    n_in, n_out : int
        Input channels or symbols, and outputs or classes.
    loss : str
        The loss that goes with it.
    tokens : bool
        Whether inputs are symbols (T, B) or channels (T, B, N).
    shortest : int
        The smallest length.
    plan : unit
        `(stream, length) -> plan`: what is drawn once for a sequence, a tuple of numbers. `stream` is (seed, purpose,
        replica, index, sequence); `nbflow.counter.draw(*stream, n)` gives four words; n = 0 and n >= 2**31 are free.
    inputs : unit
        `(word, plan, t) -> symbol`, or a tuple of N channels; `word` is 32 random bits of step t's own.
    target : unit
        `(plan, t) -> class`, or a tuple of M numbers.
    counts : unit
        `(plan, t) -> bool`, whether step t has a loss.
    steps : function of length
        T, the number of steps that the longest sequence takes; by default the length.
    tolerance : float
        A squared error above it is wrong (loss "square").
    counted : unit
        `(length) -> how many steps of every sequence have a loss`; by default one.
    trivial : function of length
        What whoever remembers nothing reaches: a `Trivial`, by default of NaN, for nobody has worked it out.
    """

    n_in: int
    n_out: int
    loss: str
    tokens: bool
    plan: Unit
    inputs: Unit
    target: Unit
    counts: Unit
    shortest: int = 10
    steps: Unit = _as_long
    tolerance: float = 0.04
    counted: Unit = once
    trivial: Callable[[int], Trivial] = _unknown

    def __post_init__(self) -> None:
        """Check every field; what the units do is looked at before they draw."""
        plain_fields(self)
        for name in ("n_in", "n_out", "shortest"):
            object.__setattr__(self, name, _check.count(f"Task.{name}", getattr(self, name)))
        _fields.check_flags(self, "tokens")
        _check.per_replica("Task.tolerance", self.tolerance, 1, least=0.0, finite=True)
        for name in ("plan", "inputs", "target", "counts", "counted"):
            _fields.check_unit(self, name, arrays=True)
        for name in ("steps", "trivial"):
            if not callable(getattr(self, name)):
                raise TypeError(
                    f"Task.{name} is {_check.said(getattr(self, name))}; expected a function of the length. Pass one."
                )
        if self.own:
            load("losses", self.loss, "Task.loss")

    @functools.cached_property
    def own(self) -> bool:
        """Whether any of its units is not nbflow's."""
        units = (self.plan, self.inputs, self.target, self.counts, self.counted, self.steps)
        return any(_fields.is_own(unit) for unit in units)

    def check(self, dtype: str) -> None:
        """Refuse a task of which something is not what it says."""
        if self.own and dtype not in self._checked:
            from nbflow.data._own import check_units

            check_units(self, dtype)
            self._checked.add(dtype)

    @functools.cached_property
    def _checked(self) -> set[str]:
        return set()

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    # No fields: what tells tasks apart does not have them.
    unit = "part wrong"
    worst = 1.0
    solved_below = 0.01

    def fill(self, batch: Batch, seed: int, purpose: int, replicas: Any, index: int, length: int) -> None:
        """Draw a batch into the room that `empty` made; `replicas` (R,) are the numbers under which each draws."""
        from nbflow.cpu.sample import build_sample

        build_sample(self)(*batch, seed, purpose, replicas, index, length)

    def wrong(self, y: Floats, batch: Batch) -> Any:
        """Tell which sequences a network got wrong.

        A sequence is wrong if, at any step with weight, the largest output is not the class, or the squared error is
        above `tolerance`, or an output is NaN.

        Parameters
        ----------
        y : array of shape (T, B, M)
            Outputs, as from `nbflow.predict`; R in front if the batch has it.
        batch : Batch

        Returns
        -------
        bool array of shape (B,), or (R, B)

        Examples
        --------
        >>> import nbflow as nf, numpy as np
        >>> task = nf.load_task("temporal_order")
        >>> batch = task.sample(seed=0, index=0, batch_size=20, length=10)
        >>> y = np.eye(4)[batch.targets]
        >>> task.wrong(y, batch).any()
        np.False_
        """
        _batch.triple(batch)
        batch = Batch(*batch)
        if _check.array("y", y).dtype.kind not in "iuf":
            raise TypeError(f"y has dtype {y.dtype}; expected real numbers. Pass the outputs of nbflow.predict.")
        if np.shape(y) != (*np.shape(batch.weights), self.n_out):
            raise ValueError(
                f"y has shape {np.shape(y)}; expected {(*np.shape(batch.weights), self.n_out)}. "
                f"Pass the outputs of nbflow.predict for batch.inputs."
            )
        if self.classes:
            right = y.argmax(axis=-1) == batch.targets
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # an error of Inf or NaN is one
                right = ((y - batch.targets) ** 2).sum(axis=-1) <= self.tolerance
        right &= np.isfinite(y).all(axis=-1)
        return (~right & (batch.weights != 0)).any(axis=-2)


def load_task(name: str) -> Task:
    """Return the task of this name.

    Parameters
    ----------
    name : str
        One of `nbflow.names("tasks")`.

    Returns
    -------
    Task

    Raises
    ------
    ValueError
        If there is none of this name.

    Examples
    --------
    >>> load_task("addition").loss
    'square'
    """
    found: Task = load("tasks", name, "task")
    return found


def check_task(net: Model, task: Any) -> Task | DataTask:
    """Return the task, which must fit the network."""
    if isinstance(task, tuple | list | dict | np.ndarray):
        raise TypeError(
            f"task is a {type(task).__name__}; expected a name, a Task or a function. Arrays of your own are a task by "
            f"nbflow.arrays(inputs, targets)."
        )
    found: Task | DataTask = load("tasks", task, "task")
    if not isinstance(found, Sampler):
        raise TypeError(
            f"task is a {type(task).__name__}; expected a name or a Task, of which sequences are drawn that no "
            f"training sees. For batches of your own look at nbflow.predict."
        )
    if not isinstance(getattr(found, "unit", None), str):
        raise TypeError(
            f"task is {_check.said(found)}, which has no unit; expected what its score is in, as 'bits per character'. "
            f"Write unit = '...' in its class."
        )
    found.check(net.dtype)
    got = (net.n_in, net.n_out, net.loss_object)
    wanted = (found.n_in, found.n_out, load("losses", found.loss))
    if got != wanted:
        raise ValueError(
            f"net has n_in={net.n_in}, n_out={net.n_out}, loss={_check.said(net.loss)}; expected {found.n_in}, "
            f"{found.n_out}, {_check.said(found.loss)} for this task. Make the network with task.n_in, task.n_out and "
            f"task.loss."
        )
    return found
