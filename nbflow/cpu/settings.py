"""What a workspace is told before it runs, beside a batch: settings, and what to begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbflow import counter
from nbflow.cpu.buffers import Buffers
from nbflow.cpu.hidden_clip import seen_of_a_step
from nbflow.cpu.noise import blocks_of, build_noise, check_draws
from nbflow.model import _layout as layout
from nbflow.model._asked import UnitNoise
from nbflow.records import Floats, Flow

# The blocks of parameters whose gradients are the arrays of a shard's block: the bias is the last row of the first.
OF_PARTIAL = {"d_in": "w_in", "d_rec": "w_rec", "d_bias_rec": "bias_rec", "d_out": "w_out", "d_b_out": "b_out"}


class Settings(Buffers):
    """Buffers that are told what to compute with."""

    # Whether the records hold something else than at first: then nothing is written anew.
    _hidden_site, _detaching, _noisy, _starts_at_zero, _ends_at_zero = 0, False, False, False, True

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
