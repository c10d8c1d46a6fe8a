"""Thresholds that follow the norms of the gradients of a training run, or the update."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeGuard

import numpy as np

from nbflow import _check, _fields
from nbflow._load import is_declared, load, names
from nbflow._plain import plain
from nbflow.records import Floats, Threshold


def load_threshold(name: str, **settings: Any) -> Threshold:
    """Return the threshold of this name, for `Clip(rule, threshold)` in a recipe.

    It is asked at every update of `nbflow.train`, and follows the joint norm of all parameters, whatever the rule of
    the clip measures. Each replica has a threshold and a memory of its own. The memory is bounded; a norm that is not
    finite never enters it.

    In `clip_example` and `clip_microbatch` of a recipe it follows the norms of all examples or groups: those of the
    updates before, for an update's are known only once its gradient is computed; then it learns each, in the order of
    the batch. In `HiddenClip` it may be one that learns nothing.

    Parameters
    ----------
    name : str
        One of `nbflow.names("thresholds")`: "constant", "linear", "inverse_time", "percentile" (AutoClip), "zscore"
        (ZClip), "quantile" (Andrew et al. 2021). The top of its file gives formula, source and settings.
    **settings : float or array of shape (R,)
        Settings that differ from its own; those that are None there must be given.

    Returns
    -------
    Threshold

    Raises
    ------
    TypeError, ValueError
        If there is no such name or setting, or a setting is out of range.

    Examples
    --------
    >>> import nbflow as nf
    >>> half = nf.load_threshold("percentile", percent=50)
    >>> half.settings
    {'percent': 50, 'window': 1000.0, 'first': 1.0}
    >>> recipe = nf.Recipe(clip=nf.Clip("norm", half))
    """
    if not isinstance(name, str):
        raise TypeError(
            f"name is {_check.said(name)}; expected one of {', '.join(names('thresholds'))}. Choose one of these."
        )
    found: Threshold = load("thresholds", name)
    _check.known_settings(found.settings, settings)
    for setting, value in settings.items():
        _check_setting(found, setting, value, np.size(value))
    return dataclasses.replace(found, settings={**found.settings, **plain(settings)})


def follows(value: Any) -> TypeGuard[str | Threshold]:
    """Tell whether a threshold is a name or a Threshold, not a number or a function."""
    return isinstance(value, str | Threshold)


class _AtWork:
    """A threshold at work in a training run: its settings and its memory, a row for each replica.

    `memory` (R, K), float64, is all of its state.
    """

    def __init__(self, how: str | Threshold, replicas: int, dtype: Any) -> None:
        found: Threshold = load("thresholds", how, "threshold")
        self.how = found
        settings = {name: _check_setting(found, name, value, replicas) for name, value in found.settings.items()}
        self.settings = np.ascontiguousarray(np.reshape(list(settings.values()), (-1, replicas)).T[..., None])
        self.memory = np.zeros((replicas, self._room(settings, replicas)))
        if not is_declared(found):
            from nbflow import _probe

            first = tuple(float(value[0]) for value in settings.values())
            _try_out(found, self.memory.shape[1], first)
            _probe.check_threshold(found)
            _probe.refuse_chance(found, "value", np.float64(1.0), np.zeros(self.memory.shape[1]), first, np.int64(0))
        self.last = np.full(replicas, np.nan, dtype)
        self._before = self.memory.copy(), self.last.copy()

    def _room(self, settings: dict[str, Floats], replicas: int) -> int:
        """Return how many numbers the neediest replica remembers."""
        memory = self.how.memory
        if not callable(memory):
            return _check.count("memory", memory, 0)
        try:
            each = [memory(**{name: float(value[r]) for name, value in settings.items()}) for r in range(replicas)]
        except Exception as error:
            raise ValueError(
                f"Threshold.memory raises {type(error).__name__} ({error}); expected a function of the settings by "
                f"name, {', '.join(settings) or 'none'}, that returns how many numbers are remembered. Give it these."
            ) from error
        return max(_check.count("Threshold.memory", size, 0) for size in each)

    def _asked(self, update: int, ask: Callable[[], bool]) -> None:
        """Ask for the thresholds of an update, and refuse those that are NaN or negative."""
        self._before[0][...], self._before[1][...] = self.memory, self.last
        if not self._inside(update, ask):
            raise ValueError(
                f"threshold is {_check.said(self.last.tolist())} at update {update}; expected numbers of at least 0. "
                f"Look at its `value`."
            )

    def _inside(self, update: int, call: Callable[[], Any]) -> Any:
        """Call a compiled loop, whose units may look beyond the memory."""
        try:
            return call()
        except IndexError as error:
            raise _beyond(self.memory.shape[1], self.settings.shape[1], f"{error}, at update {update}") from error

    def take_back(self) -> None:
        """Forget the last update."""
        self.memory[...], self.last[...] = self._before


class Follower(_AtWork):
    """A threshold that follows the joint norms of the gradients that stand in `d_theta`."""

    def __init__(self, how: str | Threshold, d_theta: Floats) -> None:
        from nbflow.cpu.threshold import build_follow

        super().__init__(how, d_theta.shape[0], d_theta.dtype)
        self.d_theta, found = d_theta, self.how
        dtype: Any = d_theta.dtype.type
        self._follow = build_follow(found.value, found.learn, found.learns_first, self.settings.shape[1], dtype)

    def at(self, update: int) -> Floats:
        """Return the thresholds (R,) of the gradients that stand in `d_theta` now, and remember these."""
        self._asked(update, lambda: self._follow(self.d_theta, self.memory, self.settings, update, self.last))
        return self.last


class GroupFollower(_AtWork):
    """A threshold for the gradients of groups, asked before there are any; it learns all their norms afterwards."""

    def __init__(self, how: str | Threshold, replicas: int, dtype: Any) -> None:
        from nbflow.cpu.threshold import build_ask, build_learn_each

        super().__init__(how, replicas, dtype)
        count, self.learns = self.settings.shape[1], self.how.learn is not None
        self._ask = build_ask(self.how.value, count, dtype)
        self._learn_each = build_learn_each(self.how.learn, count)

    def at(self, update: int) -> Floats:
        """Return the thresholds (R,) of an update, by what is remembered; nothing is learnt."""
        self._asked(update, lambda: self._ask(self.memory, self.settings, update, self.last))
        return self.last.copy()

    def learn(self, norms: Floats, stands: Any, update: int) -> None:
        """Learn the norms (R, groups) of an update, those that are finite, of replicas that do not stand (R,)."""
        self._inside(update, lambda: self._learn_each(norms, stands, self.memory, self.settings))


def _try_out(how: Threshold, room: int, settings: tuple[float, ...]) -> None:
    """Run a user's own units twice as plain Python, where a number beyond the memory is an error and not a crash.

    Where Python's arithmetic raises, that of the compiled unit gives Inf or NaN: no reason to refuse it.
    """
    memory = np.zeros(room)
    for update in range(2):
        norm, now = np.float64(1.0), np.int64(update)
        for field, arguments in (("value", (norm, memory, settings, now)), ("learn", (norm, memory, settings))):
            unit = getattr(how, field)
            try:
                if unit is not None:
                    with np.errstate(all="ignore"):
                        getattr(unit, "py_func", unit)(*arguments)
            except ArithmeticError:
                continue
            except IndexError as error:
                raise _beyond(room, len(settings), error) from error
            except Exception as error:
                raise ValueError(
                    f"Threshold.{field} raises {type(error).__name__} ({error}); expected "
                    f"{_fields.wanted_unit(how, field)}. Look at it."
                ) from error
    if not np.isfinite(memory).all():
        raise ValueError(
            f"Threshold.learn remembers {memory[~np.isfinite(memory)][0]} after a norm of 1; expected finite numbers. "
            f"Look at it."
        )


def _beyond(room: int, settings: int, error: Any) -> ValueError:
    return ValueError(
        f"threshold has memory {room} and {settings} settings, and its units look for more ({error}); expected units "
        f"that stay inside. Write as many as they use."
    )


def _check_setting(how: Threshold, name: str, value: Any, replicas: int) -> Floats:
    """Return a setting (R,), which must be in its range."""
    if value is None:
        raise ValueError(
            f"{name} is None; expected a number for this threshold. "
            f"Write nbflow.load_threshold(name, {', '.join(f'{key}=...' for key in how.settings)})."
        )
    return _check.per_replica(name, value, replicas, **how.limits_of(name))
