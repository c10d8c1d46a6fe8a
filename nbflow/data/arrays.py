"""NumPy arrays of a user's own, checked and made a task."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbflow import _check, counter
from nbflow._load import load
from nbflow.data.array_task import ArrayTask, Sequences, check_score

LOSS_AT = ("last", "all")


def arrays(
    inputs: Any,
    targets: Any,
    *,
    lengths: Any = None,
    batch_first: bool = False,
    loss: str | None = None,
    loss_at: str | None = None,
    held_out: float = 0.1,
    test: float = 0.0,
    score: str | None = None,
    seed: int = 0,
) -> ArrayTask:
    """Make a task of arrays: sequences with a class or numbers to predict, at their end or at every step.

    It goes where a task goes: `nbflow.train`, `nbflow.evaluate`, `nbflow.sweep`, `nbflow.clipping_bias`. The arrays are
    copied.

    Parameters
    ----------
    inputs : array of shape (T, n, N), or (T, n) of integer tokens; or a list of n arrays (T_i, N), or (T_i,) of tokens
        The sequences, time first.
    targets : array of shape (n,) or (T, n) of integer classes, (n, M) or (T, n, M) of floats; or a list of n arrays
        What is to be predicted, of a sequence or of each of its steps. A list has arrays (T_i,) or (T_i, M).
    lengths : integer array of shape (n,), optional
        The steps of each sequence, where inputs are one array and the rest is padding; all T by default.
    batch_first : bool
        Say True for arrays of shape (n, T, N), (n, T), and (n, T, M).
    loss : str, optional
        "softmax" for classes, "square" for floats by default; "bernoulli" for things that are or are not, 0 to 1.
    loss_at : "last" or "all", optional
        Whether the last step counts or all: "last" by default where a sequence has one target, else "all".
    held_out, test : float
        The share of the sequences that training is measured on, and of a third part, `.test` of the task, for the end.
    score : "loss" or "wrong", optional
        What a score is: the mean loss of what is held out, or of classes the part that is wrong, the default there.
    seed : int
        Which sequences are held out.

    Returns
    -------
    ArrayTask

    Raises
    ------
    TypeError, ValueError
        If the arrays do not fit each other, or hold what is no number.

    Examples
    --------
    Is the sum of a sequence above 0?

    >>> import numpy as np, nbflow as nf
    >>> x = np.random.default_rng(0).normal(size=(500, 12, 1)).astype("float32")  # (n, T, N)
    >>> task = nf.arrays(x, (x.sum(axis=(1, 2)) > 0).astype(int), batch_first=True, held_out=0.2)
    >>> task
    ArrayTask(400 sequences, 100 held out, score in part wrong)
    >>> net = nf.Network("tanh", task.n_in, 10, task.n_out, loss=task.loss)
    >>> recipe = nf.Recipe(lr=0.1, clip=nf.Clip("norm", 1.0), max_updates=300, evaluate_every=300)
    >>> run = nf.train(net, nf.init(net, "orthogonal", rng=0), task, recipe)
    >>> bool(run.evaluations["score"][-1] < 0.2 < task.trivial().score)
    True
    """
    batch_first = _check.flag("batch_first", batch_first)
    found_lengths, flat_inputs = _read_inputs(inputs, lengths, batch_first)
    starts = np.concatenate([[0], np.cumsum(found_lengths)])
    flat_targets, each_step = _read_targets(targets, found_lengths, batch_first, inputs)
    loss = _check_loss(loss, flat_targets)
    classes = bool(load("losses", loss, "loss").classes)
    usual_place, usual_score = "all" if each_step else "last", "wrong" if classes else "loss"
    chosen = _check.choice("loss_at", usual_place if loss_at is None else loss_at, LOSS_AT)
    whole = Sequences(flat_inputs, flat_targets, starts, each_step)
    parts = _split(whole, _check.part("held_out", held_out), _share("test", test), _check.count("seed", seed, 0))
    wanted = check_score(usual_score if score is None else score, classes)
    return ArrayTask(*parts, loss, chosen == "last", wanted)


# ------------------------------------------------------------------------- the boundary


def _read_inputs(inputs: Any, lengths: Any, batch_first: bool) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the lengths (n,) and the steps of all sequences, one behind the other."""
    if isinstance(inputs, list | tuple):
        if lengths is not None:
            raise ValueError("lengths is given with a list of arrays; expected one or the other. Leave lengths out.")
        if not inputs:
            raise ValueError("inputs is empty; expected at least two sequences. Check where they come from.")
        listed = [_number_array(f"inputs[{k}]", one) for k, one in enumerate(inputs)]
        _alike("inputs", listed)
    else:
        listed = _cut(_time_first(_number_array("inputs", inputs), batch_first), lengths)
    first = listed[0]
    wanted = 1 if first.dtype.kind in "iu" else 2
    if first.ndim != wanted:
        said, remedy = (
            ("tokens", "Dense inputs are floats: write inputs.astype(np.float32).")
            if wanted == 1 else ("dense inputs with a channel axis", "Add it: inputs[..., None].")
        )  # fmt: skip
        raise ValueError(
            f"inputs has steps of shape {first.shape[1:]} and dtype {first.dtype}; expected {said}. {remedy}"
        )
    found = np.array([len(one) for one in listed])
    if len(found) < 2 or not found.all():
        raise ValueError(
            f"inputs has {len(found)} sequences, the shortest of {found.min()} steps; expected at least 2, none empty. "
            f"Leave empty ones out."
        )
    flat = np.concatenate(listed)
    if wanted == 1:
        return found, _whole("inputs", flat)
    _check.finite("inputs", flat, "Clean the data.")
    return found, flat


