"""What scripts/flow.py looks at: gradients by lag, gains, spectra, and the three derivatives of Omega."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

import nbflow as nf
from nbflow.records import Floats
from nbflow.statistics import mean_interval

DERIVATIVES = ("immediate", "detached", "exact")
PAIRS = (("immediate", "exact"), ("detached", "exact"), ("immediate", "detached"))
# What two derivatives are compared in: all of dOmega/dtheta, its part at w_rec, and what an update follows, the
# gradient of the loss and alpha Omega together.
PARTS = ("all", "w_rec", "step")
# Edges of the histogram of gains, 40 bins to a decade.
EDGES = np.geomspace(1e-2, 1e2, 161)


class Span(NamedTuple):
    """A mean over seeds, and its 95 % interval by Student's t; (...) each, NaN for one seed."""

    mean: Any
    low: Any
    high: Any


class Look(NamedTuple):
    """A trained network, R seeds of it, at one moment; in float64, on sequences that no training sees."""

    by_lag: Floats  #: (R, T+1); ||delta|| by steps back, geometric mean over sequences, relative to the last step's
    gains: Floats  #: (R, bins); the part of all steps and sequences with a gain between two of EDGES
    median_gain: Floats  #: (R,)
    exponents: Floats  #: (R, k); Lyapunov exponents in nats a step, mean over sequences
    singular: Floats  #: (R, k); singular values of ds_T/ds_0, geometric mean over sequences


class Comparison(NamedTuple):
    """The three derivatives of Omega at one moment of training; a mean over minibatches for every seed."""

    cosine: dict[str, dict[str, Floats]]  #: by part and pair; (R,)
    ratio: dict[str, dict[str, Floats]]  #: by part and pair, the norm of the first over that of the second; (R,)
    omega: Floats  #: (R,)


class Cost(NamedTuple):
    """The time of a gradient with Omega over that of a plain one: the median over rounds, and its 95 % interval."""

    median: float
    low: float
    high: float


def over_seeds(values: Any, logarithmic: bool = False) -> Span:
    """Return the mean over the first axis, geometric if wanted, and Student's t interval."""
    rows = np.moveaxis(np.asarray(values, float), 0, -1)
    with np.errstate(divide="ignore", over="ignore"):
        found = mean_interval(np.log(rows) if logarithmic else rows)[:3]
        return Span(*(np.exp(part) if logarithmic else part for part in found))


def precise(net: nf.Network) -> nf.Network:
    return dataclasses.replace(net, dtype="float64")


def look(net: nf.Network, theta: Floats, batch: nf.Batch, orbits: Any, k: int) -> Look:
    """Look at R networks.

    Parameters
    ----------
    net : Network
    theta : array of shape (R, P)
    batch : Batch
        For R networks, in float64; the loss counts at the last step of every sequence.
    orbits : inputs (T, B, N) or tokens (T, B)
        What Lyapunov exponents are measured along; the first quarter turns the basis.
    k : int
        Exponents and singular values, or all where there are fewer.
    """
    net, theta = precise(net), theta.astype(np.float64)
    k = min(k, len(net.cell_object.states) * net.n_hidden)
    seen = nf.gains_by_lag(net, theta, batch)
    left = seen.delta_norm.mean
    with np.errstate(divide="ignore"):
        exponents = [
            nf.lyapunov_exponents(net, row, orbits, k, discard=len(orbits) // 4).values.mean(axis=0) for row in theta
        ]
        singular = [
            np.exp(np.log(nf.jacobian_singular_values(net, row, inputs, k).values).mean(axis=0))
            for row, inputs in zip(theta, batch.inputs[:, :, : orbits.shape[1]], strict=True)
        ]
    return Look(
        by_lag=left / left[:, :1],
        gains=np.array([np.histogram(gain, EDGES)[0] / gain.size for gain in seen.gains]),
        median_gain=np.nanmedian(seen.gains, axis=(1, 2)),
        exponents=np.array(exponents),
        singular=np.array(singular),
    )


def compare(net: nf.Network, theta: Floats, batches: Sequence[nf.Batch], flow: nf.Flow) -> Comparison:
    """Compare the three derivatives of Omega at theta (R, P), in float64.

    alpha dOmega/dtheta is the gradient with Omega less the gradient without.
    """
    net, theta = precise(net), theta.astype(np.float64)
    cosine: dict[str, dict[str, list[Any]]] = {part: {said(pair): [] for pair in PAIRS} for part in PARTS}
    ratio: dict[str, dict[str, list[Any]]] = {part: {said(pair): [] for pair in PAIRS} for part in PARTS}
    omega = []
    for batch in batches:
        plain = nf.gradient(net, theta, batch).d_theta
        found: dict[str, dict[str, Floats]] = {part: {} for part in PARTS}
        for derivative in DERIVATIVES:
            out = nf.gradient(net, theta, batch, flow=dataclasses.replace(flow, derivative=derivative))
            d_omega = out.d_theta - plain
            found["all"][derivative], found["step"][derivative] = d_omega, out.d_theta
            found["w_rec"][derivative] = nf.unpack(net, d_omega).w_rec.reshape(len(theta), -1)
        omega.append(out.omega)
        for part, pair in itertools.product(PARTS, PAIRS):
            one, other = (found[part][derivative] for derivative in pair)
            norms = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                cosine[part][said(pair)].append((one * other).sum(axis=1) / (norms[0] * norms[1]))
                ratio[part][said(pair)].append(norms[0] / norms[1])
    means = [
        {part: {pair: np.mean(rows, axis=0) for pair, rows in pairs.items()} for part, pairs in table.items()}
        for table in (cosine, ratio)
    ]
    return Comparison(means[0], means[1], np.mean(omega, axis=0))


def said(pair: tuple[str, str]) -> str:
    return f"{pair[0]} and {pair[1]}"


def costs(net: nf.Network, theta: Floats, batch: nf.Batch, flow: nf.Flow, rounds: int) -> dict[str, Cost]:
    """Time the gradient with each derivative of Omega against a plain one, in turn, in the dtype of training."""
    flows = {name: dataclasses.replace(flow, derivative=name) for name in DERIVATIVES}
    ways: dict[str, nf.Flow | None] = {"plain": None, **flows}
    space, taken = nf.workspace(net, batch), {name: np.zeros(rounds) for name in ways}
    for name in ways:  # nothing is compiled or allocated while it is timed
        nf.gradient(net, theta, batch, flow=ways[name], workspace=space)
    names = list(ways)
    for n in range(rounds):
        for name in names[n % len(names) :] + names[: n % len(names)]:
            start = time.perf_counter()
            nf.gradient(net, theta, batch, flow=ways[name], workspace=space)
            taken[name][n] = time.perf_counter() - start
    found = {}
    for name in DERIVATIVES:
        ratios = taken[name] / taken["plain"]
        median = stats.quantile_test(ratios, q=1.0, p=0.5).confidence_interval(0.95)
        found[name] = Cost(float(np.median(ratios)), float(median.low), float(median.high))
    return found
