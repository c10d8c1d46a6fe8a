"""The memory of a computation, and the jobs that point into it.

Everything that the kernels read and write beside the caller's own arrays is one aligned allocation, cut once for a
network, a shape and a purpose. A workspace may be used again and again, by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from nbflow.cpu.derive import first_order, second_order
from nbflow.cpu.gradient import segment_steps
from nbflow.cpu.job import BORROWED, DERIVATIVES, DIRECTION, GROUPED, PACKED, PARTIAL, TAPE, job_dtype
from nbflow.cpu.product import CHUNK, lanes, panel_vectors
from nbflow.cpu.shards import shard_rows
from nbflow.cpu.weights import COLLIDING
from nbflow.model.network import Network
from nbflow.records import Floats, Flow

ALIGNMENT = 64

# Parameters of a piece of packing and of summing. (Packing so many takes 70 us there, starting an awake team 1.3 us.)
PIECE = 65536


class Shape(NamedTuple):
    """The sizes of a computation: replicas, steps, sequences, and whether inputs are tokens."""

    replicas: int
    steps: int
    batch: int
    tokens: bool


class Purpose(NamedTuple):
    """What a computation keeps or asks for beside the plain tape."""

    keep_delta: bool = False  #: every delta_t, not the last two
    derivative: str = ""  #: of Omega, "" without a flow
    tangent: str = ""  #: "states" for Jacobian-vector products, "loss" for Hessian-vector products
    every: int = 0  #: steps between checkpoints, a multiple of `segment_steps`; 0 for none
    group_rows: int = 0  #: sequences that are clipped together; 0 for none

    @property
    def second(self) -> bool:
        """Whether there is a tangent."""
        return self.derivative in ("detached", "exact") or bool(self.tangent)

    @property
    def moving(self) -> bool:
        """Whether the tangents of states are handed on from step to step."""
        return self.derivative == "exact" or bool(self.tangent)


PLAIN = Purpose()


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


class Workspace:
    """Buffers and jobs for one network and one shape of batch.

    Attributes
    ----------
    shape : Shape
        What it was cut for; `steps` may be fewer.
    jobs : structured array (R * shards,)
        One job a shard, replicas first.
    pool : structured array (R,)
        One job a replica.
    report : array (R, 3)
        Loss, Omega and count of the last run.
    cell : Cell
        The network's, with the derivatives that the purpose needs.
    entries : list of tuples of int
        What the parallel loop is called with, one call after the other; set by `nbflow.cpu.program.set_program`.
    program : tuple
        What `set_program` last set.
    """

    def __init__(self, net: Network, shape: Shape, purpose: Purpose = PLAIN) -> None:
        self.net, self.shape, self.steps, self.purpose = net, shape, shape.steps, purpose
        self.dtype = net.scalar
        self.cell = (second_order if purpose.second else first_order)(net.cell_object)
        self.entries: list[tuple[int, ...]] = []
        self.program: tuple[Any, ...] = ()
        self._hidden_site, self._detaching, self._rested = 0, False, False
        self.rows = shard_rows(net, shape.batch, purpose.group_rows)
        self.first_row = np.cumsum([0, *self.rows[:-1]])
        shards = len(self.rows)
        self.jobs = _records(shape.replicas * shards, self.dtype)
        self.pool = _records(shape.replicas, self.dtype)
        for jobs in (self.jobs, self.pool):
            self._set_sizes(jobs)
        self.jobs["rows"] = np.tile(self.rows, shape.replicas)
        self.jobs["replica"] = np.repeat(np.arange(shape.replicas), shards)
        self.jobs["segment"] = [segment_steps(rows) for rows in self.rows] * shape.replicas
        self._cut()
        self.fit(shape.steps)

    def fit(self, steps: int) -> None:
        """Use the first `steps` steps of the buffers: shorter batches need no workspace of their own."""
        self.steps = steps
        self.jobs["steps"] = steps
        self.pool["steps"] = steps
        self._set_offsets()

    def _set_sizes(self, jobs: Any) -> None:
        net, cell, vector, purpose = self.net, self.cell, lanes(self.dtype), self.purpose
        keep_delta = purpose.keep_delta or (purpose.second and purpose.tangent != "states")
        values = {
            "steps": self.steps, "batch": self.shape.batch, "n_in": net.n_in, "gates": len(cell.gates),
            "hidden": net.n_hidden, "width": _padded(net.n_hidden, vector), "lines": len(cell.states),
            "kept": len(cell.saved), "n_out": net.n_out, "out_width": _padded(net.n_out, vector),
            "slots": self.shape.steps + 1 if keep_delta else 2, "tokens": self.shape.tokens,
            "classes": net.loss_object.classes, "additive": cell.additive, "carries": cell.carries,
            "bias_rec": cell.bias_rec, "derivative": DERIVATIVES.get(purpose.derivative, 0),
            "tracing": purpose.keep_delta, "measured": bool(purpose.derivative) or purpose.keep_delta,
            "every": purpose.every, "group_rows": purpose.group_rows,
            "group_scale": self.shape.batch / max(purpose.group_rows, 1),
        }  # fmt: skip
        for name, value in values.items():
            jobs[name] = value

    def _sizes_of(self, job: Any) -> dict[str, int]:
        """Return the number of numbers in each buffer of a job."""
        panel = panel_vectors() * lanes(self.dtype)
        steps, rows, g, h, n, m = (int(job[k]) for k in ("steps", "rows", "gates", "hidden", "n_in", "n_out"))
        purpose, every = self.purpose, self.purpose.every
        T = min(every, steps) if every else steps
        width, out, lines = int(job["width"]), int(job["out_width"]), int(job["lines"])
        columns, flowing, measured = g * width, bool(purpose.derivative), int(job["measured"])
        immediate, row, moving = purpose.derivative == "immediate", lines * width, purpose.moving
        packed = {
            "p_in": (n + 1) * _padded(columns, panel), "p_rec": h * _padded(columns, panel),
            "p_rec_back": g * h * _padded(width, panel), "p_bias_rec": columns * int(job["bias_rec"]),
            "p_out": h * _padded(out, panel), "p_out_back": m * _padded(width, panel), "p_b_out": out,
        }  # fmt: skip
        tape = {
            "x": 0 if job["tokens"] else T * rows * (n + 1), "pre": T * rows * columns,
            "rec": 0 if job["additive"] else T * rows * columns, "states": (T + 1) * rows * lines * width,
            "saved": T * rows * int(job["kept"]) * width, "delta": int(job["slots"]) * rows * lines * width,
            "v": flowing * T * rows * (width if immediate else row),
            "delta_norm": measured * (T + 1) * rows, "v_norm": measured * T * rows,
            "flow_slope": flowing * T * rows, "y": T * rows * out, "active": steps, "last": rows,
            "heard": rows, "end": rows * row, "seed": rows * row, "carry": 2 * rows,
            "checkpoints": (steps // every + 1) * rows * lines * width if every else 0, "group_norms": rows,
            "states_dot": moving * (T + 1) * rows * row, "pre_dot": purpose.second * T * rows * columns,
            "rec_dot": (purpose.second and not job["additive"]) * T * rows * columns, "y_dot": moving * T * rows * out,
            "y_again": moving * rows * out, "delta_dot": purpose.second * 2 * rows * row,
            "panel": 0 if columns * np.dtype(self.dtype).itemsize % COLLIDING else CHUNK * panel,
        }  # fmt: skip
        partial = {
            "d_in": (n + 1) * columns, "d_rec": h * columns, "d_flow": immediate * h * columns,
            "d_bias_rec": columns * int(job["bias_rec"]), "d_out": h * out, "d_b_out": out, "sums": 3,
        }  # fmt: skip
        packed |= {q: packed[p] if purpose.tangent else 0 for q, p in zip(DIRECTION, PACKED, strict=True)}
        return packed | tape | partial | {"group": self._room(partial, GROUPED) if job["group_rows"] else 0}

    def _room(self, sizes: dict[str, int], names: tuple[str, ...]) -> int:
        """Return how many numbers these buffers take, one behind the other."""
        number = np.dtype(self.dtype).itemsize
        return sum(_padded(sizes[name] * number, ALIGNMENT) for name in names) // number

    def _cut(self) -> None:
        """Allocate everything at once and hand out the addresses."""
        shards = len(self.rows)
        places: list[tuple[Any, int, str, int]] = []
        total = 0
        for jobs, names in ((self.pool, PACKED + DIRECTION), (self.jobs, TAPE + PARTIAL)):
            for k in range(jobs.size):
                sizes = self._sizes_of(jobs[k])
                jobs["group_size"][k] = sizes["group"]
                for name in names:
                    places.append((jobs, k, name, total))
                    number = 8 if name in ("active", "last", "heard") else np.dtype(self.dtype).itemsize
                    total += _padded(sizes[name] * number, ALIGNMENT)
        self._memory = np.zeros(total + ALIGNMENT, np.uint8)
        base = _padded(self._memory.ctypes.data, ALIGNMENT)
        for jobs, k, name, offset in places:
            jobs[name][k] = base + offset
        for name in PACKED + DIRECTION:
            self.jobs[name] = np.repeat(self.pool[name], shards)
        if self.cell.additive:
            self.jobs["rec"], self.jobs["rec_dot"] = self.jobs["pre"], self.jobs["pre_dot"]
        self.jobs["entering"] = self.jobs["states_dot" if self.purpose.tangent else "v"]
        self.report = np.zeros((self.shape.replicas, 3), self.dtype)
        self.pool["report"] = self.report.ctypes.data + np.arange(self.shape.replicas) * self.report.strides[0]
        self._borrowed, self._parameters = _words(self.jobs, BORROWED), _words(self.pool, ("theta", "d_theta"))
        row = self.net.size * np.dtype(self.dtype).itemsize
        self._row_offsets = np.repeat(np.arange(self.shape.replicas)[:, None] * row, 2, axis=1)
        self.pool["shards"] = self.jobs.ctypes.data + np.arange(self.shape.replicas) * shards * self.jobs.itemsize
        self.pool["shard_count"] = shards
        # Where one shard does all the work, a second thread would only be woken to copy.
        self.pool["pieces"] = max(1, self.net.size // PIECE) if self.jobs.size > 1 else 1

    def _set_offsets(self) -> None:
        """Note where in the caller's arrays each shard begins, in bytes."""
        net, steps, (replicas, _, batch, tokens) = self.net, self.steps, self.shape
        size = np.dtype(self.dtype).itemsize
        sequence = np.add.outer(np.arange(replicas) * steps * batch, self.first_row).ravel()
        of_targets = 4 if net.loss_object.classes else net.n_out * size
        self._offsets = np.multiply.outer(sequence, [4 if tokens else net.n_in * size, of_targets, size])

    def point_to(self, theta: Floats, inputs: Any, targets: Any, weights: Floats, d_theta: Floats | None) -> None:
        """Point the jobs to the caller's arrays: C-ordered, of the right dtypes, and alive until the run is over."""
        of_targets = 0 if targets is None else targets.ctypes.data
        np.add(self._offsets, (inputs.ctypes.data, of_targets, weights.ctypes.data), out=self._borrowed)
        of_gradient = 0 if d_theta is None else d_theta.ctypes.data
        np.add(self._row_offsets, (theta.ctypes.data, of_gradient), out=self._parameters)
        if d_theta is None:
            self.pool["d_theta"] = 0

    def set_direction(self, direction: Floats | None) -> None:
        """Set a direction of the parameters, (R, P) and alive until the run is over, or None for none."""
        for jobs in (self.pool, self.jobs):
            jobs["directed"] = direction is not None
        self.pool["direction"] = 0 if direction is None else direction.ctypes.data + self._row_offsets[:, 0]

    def set_flow(self, alpha: Any, flow: Flow) -> None:
        """Set the weight of Omega (R,), how it is reduced and what it counts."""
        self.set_alpha(alpha)
        self.pool["mean_flow"] = flow.reduction == "mean"
        self.jobs["bound"] = flow.bound

    def set_alpha(self, alpha: Any) -> None:
        """Set the weight of Omega (R,)."""
        self.pool["alpha"] = alpha
        self.jobs["alpha"] = np.repeat(alpha, len(self.rows))

    def set_group_threshold(self, threshold: Any) -> None:
        """Set the threshold above which a group's gradient is clipped, (R,)."""
        self.jobs["group_threshold"] = np.repeat(threshold, len(self.rows))

    def set_hidden_clip(self, site: int, by_norm: bool, threshold: Any) -> None:
        """Set what is clipped inside BPTT and above which threshold (R,); site 0 for nothing."""
        if site == self._hidden_site == 0:
            return
        self._hidden_site = site
        self.jobs["hidden_site"], self.jobs["hidden_norm"] = site, by_norm
        if site:
            self.jobs["hidden_threshold"] = np.repeat(threshold, len(self.rows))

    def set_detach(self, probability: Any, seed: int, index: int, replicas: Any = None) -> None:
        """Set how likely h is detached at a step, (R,) or None for never, and which draws decide.

        `replicas` (R,) are the numbers under which each draws, 0 to R - 1 for None.
        """
        if probability is None and not self._detaching:
            return
        self._detaching = probability is not None
        if probability is None:
            self.jobs["detach"] = 0
            return
        numbers = np.arange(self.shape.replicas) if replicas is None else replicas
        self.jobs["replica"] = np.repeat(numbers, len(self.rows))
        self.jobs["detach"] = np.repeat(probability, len(self.rows))
        self.jobs["detach_seed"], self.jobs["detach_index"] = seed, index

    def group_norms(self) -> Floats:
        """Return the norms of the groups' gradients of the last run, (R, B / group_rows)."""
        per_group = self.purpose.group_rows
        norms = [self.tape("group_norms", k, rows // per_group) for k, _, _, rows in self._shards()]
        return np.concatenate(norms).reshape(self.shape.replicas, -1)

    def tape(self, name: str, k: int, *shape: int) -> Any:
        """Return the buffer `name` of shard k as an array of `shape`: a view, good until the next run."""
        start = int(self.jobs[name][k]) - self._memory.ctypes.data
        count = int(np.prod(shape))
        return self._memory[start : start + count * np.dtype(self.dtype).itemsize].view(self.dtype).reshape(shape)

    def _shards(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield index, replica, first sequence and number of sequences of every shard."""
        for k in range(self.jobs.size):
            r, shard = divmod(k, len(self.rows))
            yield k, r, int(self.first_row[shard]), self.rows[shard]

    def gather(self, name: str, steps: int, *inner: int, keep: tuple[int, ...] = ()) -> Floats:
        """Return a tape of all shards as one array (R, steps, B, *keep), cut down from rows of shape `inner`."""
        replicas, _, batch, _ = self.shape
        whole = np.empty((replicas, steps, batch, *keep), self.dtype)
        cut = tuple(slice(n) for n in keep)
        for k, r, first, rows in self._shards():
            tape = self.tape(name, k, steps, rows, *inner)
            whole[r, :, first : first + rows] = tape[(slice(None), slice(None), *cut)]
        return whole

    def set_state(self, state: Floats | None) -> None:
        """Set the state before the first step, (R, B, S, H) or None for zeros."""
        if state is None and self._rested:
            return
        # The tape of a stretch between two checkpoints begins with another state than the first.
        self._rested = state is None and not self.purpose.every
        self._set_rows("states", state)

    def set_state_dot(self, state_dot: Floats | None) -> None:
        """Set the tangent of the state before the first step, (R, B, S, H) or None for zeros."""
        self._set_rows("states_dot", state_dot)

    def set_seed(self, d_state: Floats | None) -> None:
        """Set what a way back begins with at the last state, (R, B, S, H) or None for nothing."""
        self.jobs["seeded"] = d_state is not None
        if d_state is not None:
            self._set_rows("seed", d_state)

    def _set_rows(self, name: str, rows_of: Floats | None) -> None:
        """Write (R, B, S, H) to the front of the buffers `name`."""
        lines, width, hidden = (int(self.jobs[name][0]) for name in ("lines", "width", "hidden"))
        for k, r, first, rows in self._shards():
            here = self.tape(name, k, rows, lines, width)
            here[..., :hidden] = 0 if rows_of is None else rows_of[r, first : first + rows]

    def gather_state(self, name: str, step: int = 0) -> Floats:
        """Return one step of a tape of states as (R, B, S, H)."""
        lines, width = int(self.jobs["lines"][0]), int(self.jobs["width"][0])
        return self.gather(name, step + 1, lines, width, keep=(lines, self.net.n_hidden))[:, step]


def _records(count: int, dtype: Any) -> Any:
    return np.zeros(count, job_dtype(dtype))


def _words(jobs: Any, names: tuple[str, ...]) -> Any:
    """Return neighbouring integers of jobs as one array (jobs, names): one assignment for all."""
    first = jobs.dtype.fields[names[0]][1] // 8
    assert [jobs.dtype.fields[name][1] // 8 for name in names] == list(range(first, first + len(names)))
    return jobs.view(np.int64).reshape(jobs.size, -1)[:, first : first + len(names)]
