"""The toolkit in slow, obvious NumPy: the reference that the compiled code is held against.

Loops over time and sequences are written out, and no derivative of a cell or a loss is derived by hand: each is a
complex step (Squire & Trapp 1998), f'(x) = Im f(x + ih) / h, which has no cancellation and so is exact to rounding.
Nothing here knows of replicas, and nothing here is fast.

Symbols: T steps, B sequences, N inputs, H hidden units, M outputs, G gates, S state lines.
A batch is a tuple (inputs, targets, weights): inputs (T,B,N) numbers or (T,B) tokens, targets (T,B) classes or (T,B,M)
numbers, weights (T,B). A gradient flow is recorded by `backward` in a `Flow`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Params = dict[str, Array]
Batch = tuple[Array, Array, Array]

TINY = 1e-20  # the complex step
BOUND = 1e-20  # the least ||delta||^2 that Omega counts
FLOOR = 1e-20  # the least q that the log penalty tells from zero


# ---------------------------------------------------------------------------------------------------------------- cells


class Cell(NamedTuple):
    """A recurrent cell: s_t = step(a_in, a_rec, s_{t-1}), acting on each unit by itself."""

    gates: int
    states: int
    has_bias_rec: bool
    step: Callable[[Array, Array, Array], Array]


def sigmoid(a: Array) -> Array:
    """Return 1 / (1 + exp(-a)) by whichever form does not overflow; complex-safe."""
    positive = np.real(a) > 0
    e = np.exp(np.where(positive, -a, a))
    value: Array = np.where(positive, 1, e) / (1 + e)
    return value


def relu(a: Array) -> Array:
    """Return a where its real part is positive, else 0; NaN stays NaN."""
    return np.where(np.real(a) <= 0, 0, a)


def _simple(phi: Callable[[Array], Array]) -> Cell:
    """Return the simple recurrent cell h = phi(a_in + a_rec) (book eq. 10.8-10.9)."""
    return Cell(1, 1, False, lambda a_in, a_rec, s: phi(a_in + a_rec))


def _lstm(a_in: Array, a_rec: Array, s: Array) -> Array:
    """Return (h, c) of the LSTM without peepholes (Gers et al. 2000; book eq. 10.40-10.44), gates i f g o."""
    i, f, o = sigmoid(a_in[0] + a_rec[0]), sigmoid(a_in[1] + a_rec[1]), sigmoid(a_in[3] + a_rec[3])
    g = np.tanh(a_in[2] + a_rec[2])
    c = f * s[1] + i * g
    return np.stack([o * np.tanh(c), c])


def _gru(a_in: Array, a_rec: Array, s: Array) -> Array:
    """Return h of the GRU (Cho et al. 2014) with the reset after the product, as cuDNN has it, gates r z n."""
    r, z = sigmoid(a_in[0] + a_rec[0]), sigmoid(a_in[1] + a_rec[1])
    n = np.tanh(a_in[2] + r * a_rec[2])
    return np.stack([(1 - z) * n + z * s[0]])


CELLS: dict[str, Cell] = {
    "tanh": _simple(np.tanh),
    "sigmoid": _simple(sigmoid),
    "relu": _simple(relu),
    "linear": _simple(lambda a: a),
    "lstm": Cell(4, 2, False, _lstm),
    "gru": Cell(3, 1, True, _gru),
}


# ----------------------------------------------------------------------------------------------------------- parameters


def sizes(cell: str, N: int, H: int, M: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter, in the order in which they stand in theta."""
    G = CELLS[cell].gates
    return {
        "w_in": (N, G, H),
        "w_rec": (H, G, H),
        "bias": (G, H),
        "bias_rec": (G, H) if CELLS[cell].has_bias_rec else (0,),
        "w_out": (H, M),
        "b_out": (M,),
    }


def slices(shapes: dict[str, tuple[int, ...]]) -> dict[str, slice]:
    """Return where each parameter lies in theta."""
    where, start = {}, 0
    for name, shape in shapes.items():
        stop = start + int(np.prod(shape))
        where[name] = slice(start, stop)
        start = stop
    return where


def unpack(theta: Array, cell: str, N: int, H: int, M: int) -> Params:
    """Cut theta (P,) into named arrays, in float64 (or complex128)."""
    theta = np.asarray(theta)
    theta = theta.astype(np.result_type(theta, np.float64))
    shapes = sizes(cell, N, H, M)
    where = slices(shapes)
    wanted = max(s.stop for s in where.values())
    if theta.shape != (wanted,):
        raise ValueError(f"theta has shape {theta.shape}; expected ({wanted},)")
    return {name: theta[where[name]].reshape(shape) for name, shape in shapes.items()}


def pack(params: Params) -> Array:
    """Join the named arrays into theta (P,)."""
    names = ("w_in", "w_rec", "bias", "bias_rec", "w_out", "b_out")
    return np.concatenate([np.ravel(params[name]) for name in names])


# -------------------------------------------------------------------------------------------------------------- forward


def preactivations(p: Params, cell: str, x: Array, s: Array) -> tuple[Array, Array]:
    """Return a_in = x @ w_in + bias and a_rec = h @ w_rec (+ bias_rec), each (G,H), of one step of one sequence."""
    a_in = p["bias"] + (p["w_in"][x] if np.ndim(x) == 0 else np.einsum("n,ngh->gh", x, p["w_in"]))
    a_rec = np.einsum("k,kgh->gh", s[0], p["w_rec"])
    return a_in, a_rec + p["bias_rec"] if CELLS[cell].has_bias_rec else a_rec


@np.errstate(over="ignore", invalid="ignore")
def forward(p: Params, cell: str, inputs: Array, s0: Array | None = None) -> Array:
    """Return the states (T+1,B,S,H), the initial one (s0 (B,S,H), else zeros) first (book eq. 10.8-10.9)."""
    inputs = np.asarray(inputs)
    T, B = inputs.shape[:2]
    S, H = CELLS[cell].states, p["w_rec"].shape[0]
    start = np.zeros((B, S, H)) if s0 is None else np.asarray(s0)
    kind = np.result_type(np.float64, p["w_in"], start, *([inputs] if inputs.ndim == 3 else []))
    states = np.zeros((T + 1, B, S, H), dtype=kind)
    states[0] = start
    for b in range(B):
        for t in range(1, T + 1):
            a_in, a_rec = preactivations(p, cell, inputs[t - 1, b], states[t - 1, b])
            states[t, b] = CELLS[cell].step(a_in, a_rec, states[t - 1, b])
    return states


