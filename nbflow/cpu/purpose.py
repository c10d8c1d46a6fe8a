"""What a workspace is cut for."""

from __future__ import annotations

from typing import NamedTuple


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
