"""The memory of a computation, and the records that point into it.

Everything that the kernels read and write beside the caller's own arrays is one aligned allocation, cut once for a
network, a shape and a purpose, as `nbflow.cpu.record` declares. A workspace may be used again and again, by one thread
at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from nbflow import counter
from nbflow.cpu.derive import first_order, second_order
from nbflow.cpu.gradient import segment_steps
from nbflow.cpu.hidden_clip import seen_of_a_step
from nbflow.cpu.noise import blocks_of, build_noise, check_draws
from nbflow.cpu.product import CHUNK, lanes, panel_vectors
from nbflow.cpu.record import (
    ARRAYS,
    BLOCKS,
    BORROWED,
    DERIVATIVES,
    PACKED,
    TAPE,
    dtype_of,
    replica_dtype,
    shard_dtype,
)
from nbflow.cpu.report import GRADIENT
from nbflow.cpu.shards import shard_rows
from nbflow.cpu.weights import colliding, left_rows
from nbflow.model import _layout as layout
from nbflow.model._asked import UnitNoise
from nbflow.model._shape import Shape
from nbflow.model.network import Network
from nbflow.records import Floats, Flow

ALIGNMENT = 64

# Parameters of a piece of packing and of summing. (Packing so many takes 70 us there, starting an awake team 1.3 us.)
PIECE = 65536
# Numbers of the gradients at inputs that are computed together: a narrow product is a short one at every single step.
STRETCH = 8192

# The blocks of parameters whose gradients are the arrays of a shard's block: the bias is the last row of the first.
OF_PARTIAL = {"d_in": "w_in", "d_rec": "w_rec", "d_bias_rec": "bias_rec", "d_out": "w_out", "d_b_out": "b_out"}

# The sizes that widths are rounded up from.
UNPADDED = {"width": "hidden", "out_width": "n_out"}


class Purpose(NamedTuple):
    """What a computation keeps or asks for beside the plain tape."""

    keep_delta: bool = False  #: every delta_t, not the last two
    derivative: str = ""  #: of Omega, "" without a flow
    tangent: str = ""  #: "states" for Jacobian-vector products, "loss" for Hessian-vector products
    every: int = 0  #: steps between two states that are kept, a multiple of `segment_steps`; 0 for none
    group_rows: int = 0  #: sequences that are clipped together; 0 for none
    at_ends: bool = False  #: the gradient at the first state
    at_inputs: bool = False  #: and at the inputs
    inputs_move: bool = False  #: there is a tangent of the inputs
    listened: bool = False  #: the states of all steps count from outside
    below: bool = False  #: another layer stands above
    masked: bool = False  #: some parameters are held while groups are clipped
    joint: bool = False  #: the norm of a group is that of several layers

    @property
    def second(self) -> bool:
        """Whether there is a tangent."""
        return self.derivative in ("detached", "exact") or bool(self.tangent)

    @property
    def moving(self) -> bool:
        """Whether the tangents of states are handed on from step to step."""
        return self.derivative == "exact" or bool(self.tangent)


PLAIN = Purpose()


def _padded(size: Any, multiple: int) -> Any:
    return -(-size // multiple) * multiple


class Workspace:
    """Buffers and records for one network and one shape of batch.

    Attributes
    ----------
    shape : Shape
        What it was cut for; `steps` may be fewer.
    shards : structured array (R * shards of a replica,)
        One record a shard, replicas first.
    replicas : structured array (R,)
        One record a replica.
    report : array (R, columns of `nbflow.cpu.report.GRADIENT`)
        Of the last run.
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
        self.cell = (second_order if purpose.second else first_order)(net.compiled_cell)
        self.entries: list[tuple[int, ...]] = []
        self.program: tuple[Any, ...] = ()
        self._hidden_site, self._detaching, self._starts_at_zero, self._ends_at_zero = 0, False, False, True
        self._tapes: dict[tuple[Any, ...], Any] = {}
        self._places: tuple[int, ...] = ()
        self._noisy = False
        self.rows = shard_rows(net, shape.batch, purpose.group_rows)
        self.first_row = np.cumsum([0, *self.rows[:-1]])
        self.shards = np.zeros(shape.replicas * len(self.rows), shard_dtype(self.dtype))
        self.replicas = np.zeros(shape.replicas, replica_dtype(self.dtype))
        self._sizes = self._find_sizes()
        self._conditions = self._find_conditions()
        self._sizes |= {f"{block}_size": self._block_size(arrays) for block, arrays in BLOCKS.items()}
        self._write_sizes()
        self._allocate()
        self._point()
        self._write_settings()
        self.fit(shape.steps)

    # ------------------------------------------------------------------------- what the records say

    def _find_sizes(self) -> dict[str, Any]:
        """Return what all shards and replicas have in common."""
        net, cell, purpose, (_, steps, batch, tokens) = self.net, self.cell, self.purpose, self.shape
        gates, lines, vector, panel = len(cell.gates), len(cell.states), lanes(self.dtype), panel_vectors()
        width, out_width, in_width = (_padded(size, vector) for size in (net.n_hidden, net.n_out, net.n_in))
        panel *= vector
        row_bytes = gates * width * np.dtype(self.dtype).itemsize
        keep_delta = purpose.keep_delta or (purpose.second and purpose.tangent != "states")
        # Where one shard does all the work, a second thread would only be woken to copy.
        pieces = max(1, net.size // PIECE) if self.shards.size > 1 else 1
        return {
            "number": np.dtype(self.dtype).itemsize, "batch": batch, "n_in": net.n_in, "gates": gates,
            "hidden": net.n_hidden, "width": width, "n_out": net.n_out, "out_width": out_width, "lines": lines,
            "kept": len(cell.saved), "columns": gates * width, "line": lines * width, "takes_tokens": tokens,
            "gate_panels": _padded(gates * width, panel), "width_panels": _padded(width, panel),
            "out_panels": _padded(out_width, panel), "chunk": CHUNK, "panel_width": panel,
            "in_width": in_width, "in_panels": _padded(in_width, panel), "inputs_move": purpose.inputs_move,
            "below": purpose.below, "masked": purpose.masked,
            "bias_rec": cell.bias_rec, "additive": cell.additive, "carries": cell.carries,
            "slots": steps + 1 if keep_delta else 2, "v_lines": 1 if purpose.derivative == "immediate" else lines,
            "every": purpose.every, "held": min(purpose.every or steps, steps), "steps": steps,
            "stretch": max(1, min(steps, STRETCH // (max(self.rows) * in_width))),
            "marks": steps // purpose.every + 1 if purpose.every else 0, "group_rows": purpose.group_rows,
            "group_scale": batch / max(purpose.group_rows, 1), "derivative": DERIVATIVES.get(purpose.derivative, 0),
            "tracing": purpose.keep_delta, "measured": bool(purpose.derivative) or purpose.keep_delta,
            "colliding": colliding(row_bytes), "left_rows": left_rows(net.n_hidden, row_bytes),
            "parameters": net.size, "shard_count": len(self.rows), "pieces": pieces,
            "knobs": len(cell.settings), "1": 1, "2": 2, "3": 3, "5": 5, "6": 6,
        }  # fmt: skip

    def _find_conditions(self) -> dict[str, bool]:
        """Return which of `nbflow.cpu.record.CONDITIONS` hold."""
        purpose, sizes, classes = self.purpose, self._sizes, self.net.loss_object.classes
        return {
            "dense": not self.shape.tokens, "tokens": self.shape.tokens, "values": not classes, "classes": classes,
            "apart": not self.cell.additive, "bias_rec": self.cell.bias_rec, "flow": bool(purpose.derivative),
            "immediate": purpose.derivative == "immediate", "measured": sizes["measured"],
            "recomputing": purpose.every > 0, "second": purpose.second, "moving": purpose.moving,
            "colliding": sizes["colliding"], "at_inputs": purpose.at_inputs and not self.shape.tokens,
            "inputs_move": purpose.inputs_move, "listened": purpose.listened,
            "below": purpose.below, "masked": purpose.masked, "joint": purpose.joint,
        }  # fmt: skip

    def _write_sizes(self) -> None:
        for records in (self.shards, self.replicas):
            for name in self._sizes.keys() & set(records.dtype.names):
                records[name] = self._sizes[name]
        self.shards["rows"] = np.tile(self.rows, self.shape.replicas)
        self.shards["replica"] = np.repeat(np.arange(self.shape.replicas), len(self.rows))
        self.shards["sequence"] = np.tile(self.first_row, self.shape.replicas)
        self.shards["segment"] = [segment_steps(rows) for rows in self.rows] * self.shape.replicas

    def _write_settings(self) -> None:
        """Write the settings of the cell; those of the last unit go on into the padding, where they make sense too."""
        values = self.net.cell_settings
        if values.size:
            padded = np.pad(values, ((0, 0), (0, self._sizes["width"] - values.shape[1])), mode="edge")
            for k in range(self.shards.size):
                self.tape("settings", k)[0] = padded

    def fit(self, steps: int) -> None:
        """Use the first `steps` steps of the buffers: shorter batches need no workspace of their own."""
        self.steps = self.shards["steps"] = self._sizes["steps"] = steps
        self.shards["held"] = self._sizes["held"] = min(self.purpose.every or steps, steps)
        self._tapes.clear()
        self._set_offsets()

    # ------------------------------------------------------------------------- memory

    def _bytes(self, name: str, rows: int = 1) -> int:
        """Return how many bytes an array takes in a shard of so many rows, 0 where there is none."""
        array, count = ARRAYS[name], 1
        for word in array.words:
            if not self._conditions[word]:
                return 0
        for axis in array.axes:
            count *= (rows if axis.of == "rows" else self._sizes[axis.of]) + axis.more
        return count * (self._sizes["number"] if array.dtype is None else np.dtype(dtype_of(name, self.dtype)).itemsize)

    def _block_size(self, arrays: Any) -> int:
        """Return how many numbers one copy of a block takes: its arrays one behind the other, each aligned."""
        return sum(_padded(self._bytes(name), ALIGNMENT) for name in arrays) // self._sizes["number"]

    def _allocate(self) -> None:
        """Allocate everything at once and hand out the addresses."""
        total, places, copies, number = 0, [], self._copies(), self._sizes["number"]
        kinds = ((self.replicas, "packed", (), [1]), (self.shards, "partial", TAPE, self.rows))
        for records, block, others, rows in kinds:
            names = [*BLOCKS[block], *others]
            each, by_rows = ([of(name) for name in names] for of in (self._bytes, lambda name: ARRAYS[name].by_rows))
            sizes = _padded(np.where(by_rows, np.multiply.outer(rows, each), each), ALIGNMENT)
            # The second copy of a block stands behind the first.
            sizes[:, len(BLOCKS[block]) - 1] += (copies[block] - 1) * self._sizes[f"{block}_size"] * number
            sizes = np.tile(sizes, (self.shape.replicas, 1))
            starts = total + np.cumsum(sizes).reshape(sizes.shape) - sizes
            total += int(sizes.sum())
            places.append((records, names, starts))
        self._memory = np.zeros(total + ALIGNMENT, np.uint8)
        base = _padded(self._memory.ctypes.data, ALIGNMENT)
        for records, names, starts in places:
            for k, name in enumerate(names):
                records[name] = base + starts[:, k]
        self.shards["partial"] = self.shards["d_in"]

    def _copies(self) -> dict[str, int]:
        """Return how many copies there are of each block, and of what is in none."""
        return {"packed": 1 + bool(self.purpose.tangent), "partial": 1 + bool(self.purpose.group_rows), "": 1}

    def _point(self) -> None:
        """Point the records at each other's arrays, and at each other."""
        shards, each = len(self.rows), np.arange(self.shape.replicas)
        for name in PACKED:
            self.shards[name] = np.repeat(self.replicas[name], shards)
        for name, source in self._aliases().items():
            self.shards[name] = self.shards[source]
        self.report = np.zeros((self.shape.replicas, len(GRADIENT)), self.dtype)
        self.replicas["report"] = self.report.ctypes.data + each * self.report.strides[0]
        self.replicas["shards"] = self.shards.ctypes.data + each * shards * self.shards.itemsize
        self._borrowed, self._parameters = _words(self.shards, BORROWED), _words(self.replicas, ("theta", "d_theta"))
        self.lie_in(self.net.size, 0)

    def _aliases(self) -> dict[str, str]:
        """Return which arrays of a shard are others by another name."""
        found = {"entering": "states_dot" if self.purpose.tangent else "v"}
        return found | ({"rec": "pre", "rec_dot": "pre_dot"} if self.cell.additive else {})

    # ------------------------------------------------------------------------- the caller's arrays

    def lie_in(self, parameters: int, first: int) -> None:
        """Say where the parameters lie in each row of the caller's theta, which has so many: in a stack's not alone."""
        row = (np.arange(self.shape.replicas)[:, None] * parameters + first) * self._sizes["number"]
        self._row_offsets = np.repeat(row, 2, axis=1)

    def _set_offsets(self) -> None:
        """Note where in the caller's arrays each shard begins, in bytes."""
        net, steps, (replicas, _, batch, _) = self.net, self.steps, self.shape
        size = np.dtype(self.dtype).itemsize
        sequence, alone = (
            np.add.outer(np.arange(replicas) * of_replica, self.first_row).ravel()
            for of_replica in (steps * batch, batch)
        )
        by_step = np.multiply.outer(sequence, [
            net.n_in * size, 4, net.n_out * size, 4, size, net.n_in * size, net.n_hidden * size, net.n_hidden * size,
        ])  # fmt: skip
        self._offsets = np.column_stack([by_step, alone * 3 * size])
        self._places = ()

    def point_to(
        self, theta: Floats, inputs: Any, targets: Any, weights: Floats, d_theta: Floats | None, d_inputs: Any = None,
        handed: Any = None, returned: Any = None, joint: Any = None,
    ) -> None:  # fmt: skip
        """Point the records to the caller's arrays: C-ordered, of the right dtypes, and alive until the run is over."""
        of_inputs, of_targets = inputs.ctypes.data, 0 if targets is None else targets.ctypes.data
        ends = (0 if array is None else array.ctypes.data for array in (d_inputs, handed, returned, joint))
        places = of_inputs, of_inputs, of_targets, of_targets, weights.ctypes.data, *ends
        if places != self._places:  # in a loop they are often the same
            np.add(self._offsets, places, out=self._borrowed)
            self._places = places
        of_gradient = 0 if d_theta is None else d_theta.ctypes.data
        np.add(self._row_offsets, (theta.ctypes.data, of_gradient), out=self._parameters)
        if d_theta is None:
            self.replicas["d_theta"] = 0

    def set_direction(self, direction: Floats | None) -> None:
        """Set a direction of the parameters, (R, P) and alive until the run is over, or None for none."""
        self.replicas["directed"] = self.shards["directed"] = direction is not None
        self.replicas["direction"] = 0 if direction is None else direction.ctypes.data + self._row_offsets[:, 0]

    def bounds(self) -> dict[tuple[int, str], list[tuple[int, int]]]:
        """Return the first byte of each array, or of its copies, and the byte behind the last, by record and name.

        For the interpreted mode, which looks whether a view lies within them (`nbflow.cpu.memory.watched`).
        """
        aliases, copies, found = self._aliases(), self._copies(), {}
        for records in (self.replicas, self.shards):
            for k, record in enumerate(records):
                rows = self.rows[k % len(self.rows)]
                for name in (name for name in records.dtype.names if name in ARRAYS):
                    source, block = aliases.get(name, name), ARRAYS[name].block
                    # The caller's arrays hold the sequences of all shards of a replica.
                    owner = records[k // len(self.rows) * len(self.rows)] if name in BORROWED else record
                    size, apart = self._bytes(source, rows), self._sizes.get(f"{block}_size", 0) * self._sizes["number"]
                    starts = [int(owner[source]) + copy * apart for copy in range(copies[block])]
                    found[records.ctypes.data + k * records.itemsize, name] = [(at, at + size) for at in starts]
        return found

    # ------------------------------------------------------------------------- settings

    def set_flow(self, alpha: Any, flow: Flow) -> None:
        """Set the weight of Omega (R,), how it is reduced and what it counts."""
        self.set_alpha(alpha)
        self.replicas["mean_flow"] = flow.reduction == "mean"
        self.shards["bound"] = flow.bound

    def set_alpha(self, alpha: Any) -> None:
        """Set the weight of Omega (R,)."""
        self.replicas["alpha"] = alpha
        self.shards["alpha"] = np.repeat(alpha, len(self.rows))

    def set_groups(self, threshold: Any, skips: bool) -> None:
        """Set above which norm a group's gradient is clipped (R,), and whether one that is not finite is left out."""
        self.shards["group_threshold"] = np.repeat(threshold, len(self.rows))
        self.shards["group_skips"] = skips

    def set_held(self, held: Any) -> None:
        """Set which parameters (R, P) are held: the gradient of a group is 0 there before it is measured."""
        where, shapes, number = layout.blocks(self.net), self.net.shapes, self._sizes["number"]
        for k, r, _, _ in self._each_shard():
            p = {name: held[r, block].reshape(shapes[name]) for name, block in where.items()}
            p["w_in"] = np.concatenate([p["w_in"], p["bias"][None]])
            still = self.tape("still", k)
            still[:] = 0
            for name, of in OF_PARTIAL.items():
                if p[of].size:
                    first = int(self.shards[name][k] - self.shards["partial"][k]) // number
                    room = self.tape(name, k)
                    still[first : first + room.size].reshape(room.shape)[..., : p[of].shape[-1]] = p[of]

    def set_hidden_clip(self, site: int, by_norm: bool, threshold: Any) -> None:
        """Set what is clipped inside BPTT and above which threshold (R,); site 0 for nothing."""
        if site == self._hidden_site == 0:
            return
        self._hidden_site = site
        self.shards["hidden_site"], self.shards["hidden_norm"] = site, by_norm
        self.shards["hidden_seen"] = seen_of_a_step(self.net, site, by_norm) if site else 0
        if site:
            self.shards["hidden_threshold"] = np.repeat(threshold, len(self.rows))

    def set_detach(self, probability: Any, seed: int, index: int, replica_ids: Any = None) -> None:
        """Set how likely h is detached at a step, (R,) or None for never, and which draws decide.

        `replica_ids` (R,) are the numbers under which each draws, 0 to R - 1 for None.
        """
        if probability is None and not self._detaching:
            return
        self._detaching = probability is not None
        if probability is None:
            self.shards["detach"] = 0
            return
        self._set_ids(replica_ids)
        self.shards["detach"] = np.repeat(probability, len(self.rows))
        self.shards["detach_seed"], self.shards["detach_index"] = seed, index

    def set_noise(self, noise: UnitNoise | None, layer: int = 0, blocks: Sequence[int] = ()) -> None:
        """Set the noise of the units, None for none; of a stack's layer with the `blocks_of` all layers."""
        if noise is None and not self._noisy:
            return
        self._noisy = noise is not None
        if noise is None:
            self.shards["noise"] = 0
            return
        blocks = blocks or blocks_of(self.net)
        check_draws(sum(blocks), self.shape.steps)
        self._set_ids(noise.ids)
        self.shards["noise"] = build_noise(self.dtype).address
        self.shards["deviation"] = np.repeat(noise.deviation, len(self.rows))
        self.shards["noise_purpose"] = counter.EVALUATION_NOISE if noise.evaluating else counter.NOISE
        self.shards["noise_seed"], self.shards["noise_index"] = noise.seed, noise.number
        self.shards["noise_first"], self.shards["noise_blocks"] = sum(blocks[:layer]), sum(blocks)

    def _set_ids(self, replica_ids: Any) -> None:
        """Set the numbers (R,) under which replicas draw, 0 to R - 1 for None."""
        numbers = np.arange(self.shape.replicas) if replica_ids is None else replica_ids
        self.shards["replica"] = np.repeat(numbers, len(self.rows))

    # ------------------------------------------------------------------------- what to begin with

    def set_state(self, state: Floats | None) -> None:
        """Set the state before the first step, (R, B, S, H) or None for zeros."""
        if state is None and self._starts_at_zero:
            return
        # A tape that is computed anew begins with another state than the first.
        self._starts_at_zero = state is None and not self.purpose.every
        self._set_rows("states", state)

    def set_state_dot(self, state_dot: Floats | None) -> None:
        """Set the tangent of the state before the first step, (R, B, S, H) or None for zeros."""
        self._set_rows("states_dot", state_dot)

    def set_end_cotangent(self, d_state: Floats | None) -> None:
        """Set what a way back begins with at the last state, (R, B, S, H) or None for nothing."""
        self.shards["ends_given"] = d_state is not None
        if d_state is not None:
            self._set_rows("end_cotangent", d_state)
            self._ends_at_zero = False

    def ask_first_state(self) -> None:
        """Let the way back reach the first state, as it does where something comes back to the last: here nothing."""
        self.shards["ends_given"] = True
        if not self._ends_at_zero:
            self._set_rows("end_cotangent", None)
            self._ends_at_zero = True

    def set_cotangents(self, d_states: Floats) -> None:
        """Set how much the states of all steps count, (R, T, B, S, H)."""
        self._set_tape("cotangents", d_states)

    def set_inputs_dot(self, inputs_dot: Floats) -> None:
        """Set the tangent of the inputs, (R, T, B, N)."""
        self._set_tape("x_dot", inputs_dot)

    def _set_tape(self, name: str, values: Floats) -> None:
        """Write (R, T, B, ..., n) to the first n places of each row of a tape."""
        for k, r, first, rows in self._each_shard():
            self.tape(name, k)[: self.steps, ..., : values.shape[-1]] = values[r, :, first : first + rows]

    def _set_rows(self, name: str, rows_of: Floats | None) -> None:
        """Write (R, B, S, H) to an array of states, or to the first ones of a tape."""
        for k, r, first, rows in self._each_shard():
            tape = self.tape(name, k)
            here = tape.reshape(-1, *tape.shape[-3:])[0]  # a view: the first step, or all there is
            here[..., : self.net.n_hidden] = 0 if rows_of is None else rows_of[r, first : first + rows]

    # ------------------------------------------------------------------------- what came out

    def tape(self, name: str, k: int) -> Any:
        """Return an array of shard k in its declared shape, padding and all: a view, good until the next run."""
        if self.purpose.every:  # between checkpoints a tape moves
            return self._view(name, k)
        found = self._tapes.get((name, k))
        if found is None:
            found = self._tapes[name, k] = self._view(name, k)
        return found

    def _view(self, name: str, k: int) -> Any:
        sizes = self._sizes | {"rows": self.rows[k % len(self.rows)]}
        shape = [sizes[axis.size] + axis.more for axis in ARRAYS[name].axes]
        start = int(self.shards[name][k]) - self._memory.ctypes.data
        dtype = np.dtype(dtype_of(name, self.dtype))
        return self._memory[start : start + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)

    def _each_shard(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield index, replica, first sequence and number of sequences of every shard."""
        for k in range(self.shards.size):
            r, shard = divmod(k, len(self.rows))
            yield k, r, int(self.first_row[shard]), self.rows[shard]

    def gather(self, name: str) -> Floats:
        """Return a tape of all shards as one array (R, steps, B, ...), without padding."""
        time, _, *inner = ARRAYS[name].axes
        steps, unpadded = self.steps + max(time.more, time.ring), UNPADDED
        keep = [self._sizes[unpadded.get(axis.size, axis.size)] for axis in inner]
        cut = tuple(slice(n) for n in keep)
        whole = np.empty((self.shape.replicas, steps, self.shape.batch, *keep), self.dtype)
        for k, r, first, rows in self._each_shard():
            whole[r, :, first : first + rows] = self.tape(name, k)[(slice(steps), slice(None), *cut)]
        return whole

    def gather_state(self, name: str, step: int = 0) -> Floats:
        """Return one step of a tape of states, or states of one step, as (R, B, S, H)."""
        whole = np.empty((self.shape.replicas, self.shape.batch, len(self.cell.states), self.net.n_hidden), self.dtype)
        for r, first, rows, state in self._states_of(name, step):
            whole[r, first : first + rows] = state
        return whole

    def _states_of(self, name: str, step: int) -> list[tuple[int, int, int, Any]]:
        """Return replica, first sequence, number of sequences and state (B, S, H) of every shard."""
        found = self._tapes.get((name, step, "states"))
        if found is None:
            found = []
            for k, r, first, rows in self._each_shard():
                tape = self.tape(name, k)
                found.append((r, first, rows, tape.reshape(-1, *tape.shape[-3:])[step, :, :, : self.net.n_hidden]))
            if not self.purpose.every:
                self._tapes[name, step, "states"] = found
        return found

    def gather_ends(self, ends: Any) -> Floats:
        """Return the states after so many steps of each sequence (R, B), as (R, B, S, H)."""
        whole = self.gather_state("end")
        for k, r, first, rows in self._each_shard():
            here = ends[r, first : first + rows]
            found = self.tape("states", k)[here, np.arange(rows), :, : self.net.n_hidden]
            whole[r, first : first + rows][here < self.steps] = found[here < self.steps]
        return whole

    def group_norms(self) -> Floats:
        """Return the norms of the groups' gradients of the last run, (R, B / group_rows)."""
        per_group = self.purpose.group_rows
        norms = [self.tape("group_norms", k)[: rows // per_group] for k, _, _, rows in self._each_shard()]
        return np.concatenate(norms).reshape(self.shape.replicas, -1)


def _words(records: Any, names: Any) -> Any:
    """Return neighbouring integers of records as one array (records, names): one assignment for all."""
    first, *_ = columns = [records.dtype.fields[name][1] // 8 for name in names]
    assert columns == list(range(first, first + len(columns)))
    return records.view(np.int64).reshape(records.size, -1)[:, first : first + len(columns)]