@np.errstate(over="ignore", invalid="ignore")
def outputs(p: Params, states: Array) -> Array:
    """Return y = h @ w_out + b_out, (T,B,M), of every state but the initial one (book eq. 10.10)."""
    T, B = states.shape[0] - 1, states.shape[1]
    y = np.zeros((T, B, p["b_out"].size), dtype=np.result_type(states, p["w_out"]))
    for t in range(T):
        for b in range(B):
            y[t, b] = states[t + 1, b, 0] @ p["w_out"] + p["b_out"]
    return y


# --------------------------------------------------------------------------------------------------------------- losses


def _softmax(y: Array, target: Array) -> Any:
    """Return -log softmax(y)[target] in nats (book eq. 6.30)."""
    top = np.max(np.real(y))
    return (top - y[target]) + np.log(np.sum(np.exp(y - top)))


def _square(y: Array, target: Array) -> Any:
    """Return the squared error, summed over the outputs."""
    return np.sum((y - target) ** 2)


def _bernoulli(y: Array, target: Array) -> Any:
    """Return the binary cross-entropy softplus(y) - target y, in nats, summed over the outputs (book eq. 6.24-6.26)."""
    positive = np.real(y) > 0
    size = np.where(positive, y, -y)
    return np.sum(np.where(positive, y * (1 - target), -target * y) + np.log1p(np.exp(-size)))


LOSSES: dict[str, Callable[[Array, Array], Any]] = {"softmax": _softmax, "square": _square, "bernoulli": _bernoulli}


@np.errstate(over="ignore", invalid="ignore")
def loss(name: str, y: Array, targets: Array, weights: Array) -> Any:
    """Return L = sum over t, b of weights[t,b] * l(y[t,b], targets[t,b]); a zero weight silences even a NaN."""
    total = 0.0
    T, B = np.shape(weights)
    for t in range(T):
        for b in range(B):
            if weights[t, b] != 0:
                total = total + weights[t, b] * LOSSES[name](y[t, b], targets[t, b])
    return total


@np.errstate(over="ignore", invalid="ignore")
def loss_slope(name: str, y: Array, targets: Array, weights: Array) -> Array:
    """Return dL/dy (T,B,M) by complex step, exactly zero where the weight is zero."""
    slope = np.zeros(y.shape)
    T, B, M = y.shape
    for t in range(T):
        for b in range(B):
            if weights[t, b] == 0:
                continue
            for m in range(M):
                nudged = y[t, b].astype(complex)
                nudged[m] += 1j * TINY
                slope[t, b, m] = weights[t, b] * (LOSSES[name](nudged, targets[t, b]).imag / TINY)
    return slope


# ------------------------------------------------------------------------------------------------------------- backward


class Pulled(NamedTuple):
    """What one step makes of delta_t: v = J^T delta, the gradients at a_in and a_rec, and v less its w_rec part."""

    v: Array
    e_in: Array
    e_rec: Array
    direct: Array


class Flow(NamedTuple):
    """The gradients of one batch by time step.

    states and delta are (T+1,B,S,H), delta[t] = dL/ds_t in total. For step t = 1..T, at index t-1: v (T,B,S,H) is
    J_t^T delta_t, direct (T,B,S,H) the part of v that does not pass through w_rec, e_in and e_rec (T,B,G,H) the
    gradients at a_in and a_rec, gain (T,B) = ||v_t|| / ||delta_t||, NaN where delta_t is zero.
    """

    loss: float
    states: Array
    delta: Array
    v: Array
    direct: Array
    e_in: Array
    e_rec: Array
    gain: Array
    d_params: Params


def partials(cell: str, a_in: Array, a_rec: Array, s: Array) -> tuple[Array, Array, Array]:
    """Return d step / d a_in (G,S,H), / d a_rec (G,S,H) and / d s (S,S,H), by complex step, the nudged line first."""
    found = []
    for k, argument in enumerate((a_in, a_rec, s)):
        slopes = []
        for line in range(len(argument)):
            nudged = [a_in, a_rec, s]
            nudged[k] = argument.astype(complex)
            nudged[k][line] += 1j * TINY
            slopes.append(np.imag(CELLS[cell].step(*nudged)) / TINY)
        found.append(np.stack(slopes))
    return found[0], found[1], found[2]


@np.errstate(over="ignore", invalid="ignore")
def jacobian(p: Params, cell: str, x: Array, s: Array) -> Array:
    """Return J = ds_t/ds_{t-1} (S*H,S*H) of one sequence at s_{t-1} = s (S,H): column j nudges entry j of s."""
    J = np.zeros((s.size, s.size))
    for j in range(s.size):
        nudged = s.astype(complex)
        nudged.flat[j] += 1j * TINY
        J[:, j] = np.imag(CELLS[cell].step(*preactivations(p, cell, x, nudged), nudged)).ravel() / TINY
    return J


@np.errstate(over="ignore", invalid="ignore")
def pull_back(p: Params, cell: str, x: Array, s: Array, delta: Array) -> Pulled:
    """Send delta_t (S,H) back through one step taken from s_{t-1} = s (Pascanu 2013 eq. 5; book eq. 10.20)."""
    to_in, to_rec, to_s = partials(cell, *preactivations(p, cell, x, s), s)
    e_in = np.einsum("gsh,sh->gh", to_in, delta)
    e_rec = np.einsum("gsh,sh->gh", to_rec, delta)
    direct = np.einsum("lsh,sh->lh", to_s, delta)
    v = direct.copy()
    v[0] += np.einsum("gh,kgh->k", e_rec, p["w_rec"])
    return Pulled(v, e_in, e_rec, direct)


