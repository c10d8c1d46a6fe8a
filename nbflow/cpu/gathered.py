"""What came out of a run, gathered from all shards."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbflow.cpu.buffers import Buffers
from nbflow.cpu.record import ARRAYS
from nbflow.records import Floats

# The sizes that widths are rounded up from.
UNPADDED = {"width": "hidden", "out_width": "n_out"}


class Gathered(Buffers):
    """Buffers of which shards' tapes are put together."""

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
