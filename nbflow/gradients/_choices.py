"""What a gradient can be asked for beside the plain one: each choice checked, and what has no meaning together."""

from __future__ import annotations

import functools
import math
from typing import Any

from nbflow import _check, _fields
from nbflow._load import is_declared, load
from nbflow.model import _arguments
from nbflow.model._asked import ENDS, PLAIN, Asked, Detach, Groups, Inside, UnitNoise
from nbflow.model.stack import Model, Stack, layers_of
from nbflow.records import (
    BOUNDS,
    PARTS,
    RATES,
    AnyPenalty,
    ExampleClip,
    Floats,
    Flow,
    HDetach,
    HiddenClip,
    MicrobatchClip,
    Noise,
    Penalty,
    Regularizer,
    Threshold,
    check_threshold,
)


def check_flow(flow: Any, replicas: int, dtype: str) -> tuple[AnyPenalty, Floats]:
    """Check a Flow; return its penalty and alpha (R,)."""
    if not isinstance(flow, Flow):
        raise TypeError(f"flow is a {type(flow).__name__}; expected a Flow. Write nbflow.Flow('norm', alpha=2.0).")
    penalty = load("flows", flow.penalty, "penalty")
    if not isinstance(penalty, Penalty):
        _check_plain(flow)
    if not isinstance(penalty, Regularizer) and not is_declared(penalty):
        from nbflow import _probe

        _probe.check_penalty(penalty, dtype)
    _check.per_replica("bound", flow.bound, 1, dtype=dtype, **BOUNDS)
    return penalty, _check.per_replica("alpha", flow.alpha, replicas, dtype=dtype, **RATES)


def _check_plain(flow: Flow) -> None:
    """Refuse choices that only a penalty of the gain has."""
    for name in ("derivative", "reduction", "bound"):
        value, wanted = getattr(flow, name), Flow.__dataclass_fields__[name].default
        if value != wanted:
            raise ValueError(
                f"{name} is {_check.said(value)}; expected {_check.said(wanted)}, the default, as "
                f"{_check.said(flow.penalty)} is no penalty of the gain and has the exact derivative. Leave {name} out."
            )


def _refuse_moving(name: str, threshold: Any) -> None:
    """Refuse a threshold that only a run can ask."""
    if isinstance(threshold, str | Threshold) or callable(threshold):
        raise TypeError(
            f"{name} is {_check.said(threshold)}; expected a number, or one per replica: a single gradient knows no "
            f"update and no past norms. Give a float, or use it in the recipe of nbflow.train."
        )


def check_hidden(how: Any, replicas: int, dtype: str) -> Inside:
    """Check a clip inside BPTT."""
    if how is None:
        return Inside()
    from nbflow.cpu.hidden_clip import SITES

    if not isinstance(how, HiddenClip):
        raise TypeError(f"clip_hidden is a {type(how).__name__}; expected a HiddenClip. Write nbflow.HiddenClip(1.0).")
    _refuse_moving("threshold of clip_hidden", how.threshold)
    threshold = _check.per_replica("threshold", how.threshold, replicas, dtype=dtype, **BOUNDS)
    return Inside(SITES[how.site], how.by == "norm", threshold)


def check_detach(how: Any, net: Model, replicas: int) -> Detach:
    """Check an h-detach."""
    if how is None:
        return Detach()
    if not isinstance(how, HDetach):
        raise TypeError(f"h_detach is a {type(how).__name__}; expected an HDetach. Write nbflow.HDetach(0.25).")
    for layer, _ in layers_of(net):
        if not layer.cell_object.carries:
            raise ValueError(
                f"h_detach is given with cell {_check.said(layer.cell)}; expected a cell whose state has a way past "
                "w_rec, such as "
                f"'lstm'. No gradient at all would be left."
            )
    probability = _check.per_replica("probability", how.probability, replicas, dtype=net.dtype, **PARTS)
    return Detach(probability, _check.count("seed", how.seed, 0), _check.index("index", how.index))


def check_noise(how: Any, replicas: int, dtype: str) -> UnitNoise | None:
    """Check the noise of the units: a deviation, or a `Noise`."""
    if how is None:
        return None
    noise = how if isinstance(how, Noise) else Noise(_refuse_schedule(how))
    deviation = _check.per_replica("noise", noise.deviation, replicas, dtype=dtype, **RATES)
    return UnitNoise(deviation, noise.seed, noise.index)


def beginning(net: Model, checked: _arguments.Checked, state: Any, noise: Any) -> Asked:
    """Return what asks for a first state (B, S, H) and for noise of the units alone; None is for neither."""
    asked = _arguments.beginning(net, state, checked)
    if noise is None:
        return asked
    return asked._replace(noise=check_noise(noise, len(checked.theta), net.dtype))


