"""Recipe: how a network is trained; checked, and described in plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nbflow import _check, _fields
from nbflow._legible import legible
from nbflow._load import load
from nbflow._plain import plain_fields
from nbflow.data.sampler import Sampler
from nbflow.data.synthetic import Task
from nbflow.gradients._choices import clip_by_groups
from nbflow.records import (
    RATES,
    Clip,
    ExampleClip,
    Floats,
    Flow,
    HDetach,
    HiddenClip,
    MicrobatchClip,
    Noise,
    Optimizer,
    Params,
    Threshold,
    Unit,
)
from nbflow.training._carry import streams_of
from nbflow.training._projection import check_projection
from nbflow.training._trainable import check_trainable
from nbflow.training.halving_rate import HalvingRate

Schedule = Callable[[int], Any]


@legible
@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    `lr`, the clip's threshold and the flow's alpha are each a number, one number per replica (R,), or a function of the
    update (counted from 0) that returns either. The threshold may also follow the norms: see `nbflow.load_threshold`.
    Each may be 0: a rate of 0 leaves theta, a threshold of 0 makes every gradient 0, also one that follows and answers
    0. Where a schedule runs to 0 and ends a hair below by rounding (by 1e-12 of its first value, or 1e-12), or too
    small for the dtype, it is 0; anything else below 0 ends the training, and the error says at which update.

    Parameters
    ----------
    optimizer : str or Optimizer
        One of `nbflow.names("optimizers")`.
    lr : float, float array of shape (R,), function or HalvingRate
        The learning rate.
    batch_size : int
        B.
    lengths : int or tuple of two ints
        The length of a batch, or the smallest and the largest of lengths drawn for each batch.
    clip : Clip, optional
    flow : Flow, optional
    clip_hidden, clip_example, clip_microbatch, h_detach : optional
        As in `nbflow.gradient`; the clip then sees what comes out of these. Their thresholds may be what the clip's may
        be; what a `Threshold` follows there is said in `nbflow.load_threshold`.
    max_updates : int
        Where training ends.
    record_every : int
        Updates between two rows of the history; a row holds means over them.
    evaluate_every : int
        Updates between two evaluations, each on `evaluate_size` sequences of a stream that training never sees; 0 for
        none.
    evaluate_size : int
        10,000 as in Hochreiter and Schmidhuber 1997. A task of a user's data is measured on all that is held out.
    solved_below : float, optional
        The score below which a network counts as having solved the task, in the task's `unit`: for a synthetic task a
        part of the sequences, by default 0.01, 1 % of them wrong; for a user's data any number of bits or nats above 0.
        There is none by default there, and no network counts as having solved it.
    stop_when_solved : bool
        Whether to end once every replica has passed below `solved_below`.
    settings : dict
        Settings of the optimizer that differ from its own, as {"momentum": 0.95}.
    carry : bool
        Whether the state goes on from batch to batch: truncated back-propagation through time. `batch_size` streams of
        a text, of music or of `nbflow.arrays` are read side by side, `lengths` steps at a time, each window from the
        state where the one before ended, which is a constant there; a state is 0 again where its stream ends, or where
        it is not finite. Otherwise every batch begins from zeros. See docs/truncated_bptt.md.
    trainable : bool array of shape (P,) or (R, P), dict or Params, optional
        What is trained, everything by default; the rest stays as it is, bit for bit, with its slots. A mask like theta,
        or True, False or a mask for some of the blocks by name, as {"w_rec": False}; those that are not named are
        trained. Of a stack a record is of every layer, and a list has one for each. The gradient of what is held counts
        as 0, NaN and Inf too, before anything looks at it: norms, those of single examples too, thresholds that follow,
        the clip, its random steps and the history are of what moves. See docs/held_parameters.md.
    project : function or dict, optional
        What is done to the parameters after every update, before anybody looks at them: a function of `Params`, views
        of one network's parameters, which it writes, or returns others; or a unit for some of the blocks by name, as
        {"w_rec": unit}, `(w, i, g, j) -> w` or (w) -> w for each entry, w_rec[i, g, j] say (of a bias i is 0, of w_out
        and b_out g); of a stack, what `nbflow.unpack` makes of it, and every layer. Shapes and dtype are kept, finite
        numbers stay finite; what it raises, or is refused for, ends the training before that update. A replica that
        takes no step is not projected; parameters that are held are.
    noise : float, float array of shape (R,) or function, optional
        The standard deviation of Gaussian noise that is added to the pre-activations of every unit at every step of a
        training (see `nbflow.Noise`): a number, one per replica, or a function of the update that returns either.
        Update k of a run has the draws of `Noise(noise, seed=seed, index=k)`, the numbers of its replicas, and after a
        resume the same ones. Evaluations are without noise; for one with it, call `nbflow.evaluate(..., noise=0.1)`, or
        give `nbflow.train` a function that does as `score`.

    Examples
    --------
    >>> import nbflow as nf
    >>> recipe = nf.Recipe(lr=lambda update: 0.1 / (1 + update), clip=nf.Clip("norm", 1.0), max_updates=100)
    """

    optimizer: str | Optimizer = "sgd"
    lr: float | Floats | Schedule | HalvingRate = 0.01
    batch_size: int = 20
    lengths: int | tuple[int, int] = (50, 200)
    clip: Clip | None = None
    flow: Flow | None = None
    clip_hidden: HiddenClip | None = None
    clip_example: float | Floats | str | Threshold | Schedule | ExampleClip | None = None
    clip_microbatch: tuple[int, float | Floats | str | Threshold | Schedule] | MicrobatchClip | None = None
    h_detach: HDetach | None = None
    max_updates: int = 1000
    record_every: int = 100
    evaluate_every: int = 1000
    evaluate_size: int = 10_000
    solved_below: float | None = None
    stop_when_solved: bool = False
    settings: dict[str, float] = field(default_factory=dict)
    carry: bool = False
    trainable: Any = None
    project: Callable[[Params], Any] | dict[str, Unit] | None = None
    noise: float | Floats | Schedule | None = None

    def __post_init__(self) -> None:
        """Check what needs no network and no task."""
        plain_fields(self)
        for name in ("batch_size", "max_updates", "record_every", "evaluate_size"):
            _check.count(name, getattr(self, name))
        _check.count("evaluate_every", self.evaluate_every, 0)
        _check.length_range("lengths", self.lengths)
        _fields.check_kind("optimizer", self.optimizer, str | Optimizer, "a name or an Optimizer")
        if not isinstance(self.lr, HalvingRate):
            _fields.check_numeric("lr", self.lr, RATES, schedule=True)
        clip_by_groups(self.clip_example, self.clip_microbatch)
        for name, kind in (("clip", Clip), ("flow", Flow), ("clip_hidden", HiddenClip), ("h_detach", HDetach)):
            _fields.check_kind(name, getattr(self, name), (kind, type(None)), f"a {kind.__name__} or None")
        _check_noise(self.noise)
        if self.solved_below is not None:
            _check.per_replica("solved_below", self.solved_below, 1, least=0.0, above=True, finite=True)
        for name in ("stop_when_solved", "carry"):
            object.__setattr__(self, name, _check.flag(name, getattr(self, name)))
        optimizer = load("optimizers", self.optimizer, "optimizer")
        _check.settings(optimizer.settings, self.settings, optimizer.limits)
        check_trainable(self.trainable)
        check_projection(self)

    @property
    def length_range(self) -> tuple[int, int]:
        """The smallest and the largest length."""
        return _check.length_range("lengths", self.lengths)