def _read_targets(
    targets: Any, lengths: NDArray[np.int64], batch_first: bool, inputs: Any
) -> tuple[NDArray[Any], bool]:
    """Return the targets, of sequences (n, ...) or of all steps, and whether they are of steps."""
    if isinstance(targets, list | tuple):
        listed = [_number_array(f"targets[{k}]", one) for k, one in enumerate(targets)]
        _same_count(len(listed), lengths, inputs, batch_first)
        _alike("targets", listed)
        for k, (one, steps) in enumerate(zip(listed, lengths.tolist(), strict=True)):
            if one.ndim == 0 or len(one) != steps:
                raise ValueError(
                    f"targets[{k}] has shape {one.shape}; expected {steps} steps, as inputs[{k}] has. For one target a "
                    f"sequence give an array (n,) or (n, M)."
                )
        return _values(np.concatenate(listed), listed[0].dtype.kind in "iu"), True
    found = _number_array("targets", targets)
    classes = found.dtype.kind in "iu"
    if found.ndim == (1 if classes else 2) or (found.ndim == 1 and not classes):
        _same_count(len(found), lengths, inputs, batch_first)
        return _values(found, classes), False
    if found.ndim != (2 if classes else 3):
        raise ValueError(
            f"targets has shape {found.shape} and dtype {found.dtype}; expected (n,) or (T, n) integer classes, or "
            f"(n, M) or (T, n, M) floats. Reshape it, or make classes integers: targets.astype(int)."
        )
    found = _time_first(found, batch_first)
    _same_count(found.shape[1], lengths, inputs, batch_first)
    steps = int(lengths.max()) if isinstance(inputs, list | tuple) else inputs.shape[1 if batch_first else 0]
    if found.shape[0] != steps:
        raise ValueError(
            f"targets has {found.shape[0]} steps; expected {steps}, as inputs has. Check which axis is time."
        )
    return _values(np.concatenate(_cut(found, lengths)), classes), True


def _values(flat: NDArray[Any], classes: bool) -> NDArray[Any]:
    """Return classes as int32, or values with an axis M."""
    if classes:
        return _whole("targets", flat)
    _check.finite("targets", flat, "Clean the data.")
    return flat[:, None] if flat.ndim == 1 else flat


def _number_array(name: str, value: Any) -> NDArray[Any]:
    """Return an array of numbers as floats or integers; booleans are classes."""
    found = _check.array(name, value)
    if found.dtype.kind == "b":
        found = found.astype(np.int32)
    if found.dtype.kind not in "iuf" or found.dtype.itemsize > 8:
        raise TypeError(f"{name} has dtype {found.dtype}; expected real numbers. Cast it: .astype(np.float32).")
    return found  # type: ignore[no-any-return]


def _whole(name: str, flat: NDArray[Any]) -> NDArray[np.int32]:
    low, high = int(flat.min()), int(flat.max())
    if low < 0 or high >= 2**31 - 1:
        raise ValueError(
            f"{name} has integers from {low} to {high}; expected 0 up. Map them: np.unique(a, return_inverse=True)."
        )
    return flat.astype(np.int32)