@np.errstate(over="ignore", invalid="ignore")
def backward(p: Params, cell: str, loss_name: str, batch: Batch, s0: Array | None = None, detached: Any = ()) -> Flow:
    """Back-propagate through time (book eq. 10.18-10.28); of a zero delta_t nothing flows, not even NaN.

    At a step t in `detached`, h_{t-1} is a constant to the pre-activations (h-detach, Arpit et al. 2018).
    """
    inputs, targets, weights = (np.asarray(a) for a in batch)
    states = forward(p, cell, inputs, s0)
    y = outputs(p, states)
    slope = loss_slope(loss_name, y, targets, weights)
    T, B, G, H = len(y), y.shape[1], CELLS[cell].gates, p["w_rec"].shape[0]
    delta, v, direct = np.zeros(states.shape), np.zeros(states[1:].shape), np.zeros(states[1:].shape)
    e_in, e_rec = np.zeros((T, B, G, H)), np.zeros((T, B, G, H))
    gain = np.full((T, B), np.nan)
    d = {name: np.zeros(a.shape) for name, a in p.items()}
    for b in range(B):
        for t in range(T, 0, -1):
            if weights[t - 1, b] != 0:
                delta[t, b, 0] += p["w_out"] @ slope[t - 1, b]
                d["w_out"] += np.outer(states[t, b, 0], slope[t - 1, b])
                d["b_out"] += slope[t - 1, b]
            if not delta[t, b].any():
                continue
            x, before = inputs[t - 1, b], states[t - 1, b]
            back = pull_back(p, cell, x, before, delta[t, b])
            if t in detached:
                back = back._replace(v=back.direct)
            delta[t - 1, b] = back.v
            v[t - 1, b], direct[t - 1, b], e_in[t - 1, b], e_rec[t - 1, b] = back.v, back.direct, back.e_in, back.e_rec
            gain[t - 1, b] = length(back.v) / length(delta[t, b])
            if np.ndim(x) == 0:
                d["w_in"][x] += back.e_in
            else:
                d["w_in"] += np.einsum("n,gh->ngh", x, back.e_in)
            d["w_rec"] += np.einsum("k,gh->kgh", before[0], back.e_rec)
            d["bias"] += back.e_in
            if CELLS[cell].has_bias_rec:
                d["bias_rec"] += back.e_rec
    return Flow(float(loss(loss_name, y, targets, weights)), states, delta, v, direct, e_in, e_rec, gain, d)


def loss_of(
    theta: Array, cell: str, N: int, H: int, M: int, loss_name: str, batch: Batch, s0: Array | None = None
) -> Any:
    """Return the loss as a function of theta; complex-safe."""
    p = unpack(theta, cell, N, H, M)
    return loss(loss_name, outputs(p, forward(p, cell, batch[0], s0)), batch[1], batch[2])


def gradient(
    theta: Array, cell: str, N: int, H: int, M: int, loss_name: str, batch: Batch, s0: Array | None = None
) -> tuple[float, Array]:
    """Return the loss and its gradient (P,)."""
    flow = backward(unpack(theta, cell, N, H, M), cell, loss_name, batch, s0)
    return flow.loss, pack(flow.d_params)


# ---------------------------------------------------------------------------------------------------- differences, norm


def complex_step(f: Callable[[Array], Any], x: Array) -> Array:
    """Return the gradient of a complex-safe f at x, one complex step per entry."""
    slope = np.zeros(x.shape)
    for j in range(x.size):
        nudged = x.astype(complex)
        nudged.flat[j] += 1j * TINY
        slope.flat[j] = np.imag(f(nudged)) / TINY
    return slope


def central_difference(f: Callable[[Array], Any], x: Array, h: float = 1e-4) -> Array:
    """Return the gradient of f at x by the four-point central difference; its error is h^4/30 times f's fifth slope."""
    slope = np.zeros(x.shape)
    for j in range(x.size):
        at = []
        for shift in (-2, -1, 1, 2):
            nudged = np.array(x, dtype=np.float64)
            nudged.flat[j] += shift * h
            at.append(f(nudged))
        slope.flat[j] = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)
    return slope


@np.errstate(over="ignore")
def length(a: Array) -> float:
    """Return the Euclidean norm of all entries, in float64 and scaled by the largest, so that no square is lost."""
    a = np.abs(np.asarray(a, dtype=np.float64)).ravel()
    top = float(a.max(initial=0.0))
    if top == 0 or not np.isfinite(top):
        return top
    return top * float(np.sqrt(np.sum((a / top) ** 2)))


# ---------------------------------------------------------------------------------------------------------------- Omega


@np.errstate(over="ignore", invalid="ignore")
def penalty_value(penalty: str, q: Any) -> Any:
    """Return the penalty at q = r^2; complex-safe.

    norm (r-1)^2 (book eq. 10.52; Pascanu 2013 eq. 9), squared (q-1)^2 (Pascanu 2013 eq. 10), log (log r)^2.
    """
    if penalty == "norm":
        return (np.sqrt(q) - 1) ** 2
    if penalty == "squared":
        return np.square(q - 1)
    if penalty == "log":
        return (0.5 * np.log(q if np.real(q) >= FLOOR else FLOOR)) ** 2
    raise ValueError(f"no penalty is called {penalty!r}")


@np.errstate(over="ignore", invalid="ignore")
def penalty_slope(penalty: str, q: float) -> float:
    """Return d penalty / dq; zero by definition at r = 0 (norm) and below the floor (log)."""
    if penalty == "norm":
        return float(1 - 1 / np.sqrt(q)) if q > 0 else 0.0
    if penalty == "squared":
        return 2 * (q - 1)
    if penalty == "log":
        return float(0.5 * np.log(q) / q) if q >= FLOOR else 0.0
    raise ValueError(f"no penalty is called {penalty!r}")


def squared_gain(v: Array, delta: Array) -> float:
    """Return q = (||v|| / ||delta||)^2 of one step."""
    r = length(v) / length(delta)
    return r * r


def counted(delta: Array, bound: float = BOUND) -> Array:
    """Return (T,B): whether Omega counts step t of sequence b, with ||delta_t||^2 >= bound and delta_t not zero."""
    T, B = delta.shape[0] - 1, delta.shape[1]
    mask = np.zeros((T, B), dtype=bool)
    for t in range(T):
        for b in range(B):
            size = length(delta[t + 1, b])
            mask[t, b] = size * size >= bound and size > 0
    return mask


def share(reduction: str, mask: Array) -> float:
    """Return the weight of one counted penalty: 1/B (sum over t, mean over b) or one over how many are counted."""
    if reduction == "sum":
        return 1 / int(mask.shape[1])
    if reduction == "mean":
        return 1 / int(mask.sum()) if mask.any() else 0.0
    raise ValueError(f"no reduction is called {reduction!r}")


def omega(penalty: str, reduction: str, flow: Flow, bound: float = BOUND) -> float:
    """Return Omega of a recorded flow (book eq. 10.52; Pascanu 2013 eq. 9-10)."""
    mask, total = counted(flow.delta, bound), 0.0
    for t, b in np.argwhere(mask):
        total += float(penalty_value(penalty, squared_gain(flow.v[t, b], flow.delta[t + 1, b])))
    return share(reduction, mask) * total