def _check_noise(noise: Any) -> None:
    """Refuse what is no deviation: draws are named by the run."""
    if isinstance(noise, Noise):
        raise TypeError(
            f"noise is {_check.said(noise)}; expected a number, one per replica, or a function of the update: a run "
            f"draws by its own seed and update. Write noise=0.1."
        )
    if noise is not None:
        _fields.check_numeric("noise", noise, RATES, schedule=True)


def check_recipe(recipe: Any) -> Recipe:
    """Refuse what is no recipe."""
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe is a {type(recipe).__name__}; expected a Recipe. Write nbflow.Recipe(...).")
    return recipe


def completed(recipe: Recipe, task: Sampler | type[Task] | None, scored: bool = False) -> Recipe:
    """Return a checked recipe with the task's own `solved_below` where it has none; batches of a function have no task.

    Nothing is left to be wrong in silence: a bound that no score or every score is below, a stop that never comes. Of
    a run that is `scored` by a function of the user's nobody knows what counts as solved but the user.
    """
    if recipe.carry:
        streams_of(task, recipe.batch_size)
    if scored:
        if recipe.stop_when_solved and recipe.solved_below is None:
            raise ValueError(
                "solved_below is None and stop_when_solved True; expected a number, below which a score of your own is "
                "that of a network that has solved it. Give solved_below."
            )
        return recipe
    if task is None:
        if recipe.stop_when_solved:
            raise ValueError(
                "stop_when_solved is True; expected False for batches of a function, which are not evaluated. End it "
                "by a callback that returns True."
            )
        return dataclasses.replace(recipe, solved_below=None)
    if recipe.solved_below is None:
        recipe = dataclasses.replace(recipe, solved_below=task.solved_below)
        if recipe.stop_when_solved and recipe.solved_below is None:
            raise ValueError(
                f"solved_below is None and stop_when_solved True; expected a number of {task.unit}, below which this "
                f"task is solved. Give solved_below."
            )
    elif recipe.solved_below > task.worst:
        raise ValueError(
            f"solved_below is {recipe.solved_below}; expected at most {task.worst:g}, for a score is in "
            f"{_check.said(task.unit)} here. The usual one is {task.solved_below}."
        )
    return recipe
