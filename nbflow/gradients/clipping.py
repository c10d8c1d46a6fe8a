"""Clipping a gradient before it is applied: norms, rule, non-finite policy, report, in that order."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._load import is_declared, load, names
from nbflow.cpu.report import read_report, read_rows
from nbflow.gradients._by_block import check_rule_by_block, spread
from nbflow.gradients._engine import engine_of
from nbflow.model import _arguments
from nbflow.model.stack import Model
from nbflow.records import LENGTHS, THRESHOLDS, AnyRule, Clip, Clipped, Floats, Rule, StatefulRule, Threshold


def clip(
    net: Model,
    d_theta: Floats,
    how: Clip,
    *,
    theta: Floats | None = None,
    rng: Any = None,
    backend: str = "cpu",
) -> Clipped:
    """Clip a gradient, and say what that did to it.

    Strictly above the threshold, without an epsilon: below it the gradient is bit-identical, above it the norm is the
    threshold to rounding. Norms of entries as large as 1e30 or as small as 1e-30 in float32 are right.

    Parameters
    ----------
    net : Network or Stack
        Of a stack the norm is that of all layers together; a rule of blocks or units takes those of every layer.
    d_theta : array of shape (P,) or (R, P)
        It is not changed.
    how : Clip
        Rule, threshold (in units of the gradient) and what to do with a gradient that is not finite: "random", a step
        of the threshold's length, or the clip's own, in a random direction (Goodfellow et al. 2016, section 10.11.1) ·
        "skip", 0 · "zero", set the bad entries to 0 and clip the rest · "shrink", 0.02 w_rec as the gradient of w_rec
        and 0 for all else (the code of Pascanu et al. 2013) · "raise" · "keep" it as it is.
    theta : array like d_theta, optional
        The parameters; rule "unit" and policy "shrink" need them.
    rng : None, int or numpy.random.Generator
        For rule and policy "random".
    backend : str
        "cpu", or "cuda" for a GPU.

    Returns
    -------
    Clipped

    Raises
    ------
    FloatingPointError
        If the policy is "raise" and an entry is NaN or Inf; it names the parameter.
    TypeError, ValueError
        If an argument makes no sense.

    Examples
    --------
    >>> import numpy as np, nbflow as nf
    >>> net = nf.Network(cell="tanh", n_in=2, n_hidden=3, n_out=1, loss="square", dtype="float64")
    >>> done = nf.clip(net, np.ones(net.size), nf.Clip("norm", 1.0))
    >>> round(done.norm, 3), round(done.clipped_norm, 3), round(done.cosine, 3), done.finite
    (4.69, 1.0, 1.0, True)
    """
    engine = engine_of(backend, net)
    rows, single = _arguments.parameters(net, d_theta, "d_theta", _arguments.model)
    threshold = check_clip(how, rows.shape[0], net)
    rule = load("clips", how.rule)
    refuse_memory(how)
    if theta is None and (how.nonfinite == "shrink" or rule.relative):
        raise ValueError(
            "theta is None; expected the parameters, for rule 'unit' or policy 'shrink'. Pass theta=theta."
        )
    if theta is not None:
        _arguments.theta_shape(net, theta, takes=_arguments.model)
        if theta.shape != d_theta.shape:
            raise ValueError(f"theta has shape {theta.shape}; expected {d_theta.shape}, as d_theta has. Pass its own.")
    # Made before anything is computed, so that a wrong one is refused, but a fresh one only where it is needed.
    generator = None if rng is None else _check.generator("rng", rng)
    weights = None if theta is None else np.ascontiguousarray(theta).reshape(rows.shape)

    def draw_seed() -> int:
        random = rule.random or how.nonfinite == "random"
        return int((generator or _check.generator("rng", None)).integers(2**63)) if random else 0

    out, report, mended = engine.clip(net, how, rows, threshold, weights, draw_seed)
    if single:
        return Clipped(out[0], *next(read_rows(report, mended, rule, net.size)))
    return Clipped(out, *read_report(report, mended, rule, net.size))


def load_rule(name: str, **settings: float) -> AnyRule:
    """Return the rule of clipping of this name, for `Clip(rule, threshold)`.

    Parameters
    ----------
    name : str
        One of `nbflow.names("clips")`. The top of its file gives formula and source.
    **settings : float
        Settings that differ from its own, of a rule that has some: see `StatefulRule.settings`.

    Returns
    -------
    Rule or StatefulRule

    Raises
    ------
    TypeError, ValueError
        If there is no such name or setting, or a setting is out of range.

    Examples
    --------
    >>> import nbflow as nf
    >>> nf.load_rule("adagc", warmup=20).settings
    {'relative': 1.05, 'decay': 0.98, 'warmup': 20.0}
    >>> recipe = nf.Recipe(clip=nf.Clip(nf.load_rule("adagc", warmup=20), 1.0))
    """
    if not isinstance(name, str):
        raise TypeError(
            f"name is {_check.said(name)}; expected one of {', '.join(names('clips'))}. Choose one of these."
        )
    found: AnyRule = load("clips", name)
    if isinstance(found, Rule) or not settings:
        _check.settings({}, settings)
        return found
    return dataclasses.replace(found, settings=_check.settings(found.settings, settings, found.limits))


def refuse_memory(how: Clip) -> None:
    """Refuse a rule that remembers where there is nothing to remember."""
    if isinstance(load("clips", how.rule), StatefulRule):
        raise TypeError(
            f"rule is {_check.said(how.rule)}, which remembers gradients; expected one that does not: a single clip "
            f"knows no update. Use it in the recipe of nbflow.train."
        )


def check_clip(how: Any, replicas: int, net: Model) -> Floats:
    """Check a Clip; return its threshold (R,), or by block (R, blocks)."""
    if not isinstance(how, Clip):
        raise TypeError(f"clip is a {type(how).__name__}; expected a Clip. Write nbflow.Clip('norm', 1.0).")
    rule = load("clips", how.rule, "rule")
    if not is_declared(rule):
        from nbflow import _probe

        (_probe.check_stateful_rule if isinstance(rule, StatefulRule) else _probe.check_rule)(rule, net.dtype)
    if how.length is not None:
        _check_length(how, rule, replicas, net.dtype)
    elif isinstance(rule, StatefulRule) and rule.relative and how.nonfinite == "random":
        raise ValueError(
            f"nonfinite is 'random' with rule {_check.said(how.rule)}, whose threshold is no length; expected another "
            f"policy. Write nonfinite='skip', say, or length=."
        )
    if isinstance(how.threshold, dict):
        check_rule_by_block(how, rule)
        return spread({name: _one_of_block(name, value, replicas, net.dtype) for name, value in how.threshold.items()},
                      net, replicas)  # fmt: skip
    if isinstance(how.threshold, str | Threshold) or callable(how.threshold):
        raise TypeError(
            f"threshold is {_check.said(how.threshold)}; expected a number, or one per replica: a single clip knows no "
            f"update and no past norms. Give a float, or use it in the recipe of nbflow.train."
        )
    return _check.per_replica("threshold", how.threshold, replicas, dtype=net.dtype, **THRESHOLDS)


def _check_length(how: Clip, rule: AnyRule, replicas: int, dtype: str) -> None:
    """Refuse a length that does not fit the network, and one of a clip that takes no random steps."""
    if how.nonfinite != "random" and not (isinstance(rule, Rule) and rule.random):
        raise ValueError(
            f"length is {_check.said(how.length)} with rule {_check.said(how.rule)} and nonfinite "
            f"{_check.said(how.nonfinite)}, which take no random steps; expected none. Leave it out."
        )
    _check.per_replica("length", how.length, replicas, dtype=dtype, **LENGTHS)


def _one_of_block(name: str, value: Any, replicas: int, dtype: str) -> Floats | None:
    """Return the threshold of a block (R,), or None for one that is exempt."""
    what = f"threshold[{_check.said(name)}]"
    if callable(value):
        raise TypeError(
            f"{what} is {_check.said(value)}; expected a number, or one per replica: a single clip knows no update. "
            f"Give a float, or use it in the recipe of nbflow.train."
        )
    return None if value is None else _check.per_replica(what, value, replicas, dtype=dtype, **THRESHOLDS)
