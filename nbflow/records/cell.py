"""A recurrent cell: how one step of a network makes the next state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from nbflow import _check, _fields
from nbflow._legible import legible
from nbflow._plain import plain_fields
from nbflow.records._types import UNLESS_EMPTY, Unit


@legible
@dataclass(frozen=True)
class Cell:
    """A recurrent cell: one pointwise map of two matrix products, as units.

    Attributes
    ----------
    gates, states : tuple of str
        Their names; G and S are their numbers. The first state is the output h.
    step : unit
        `(a_in, a_rec, s) -> (s_next, saved)`: tuples of G, G and S numbers to tuples of S and K numbers.
    step_vjp : unit, optional
        `(saved, s, s_next, d) -> (d_a_in, d_a_rec, d_s)`: the transposed derivative of `step` applied to d (S numbers).
        d_s leaves out what goes through a_rec, and is () for a cell that does not carry.
    step_jvp : unit, optional
        `(saved, s, s_next, a_in_dot, a_rec_dot, s_dot) -> s_next_dot`: the derivative of `step` along a tangent.
    step_vjp_jvp : unit, optional
        `(saved, s, s_next, d, a_in_dot, a_rec_dot, s_dot, d_dot) -> like step_vjp`: the derivative of `step_vjp` along
        a tangent, by which a_in, a_rec, s and d move at once.

        The three that are missing are found from `step` by complex steps: right, and slow (`nbflow.cpu.derive`).
    saved : tuple of str
        Names of the K numbers that `step_vjp` needs beside the states.
    additive : bool
        Whether `step` depends on a_in + a_rec alone: then d_a_in = d_a_rec, and one array holds both.
    carries : bool
        Whether `step` depends on s other than through a_rec.
    bias_rec : bool
        Whether a_rec has a bias of its own.
    ranges : tuple of (float, float)
        The ends of what each gate's nonlinearity gives, for `nbflow.saturation`: (0, 1) for a sigmoid. It looks at the
        number in `saved` that has the gate's name or, of a cell that has one gate, at the first state.
    surrogate : bool
        Whether `step_vjp` is meant to be another function than the derivative of `step`, as the straight-through
        estimator of a threshold is. It is believed then; otherwise a wrong derivative is refused.
    settings : dict of str to (float or tuple of H floats)
        Its constants by name, each a number or one for each unit; None for one that must be given. Where there are any,
        every unit of the cell takes `settings` as its last argument: a tuple of numbers, in the order of the names.
        They are numbers of the run: other ones compile nothing anew. See `nbflow.load_cell`.
    limits : dict of str to (float, float)
        The smallest and the largest value of a setting; a setting without them may be any finite number.
    """

    gates: tuple[str, ...]
    states: tuple[str, ...]
    step: Unit
    step_vjp: Unit | None = None
    step_jvp: Unit | None = None
    step_vjp_jvp: Unit | None = None
    saved: tuple[str, ...] = ()
    additive: bool = True
    carries: bool = False
    bias_rec: bool = False
    ranges: tuple[tuple[float, float], ...] = ()
    surrogate: bool = False
    settings: dict[str, Any] = field(default_factory=dict, hash=False, metadata={UNLESS_EMPTY: True})
    limits: dict[str, tuple[float, float]] = field(default_factory=dict, hash=False, metadata={UNLESS_EMPTY: True})

    def __post_init__(self) -> None:
        """Check every field; what the units do is looked at when a network is made."""
        plain_fields(self)
        _fields.check_constants(self)
        _fields.check_names(self, "gates", 1)
        _fields.check_names(self, "states", 1)
        _fields.check_names(self, "saved", distinct=False)
        for name in ("step", "step_vjp", "step_jvp", "step_vjp_jvp"):
            _fields.check_unit(self, name, optional=name != "step")
        _fields.check_flags(self, "additive", "carries", "bias_rec", "surrogate")
        self._check_ranges()

    def _check_ranges(self) -> None:
        if not isinstance(self.ranges, tuple | list):
            raise TypeError(
                f"Cell.ranges is {_check.said(self.ranges)}; expected a pair of ends for each gate. Write "
                f"ranges=((0.0, 1.0),), say."
            )
        if self.ranges and len(self.ranges) != len(self.gates):
            raise ValueError(
                f"Cell.ranges has {len(self.ranges)} ranges; expected one for each of its gates "
                f"{', '.join(self.gates)}, or none. Give them all."
            )
        pairs = (_fields.check_pair(f"Cell.ranges[{k}]", pair) for k, pair in enumerate(self.ranges))
        object.__setattr__(self, "ranges", tuple(pairs))

    @property
    def hands_settings(self) -> bool:
        """Whether its units take `settings` as their last argument."""
        return bool(self.settings)

    @property
    def compiled(self) -> Cell:
        """The cell without the values of its settings: all that kernels are compiled for, and so known by."""
        if not self.settings:
            return self
        return replace(self, settings=dict.fromkeys(self.settings))

    @property
    def name(self) -> str:
        """The name of its file, or of the step of one that has none in nbflow."""
        function = getattr(self.step, "py_func", self.step)
        home, _, file = function.__module__.rpartition(".")
        return file if home == "nbflow.cells" else f"{function.__module__}.{function.__qualname__}"

    def brief(self, *, every: bool = False) -> str:
        """Return its name and its settings, which tell it best, `every` number of them; empty without settings."""
        if not self.settings:
            return ""
        say = repr if every else _fields.few
        return f"{self.name}({', '.join(f'{key}={say(value)}' for key, value in self.settings.items())})"