def omega_of(
    theta: Array,
    cell: str,
    N: int,
    H: int,
    M: int,
    loss_name: str,
    batch: Batch,
    penalty: str,
    reduction: str,
    bound: float = BOUND,
    s0: Array | None = None,
) -> float:
    """Return Omega as a function of theta, all of it moving: its slope is the exact derivative."""
    return omega(penalty, reduction, backward(unpack(theta, cell, N, H, M), cell, loss_name, batch, s0), bound)


def omega_detached(
    theta: Array,
    cell: str,
    N: int,
    H: int,
    M: int,
    inputs: Array,
    penalty: str,
    reduction: str,
    delta: Array,
    bound: float = BOUND,
    s0: Array | None = None,
) -> float:
    """Return Omega as a function of theta with only delta frozen: its slope is the detached derivative (the book's)."""
    p = unpack(theta, cell, N, H, M)
    states = forward(p, cell, inputs, s0)
    mask, total = counted(delta, bound), 0.0
    for t, b in np.argwhere(mask):
        v = pull_back(p, cell, np.asarray(inputs)[t, b], states[t, b], delta[t + 1, b]).v
        total += float(penalty_value(penalty, squared_gain(v, delta[t + 1, b])))
    return share(reduction, mask) * total


def omega_frozen(w_rec: Array, penalty: str, reduction: str, flow: Flow, bound: float = BOUND) -> Any:
    """Return Omega as a function of the w_rec explicit in J_t, with delta, the states and so e frozen; complex-safe."""
    mask, total = counted(flow.delta, bound), 0.0
    for t, b in np.argwhere(mask):
        v = flow.direct[t, b].astype(np.result_type(np.float64, w_rec))
        v[0] += np.einsum("gh,kgh->k", flow.e_rec[t, b], w_rec)
        scale = length(flow.delta[t + 1, b])
        total = total + penalty_value(penalty, np.sum((v / scale) ** 2))
    return share(reduction, mask) * total


def omega_immediate(penalty: str, reduction: str, flow: Flow, p: Params, cell: str, bound: float = BOUND) -> Array:
    """Return dOmega/dw_rec (H,G,H) with all constant but the explicit w_rec (Pascanu 2013 eq. 10; their code).

    The sum of 2 penalty'(q) / ||delta||^2 * outer(v, e), where v is the line of h, the one that w_rec reaches.
    """
    mask = counted(flow.delta, bound)
    d_w_rec = np.zeros(p["w_rec"].shape)
    for t, b in np.argwhere(mask):
        v, e, size = flow.v[t, b], flow.e_rec[t, b], length(flow.delta[t + 1, b])
        factor = 2 * penalty_slope(penalty, squared_gain(v, flow.delta[t + 1, b])) * share(reduction, mask)
        for g in range(CELLS[cell].gates):
            d_w_rec[:, g, :] += factor * np.outer(v[0] / size, e[g] / size)
    return d_w_rec


# --------------------------------------------------------------------------------------------------- other regularizers


def norm_stabilizer(
    theta: Array, cell: str, N: int, H: int, M: int, batch: Batch, s0: Array | None = None, *, ends: bool = False
) -> Any:
    """Return the mean over sequences of 1/T sum_t (||h_t|| - ||h_{t-1}||)^2, T being the last step with weight.

    Krueger & Memisevic 2015. Complex-safe; with `ends`, the values of the sequences.
    """
    states = forward(unpack(theta, cell, N, H, M), cell, batch[0], s0)
    shares = []
    for b, end in enumerate(last_step(batch[2])):
        size = [np.sqrt(np.sum(states[t, b, 0] ** 2)) for t in range(end + 1)]
        shares.append(sum((size[t] - size[t - 1]) ** 2 for t in range(1, end + 1)) / max(end, 1))
    return np.array(shares) if ends else sum(shares) / len(shares)


def orthogonality(theta: Array, cell: str, N: int, H: int, M: int, batch: Batch, s0: Array | None = None) -> Any:
    """Return the sum over gates of ||W^T W - I||_F^2 (Vorontsov et al. 2017); complex-safe."""
    w_rec = unpack(theta, cell, N, H, M)["w_rec"]
    return sum(np.sum((w_rec[:, g].T @ w_rec[:, g] - np.eye(H)) ** 2) for g in range(w_rec.shape[1]))


def spectral_cap(theta: Array, cell: str, N: int, H: int, M: int, batch: Batch, s0: Array | None = None) -> float:
    """Return the sum over gates of the squares by which singular values of W, roots of eig(W^T W), are above 1."""
    w_rec, total = unpack(theta, cell, N, H, M)["w_rec"], 0.0
    for g in range(w_rec.shape[1]):
        for square in np.linalg.eigvalsh(w_rec[:, g].T @ w_rec[:, g]):
            total += max(np.sqrt(max(square, 0.0)) - 1, 0.0) ** 2
    return total


def gram_schmidt(A: Array) -> tuple[Array, Array]:
    """Return an orthonormal Q and what is left of each column of A beside those before it, A = Q R with these R_ii."""
    Q, stretch = np.array(A), np.zeros(A.shape[1])
    for j in range(A.shape[1]):
        for _ in range(2):  # twice is enough
            for i in range(j):
                Q[:, j] -= (Q[:, i] @ Q[:, j]) * Q[:, i]
        stretch[j] = length(Q[:, j])
        Q[:, j] /= stretch[j]
    return Q, stretch


def lyapunov(p: Params, cell: str, inputs: Array, weights: Array, k: int) -> Array:
    """Return the k leading finite-time Lyapunov exponents of each sequence up to its last step with weight, (B,k)."""
    states = forward(p, cell, inputs)
    size = states[0, 0].size
    k = min(k, size)
    start, _ = gram_schmidt(np.random.default_rng(0).normal(size=(size, k)))
    found = np.zeros((weights.shape[1], k))
    for b, end in enumerate(last_step(weights)):
        Q = start
        for t in range(end):
            Q, stretch = gram_schmidt(jacobian(p, cell, np.asarray(inputs)[t, b], states[t, b]) @ Q)
            found[b] += np.log(stretch) / end
    return found


def flossing(theta: Array, cell: str, N: int, H: int, M: int, batch: Batch, s0: Array | None = None) -> float:
    """Return the mean over sequences and the 5 leading exponents of lambda^2 (Engelken 2023)."""
    return float(np.mean(lyapunov(unpack(theta, cell, N, H, M), cell, batch[0], batch[2], 5) ** 2))