def _time_first(array: NDArray[Any], batch_first: bool) -> NDArray[Any]:
    if array.ndim < 2:
        raise ValueError(
            f"inputs has shape {array.shape}; expected (T, n, N), or (T, n) of tokens. For one sequence there is "
            f"nothing to hold out: cut it into several."
        )
    return array.swapaxes(0, 1) if batch_first else array


def _cut(array: NDArray[Any], lengths: Any) -> list[NDArray[Any]]:
    """Cut an array (T, n, ...) into n sequences."""
    steps, count = array.shape[:2]
    if lengths is None:
        return list(array.swapaxes(0, 1))
    found = _check.array("lengths", np.asarray(lengths))
    if found.dtype.kind not in "iu" or found.shape != (count,):
        raise ValueError(
            f"lengths has shape {found.shape} and dtype {found.dtype}; expected integers of shape ({count},), one for "
            f"each sequence. If the first axis of the arrays is the sequences, write batch_first=True."
        )
    if found.min() < 1 or found.max() > steps:
        raise ValueError(
            f"lengths has {found.min()} to {found.max()}; expected 1 to T = {steps}. Leave empty ones out."
        )
    return [array[:stop, k] for k, stop in enumerate(found.tolist())]


def _alike(name: str, listed: list[NDArray[Any]]) -> None:
    """Refuse arrays of unlike channels or dtypes."""
    first = listed[0]
    for k, one in enumerate(listed):
        if one.dtype.kind != first.dtype.kind or one.shape[1:] != first.shape[1:] or one.ndim != first.ndim:
            raise ValueError(
                f"{name}[{k}] has shape {one.shape} and dtype {one.dtype}; expected {('T', *first.shape[1:])} and "
                f"{first.dtype}, as {name}[0] has. Make them alike."
            )


def _same_count(count: int, lengths: NDArray[np.int64], inputs: Any, batch_first: bool) -> None:
    if count == len(lengths):
        return
    remedy = "Give one target for each, or one for each step."
    shape: tuple[int, ...] = getattr(inputs, "shape", ())
    if not batch_first and len(shape) > 1 and shape[0] == count:
        remedy = "If the first axis of the arrays is the sequences, write batch_first=True."
    raise ValueError(f"targets has {count} sequences; expected {len(lengths)}, as inputs has. {remedy}")


def _check_loss(loss: Any, targets: NDArray[Any]) -> Any:
    """Return the loss, which must fit the targets."""
    kind = "integer classes" if targets.dtype.kind == "i" else "floats"
    if loss is None:
        return "softmax" if targets.dtype.kind == "i" else "square"
    found = load("losses", loss, "loss")
    if found.classes != (targets.dtype.kind == "i"):
        wanted = "integer classes: targets.astype(int)" if found.classes else "floats: targets.astype(np.float32)"
        raise ValueError(
            f"loss is {_check.said(loss)} and targets are {kind}; expected {wanted}. Or choose another loss."
        )
    if found.targets is not None and (targets.min() < found.targets[0] or targets.max() > found.targets[1]):
        low, high = found.targets
        raise ValueError(
            f"targets has values from {targets.min():g} to {targets.max():g}; expected {low:g} to {high:g} for loss "
            f"{_check.said(loss)}. Scale them."
        )
    return loss


def _share(name: str, value: Any) -> float:
    """Return a part, or 0 for none."""
    return 0.0 if isinstance(value, int | float) and value == 0 else _check.part(name, value)


def _split(whole: Sequences, held_out: float, test: float, seed: int) -> tuple[Sequences, Sequences, Sequences | None]:
    """Split by an order that is drawn by counter; each part that is asked for has a sequence at least."""
    from nbflow.cpu.sample import build_draws_below

    count = len(whole.lengths)
    measured, tested = max(1, round(held_out * count)), max(1, round(test * count)) if test else 0
    if measured + tested >= count:
        raise ValueError(
            f"held_out is {held_out:g} and test {test:g} of {count} sequences; expected less than all of them. Leave "
            f"some to train on."
        )
    drawn = np.empty((1, count), np.int64)
    build_draws_below()(drawn, 2**31, seed, counter.EVALUATION, np.zeros(1, np.int64), 2**32 - 1)
    order = np.argsort(drawn[0], kind="stable")
    cuts = np.split(order, [measured, measured + tested])
    held, last, train = (np.sort(rows) for rows in cuts)
    return whole.some(train), whole.some(held), whole.some(last) if tested else None
