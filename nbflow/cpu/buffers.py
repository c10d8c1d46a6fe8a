"""The memory of a computation, and the records that point into it and to the caller's arrays.

Everything that the kernels read and write beside the caller's own arrays is one aligned allocation, cut once for a
network, a shape and a purpose, as `nbflow.cpu.record` declares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from nbflow.cpu.derive import first_order, second_order
from nbflow.cpu.gradient import segment_steps
from nbflow.cpu.purpose import PLAIN, Purpose
from nbflow.cpu.record import ARRAYS, BLOCKS, BORROWED, PACKED, TAPE, dtype_of, replica_dtype, shard_dtype
from nbflow.cpu.report import GRADIENT
from nbflow.cpu.shards import shard_rows
from nbflow.cpu.sizes import find_conditions, find_sizes, padded
from nbflow.model._shape import Shape
from nbflow.model.network import Network
from nbflow.records import Floats

ALIGNMENT = 64


class Buffers:
    """The memory of a `nbflow.cpu.workspace.Workspace`, its records, and views of both."""

    def __init__(self, net: Network, shape: Shape, purpose: Purpose = PLAIN) -> None:
        self.net, self.shape, self.steps, self.purpose = net, shape, shape.steps, purpose
        self.dtype = net.scalar
        self.cell = (second_order if purpose.second else first_order)(net.compiled_cell)
        self._tapes: dict[tuple[Any, ...], Any] = {}
        self._places: tuple[int, ...] = ()
        self.rows = shard_rows(net, shape.batch, purpose.group_rows)
        self.first_row = np.cumsum([0, *self.rows[:-1]])
        self.shards = np.zeros(shape.replicas * len(self.rows), shard_dtype(self.dtype))
        self.replicas = np.zeros(shape.replicas, replica_dtype(self.dtype))
        self._sizes = find_sizes(net, self.cell, shape, purpose, self.rows)
        self._conditions = find_conditions(net, self.cell, shape, purpose, self._sizes)
        self._sizes |= {f"{block}_size": self._block_size(arrays) for block, arrays in BLOCKS.items()}
        self._write_sizes()
        self._allocate()
        self._point()
        self._write_settings()
        self.fit(shape.steps)

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
        return sum(padded(self._bytes(name), ALIGNMENT) for name in arrays) // self._sizes["number"]

    def _allocate(self) -> None:
        """Allocate everything at once and hand out the addresses."""
        total, places, copies, number = 0, [], self._copies(), self._sizes["number"]
        kinds = ((self.replicas, "packed", (), [1]), (self.shards, "partial", TAPE, self.rows))
        for records, block, others, rows in kinds:
            names = [*BLOCKS[block], *others]
            each, by_rows = ([of(name) for name in names] for of in (self._bytes, lambda name: ARRAYS[name].by_rows))
            sizes = padded(np.where(by_rows, np.multiply.outer(rows, each), each), ALIGNMENT)
            # The second copy of a block stands behind the first.
            sizes[:, len(BLOCKS[block]) - 1] += (copies[block] - 1) * self._sizes[f"{block}_size"] * number
            sizes = np.tile(sizes, (self.shape.replicas, 1))
            starts = total + np.cumsum(sizes).reshape(sizes.shape) - sizes
            total += int(sizes.sum())
            places.append((records, names, starts))
        self._memory = np.zeros(total + ALIGNMENT, np.uint8)
        base = padded(self._memory.ctypes.data, ALIGNMENT)
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

    # ------------------------------------------------------------------------- views

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


def _words(records: Any, names: Any) -> Any:
    """Return neighbouring integers of records as one array (records, names): one assignment for all."""
    first, *_ = columns = [records.dtype.fields[name][1] // 8 for name in names]
    assert columns == list(range(first, first + len(columns)))
    return records.view(np.int64).reshape(records.size, -1)[:, first : first + len(columns)]