REGULARIZERS: dict[str, Callable[..., Any]] = {
    "norm_stabilizer": norm_stabilizer,
    "orthogonality": orthogonality,
    "spectral_cap": spectral_cap,
    "flossing": flossing,
}
COMPLEX_SAFE = ("norm_stabilizer", "orthogonality")


def regularizer_slope(name: str, theta: Array, *given: Any) -> Array:
    """Return the gradient of a regularizer at theta: by complex step, or by central differences."""
    point = np.asarray(theta, np.float64)
    if name in COMPLEX_SAFE:
        return complex_step(lambda at: REGULARIZERS[name](at, *given), point)
    return central_difference(lambda at: REGULARIZERS[name](at, *given), point, h=2e-5)


# ---------------------------------------------------------------------------------------------------- what is looked at


def gate_values(p: Params, cell: str, x: Array, s: Array) -> tuple[Array, Array, Array]:
    """Return what each gate's nonlinearity gives in one step from s, (G,H), and the ends of its range, (G,1) each."""
    a_in, a_rec = preactivations(p, cell, x, s)
    a = a_in + a_rec
    if cell == "lstm":
        values = np.stack([sigmoid(a[0]), sigmoid(a[1]), np.tanh(a[2]), sigmoid(a[3])])
        return values, np.array([[0], [0], [-1], [0]]), np.ones((4, 1))
    if cell == "gru":
        r = sigmoid(a[0])
        values = np.stack([r, sigmoid(a[1]), np.tanh(a_in[2] + r * a_rec[2])])
        return values, np.array([[0], [0], [-1]]), np.ones((3, 1))
    low = {"tanh": -1.0, "sigmoid": 0.0, "relu": 0.0, "linear": -np.inf}[cell]
    high = {"tanh": 1.0, "sigmoid": 1.0, "relu": np.inf, "linear": np.inf}[cell]
    return CELLS[cell].step(a_in, a_rec, s), np.array([[low]]), np.array([[high]])


def last_step(weights: Array) -> Array:
    """Return the last step with weight of each sequence, 1 to T, or 0."""
    return np.array(
        [max([t + 1 for t in range(len(weights)) if weights[t, b] != 0], default=0) for b in range(weights.shape[1])]
    )


def saturation(p: Params, cell: str, inputs: Array, weights: Array, margin: float) -> tuple[Array, Array]:
    """Return whether each gate of each unit is near the lower or the upper end, (T,B,G,H) each, NaN after the end."""
    states = forward(p, cell, inputs)
    T, B = weights.shape
    low, high = (np.full((T, B, CELLS[cell].gates, states.shape[3]), np.nan) for _ in range(2))
    for b, end in enumerate(last_step(weights)):
        for t in range(end):
            values, bottom, top = gate_values(p, cell, np.asarray(inputs)[t, b], states[t, b])
            room = np.where(np.isinf(bottom) | np.isinf(top), 0, margin * (top - bottom))
            low[t, b], high[t, b] = values <= bottom + room, values >= top - room
    return low, high


def by_lag(flow: Flow, weights: Array) -> tuple[Array, Array]:
    """Return norms of delta (T+1,B) and gains (T,B) by the steps before each sequence's last one with weight."""
    T, B = weights.shape
    norms, gains = np.full((T + 1, B), np.nan), np.full((T, B), np.nan)
    for b, end in enumerate(last_step(weights)):
        for lag in range(end + 1 if end else 0):
            norms[lag, b] = length(flow.delta[end - lag, b])
            if lag < end:
                gains[lag, b] = flow.gain[end - lag - 1, b]
    return norms, gains


def spectrum(w_rec: Array) -> tuple[Array, Array]:
    """Return spectral radius (G,) and norm (G,): the largest |eigenvalue|, and the root of that of W^T W."""
    matrices = [w_rec[:, g] for g in range(w_rec.shape[1])]
    radius = [np.abs(np.linalg.eigvals(W)).max() for W in matrices]
    return np.array(radius), np.array([np.sqrt(np.linalg.eigvalsh(W.T @ W).max()) for W in matrices])


# ------------------------------------------------------------------------------------------------------------- clipping


class Clipped(NamedTuple):
    """A clipped gradient and its report; fraction counts the entries of every group that was rescaled or replaced."""

    d_theta: Array
    norm: float
    clipped_norm: float
    fraction: float
    cosine: float
    finite: bool


def cosine(a: Array, b: Array) -> float:
    """Return the cosine between two vectors, NaN if either is zero or not finite."""
    lengths = length(a), length(b)
    if not all(np.isfinite(lengths)) or not all(lengths):
        return float("nan")
    return float(np.sum((np.float64(a) / lengths[0]) * (np.float64(b) / lengths[1])))


def rescale(g: Array, size: float) -> Array:
    """Return g with norm size; g must be finite and not zero."""
    g = g / np.abs(g).max()
    return g * (size / length(g))


def groups(rule: str, blocks: dict[str, tuple[int, ...]] | None, P: int) -> Iterator[Array]:
    """Yield the indices into theta of each group of entries whose norm the rule measures.

    norm, normalize, random: all. block: each array. unit: the column of each (gate, unit) of each weight array; a bias
    array is one group, as a vector is in the code of Brock et al. 2021.
    """
    if rule in ("norm", "normalize", "random"):
        yield np.arange(P)
        return
    if blocks is None:
        raise ValueError(f"the rule {rule!r} needs blocks")
    for name, where in slices(blocks).items():
        index = np.arange(P)[where]
        if index.size == 0:
            continue
        if rule == "unit" and name.startswith("w_"):
            yield from index.reshape(blocks[name][0], -1).T
        else:
            yield index


def _clip_finite(
    rule: str,
    d: Array,
    threshold: float,
    theta: Array | None,
    blocks: dict[str, tuple[int, ...]] | None,
    direction: Array | None,
) -> tuple[Array, Array]:
    """Clip a finite gradient; return it, in float64, and which entries were in a clipped group."""
    new, hit = d.astype(np.float64), np.zeros(d.size, dtype=bool)
    if rule == "value":
        return np.minimum(np.maximum(new, -threshold), threshold), np.abs(new) > threshold
    if rule not in ("norm", "block", "unit", "normalize", "random"):
        raise ValueError(f"no rule is called {rule!r}")
    for index in groups(rule, blocks, d.size):
        g, limit = d[index].astype(np.float64), threshold
        if rule == "unit":
            if theta is None:
                raise ValueError("the rule 'unit' needs theta")
            limit = threshold * max(length(theta[index]), 1e-3)
        if rule == "normalize":
            hit[index] = bool(g.any())
        else:
            hit[index] = length(g) > limit
        if hit[index].any():
            new[index] = _step(threshold, direction) if rule == "random" else rescale(g, limit)
    return new, hit