def _refuse_schedule(noise: Any) -> Any:
    if callable(noise):
        raise TypeError(
            f"noise is {_check.said(noise)}; expected a number, one per replica, or a Noise: a single computation "
            f"knows no update. Give a float, or use it in the recipe of nbflow.train."
        )
    _fields.check_numeric("noise", noise, RATES)
    return noise


def clip_by_groups(example: Any, microbatch: Any) -> tuple[str, int, Any, str] | None:
    """Check as much of a clip by groups of examples as needs no batch; return its name, size, threshold and policy."""
    if example is not None and microbatch is not None:
        raise ValueError("clip_example and clip_microbatch are both given; expected one of them. Leave one out.")
    if example is None and microbatch is None:
        return None
    name = "clip_example" if microbatch is None else "clip_microbatch"
    size, threshold, nonfinite = _of_examples(example) if microbatch is None else _of_microbatch(microbatch)
    size = _check.count("size of clip_microbatch", size)
    check_threshold(name, threshold, BOUNDS)
    return name, size, threshold, nonfinite


def check_groups(shape: tuple[int, int], dtype: str, example: Any, microbatch: Any) -> Groups | None:
    """Check a clip by groups of examples of a batch of shape (R, B)."""
    found = clip_by_groups(example, microbatch)
    if found is None:
        return None
    name, size, threshold, nonfinite = found
    replicas, batch = shape
    if batch % size:
        raise ValueError(f"{name} has size {size}; expected a divisor of B = {batch}. Choose one.")
    _refuse_moving(name, threshold)
    return Groups(size, _check.per_replica(name, threshold, replicas, dtype=dtype, **BOUNDS), nonfinite)


def _of_examples(how: Any) -> tuple[int, Any, Any]:
    """Return size, threshold and policy of a clip by example, whichever way it is written."""
    return (1, how.threshold, how.nonfinite) if isinstance(how, ExampleClip) else (1, how, "keep")


def _of_microbatch(how: Any) -> tuple[Any, Any, Any]:
    if isinstance(how, MicrobatchClip):
        return how.size, how.threshold, how.nonfinite
    if isinstance(how, tuple) and len(how) == 2:
        return how[0], how[1], "keep"
    raise TypeError(f"clip_microbatch is {_check.said(how)}; expected (size, threshold). Write (4, 1.0), say.")


