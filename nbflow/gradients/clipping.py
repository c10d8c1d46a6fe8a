"""Clipping a gradient before it is applied: norms, rule, non-finite policy, report, in that order."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from nbflow import _check
from nbflow._load import load
from nbflow.cpu.report import CLIPPED_NORM, CLIPPED_SCALE, COLUMNS, ENTRIES, FINITE, INNER, SCALE
from nbflow.gradients._choices import backend_there
from nbflow.gradients.gradient import per_network
from nbflow.model import _layout as layout
from nbflow.model.network import Network
from nbflow.records import Clip, Clipped, Floats, Rule, Threshold

POLICIES = ("random", "skip", "zero", "shrink", "raise", "keep")
SHRINK = 0.02
ENDLESS = "A random step has the threshold's length, and that is"


def clip(
    net: Network,
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
    net : Network
    d_theta : array of shape (P,) or (R, P)
        It is not changed.
    how : Clip
        Rule, threshold (in units of the gradient) and what to do with a gradient that is not finite: "random", a step
        of the threshold's length in a random direction (Goodfellow et al. 2016, section 10.11.1) · "skip", 0 · "zero",
        set the bad entries to 0 and clip the rest · "shrink", 0.02 w_rec as the gradient of w_rec and 0 for all else
        (the code of Pascanu et al. 2013) · "raise" · "keep" it as it is.
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
    backend_there(backend)
    rows, single = _check.parameters(net, d_theta, "d_theta")
    threshold = check_clip(how, rows.shape[0], net.dtype)
    rule = load("clips", how.rule)
    if theta is None and (how.nonfinite == "shrink" or rule.relative):
        raise ValueError(
            "theta is None; expected the parameters, for rule 'unit' or policy 'shrink'. Pass theta=theta."
        )
    if theta is not None:
        _check.theta_shape(net, theta)
        if theta.shape != d_theta.shape:
            raise ValueError(f"theta has shape {theta.shape}; expected {d_theta.shape}, as d_theta has. Pass its own.")
    # Made before anything is computed, so that a wrong one is refused, but a fresh one only where it is needed.
    generator = None if rng is None else _check.generator("rng", rng)
    if backend == "cuda":
        return _on_card(net, how, rows, threshold, theta, generator, single)
    clipper = Clipper(net, how, rows.shape[0])
    out = np.empty_like(rows)
    weights = None if theta is None else np.ascontiguousarray(theta).reshape(rows.shape)
    clipper.apply(rows, out, threshold, weights)
    if clipper.needs_mending():
        random = rule.random or how.nonfinite == "random"
        seed = int((generator or _check.generator("rng", None)).integers(2**63)) if random else 0
        clipper.mend(rows, out, threshold, weights, seed, 0)
    return Clipped(out[0], *clipper.read_one()) if single else Clipped(out, *clipper.read())


def _on_card(
    net: Network, how: Clip, rows: Floats, threshold: Floats, theta: Any, generator: Any, single: bool
) -> Clipped:
    """Clip checked arguments by backend "cuda"."""
    from nbflow.cuda.clipping import run_clip, run_mend

    rule: Rule = load("clips", how.rule)
    space = run_clip(net, rule, rows, threshold, theta, how.nonfinite)
    report = space.read_clip_report()
    finite = report[:, FINITE] != 0
    if how.nonfinite == "raise" and not finite.all():
        r = int(np.flatnonzero(~finite)[0])
        raise FloatingPointError(where_not_finite(net, rows[r], r, rows.shape[0]))
    if not finite.all() or (rule.random and report[:, ENTRIES].any()):
        random = rule.random or how.nonfinite == "random"
        if how.nonfinite == "random" and not finite.all():
            refuse_endless_step(threshold[~finite])
        seed = int((generator or _check.generator("rng", None)).integers(2**63)) if random else 0
        report = run_mend(space, how.nonfinite, seed)
    mended = {int(r): tuple(report[r, len(COLUMNS) :]) for r in np.flatnonzero(~finite)}
    seen = read_report(report[:, : len(COLUMNS)], mended, rule, net.size)
    out = space.read("D_THETA", net.size)
    return Clipped(out[0] if single else out, *(per_network(part, single) for part in seen))


def refuse_endless_step(threshold: Floats) -> None:
    """Refuse thresholds that are infinite, where a gradient that is not finite would become a step of that length."""
    if np.isinf(threshold).any():
        raise ValueError(
            f"threshold is {threshold.max()}; expected a finite one for policy 'random'. {ENDLESS} inf where a "
            f"gradient is not finite. Give a finite one, or nonfinite='keep'."
        )


def check_clip(how: Any, replicas: int, dtype: str) -> Floats:
    """Check a Clip; return its threshold (R,)."""
    if not isinstance(how, Clip):
        raise TypeError(f"clip is a {type(how).__name__}; expected a Clip. Write nbflow.Clip('norm', 1.0).")
    load("clips", how.rule, "rule")
    if isinstance(how.threshold, str | Threshold) or callable(how.threshold):
        raise TypeError(
            f"threshold is {how.threshold!r}; expected a number, or one per replica: a single clip knows no update and "
            f"no past norms. Give a float, or use it in the recipe of nbflow.train."
        )
    _check.choice("nonfinite", how.nonfinite, POLICIES)
    return _check.per_replica("threshold", how.threshold, replicas, least=0.0, above=True, dtype=dtype)


class Clipper:
    """A compiled rule with room for its report; the training loop keeps one."""

    def __init__(self, net: Network, how: Clip, replicas: int, replica_ids: Any = None) -> None:
        self.net, self.how = net, how
        self.ids = range(replicas) if replica_ids is None else replica_ids  # under which random steps are drawn
        self.rule: Rule = load("clips", how.rule)
        self.dtype = net.scalar
        self._clip, self._groups = _compiled(net, self.rule)
        self.report = np.empty((replicas, len(COLUMNS)), self.dtype)
        self.report.fill(1)
        self._mended: dict[int, tuple[float, float]] = {}

    def _run(self, d: Floats, out: Floats, threshold: Floats, report: Floats, theta: Floats | None) -> None:
        held = threshold.astype(self.dtype)
        if self._groups is None:
            self._clip(d, out, held, report)
        else:
            self._clip(d, out, held, report, d if theta is None else theta, self._groups)

    def apply(self, rows: Floats, out: Floats, threshold: Floats, theta: Floats | None) -> None:
        """Clip every finite row into `out`; the report says which are."""
        self._mended.clear()
        self._run(rows, out, threshold, self.report, theta)

    def needs_mending(self) -> bool:
        """Tell whether a row is not finite, or waits for a random step."""
        return 0.0 in self.report[:, FINITE].tolist() or (self.rule.random and bool(self.report[:, ENTRIES].any()))

    def mend(self, rows: Floats, out: Floats, threshold: Floats, theta: Any, seed: int, index: int) -> None:
        """Apply the policy to every row that is not finite, and a random step to every one that asks for it."""
        if self.rule.random:
            for r in np.flatnonzero((self.report[:, FINITE] != 0) & (self.report[:, ENTRIES] > 0)):
                self._step_at_random(rows[r], out[r], float(threshold[r]), seed, int(r), index)
        for r in np.flatnonzero(self.report[:, FINITE] == 0):
            fraction = 1.0
            if self.how.nonfinite == "zero":
                weights = None if theta is None else theta[r : r + 1]
                fraction = self._zero(rows[r], out[r], float(threshold[r]), weights, seed, int(r), index)
            else:
                out[r] = self._replacement(rows[r], threshold[r], theta, seed, int(r), index)
            norm = float(np.linalg.norm(out[r].astype(np.float64)))
            self._mended[int(r)] = norm, 0.0 if self.how.nonfinite == "keep" else fraction

    def _step_at_random(self, row: Floats, out: Floats, threshold: float, seed: int, r: int, index: int) -> None:
        """Put a random step in the place of a clipped gradient, and into the report."""
        report = self.report[r]
        scaled = float(report[SCALE]) * row.astype(np.float64)
        step = random_step(row.size, threshold, seed, self.ids[r], index)
        out[...] = step
        report[[CLIPPED_NORM, CLIPPED_SCALE, INNER, ENTRIES]] = threshold, 1.0, scaled @ step, row.size

    def _zero(self, row: Floats, out: Floats, threshold: float, theta: Any, seed: int, r: int, index: int) -> float:
        """Set bad entries to 0 and clip the rest; return the part of entries that changed."""
        report = np.ones((1, len(COLUMNS)), self.dtype)
        bad = ~np.isfinite(row)
        cleaned = np.where(bad, self.dtype(0), row)[None]
        self._run(cleaned, out[None], np.full(1, threshold), report, theta)
        if self.rule.random and report[0, ENTRIES] > 0:
            out[...] = random_step(row.size, threshold, seed, self.ids[r], index)
        if self.rule.over == "all":
            return 1.0
        return float(min(1.0, (bad.sum() + report[0, ENTRIES]) / row.size))

    def _replacement(self, row: Floats, threshold: float, theta: Any, seed: int, r: int, index: int) -> Any:
        policy = self.how.nonfinite
        if policy == "random":
            if math.isinf(threshold):
                where = where_not_finite(self.net, row, r, self.report.shape[0])
                raise FloatingPointError(f"{where} {ENDLESS} {threshold}: give a finite one.")
            return random_step(row.size, threshold, seed, self.ids[r], index)
        if policy == "shrink":
            step = np.zeros_like(row)
            w_rec = layout.blocks(self.net)["w_rec"]
            step[w_rec] = SHRINK * theta[r, w_rec]
            return step
        if policy == "raise":
            raise FloatingPointError(where_not_finite(self.net, row, r, self.report.shape[0]))
        return row if policy == "keep" else 0.0

    def read(self) -> tuple[Any, ...]:
        """Return norm, clipped_norm, fraction, cosine and finite, each (R,)."""
        return read_report(self.report, self._mended, self.rule, self.net.size)

    def read_one(self) -> tuple[float, float, float, float, bool]:
        """Return the same of the first row, as plain numbers."""
        return next(_read_rows(self.report, self._mended, self.rule, self.net.size))


def read_report(report: Floats, mended: dict[int, Any], rule: Rule, size: int) -> tuple[Any, ...]:
    """Return norm, clipped_norm, fraction, cosine and finite (R,); `mended` has norm and fraction of some replicas."""
    return tuple(np.array(column) for column in zip(*_read_rows(report, mended, rule, size), strict=True))


def _read_rows(
    report: Floats, mended: dict[int, Any], rule: Rule, size: int
) -> Iterator[tuple[float, float, float, float, bool]]:
    for r, (norm, scale, clipped, clipped_scale, inner, entries, finite) in enumerate(report.tolist()):
        fraction = float(entries > 0) if rule.over == "all" else entries / size
        # A product of two norms that scales have made moderate; 0 where a norm is.
        product = norm * clipped
        cosine = min(max(inner / product, -1.0), 1.0) if finite and product else math.nan
        clipped = clipped / clipped_scale
        if r in mended:
            clipped, fraction = mended[r]
        yield norm / scale if finite else math.nan, clipped, fraction, cosine, finite != 0


@functools.lru_cache(256)
def _compiled(net: Network, rule: Rule) -> tuple[Any, Any]:
    """Return the compiled loop of a rule, and the groups of parameters that it is given, if any."""
    from nbflow.cpu.clip import build_clip, build_group_clip

    if rule.over in ("all", "entry"):
        return build_clip(rule.clip, rule.over, net.scalar), None
    groups = layout.units(net) if rule.over == "unit" else layout.arrays(net)
    return build_group_clip(rule.clip, rule.relative, net.scalar), groups


def random_step(size: int, length: float, seed: int, replica: int, index: int) -> Floats:
    """Return a step of the given length in a uniformly random direction, as float64."""
    from nbflow.cpu.direction import build_normals

    direction = np.empty(size)
    build_normals()(direction, seed, replica, index)
    step: Floats = direction * (length / np.linalg.norm(direction))
    return step


def where_not_finite(net: Network, row: Floats, r: int, replicas: int) -> str:
    """Say which parameters have a gradient that is not finite."""
    counts = {name: int((~np.isfinite(row[block])).sum()) for name, block in layout.blocks(net).items()}
    bad = ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
    of = f" of replica {r}" if replicas > 1 else ""
    return f"the gradient{of} is not finite in {bad}; lower lr or the threshold, or choose another nonfinite policy."