def _step(threshold: float, direction: Array | None) -> Array:
    """Return a step of size threshold along the given unit vector (book section 10.11.1)."""
    if direction is None:
        raise ValueError("a random step needs direction")
    return threshold * np.asarray(direction, dtype=np.float64)


def _clip_nonfinite(
    policy: str,
    d: Array,
    threshold: float,
    theta: Array | None,
    blocks: dict[str, tuple[int, ...]] | None,
    direction: Array | None,
) -> Array:
    """Return what stands in for a gradient with NaN or Inf in it, untouched by the rule afterwards."""
    if policy == "random":
        return _step(threshold, direction)
    if policy == "skip":
        return np.zeros(d.size)
    if policy == "keep":
        return d
    if policy == "raise":
        where = slices(blocks) if blocks else {"theta": slice(None)}
        bad = [name for name, part in where.items() if not np.isfinite(d[part]).all()]
        raise FloatingPointError(f"the gradient of {', '.join(bad)} is not finite")
    if policy == "shrink":
        if theta is None or blocks is None:
            raise ValueError("the policy 'shrink' needs theta and blocks")
        new, part = np.zeros(d.size), slices(blocks)["w_rec"]
        new[part] = 0.02 * np.float64(theta[part])
        return new
    raise ValueError(f"no policy is called {policy!r}")


def clip(
    rule: str,
    d: Array,
    threshold: float,
    nonfinite: str = "random",
    theta: Array | None = None,
    blocks: dict[str, tuple[int, ...]] | None = None,
    direction: Array | None = None,
) -> Clipped:
    """Clip the gradient d (P,), in its own dtype, with norms in float64, strictly above the threshold.

    norm: Pascanu 2013 alg. 1, book eq. 10.48-10.49; value: book, after Mikolov 2012; block: norm per array of `blocks`
    (name -> shape); unit: Brock et al. 2021, against threshold * max(||w_unit||, 1e-3); normalize: always; random: the
    book's step along `direction`. The policy `nonfinite` comes first: `zero` drops the bad entries and clips the rest,
    the others answer by themselves (`shrink`: Pascanu's code).
    """
    d = np.asarray(d)
    finite = bool(np.isfinite(d).all())
    if finite or nonfinite == "zero":
        bad = ~np.isfinite(d)
        new, hit = _clip_finite(rule, np.where(bad, 0, d).astype(d.dtype), threshold, theta, blocks, direction)
        hit = hit | bad
    else:
        new = _clip_nonfinite(nonfinite, d, threshold, theta, blocks, direction)
        hit = np.full(d.size, nonfinite != "keep")
    new = new.astype(d.dtype)
    return Clipped(new, length(d), length(new), float(hit.mean()), cosine(d, new), finite)


# ----------------------------------------------------------------------------------------------------------- thresholds
# Each maps the norms of a run, so far and now, to the threshold of now. Only finite norms count as seen.


def _seen(norms: Sequence[float]) -> list[float]:
    return [float(norm) for norm in norms if np.isfinite(norm)]


def constant(norms: Sequence[float], value: float) -> float:
    """Return the threshold that was given (Pascanu 2013 alg. 1)."""
    return value


def linear(norms: Sequence[float], first: float, last: float, updates: float) -> float:
    """Return a point of the line from first to last (book eq. 8.14)."""
    k = len(norms) - 1
    return float(np.interp(k, [0, updates], [first, last]))


def inverse_time(norms: Sequence[float], first: float, half: float) -> float:
    """Return first / (1 + k / half) (Robbins and Monro 1951)."""
    return first * half / (half + len(norms) - 1)


def percentile(norms: Sequence[float], percent: float = 10, window: int = 1000, first: float = 1) -> float:
    """Return numpy's percentile of the last norms, this one included (Seetharaman 2020 alg. 1, with a window)."""
    seen = _seen(norms)[-int(window) :]
    return float(np.percentile(seen, percent)) if seen else first


def quantile(norms: Sequence[float], quantile: float = 0.5, rate: float = 0.2, first: float = 0.1) -> float:
    """Return the threshold after the geometric updates of all norms before this one (Andrew 2021, section 2.1)."""
    threshold = first
    for norm in _seen(norms[:-1]):
        threshold *= np.exp(-rate * (float(norm <= threshold) - quantile))
    return threshold


def zscore(
    norms: Sequence[float], z: float = 2.5, decay: float = 0.97, warmup: int = 25, most: float = np.inf
) -> float:
    """Return what ZClip clips to (Kumar 2025, reciprocal rule), or the limit of its z-score; no epsilon."""
    seen = _seen(norms[:-1])
    if len(seen) < warmup:
        return most if np.isfinite(norms[-1]) or not seen else min(float(np.mean(seen)), most)
    m, variance = float(np.mean(seen[: int(warmup)])), float(np.var(seen[: int(warmup)]))

    def limit(norm: float) -> float:
        score = (norm - m) / variance**0.5
        return m + variance**0.5 * (z**2 / score if score > z else z)

    for norm in seen[int(warmup) :]:
        entering = min(norm, limit(norm))
        m = decay * m + (1 - decay) * entering
        variance = decay * variance + (1 - decay) * (entering - m) ** 2
    return min(limit(norms[-1]) if np.isfinite(norms[-1]) else m, most)


THRESHOLDS: dict[str, Callable[..., float]] = {
    "constant": constant,
    "inverse_time": inverse_time,
    "linear": linear,
    "percentile": percentile,
    "quantile": quantile,
    "zscore": zscore,
}


# ----------------------------------------------------------------------------------------------------------- optimizers

State = tuple[Array, ...]
Optimizer = Callable[[Array, Array, "State | None", float, int], tuple[Array, State]]


def sgd(theta: Array, d: Array, state: State | None, lr: float, n: int) -> tuple[Array, State]:
    """Take a plain gradient step (book alg. 8.1)."""
    return theta - lr * d, ()