def check_recomputed(net: Model, batch_size: int, every: Any) -> int:
    """Return the steps between two states that are kept, 0 where the whole tape is."""
    if every is None:
        return 0
    from nbflow.cpu.gradient import segment_steps
    from nbflow.cpu.shards import shard_rows

    # The largest of the shards' segments is a multiple of the others, which are all powers of two times 64 or alike.
    segments = {segment_steps(rows) for layer, _ in layers_of(net) for rows in shard_rows(layer, batch_size)}
    multiple = math.lcm(*segments)
    return -(-_check.count("recompute_every", every) // multiple) * multiple


def check_wrt(wrt: Any, tokens: bool) -> tuple[str, ...]:
    """Return where the gradient is asked for beside the parameters; one name may come without a tuple."""
    names = (wrt,) if isinstance(wrt, str) else wrt
    if not isinstance(names, tuple | list):
        raise TypeError(f"wrt is {_check.said(wrt)}; expected some of {ENDS}. Write wrt=('inputs', 'state'), say.")
    found = tuple(_check.choice("wrt", name, ENDS) for name in names)
    if tokens and "inputs" in found:
        raise ValueError(
            "wrt has 'inputs' and the inputs are tokens; expected dense inputs, as a token has no derivative. Row k of "
            "w_in is the embedding of token k, and its gradient stands in unpack(net, d_theta).w_in."
        )
    return found


@functools.lru_cache(64)  # checked once, as own loops ask for the same again and again
def _at_ends(wrt: tuple[str, ...], tokens: bool) -> Asked:
    """Return what a plain gradient is asked for that goes on to its ends."""
    return PLAIN._replace(wrt=check_wrt(wrt, tokens))


def check_asked(
    net: Model, shape: tuple[int, int], *, flow: Any = None, state: Any = None, clip_hidden: Any = None,
    clip_example: Any = None, clip_microbatch: Any = None, h_detach: Any = None, noise: Any = None,
    recompute_every: Any = None, wrt: Any = (), tokens: bool = False,
) -> Asked:  # fmt: skip
    """Check what a gradient of a batch of shape (R, B) is asked for, each choice and all of them together."""
    given = (flow, state, clip_hidden, clip_example, clip_microbatch, h_detach, noise, recompute_every)
    if all(one is None for one in given):
        if type(wrt) is tuple and all(type(name) is str for name in wrt):
            return _at_ends(wrt, tokens) if wrt else PLAIN
        found = check_wrt(wrt, tokens)
        return PLAIN._replace(wrt=found) if found else PLAIN
    replicas, batch_size = shape
    penalty, alpha = (None, None) if flow is None else check_flow(flow, replicas, net.dtype)
    asked = Asked(
        flow=flow,
        penalty=penalty,
        alpha=alpha,
        derivative=flow.derivative if isinstance(penalty, Penalty) else "",
        state=state,
        inside=check_hidden(clip_hidden, replicas, net.dtype),
        groups=check_groups(shape, net.dtype, clip_example, clip_microbatch),
        every=check_recomputed(net, batch_size, recompute_every),
        detach=check_detach(h_detach, net, replicas),
        noise=check_noise(noise, replicas, net.dtype),
        wrt=check_wrt(wrt, tokens),
    )
    _refuse_combinations(asked)
    if isinstance(net, Stack):
        _refuse_for_stacks(asked)
        if net.bidirectional:
            _refuse_for_two_directions(asked)
    return asked


def _refuse_for_stacks(asked: Asked) -> None:
    """Refuse what a stack has not: it never does something else instead."""
    if isinstance(asked.penalty, Regularizer) and asked.flow is not None:
        raise NotImplementedError(
            f"flow has {_check.said(asked.flow.penalty)}, a function of one Network; expected a penalty of the gain or "
            f"of the states for a Stack. Leave it out."
        )


def _refuse_for_two_directions(asked: Asked) -> None:
    """Refuse what goes through one direction in time alone."""
    if asked.derivative in ("detached", "exact"):
        raise NotImplementedError(
            f"derivative is {_check.said(asked.derivative)}; expected 'immediate' for a Stack of two directions, whose "
            f"tangents are not turned yet. Write nbflow.Flow(..., derivative='immediate')."
        )
    if asked.detach.probability is not None:
        raise NotImplementedError(
            "h_detach is given; expected None for a Stack of two directions, whose steps have two numbers each. Leave "
            "it out."
        )


def _refuse_with_ends(asked: Asked) -> None:
    """Refuse what has no gradient at the inputs and the first state, or none yet."""
    if not asked.wrt:
        return
    if asked.derivative or isinstance(asked.penalty, Regularizer):
        raise ValueError(
            "flow and wrt are both given; expected one, or a penalty of the states. The part of Omega at the inputs "
            "and the first state is not computed: leave the flow out for that of the loss."
        )
    for name, given in (("a clip by example", asked.groups), ("recompute_every", asked.every)):
        if given:
            raise ValueError(
                f"wrt and {name} are both given; expected one. The gradient at the inputs and the first state is that "
                f"of the loss, of one whole tape: ask for it in a call of its own."
            )


def _refuse_combinations(asked: Asked) -> None:
    """Refuse what has no meaning together, or is not there yet."""
    derivative, groups, every = asked.derivative, asked.groups, asked.every
    if groups and derivative:
        raise ValueError(
            "flow and a clip by example are both given; expected one. Omega has no gradient of its own for each "
            "example once it is a mean over them: clip the sum with nbflow.clip."
        )
    _refuse_with_ends(asked)
    if asked.inside.site and derivative:
        raise ValueError(
            "flow and clip_hidden are both given; expected one. Omega asks what J does to delta, and a clipped "
            "delta is none that J made. Leave one out."
        )
    if asked.detach.probability is not None and derivative:
        raise ValueError(
            "flow and h_detach are both given; expected one. Omega asks what J does to delta, and a J without h is "
            "another one. Leave one out."
        )
    if asked.noise is not None and asked.flow is not None and asked.penalty is load("flows", "flossing"):
        raise ValueError(
            "flow 'flossing' and noise are both given; expected one. Its Lyapunov exponents are those of the network "
            "without noise. Leave one out."
        )
    if every and derivative not in ("", "immediate"):
        raise ValueError(
            f"recompute_every and derivative {_check.said(derivative)} are both given; expected one. The other sweeps "
            f"of Omega need the whole tape: take 'immediate', or shorter sequences."
        )
    if every and groups:
        raise ValueError("recompute_every and a clip by example are both given; expected one. Leave one out.")
    if every and asked.state is not None:
        raise ValueError(
            "recompute_every and a state, or lengths, are both given; expected one. Cut the batch along T instead."
        )
