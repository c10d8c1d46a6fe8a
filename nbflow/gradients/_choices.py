"""What a gradient can be asked for beside the plain one: each choice checked, and what has no meaning together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._load import load
from nbflow.cpu.record import DERIVATIVES
from nbflow.model.network import Network
from nbflow.records import AnyPenalty, Floats, Flow, HDetach, HiddenClip, Penalty

REDUCTIONS = ("sum", "mean")


def check_flow(flow: Any, replicas: int, dtype: str) -> tuple[AnyPenalty, Floats]:
    """Check a Flow; return its penalty and alpha (R,)."""
    if not isinstance(flow, Flow):
        raise TypeError(f"flow is a {type(flow).__name__}; expected a Flow. Write nbflow.Flow('norm', alpha=2.0).")
    penalty = load("flows", flow.penalty, "penalty")
    if not isinstance(penalty, Penalty):
        _check_plain(flow)
    _check.choice("derivative", flow.derivative, tuple(DERIVATIVES))
    _check.choice("reduction", flow.reduction, REDUCTIONS)
    _check.per_replica("bound", flow.bound, 1, least=0.0, above=True, dtype=dtype)
    return penalty, _check.per_replica("alpha", flow.alpha, replicas, least=0.0, finite=True, dtype=dtype)


def _check_plain(flow: Flow) -> None:
    """Refuse choices that only a penalty of the gain has."""
    for name in ("derivative", "reduction", "bound"):
        value, wanted = getattr(flow, name), Flow.__dataclass_fields__[name].default
        if value != wanted:
            raise ValueError(
                f"{name} is {value!r}; expected {wanted!r}, the default, as {flow.penalty!r} is no penalty of the gain "
                f"and has the exact derivative. Leave {name} out."
            )


def check_hidden(how: Any, replicas: int, dtype: str) -> tuple[int, bool, Floats]:
    """Return the site's number, whether by norm, and the threshold (R,) of a clip inside BPTT."""
    if how is None:
        return 0, False, np.zeros(replicas)
    from nbflow.cpu.hidden_clip import SITES

    if not isinstance(how, HiddenClip):
        raise TypeError(f"clip_hidden is a {type(how).__name__}; expected a HiddenClip. Write nbflow.HiddenClip(1.0).")
    _check.choice("site", how.site, tuple(SITES))
    _check.choice("by", how.by, ("value", "norm"))
    threshold = _check.per_replica("threshold", how.threshold, replicas, least=0.0, above=True, dtype=dtype)
    return SITES[how.site], how.by == "norm", threshold


def check_detach(how: Any, net: Network, replicas: int) -> tuple[Floats | None, int, int]:
    """Return the probability (R,), or None for never, the seed and the index of h-detach."""
    if how is None:
        return None, 0, 0
    if not isinstance(how, HDetach):
        raise TypeError(f"h_detach is a {type(how).__name__}; expected an HDetach. Write nbflow.HDetach(0.25).")
    if not net.cell_object.carries:
        raise ValueError(
            f"h_detach is given with cell {net.cell!r}; expected a cell whose state has a way past w_rec, such as "
            f"'lstm'. No gradient at all would be left."
        )
    probability = _check.per_replica("probability", how.probability, replicas, least=0.0, dtype=net.dtype)
    if (probability > 1).any():
        raise ValueError(f"probability is {probability.max():g}; expected a number from 0 to 1. Give a smaller one.")
    return probability, _check.count("seed", how.seed, 0), check_index(how.index)


def check_index(value: Any) -> int:
    """Return an index of draws, one word."""
    if _check.count("index", value, 0) >= 2**32:
        raise ValueError(f"index is {value}; expected less than 2**32. Give a smaller one.")
    return int(value)


def check_groups(shape: tuple[int, int], dtype: str, example: Any, microbatch: Any) -> tuple[int, Floats] | None:
    """Return the size of a group and the threshold (R,) of its norm, or None."""
    if example is not None and microbatch is not None:
        raise ValueError("clip_example and clip_microbatch are both given; expected one of them. Leave one out.")
    if example is None and microbatch is None:
        return None
    if microbatch is not None and not (isinstance(microbatch, tuple) and len(microbatch) == 2):
        raise TypeError(f"clip_microbatch is {microbatch!r}; expected (size, threshold). Write (4, 1.0), say.")
    name, (size, threshold) = ("clip_example", (1, example)) if microbatch is None else ("clip_microbatch", microbatch)
    replicas, batch = shape
    if batch % _check.count(name, size):
        raise ValueError(f"{name} has size {size}; expected a divisor of B = {batch}. Choose one.")
    return size, _check.per_replica(name, threshold, replicas, least=0.0, above=True, dtype=dtype)


def check_checkpoints(net: Network, checked: _check.Checked, every: Any) -> int:
    """Return the steps between checkpoints, 0 for none."""
    if every is None:
        return 0
    from nbflow.cpu.gradient import segment_steps
    from nbflow.cpu.shards import shard_rows

    # The largest of the shards' segments is a multiple of the others, which are all powers of two times 64 or alike.
    segments = {segment_steps(rows) for rows in shard_rows(net, checked.weights.shape[2])}
    multiple = math.lcm(*segments)
    return -(-_check.count("checkpoint_every", every) // multiple) * multiple


def derivative_of(flow: Flow | None, penalty: Any) -> str:
    """Return the derivative of Omega, "" without a flow or for a regularizer that is no penalty of the gain."""
    return flow.derivative if flow is not None and isinstance(penalty, Penalty) else ""


def refuse_combinations(derivative: str, state: Any, groups: Any, every: int, hidden: Any, detach: Any) -> None:
    """Refuse what has no meaning together, or is not there yet."""
    if groups and derivative:
        raise ValueError(
            "flow and a clip by example are both given; expected one. Omega has no gradient of its own for each "
            "example once it is a mean over them: clip the sum with nbflow.clip."
        )
    if hidden[0] and derivative:
        raise ValueError(
            "flow and clip_hidden are both given; expected one. Omega asks what J does to delta, and a clipped "
            "delta is none that J made. Leave one out."
        )
    if detach is not None and derivative:
        raise ValueError(
            "flow and h_detach are both given; expected one. Omega asks what J does to delta, and a J without h is "
            "another one. Leave one out."
        )
    if every and derivative not in ("", "immediate"):
        raise ValueError(
            f"checkpoint_every and derivative {derivative!r} are both given; expected one. The other sweeps of "
            f"Omega need the whole tape: take 'immediate', or shorter sequences."
        )
    if every and groups:
        raise ValueError("checkpoint_every and a clip by example are both given; expected one. Leave one out.")
    if every and state is not None:
        raise ValueError("checkpoint_every and state are both given; expected one. Cut the batch along T instead.")


def backend_there(backend: str) -> None:
    """Refuse a backend that is not there."""
    if _check.choice("backend", backend, ("cpu", "cuda")) == "cuda":
        from nbflow.cuda.device import require

        require()


def refuse_on_card(penalty: Any, flow: Flow | None, **choices: Any) -> None:
    """Refuse by its name what backend "cuda" lacks; it never does something else instead."""
    if flow is not None:
        choices["penalty"] = None if isinstance(penalty, Penalty) else flow.penalty
        choices["derivative"] = None if flow.derivative == "immediate" else flow.derivative
    for name, value in choices.items():
        if value is not None:
            raise NotImplementedError(
                f"{name} is {value!r}; expected none, or the default, as backend 'cuda' does not have it yet. "
                f"Leave it out, or give backend='cpu'."
            )