def momentum(theta: Array, d: Array, state: State | None, lr: float, n: int) -> tuple[Array, State]:
    """Take a step of heavy-ball momentum, .9 (book alg. 8.2; Differs from it: lr scales the velocity)."""
    velocity = state[0] if state else np.zeros_like(theta)
    velocity = 0.9 * velocity + d
    return theta - lr * velocity, (velocity,)


def rmsprop(theta: Array, d: Array, state: State | None, lr: float, n: int) -> tuple[Array, State]:
    """Take a step of RMSProp, decay .99 (Hinton 2012; book alg. 8.5; Differs from it: epsilon is outside the root)."""
    mean_square = state[0] if state else np.zeros_like(theta)
    mean_square = 0.99 * mean_square + 0.01 * d**2
    return theta - lr * d / (np.sqrt(mean_square) + 1e-8), (mean_square,)


def adam(theta: Array, d: Array, state: State | None, lr: float, n: int) -> tuple[Array, State]:
    """Take step n = 1, 2, ... of Adam (Kingma & Ba 2015 alg. 1)."""
    mean, mean_square = state if state else (np.zeros_like(theta), np.zeros_like(theta))
    mean = 0.9 * mean + 0.1 * d
    mean_square = 0.999 * mean_square + 0.001 * d**2
    step = (mean / (1 - 0.9**n)) / (np.sqrt(mean_square / (1 - 0.999**n)) + 1e-8)
    return theta - lr * step, (mean, mean_square)


OPTIMIZERS: dict[str, Optimizer] = {"sgd": sgd, "momentum": momentum, "rmsprop": rmsprop, "adam": adam}


# -------------------------------------------------------------------------------------------------- randomness by count

Words = tuple[int, int, int, int]


def philox4x32(counter: Words, key: tuple[int, int]) -> Words:
    """Return Philox4x32-10 of four counter words and two key words (Salmon, Moraes, Dror & Shaw 2011)."""
    if not all(0 <= word < 2**32 for word in (*counter, *key)):
        raise ValueError(f"counter {counter} and key {key} must be words of 32 bits")
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (second >> 32) ^ b ^ k, second & 0xFFFFFFFF, (first >> 32) ^ d ^ m, first & 0xFFFFFFFF
        k, m = (k + 0x9E3779B9) & 0xFFFFFFFF, (m + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


def draw(seed: int, purpose: int, replica: int, index: int, sequence: int, n: int) -> Words:
    """Return the n-th four words of one sequence of one batch of one replica: a pure function of where it stands."""
    if not (0 <= replica < 2**24 and 0 <= purpose < 2**8):
        raise ValueError(f"replica {replica} must be of 24 bits and purpose {purpose} of 8")
    return philox4x32((n, sequence, index, (purpose << 24) | replica), (seed & 0xFFFFFFFF, seed >> 32))


def uniform(word: int) -> float:
    """Return a number in [0, 1), a multiple of 2^-24 and so exact in float32."""
    return (word >> 8) * 2.0**-24


def below(word: int, m: int) -> int:
    """Return an integer in [0, m) by multiplication (Lemire 2019, without the rejection)."""
    return (word * m) >> 32


# ---------------------------------------------------------------------------------------------------------------- tasks


def _check_length(L: int) -> None:
    """Refuse a length at which a tenth is no step at all."""
    if L < 10:
        raise ValueError(f"length is {L}; expected at least 10")


def temporal_order(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of the temporal order task (Hochreiter & Schmidhuber 1997; Pascanu 2013 section 4.1.1)."""
    L, B = length, batch_size
    _check_length(L)
    tokens, targets, weights = np.zeros((L, B), np.int64), np.zeros((L, B), np.int64), np.zeros((L, B))
    for b in range(B):
        for t in range(L):
            tokens[t, b] = 2 + below(draw(seed, purpose, replica, index, b, 1 + t // 4)[t % 4], 4)
        w0, w1, w2, w3 = draw(seed, purpose, replica, index, b, 0)
        v0, v1 = w2 >> 31, w3 >> 31
        tokens[L // 10 + below(w0, 2 * L // 10 - L // 10), b] = v0
        tokens[5 * L // 10 + below(w1, 6 * L // 10 - 5 * L // 10), b] = v1
        targets[L - 1, b] = v0 + 2 * v1
        weights[L - 1, b] = 1 / B
    return tokens, targets, weights


def addition(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of the addition task (Hochreiter & Schmidhuber 1997, in the form of Pascanu's code)."""
    L, B = length, batch_size
    _check_length(L)
    T = L + L // 10 - 1
    inputs, targets, weights = np.zeros((T, B, 2)), np.zeros((T, B, 1)), np.zeros((T, B))
    for b in range(B):
        w0, w1, w2, _ = draw(seed, purpose, replica, index, b, 0)
        end = L + below(w0, L // 10)
        marks = below(w1, end // 10), end // 10 + below(w2, end // 2 - end // 10)
        for t in range(end):
            inputs[t, b, 0] = uniform(draw(seed, purpose, replica, index, b, 1 + t // 4)[t % 4])
        for mark in marks:
            inputs[mark, b, 1] = 1
        targets[end - 1, b, 0] = (inputs[marks[0], b, 0] + inputs[marks[1], b, 0]) / 2
        weights[end - 1, b] = 1 / B
    return inputs, targets, weights


def temporal_order_3bit(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of temporal order with three symbols (Hochreiter & Schmidhuber 1997, task 6b)."""
    L, B = length, batch_size
    _check_length(L)
    tokens, targets, weights = np.zeros((L, B), np.int64), np.zeros((L, B), np.int64), np.zeros((L, B))
    for b in range(B):
        for t in range(L):
            tokens[t, b] = 2 + below(draw(seed, purpose, replica, index, b, 1 + t // 4)[t % 4], 4)
        *words, w3 = draw(seed, purpose, replica, index, b, 0)
        bits = f"{w3 >> 29:03b}"[::-1]  # the lowest bit is the first symbol
        for k, (word, tenth) in enumerate(zip(words, (1, 3, 6), strict=True)):
            window = range(tenth * L // 10, (tenth + 1) * L // 10)
            tokens[window[below(word, len(window))], b] = int(bits[k])
        targets[L - 1, b] = int(bits[0]) + 2 * int(bits[1]) + 4 * int(bits[2])
        weights[L - 1, b] = 1 / B
    return tokens, targets, weights


def multiplication(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of the multiplication task: that of addition, with the product of both numbers."""
    inputs, targets, weights = addition(seed, purpose, replica, index, batch_size, length)
    for b in range(batch_size):
        x0, x1 = inputs[inputs[:, b, 1] == 1, b, 0]
        targets[weights[:, b] > 0, b, 0] = x0 * x1
    return inputs, targets, weights


def permutation(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of the permutation task: the symbol after the last is the first, 0 or 1; between are 2 .. 99."""
    L, B = length, batch_size
    _check_length(L)
    tokens, targets, weights = np.zeros((L, B), np.int64), np.zeros((L, B), np.int64), np.zeros((L, B))
    for b in range(B):
        row = [2 + below(draw(seed, purpose, replica, index, b, 1 + t // 4)[t % 4], 98) for t in range(L)]
        row[0] = draw(seed, purpose, replica, index, b, 0)[0] >> 31
        row.append(row[0])
        tokens[:, b] = row[:-1]
        targets[L - 1, b] = row[-1]
        weights[L - 1, b] = 1 / B
    return tokens, targets, weights


def _recall(symbols: list[list[int]], blanks: list[int], values: int, pause: int, T: int) -> Batch:
    """Return a batch of T steps: symbols, blanks, the cue, and after a pause of 0 or 1 steps the symbols again."""
    B = len(symbols)
    tokens, targets = np.full((T, B), values), np.full((T, B), values)
    for b in range(B):
        n = len(symbols[b])
        tokens[:n, b] = symbols[b]
        cue = n + blanks[b]
        tokens[cue, b] = values + 1
        targets[cue + pause : cue + pause + n, b] = symbols[b]
    return tokens, targets, np.full((T, B), 1 / (B * T))


def _symbols(where: tuple[int, int, int, int], B: int, count: int, values: int) -> list[list[int]]:
    """Draw the symbols of each of B sequences, as steps of it."""
    return [[below(draw(*where, b, 1 + k // 4)[k % 4], values) for k in range(count)] for b in range(B)]


def memorization(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of memorization, 5^10: the answer begins with the cue, L blanks after the symbols."""
    _check_length(length)
    where = seed, purpose, replica, index
    symbols = _symbols(where, batch_size, 10, 5)
    return _recall(symbols, [length] * batch_size, 5, 0, length + 20)


def memorization_5bit(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of memorization, 2^5."""
    _check_length(length)
    where = seed, purpose, replica, index
    symbols = _symbols(where, batch_size, 5, 2)
    return _recall(symbols, [length] * batch_size, 2, 0, length + 10)


def copy(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of the copying task (Arjovsky et al. 2016): T - 1 blanks, and the answer follows the cue."""
    _check_length(length)
    where = seed, purpose, replica, index
    symbols = _symbols(where, batch_size, 10, 8)
    return _recall(symbols, [length - 1] * batch_size, 8, 1, length + 20)


def delayed_recall(seed: int, purpose: int, replica: int, index: int, batch_size: int, length: int) -> Batch:
    """Return a batch of copying with 0 .. L - 1 blanks before the cue, and the others after the answer."""
    _check_length(length)
    where = seed, purpose, replica, index
    blanks = [below(draw(*where, b, 0)[0], length) for b in range(batch_size)]
    return _recall(_symbols(where, batch_size, 10, 8), blanks, 8, 1, length + 20)


TASKS: dict[str, Callable[[int, int, int, int, int, int], Batch]] = {
    "temporal_order": temporal_order,
    "temporal_order_3bit": temporal_order_3bit,
    "addition": addition,
    "multiplication": multiplication,
    "permutation": permutation,
    "memorization": memorization,
    "memorization_5bit": memorization_5bit,
    "copy": copy,
    "delayed_recall": delayed_recall,
}


# ------------------------------------------------------------------------------------------------- the bias of clipping


def shares(theta: Array, cell: str, N: int, H: int, M: int, loss_name: str, batch: Batch) -> Array:
    """Return the gradient (B,P) of each example's share of the loss: all weights but its own are 0."""
    inputs, targets, weights = batch
    found = []
    for b in range(weights.shape[1]):
        own = np.zeros_like(weights)
        own[:, b] = weights[:, b]
        found.append(gradient(theta, cell, N, H, M, loss_name, (inputs, targets, own))[1])
    return np.array(found)


class Distances(NamedTuple):
    """How far one mean is from another."""

    cosine: float
    relative_norm: float
    sign_agreement: float
    bias: float


def distances(a: Array, b: Array) -> Distances:
    """Return how far a vector a (P,) is from b: signs where b is not 0."""
    signs = [np.sign(x) == np.sign(y) for x, y in zip(a, b, strict=True) if y != 0]
    return Distances(cosine(a, b), length(a) / length(b), float(np.mean(signs)), length(a - b) / length(b))


def long_run_distances(clipped: Array, plain: Array) -> Distances:
    """Return how far the mean of the clipped is from that of the plain, were there ever more rows (n,P) like these.

    <E a, E b> is the mean of <a_i, b_j> over i != j, which has no bias for independent rows; signs are those of entries
    whose mean is more than two standard errors from 0.
    """
    n = len(plain)

    def inner(a: Array, b: Array) -> float:
        return sum(float(a[i] @ b[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    own, both, other = inner(clipped, clipped), inner(clipped, plain), inner(plain, plain)
    signs = []
    for a, b in zip(clipped.T, plain.T, strict=True):
        error = np.sqrt(sum((b - b.mean()) ** 2) / (n - 1) / n)
        if abs(b.mean()) > 2 * error:
            signs.append(np.sign(a.mean()) == np.sign(b.mean()))
    return Distances(
        both / np.sqrt(own * other),
        np.sqrt(own / other),
        float(np.mean(signs)),
        np.sqrt(max(own - 2 * both + other, 0) / other),
    )


def kept(left: Array, share: Array) -> float:
    """Return what is left of a share, along itself: 1 is all of it."""
    return float(left @ share / (share @ share))


def average_of_clipped(gradients: Array, size: int, threshold: float) -> tuple[float, float, float]:
    """Return cosine, norm ratio and part clipped, of groups of neighbouring gradients (N,P), of the two of the book.

    The average of norm-clipped minibatch gradients against the norm-clipped average (book section 10.11.1).
    """
    groups_of = [gradients[k : k + size].mean(axis=0) for k in range(0, len(gradients), size)]
    average = np.mean([clip("norm", g, threshold).d_theta for g in groups_of], axis=0)
    clipped = clip("norm", gradients.mean(axis=0), threshold).d_theta
    part = np.mean([length(g) > threshold for g in groups_of])
    return cosine(average, clipped), length(average) / length(clipped), float(part)
